"""The formats in which records are handed on, each a plain function of a record and its line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.audit.chain import line_hash
from broker.audit.record import InputFact, Record
from broker.audit.telling.cef import cef_line
from broker.audit.telling.csv_cells import row
from broker.audit.telling.ocsf import ocsf_line
from broker.audit.telling.sentence import sentence

_COLUMNS: Final = (
    "time",
    "event",
    "decision",
    "reason",
    "event_id",
    "face",
    "peer",
    "client_id",
    "auth_method",
    "auditor",
    "subject",
    "subject_issuer",
    "subject_kind",
    "tenant",
    "mcp_client",
    "mcp_server",
    "actors",
    "chain_depth",
    "grant_type",
    "relation",
    "resource",
    "authorization_server",
    "targets_asked",
    "scopes_asked",
    "scopes_granted",
    "inputs",
    "jti",
    "issued_at",
    "expires_at",
    "lifetime",
    "lifetime_limit",
    "policy_ids",
    "policy_digest",
    "error",
    "parameter",
    "detail",
    "group",
    "writer",
    "seq",
)


@dataclass(frozen=True, slots=True)
class Format:
    """
    A way to write records down, one line each.

    ``head`` stands before the first of them. ``row`` makes the line of a record out of the record and of
    its line in the chain, and depends on nothing else; whoever streams records calls it for each.
    """

    name: str
    media_type: str
    suffix: str
    row: Callable[[Record, bytes], bytes]
    head: bytes = b""


def ndjson_line(_record: Record, line: bytes) -> bytes:
    """
    The line of the chain as it stands, so that whoever has it can hash it again.

    A line that no writer of ours has written, with anything but printable ASCII in it, has that escaped.
    """
    if line.isascii() and line.decode().isprintable():
        return line + b"\n"
    text = line.decode("utf-8", "replace")
    return "".join(map(_escaped, text)).encode() + b"\n"


def csv_line(record: Record, line: bytes) -> bytes:
    """What matters most as cells, then the hash of the line and the sentence."""
    cells = [_cell(getattr(record, name)) for name in _COLUMNS]
    return row([*cells, line_hash(line), sentence(record)])


def _cell(value: object) -> object:
    if not isinstance(value, list):
        return value
    return " ".join(map(_item, value))


def _item(item: object) -> str:
    if isinstance(item, InputFact):
        return f"{item.slot}:{item.jti or '-'}"
    return str(item.get("sub", "-")) if isinstance(item, dict) else str(item)


def _escaped(one: str) -> str:
    if " " <= one <= "~":
        return one
    code = ord(one)
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"


FORMATS: Final[Mapping[str, Format]] = {
    one.name: one
    for one in (
        Format("ndjson", "application/x-ndjson", "ndjson", ndjson_line),
        Format(
            "csv",
            "text/csv; charset=utf-8; header=present",
            "csv",
            csv_line,
            head=row([*_COLUMNS, "line_hash", "sentence"]),
        ),
        Format("ocsf", "application/x-ndjson", "ocsf.ndjson", ocsf_line),
        Format("cef", "text/plain; charset=utf-8", "cef", cef_line),
    )
}
"""The formats by name."""
