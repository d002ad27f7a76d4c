"""A record as one line of the ArcSight Common Event Format (CEF), version 0."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final

from broker import __version__
from broker.audit.chain import line_hash
from broker.audit.record import Record
from broker.audit.telling.csv_cells import shown
from broker.audit.telling.ocsf import PRODUCT
from broker.audit.telling.sentence import sentence
from broker.audit.telling.words import seconds_of

_LONGEST: Final = 1023
"""No value of the extension is longer: the least that the dictionary of CEF allows for these keys."""

_NAMES: Final[Mapping[str, str]] = {
    "token.issue": "Token requested",
    "token.introspect": "Token introspected",
    "token.revoke": "Token withdrawn",
    "token.withdraw": "Tokens of a party withdrawn",
    "revocations.watch": "Withdrawals followed",
    "policy.explain": "Policy explained",
    "audit.login": "Login of an auditor",
    "audit.logout": "Logout of an auditor",
    "audit.read": "Audit record read",
    "config.loaded": "Configuration loaded",
    "config.rejected": "Configuration rejected",
    "service.started": "Service started",
    "service.stopped": "Service stopped",
    "key.publish": "Signing key published",
    "key.rotate": "Signing key rotated",
    "key.revoke": "Signing key revoked",
    "key.failed": "Change of signing keys failed",
    "key.seen": "Signing key changed its state",
    "people.forget": "People of a period to be forgotten",
    "people.failed": "People of a period not forgotten",
    "chain.opened": "Audit segment opened",
    "chain.closed": "Audit segment closed",
}
_SEVERITIES: Final[Mapping[str, int]] = {"config.rejected": 6, "key.failed": 6, "key.revoke": 7}
_BY_DECISION: Final[Mapping[str, int]] = {"permit": 2, "deny": 5, "info": 1}


def cef_line(record: Record, line: bytes) -> bytes:
    """
    The event as one line in UTF-8.

    No value can end its field, its line or the event: in the header pipes and backslashes are escaped, in
    the extension backslashes and equals signs, and what cannot be seen has become text before that.
    """
    severity = _SEVERITIES.get(record.event) or _BY_DECISION[record.decision]
    header = (PRODUCT, PRODUCT, __version__, record.event, _NAMES[record.event], str(severity))
    extension = " ".join(
        f"{key}={_extension(value)}" for key, value in _members(record, line) if value
    )
    return f"CEF:0|{'|'.join(map(_header, header))}|{extension}\n".encode()


def _members(record: Record, line: bytes) -> Iterator[tuple[str, str]]:
    yield "rt", str(int((seconds_of(record.time) or 0) * 1000))
    yield "externalId", record.event_id
    yield "act", record.decision
    yield "outcome", "failure" if record.decision == "deny" else "success"
    yield "reason", record.reason or ""
    yield "app", record.face or ""
    if _is_address(record.peer):
        yield ("c6a2" if ":" in (record.peer or "") else "src"), record.peer or ""
        yield "c6a2Label", "Source IPv6 Address" if ":" in (record.peer or "") else ""
    yield "suser", record.subject or record.auditor or record.operator or ""
    yield "requestClientApplication", record.client_id or ""
    yield "request", record.resource or ""
    yield "deviceExternalId", record.writer
    yield from _labelled(record)
    yield "flexString1", record.jti or ""
    yield "flexString1Label", "jti" if record.jti else ""
    yield "flexString2", line_hash(line)
    yield "flexString2Label", "line hash"
    yield "msg", sentence(record)


def _labelled(record: Record) -> Iterator[tuple[str, str]]:
    """The members for which CEF has no key, under keys that say what they are."""
    numbers = (("seq", record.seq), ("chain depth", record.chain_depth))
    for place, (label, number) in enumerate(numbers, start=1):
        if number is not None:
            yield f"cn{place}", str(number)
            yield f"cn{place}Label", label
    texts = (
        ("MCP client", record.mcp_client),
        ("MCP server", record.mcp_server),
        ("scopes asked", " ".join(record.scopes_asked or ())),
        ("scopes granted", " ".join(record.scopes_granted or ())),
        ("policies", " ".join(record.policy_ids or ())),
        ("subject issuer", record.subject_issuer),
    )
    for place, (label, text) in enumerate(texts, start=1):
        if text:
            yield f"cs{place}", text
            yield f"cs{place}Label", label


def _is_address(peer: str | None) -> bool:
    try:
        return bool(ipaddress.ip_address(peer or ""))
    except ValueError:
        return False


def _header(value: str) -> str:
    return shown(value).replace("\\", "\\\\").replace("|", "\\|")


def _extension(value: str) -> str:
    return shown(value[:_LONGEST]).replace("\\", "\\\\").replace("=", "\\=")
