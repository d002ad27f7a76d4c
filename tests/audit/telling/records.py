"""Records of every event, as the broker writes them, and the same with hostile text in them."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from broker.audit.record import (
    KEY_EVENTS,
    PEOPLE_EVENTS,
    REQUEST_EVENTS,
    SERVICE_EVENTS,
    VERSION,
    ExposureFact,
    InputFact,
    KeyChangeFact,
    Record,
    ScopeFact,
    rfc3339,
)

NOW: Final = 1_800_000_000
ISSUER: Final = "https://broker.example"
IDP: Final = "https://idp.example"
TICKETS: Final = "https://tickets.mcp.example/mcp"
CRM: Final = "https://api.crm.example/v2"
DIGEST: Final = "c0ffee" * 10 + "abcd"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"

EVENTS: Final = (
    *sorted(REQUEST_EVENTS | SERVICE_EVENTS | KEY_EVENTS | PEOPLE_EVENTS),
    "chain.opened",
    "chain.closed",
)

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "\x1b[2J\x1b[31mred",
    "ann\u202egnp.exe",
    "=HYPERLINK(1)",
    "+1",
    "-1+2",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "one\ntwo",
    "a|b\\c=d",
    "\\n\\r|=",
    'said "yes" and got everything',
    "ann and got a token for all",
    "\u2028line\u2029paragraph",
    "\x00\x9b31m",
    "\ud800",
    '","injected":"',
    "%00{{7*7}}${7*7}",
)


def record(event: str = "token.issue", decision: str = "permit", **facts: Any) -> Record:
    """A record of the event with these facts and no others."""
    told = {
        "event_id": "01a2-0001",
        "time": rfc3339(NOW),
        "v": VERSION,
        "writer": "http-0",
        "seq": 7,
    }
    return msgspec.convert({**told, "event": event, "decision": decision, **facts}, Record)


def login() -> Record:
    """The client got a token for the MCP server, by an ID token of the person."""
    return record(
        event_id="01a2-login",
        time=rfc3339(NOW - 60),
        actors=[{"iss": ISSUER, "sub": "agent-desk", "sub_profile": "ai_agent"}],
        chain_depth=1,
        client_id="agent-desk",
        expires_at=NOW + 240,
        grant_type=EXCHANGE,
        inputs=[_input("subject", IDP, None, NOW + 3540)],
        issued_at=NOW - 60,
        jti="token-1",
        lifetime=300,
        lifetime_limit="configuration",
        mcp_client="agent-desk",
        policy_digest=DIGEST,
        policy_ids=["desk-uses-tickets"],
        relation="identity",
        resource=TICKETS,
        scopes_asked=["tickets:read", "tickets:write", "tickets:delete"],
        scopes_granted=["tickets:read", "tickets:write"],
        subject="ann",
        subject_issuer=IDP,
        subject_kind="user",
        targets_asked=[TICKETS],
    )


def exchange(decision: str = "permit", **facts: Any) -> Record:
    """The MCP server exchanged the token of ``login`` for one of its downstream resource."""
    told: dict[str, Any] = {
        "actors": [{"iss": ISSUER, "sub": "mcp-tickets"}, {"iss": ISSUER, "sub": "agent-desk"}],
        "auth_method": "private_key_jwt",
        "chain_depth": 2,
        "client_id": "mcp-tickets",
        "face": "http",
        "grant_type": EXCHANGE,
        "inputs": [_input("subject", ISSUER, "token-1", NOW + 240)],
        "mcp_client": "agent-desk",
        "mcp_server": TICKETS,
        "peer": "192.0.2.7",
        "policy_digest": DIGEST,
        "policy_ids": ["tickets-reads-contacts"],
        "relation": "audience",
        "resource": CRM,
        "scope_decisions": [_scope("contacts.read", "permit", "tickets-reads-contacts")],
        "scopes_asked": ["contacts.read"],
        "subject": "ann",
        "subject_issuer": IDP,
        "subject_kind": "user",
        "targets_asked": [CRM],
    }
    if decision == "permit":
        told |= {
            "event_id": "01a2-exchange",
            "expires_at": NOW + 120,
            "issued_at": NOW,
            "jti": "token-2",
            "lifetime": 120,
            "lifetime_limit": "policy",
            "scopes_granted": ["contacts.read"],
        }
    return record("token.issue", decision, **{**told, **facts})


def denied(**facts: Any) -> Record:
    """The same, forbidden by a policy."""
    told: dict[str, Any] = {
        "error": "invalid_target",
        "parameter": "resource",
        "policy_ids": ["contacts-are-read-only"],
        "reason": "policy_forbidden",
        "scope_decisions": [_scope("contacts.write", "forbidden", "contacts-are-read-only")],
        "scopes_asked": ["contacts.write"],
    }
    return exchange("deny", **{**told, **facts})


def of_event(event: str, decision: str = "permit") -> Record:
    """A record of any event with all that such a record usually has."""
    if event == "token.issue":
        return exchange() if decision == "permit" else denied()
    if event not in REQUEST_EVENTS:
        return record(event, "info", **_INFORMING[event])
    told = {"client_id": "operator", "auth_method": "client_secret_basic", **_ASKING[event]}
    if decision == "deny":
        told["reason"] = "revoked" if event in {"token.introspect", "token.revoke"} else "replay"
    return record(event, decision, **told)


def every_record() -> list[Record]:
    """A record of every event and decision that there can be."""
    return list(_every_record())


def name_of(one: Record) -> str:
    """What a test of one of them is called."""
    return f"{one.event}-{one.decision}"


def _every_record() -> Iterator[Record]:
    for event in EVENTS:
        if event in REQUEST_EVENTS:
            yield of_event(event, "permit")
            yield of_event(event, "deny")
        else:
            yield of_event(event, "info")


def poisoned(whole: Record, text: str) -> Record:
    """The record with the text wherever it has any text that somebody else may have chosen."""
    told = msgspec.to_builtins(whole)
    kept = {name: told[name] for name in ("decision", "event", "time", "prev") if name in told}
    lists = {name: _poisoned(value, text) for name, value in told.items() if name not in kept}
    everywhere = dict.fromkeys(_TEXTS, text)
    return msgspec.convert({**everywhere, **lists, **kept}, Record)


def _poisoned(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [_poisoned(one, text) for one in value]
    if isinstance(value, dict):
        return {name: _poisoned(one, text) for name, one in value.items()}
    return value


_TEXTS: Final = tuple(
    field.name
    for field in msgspec.structs.fields(Record)
    if field.name not in {"decision", "event", "time", "prev", "v"}
    and isinstance(field.default, str | None)
    and "str" in str(field.type)
    and "list" not in str(field.type)
)


def _input(slot: str, issuer: str, jti: str | None, expires_at: int) -> Any:
    return msgspec.to_builtins(InputFact(slot=slot, issuer=issuer, jti=jti, expires_at=expires_at))


def _scope(scope: str, verdict: str, *policy_ids: str) -> Any:
    return msgspec.to_builtins(ScopeFact(scope=scope, verdict=verdict, policy_ids=[*policy_ids]))


def _key(kid: str, to_state: str) -> Any:
    change = KeyChangeFact(kid=kid, to_state=to_state, at=NOW, algorithm="ES256")
    return msgspec.to_builtins(change)


_TOKEN: Final = {
    "inputs": [_input("token", ISSUER, "token-2", NOW + 120)],
    "subject": "ann",
    "resource": CRM,
}
_AUDITOR: Final = {"auditor": "root", "auth_method": "link"}
_ASKING: Final[dict[str, dict[str, Any]]] = {
    "token.introspect": _TOKEN,
    "token.revoke": _TOKEN,
    "token.withdraw": {
        "party_kind": "subject",
        "party": "ann",
        "issued_since": NOW - 3600,
        "issued_until": NOW,
    },
    "revocations.watch": {},
    "audit.login": _AUDITOR,
    "audit.logout": _AUDITOR,
    "audit.read": {**_AUDITOR, "asked": "decision=deny", "people_asked": ["ann"], "found": 2},
    "policy.explain": {
        "detail": "explained for mcp-tickets: step_up_required",
        "resource": CRM,
        "subject": "ann",
        "subject_issuer": IDP,
    },
}
_SERVICE: Final = {"policy_digest": DIGEST, "face": "service"}
_KEYS: Final = {"initiator": "command", "operator": "root", "key_changes": [_key("k1", "active")]}
_EXPOSURE: Final = ExposureFact(
    stopped_at=NOW + 5, accepted_until=NOW + 300, expired_at=NOW + 600, known_from=NOW
)
_INFORMING: Final[dict[str, dict[str, Any]]] = {
    "people.forget": {"about": "2026-10", "initiator": "command", "operator": "root"},
    "people.failed": {"about": "2026-10", "initiator": "command", "detail": "permission denied"},
    "config.loaded": _SERVICE,
    "config.rejected": {**_SERVICE, "detail": "PolicyLoadError: crm.cedar:1: it does not parse"},
    "service.started": {**_SERVICE, "detail": "0.1.0"},
    "service.stopped": _SERVICE,
    "key.publish": {"initiator": "upkeep", "key_changes": [_key("k1", "pending")]},
    "key.rotate": {**_KEYS, "initiator": "age", "operator": None},
    "key.revoke": {**_KEYS, "kid": "k1", "exposure": msgspec.to_builtins(_EXPOSURE)},
    "key.failed": {"about": "01a2-0000", "initiator": "command", "detail": "nothing was changed"},
    "key.seen": {"key_changes": [_key("k1", "retiring")]},
    "chain.opened": {
        "boot_id": "6f7b",
        "cause": "recovery",
        "log_id": "0123456789abcdef",
        "torn_bytes": 17,
    },
    "chain.closed": {"boot_id": "6f7b", "cause": "stop"},
}
