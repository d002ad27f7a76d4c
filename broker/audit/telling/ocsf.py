"""A record as an event of the Open Cybersecurity Schema Framework, version 1.7.0."""

import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from broker import __version__
from broker.audit.chain import line_hash
from broker.audit.record import SERVICE_EVENTS, Record
from broker.audit.telling.reasons import reason_in_words
from broker.audit.telling.sentence import sentence
from broker.audit.telling.words import seconds_of

OCSF_VERSION: Final = "1.7.0"
"""The only version that is written; another one would be another format."""

PRODUCT: Final = "delegation-broker"

_APPLICATION: Final = 6
_API_ACTIVITY: Final = 6003
_LIFECYCLE: Final = 6002
_OTHER: Final = 99
_CLASS_NAMES: Final = {_API_ACTIVITY: "API Activity", _LIFECYCLE: "Application Lifecycle"}
_ACTIVITIES: Final[Mapping[str, tuple[int, str]]] = {
    "token.issue": (1, "Create"),
    "token.introspect": (2, "Read"),
    "token.revoke": (4, "Delete"),
    "token.withdraw": (4, "Delete"),
    "revocations.watch": (2, "Read"),
    "policy.explain": (2, "Read"),
    "audit.login": (1, "Create"),
    "audit.logout": (4, "Delete"),
    "audit.read": (2, "Read"),
    "people.forget": (4, "Delete"),
    "people.failed": (4, "Delete"),
    "key.publish": (1, "Create"),
    "key.rotate": (3, "Update"),
    "key.revoke": (4, "Delete"),
    "key.seen": (2, "Read"),
    "service.started": (3, "Start"),
    "service.stopped": (4, "Stop"),
    "config.loaded": (8, "Update"),
    "config.rejected": (8, "Update"),
}
_FAILURES: Final = frozenset({"config.rejected", "key.failed", "people.failed"})
_GRAVE: Final = frozenset({"config.rejected", "key.failed", "key.revoke"})
# What has a place of its own in the event as it stands; all other members are told as unmapped.
_MAPPED: Final = frozenset(
    {
        "client_id",
        "event",
        "event_id",
        "group",
        "seq",
        "subject",
        "subject_issuer",
        "tenant",
        "v",
        "writer",
    }
)


def ocsf_line(record: Record, line: bytes) -> bytes:
    """The event as one line of JSON in ASCII, in which no character can do anything."""
    text = json.dumps(ocsf_event(record, line), separators=(",", ":"), ensure_ascii=True)
    return text.encode() + b"\n"


def ocsf_event(record: Record, line: bytes) -> dict[str, Any]:
    """
    The record as API Activity (6003), or what the service tells of itself as Application Lifecycle (6002).

    A token that is exchanged is what an API creates for a caller, and neither a login (3002) nor the
    privileges of a new session (3003). What the schema has no place for is in ``unmapped``, under the names
    of the record, with the hash of the line.
    """
    is_lifecycle = record.event in SERVICE_EVENTS or record.event.startswith("chain.")
    class_uid = _LIFECYCLE if is_lifecycle else _API_ACTIVITY
    activity_id, activity = _ACTIVITIES.get(record.event, (_OTHER, record.event))
    has_failed = record.decision == "deny" or record.event in _FAILURES
    event = {
        "activity_id": activity_id,
        "activity_name": activity,
        "category_name": "Application Activity",
        "category_uid": _APPLICATION,
        "class_name": _CLASS_NAMES[class_uid],
        "class_uid": class_uid,
        "message": sentence(record),
        "metadata": _metadata(record),
        "severity": _severity(record)[1],
        "severity_id": _severity(record)[0],
        "status": "Failure" if has_failed else "Success",
        "status_code": record.reason,
        "status_detail": reason_in_words(record.reason) if record.reason else None,
        "status_id": 2 if has_failed else 1,
        "time": _milliseconds(record),
        "type_uid": class_uid * 100 + activity_id,
        "unmapped": _unmapped(record, line),
    }
    about = {"app": _product()} if is_lifecycle else _activity(record)
    return _without_nothing(event | about)


