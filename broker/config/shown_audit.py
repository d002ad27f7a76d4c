"""The settings of the audit record in the words of the file."""

from typing import Any

from broker.config.settings import ServerAddress


def shown_audit(audit: dict[str, Any]) -> dict[str, Any]:
    """The section as it can stand in the file; what has another name in all sections is left to others."""
    return {
        **audit,
        "sinks": [_sink(one) for one in audit["sinks"]],
        "seal": _seal(audit["seal"]),
        "verify": {"enabled": audit["verify"] is not None, **(audit["verify"] or {})},
    }


def _seal(seal: dict[str, Any]) -> dict[str, Any]:
    stamps = seal.pop("time_stamps") or {"url": None}
    return {**seal, **{f"timestamp_{name}": value for name, value in stamps.items()}}


def _sink(sink: dict[str, Any]) -> dict[str, Any]:
    """A sink with what belongs to its type; the terms that it is built from have a place for all."""
    kind, address = sink["kind"], ServerAddress(sink["host"], sink["port"])
    files = {name: value for name, value in sink.items() if name.endswith("_file")}
    usual = {"type": kind, "name": sink["name"], "is_required": sink["is_required"]}
    if kind == "stdout":
        return usual
    if kind == "http":
        return {**usual, "url": sink["url"], **files}
    is_unix = kind == "unix"
    is_read_by_others = kind in {"udp", "tcp"} and not address.is_loopback
    return {
        **usual,
        "type": "syslog",
        "transport": kind,
        "socket": sink["path"] if is_unix else None,
        "server": None if is_unix else str(address),
        "accept_clear_text": True if is_read_by_others else None,
        **files,
    }
