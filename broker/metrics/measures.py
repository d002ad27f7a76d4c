"""What a worker measures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from broker.bounded import MemoryStatus
from broker.errors import Reason
from broker.metrics.files import CountFile
from broker.metrics.tally import Counter, Family, Gauge, Histogram

FACES: Final = ("http", "grpc", "service", "admin")
EVENTS: Final = (
    "token.issue",
    "token.introspect",
    "token.revoke",
    "token.withdraw",
    "revocations.watch",
    "policy.explain",
    "audit.login",
    "audit.logout",
    "audit.read",
    "config.loaded",
    "config.rejected",
    "service.started",
    "service.stopped",
)
DECISIONS: Final = ("permit", "deny", "info")
REASONS: Final = ("none", *(reason.code for reason in Reason))
TURNED_AWAY: Final = ("overloaded", "source_limit", "client_limit")
STORES: Final = ("dev", "vault-transit", "vault-ephemeral", "vault-export")
CACHES: Final = (
    "keys",
    "policies",
    "slices",
    "entities",
    "decisions",
    "permits",
    "tokens",
    "readings",
)

_ISSUER_LIMIT: Final = 64

_log = structlog.get_logger("broker.metrics")


class Metrics:
    """
    The measures of one worker. Every method may be called from any thread and never fails.

    No label tells a client, a subject or anything else that a request brings (LOG-08): each has a
    closed list, and what is not on it counts as ``other``. ``issuers`` are those the operator
    registered. Counts are in memory until ``flush`` writes them to ``directory``, where the control
    process finds them; a worker that is killed loses those of its last second. Two workers never
    have one name at a time.
    """

    def __init__(self, directory: Path, worker: str, *, issuers: Iterable[str] = ()) -> None:
        self._requests = Counter(
            "broker_requests",
            "Audit records, by what was decided and why.",
            {"face": FACES, "event": EVENTS, "decision": DECISIONS, "reason": REASONS},
        )
        self._request_seconds = Histogram(
            "broker_request_seconds",
            "Time from a request's arrival in the core until its record was on disk.",
            {"face": FACES, "event": EVENTS},
        )
        self._commit_seconds = Histogram(
            "broker_audit_commit_seconds", "Time a request waited for its audit record.", {}
        )
        self._sign_seconds = Histogram(
            "broker_sign_seconds",
            "Time that a signature took, or those of one batch of tokens together.",
            {"store": STORES},
        )
        self._policy_seconds = Histogram(
            "broker_policy_seconds",
            "Time that a policy decision took, remembered or evaluated.",
            {},
        )
        self._reloads = Counter(
            "broker_reloads", "Reloads carried out by a worker.", {"result": ("ok", "failed")}
        )
        self._jwks_age = Gauge(
            "broker_jwks_age_seconds",
            "Age of the oldest copy of a registered issuer's keys.",
            {"issuer": sorted(issuers)[:_ISSUER_LIMIT]},
        )
        self._turned_away = Counter(
            "broker_turned_away",
            "Requests that were refused without a record of their own.",
            {"face": FACES, "reason": TURNED_AWAY},
        )
        self._cache_hits = Counter(
            "broker_cache_hits", "How often a memory knew the answer.", {"cache": CACHES}
        )
        self._cache_misses = Counter(
            "broker_cache_misses",
            "How often it did not, so that the answer was worked out.",
            {"cache": CACHES},
        )
        self._cache_entries = Gauge(
            "broker_cache_entries", "What the fullest worker's memory holds.", {"cache": CACHES}
        )
        self._cache_capacity = Gauge(
            "broker_cache_capacity", "What it holds at most.", {"cache": CACHES}
        )
        self._memories: Mapping[str, MemoryStatus] = {}
        self._files = [
            (
                CountFile(directory, kind, worker),
                [one for one in self._families if one.file == kind],
            )
            for kind in (Counter.file, Histogram.file, Gauge.file)
        ]
        self._has_failed = False

    @property
    def _families(self) -> tuple[Family, ...]:
        return tuple(one for one in vars(self).values() if isinstance(one, Family))

    def observe_record(self, record: Mapping[str, Any]) -> None:
        """Count an audit record; given to the audit log as its observer."""
        self._requests.count(
            record.get("face", "service"),
            record.get("event", ""),
            record.get("decision", ""),
            record.get("reason", "none"),
        )

    def observe_request(self, seconds: float, *, face: str, event: str) -> None:
        """Note how long a request took."""
        self._request_seconds.observe(seconds, face, event)

    def observe_commit(self, seconds: float) -> None:
        """Note how long a request waited for its audit record to be on disk."""
        self._commit_seconds.observe(seconds)

    def observe_sign(self, seconds: float, *, store: str) -> None:
        """Note how long a signature took, or the attempt at one."""
        self._sign_seconds.observe(seconds, store)

    def observe_policy(self, seconds: float) -> None:
        """Note how long a policy decision took."""
        self._policy_seconds.observe(seconds)

    def count_turned_away(self, face: str, reason: str) -> None:
        """Count a request that was refused and has no record."""
        self._turned_away.count(face, reason)

    def count_reload(self, result: str) -> None:
        """Count a reload: ``ok`` or ``failed``."""
        self._reloads.count(result)

    def show_jwks_ages(self, ages: Mapping[str, float]) -> None:
        """Tell how old, in seconds, the copy of each registered issuer's keys is."""
        self._jwks_age.put({(issuer,): age for issuer, age in ages.items()})

    def show_memories(self, memories: Mapping[str, MemoryStatus]) -> None:
        """
        Tell how the memories are doing, by their names; called by one thread.

        They count for themselves, and one that was begun anew, as after a reload, begins at nothing.
        """
        for name, now in memories.items():
            before = self._memories.get(name)
            if before is None or now.hits < before.hits or now.misses < before.misses:
                before = MemoryStatus(0, 0, 0, 0)
            self._cache_hits.count(name, number=now.hits - before.hits)
            self._cache_misses.count(name, number=now.misses - before.misses)
        self._cache_entries.put({(name,): one.entries for name, one in memories.items()})
        self._cache_capacity.put({(name,): one.capacity for name, one in memories.items()})
        self._memories = dict(memories)

    def flush(self) -> None:
        """
        Write all counts to disk; called every second, by one thread, and once at the end.

        What cannot be written now is written with the next.
        """
        try:
            for file, families in self._files:
                file.write(one for family in families for one in family.series())
        except OSError as failure:
            if not self._has_failed:
                _log.warning("metrics_not_written", error=failure.strerror)
            self._has_failed = True
        else:
            self._has_failed = False