def _activity(record: Record) -> dict[str, Any]:
    return {
        "actor": _actor(record),
        "api": {
            "operation": record.event,
            "request": {"uid": record.event_id},
            "response": {"error": record.error, "error_message": record.reason},
            "service": {"name": PRODUCT},
        },
        "resources": _resources(record),
        "src_endpoint": _source(record),
    }


def _actor(record: Record) -> dict[str, Any]:
    """Who asked, for whom, and what policy said to each scope."""
    user: dict[str, Any] | None = None
    if record.subject is not None:
        kind = 3 if record.subject_kind == "client" else 1
        name = record.subject
        user = {"uid": name, "name": name, "domain": record.subject_issuer, "type_id": kind}
    elif record.auditor is not None:
        user = {"uid": record.auditor, "name": record.auditor, "type_id": 1}
    elif record.operator is not None:
        user = {"uid": record.operator, "name": record.operator, "type_id": 2}
    elif record.client_id is None:
        # Nobody has proved anything, and an actor without any name is none.
        user = {"name": "unknown", "type_id": 0}
    return {
        "app_name": record.client_id,
        "app_uid": record.client_id,
        "authorizations": _authorizations(record),
        "session": _session(record),
        "user": user,
    }


def _authorizations(record: Record) -> list[dict[str, Any]]:
    version = record.policy_digest
    return [
        {
            "decision": f"{one.verdict}: {one.scope}",
            "policy": {"uid": policy_id, "version": version, "is_applied": True},
        }
        for one in record.scope_decisions or []
        for policy_id in one.policy_ids
    ]


def _session(record: Record) -> dict[str, Any] | None:
    if record.jti is None:
        return None
    return {
        "uid": record.jti,
        "created_time": None if record.issued_at is None else record.issued_at * 1000,
        "expiration_time": None if record.expires_at is None else record.expires_at * 1000,
    }


def _resources(record: Record) -> list[dict[str, Any]]:
    names = [record.resource] if record.resource else record.targets_asked or []
    return [{"uid": name, "name": name, "type": "OAuth resource"} for name in names]


def _source(record: Record) -> dict[str, Any]:
    """Where it came from: an address where one is known, else the process that told of it."""
    try:
        return {"ip": str(ipaddress.ip_address(record.peer or "")), "svc_name": record.face}
    except ValueError:
        return {"name": record.peer, "svc_name": record.face or record.writer or PRODUCT}


def _metadata(record: Record) -> dict[str, Any]:
    return {
        "correlation_uid": record.group,
        "event_code": record.event,
        "log_name": record.writer,
        "original_event_uid": record.event_id,
        "original_time": record.time,
        "product": _product(),
        "sequence": record.seq,
        "tenant_uid": record.tenant,
        "uid": record.event_id,
        "version": OCSF_VERSION,
    }


def _product() -> dict[str, Any]:
    return {"name": PRODUCT, "vendor_name": PRODUCT, "version": __version__}


def _severity(record: Record) -> tuple[int, str]:
    if record.event in _GRAVE:
        return 3, "Medium"
    return (2, "Low") if record.decision == "deny" else (1, "Informational")


def _milliseconds(record: Record) -> int:
    return int((seconds_of(record.time) or 0) * 1000)


def _unmapped(record: Record, line: bytes) -> dict[str, Any]:
    members = msgspec.to_builtins(record)
    rest = {name: value for name, value in members.items() if name not in _MAPPED}
    return {**rest, "line_hash": line_hash(line)}


def _without_nothing(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without members that nothing is known of."""
    kept = {}
    for name, value in event.items():
        whole = _without_nothing(value) if isinstance(value, dict) and name != "unmapped" else value
        if isinstance(whole, list) and name != "unmapped":
            whole = [_without_nothing(one) if isinstance(one, dict) else one for one in whole]
        if whole is not None and whole not in ({}, []):
            kept[name] = whole
    return kept
