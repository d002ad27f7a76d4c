"""What is measured, that it costs little, and that nobody outside can make it grow."""

import contextlib
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from broker import __version__
from broker.audit.record import REQUEST_EVENTS, SERVICE_EVENTS
from broker.bounded import MemoryStatus
from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import AuditEntry, SigningKey
from broker.metrics import (
    Exposition,
    Metrics,
    ObservedAuditLog,
    ObservedKeyStore,
    prepare_directory,
)
from broker.metrics.measures import EVENTS
from broker.model import Admission, RequestContext

PERMIT = {"face": "grpc", "event": "token.issue", "decision": "permit"}
CHECKS = {("grpc", "audit"): True, ("", "shutdown"): True}
DENY = {"face": "http", "event": "token.issue", "decision": "deny", "reason": "replay"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare_directory(tmp_path / "metrics")
    return tmp_path / "metrics"


def page(directory: Path, **workers: bool) -> dict[str, Metric]:
    text = Exposition(directory).render(workers, CHECKS).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(directory: Path, name: str, labels: Mapping[str, str], **workers: bool) -> float | None:
    """The value of the series with exactly these labels, or ``None``."""
    for family in page(directory, **workers).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_every_event_that_is_recorded_is_counted_by_its_name() -> None:
    assert set(EVENTS) == REQUEST_EVENTS | SERVICE_EVENTS


def test_all_measures_appear_on_a_page_that_prometheus_reads(directory: Path) -> None:
    metrics = Metrics(directory, "grpc", issuers=["https://idp.example"])

    metrics.observe_record(PERMIT)
    metrics.observe_request(0.004, face="grpc", event="token.issue")
    metrics.observe_commit(0.0003)
    metrics.observe_sign(0.00002, store="dev")
    metrics.observe_policy(0.0002)
    metrics.count_reload("ok")
    metrics.show_jwks_ages({"https://idp.example": 12.5})
    metrics.flush()

    families = page(directory, grpc=True)
    assert families.keys() == {
        "broker_requests",
        "broker_request_seconds",
        "broker_audit_commit_seconds",
        "broker_sign_seconds",
        "broker_policy_seconds",
        "broker_reloads",
        "broker_jwks_age_seconds",
        "broker_worker_up",
        "broker_ready",
        "broker_check_passed",
        "broker_build_info",
    }
    assert families["broker_requests"].type == "counter"
    assert families["broker_request_seconds"].type == "histogram"
    assert families["broker_build_info"].samples[0].labels["version"] == __version__
    assert value(directory, "broker_jwks_age_seconds", {"issuer": "https://idp.example"}) == 12.5


@pytest.mark.parametrize(
    ("workers", "checks", "is_ready"),
    [
        ({"grpc": True, "http": True}, CHECKS, 1),
        ({"grpc": True, "http": False}, CHECKS, 0),
        ({"grpc": True, "http": True}, {**CHECKS, ("grpc", "audit"): False}, 0),
        ({"grpc": True, "http": True}, {**CHECKS, ("", "shutdown"): False}, 0),
    ],
    ids=["all is well", "a silent worker", "a check that fails", "it stops"],
)
def test_the_page_tells_whether_the_broker_is_ready(
    directory: Path,
    workers: Mapping[str, bool],
    checks: Mapping[tuple[str, str], bool],
    is_ready: float,
) -> None:
    text = Exposition(directory).render(workers, checks).decode()

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [sample.value for sample in families["broker_ready"].samples] == [is_ready]
    assert {
        (sample.labels["worker"], sample.labels["check"]): bool(sample.value)
        for sample in families["broker_check_passed"].samples
    } == checks


def test_a_histogram_counts_into_all_buckets_that_are_large_enough(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")

    for seconds in (0.00005, 0.001, 0.3, 60.0):
        metrics.observe_commit(seconds)
    metrics.flush()

    def bucket(bound: str) -> float | None:
        return value(directory, "broker_audit_commit_seconds_bucket", {"le": bound})

    assert [bucket(one) for one in ("0.0001", "0.0005", "0.001", "0.25", "0.5", "2.5", "+Inf")] == [
        1, 1, 2, 2, 3, 3, 4,
    ]  # fmt: skip
    assert value(directory, "broker_audit_commit_seconds_count", {}) == 4
    assert value(directory, "broker_audit_commit_seconds_sum", {}) == pytest.approx(60.30105)


def test_counts_of_several_workers_are_added_up(directory: Path) -> None:
    for worker in ("grpc", "http", "http-2"):
        metrics = Metrics(directory, worker)
        metrics.observe_record(DENY)
        metrics.observe_commit(0.001)
        metrics.flush()

    assert value(directory, "broker_requests_total", DENY) == 3
    assert value(directory, "broker_audit_commit_seconds_count", {}) == 3


def test_a_worker_that_starts_again_goes_on_counting_in_the_same_files(directory: Path) -> None:
    """However often it dies: neither do counters fall, nor do files pile up."""
    for _ in range(20):
        metrics = Metrics(directory, "grpc")
        metrics.observe_record(DENY)
        metrics.observe_commit(0.001)
        metrics.flush()
        metrics.flush()
    Metrics(directory, "grpc").flush()

    assert value(directory, "broker_requests_total", DENY) == 20
    assert value(directory, "broker_audit_commit_seconds_count", {}) == 20
    assert len(list(directory.iterdir())) == 3


def test_what_a_dead_worker_told_about_itself_is_not_shown(directory: Path) -> None:
    for worker, age in (("grpc", 900.0), ("http", 3.0)):
        metrics = Metrics(directory, worker, issuers=["https://idp.example"])
        metrics.show_jwks_ages({"https://idp.example": age})
        metrics.observe_record(PERMIT)
        metrics.flush()
    labels = {"issuer": "https://idp.example"}

    assert value(directory, "broker_jwks_age_seconds", labels, grpc=True, http=True) == 900
    assert value(directory, "broker_jwks_age_seconds", labels, grpc=False, http=True) == 3
    assert value(directory, "broker_worker_up", {"worker": "grpc"}, grpc=False, http=True) == 0
    assert value(directory, "broker_requests_total", PERMIT | {"reason": "none"}, grpc=False) == 2


def test_counts_of_an_earlier_run_are_wiped_at_start(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")
    metrics.observe_record(DENY)
    metrics.flush()

    prepare_directory(directory)

    assert "broker_requests" not in page(directory)
    assert directory.stat().st_mode & 0o077 == 0


@pytest.mark.requirement("LOG-08")
def test_nothing_that_a_request_brings_makes_a_series(directory: Path) -> None:
    metrics = Metrics(directory, "grpc", issuers=["https://idp.example"])
    noise = random.Random(8)  # noqa: S311 - Any noise will do.

    for _ in range(100_000):
        text = f"https://{noise.getrandbits(64):x}.example"
        metrics.observe_record(
            {"face": text, "event": text, "decision": text, "reason": text}
            | {"client_id": text, "subject": text, "subject_issuer": text, "resource": text}
        )
        metrics.show_jwks_ages({text: 1.0})
    metrics.observe_request(0.1, face="x", event="y")
    metrics.observe_sign(0.1, store="z")
    metrics.count_reload("w")
    metrics.show_memories({"https://cache.example": MemoryStatus(1, 1, 1, 1)})
    metrics.flush()

    families = page(directory)
    assert "broker_jwks_age_seconds" not in families
    assert [sample.value for sample in families["broker_requests"].samples] == [100_000]
    labels = {
        text
        for family in families.values()
        for one in family.samples
        for text in one.labels.values()
    }
    assert not [text for text in labels if text.startswith("https")]


def test_memories_are_counted_by_what_they_knew_since_the_last_look(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")
    metrics.show_memories({"tokens": MemoryStatus(3, 4096, hits=10, misses=5)})
    metrics.show_memories({"tokens": MemoryStatus(4, 4096, hits=17, misses=6)})
    metrics.flush()

    of_tokens = {"cache": "tokens"}
    assert value(directory, "broker_cache_hits_total", of_tokens) == 17
    assert value(directory, "broker_cache_misses_total", of_tokens) == 6
    assert value(directory, "broker_cache_entries", of_tokens, grpc=True) == 4
    assert value(directory, "broker_cache_capacity", of_tokens, grpc=True) == 4096


def test_a_memory_that_was_begun_anew_takes_nothing_back(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")
    metrics.show_memories({"decisions": MemoryStatus(9, 4096, hits=100, misses=9)})
    metrics.show_memories({"decisions": MemoryStatus(2, 4096, hits=3, misses=2)})
    metrics.flush()

    assert value(directory, "broker_cache_hits_total", {"cache": "decisions"}) == 103
    assert value(directory, "broker_cache_misses_total", {"cache": "decisions"}) == 11
    assert value(directory, "broker_cache_entries", {"cache": "decisions"}, grpc=True) == 2


@pytest.mark.requirement("LOG-08")
def test_the_greatest_possible_page_is_bounded(directory: Path) -> None:
    metrics = Metrics(directory, "grpc", issuers=[f"https://{n}.example" for n in range(1000)])
    for reason in [*(reason.code for reason in Reason), "none", "nonsense"]:
        for face in ("http", "grpc", "service", "nonsense"):
            for decision in ("permit", "deny", "info", "nonsense"):
                metrics.observe_record(
                    {"face": face, "event": "token.issue", "decision": decision, "reason": reason}
                )
    metrics.show_jwks_ages({f"https://{n}.example": 1.0 for n in range(1000)})
    metrics.flush()

    families = page(directory)
    assert len(families["broker_requests"].samples) <= 4 * 4 * (len(Reason) + 2)
    assert len(families["broker_jwks_age_seconds"].samples) == 64


@pytest.mark.requirement("LOG-07")
def test_no_label_is_made_for_a_person_or_a_client(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")
    metrics.observe_record(DENY | {"subject": "ann@acme.example", "client_id": "agent-7"})
    metrics.flush()

    text = Exposition(directory).render({}, CHECKS).decode()
    assert "acme" not in text
    assert "agent-7" not in text


@pytest.mark.requirement("R-30")
def test_a_disk_that_is_full_costs_no_request_and_no_count(directory: Path) -> None:
    """The client's own files are mapped into memory, where a full disk kills the process."""
    metrics = Metrics(directory, "grpc")
    metrics.observe_record(DENY)
    metrics.flush()
    full = [directory / f"{kind}_grpc.new" for kind in ("counter", "histogram", "gauge_livemax")]
    for file in full:
        file.symlink_to("/dev/full")

    metrics.observe_record(DENY)
    metrics.flush()
    assert value(directory, "broker_requests_total", DENY) == 1

    for file in full:
        file.unlink()
    metrics.flush()
    assert value(directory, "broker_requests_total", DENY) == 2


@pytest.mark.parametrize(
    "torn",
    [b"", b"\x01", struct.pack("i4xi", 4000, 900) + b"x" * 40, b"\xff" * 64, struct.pack("i4x", 8)],
    ids=["empty", "one byte", "cut", "noise", "no series"],
)
def test_a_torn_file_keeps_no_worker_from_starting(directory: Path, torn: bytes) -> None:
    (directory / "counter_grpc.db").write_bytes(torn)

    metrics = Metrics(directory, "grpc")
    metrics.observe_record(DENY)
    metrics.flush()

    assert value(directory, "broker_requests_total", DENY) == 1


def test_no_count_is_lost_between_threads(directory: Path) -> None:
    metrics = Metrics(directory, "grpc")
    done = threading.Event()

    def work() -> None:
        for _ in range(5_000):
            metrics.observe_record(DENY)
            metrics.observe_commit(0.001)

    def flush() -> None:
        while not done.is_set():
            metrics.flush()

    flusher = threading.Thread(target=flush)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for thread in (flusher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    flusher.join()
    metrics.flush()

    assert value(directory, "broker_requests_total", DENY) == 20_000
    assert value(directory, "broker_audit_commit_seconds_count", {}) == 20_000


def test_measuring_costs_little_beside_the_work_it_measures(directory: Path) -> None:
    """All that is noted about one exchange, against one of the signature checks in it."""
    metrics = Metrics(directory, "grpc")
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"x", ec.ECDSA(hashes.SHA256()))

    def measure() -> None:
        metrics.observe_record(PERMIT)
        metrics.observe_request(0.004, face="grpc", event="token.issue")
        metrics.observe_commit(0.0004)
        metrics.observe_sign(0.00002, store="dev")
        metrics.observe_policy(0.00001)

    def verify() -> None:
        key.public_key().verify(signature, b"x", ec.ECDSA(hashes.SHA256()))

    assert _cpu(measure) < 0.25 * _cpu(verify)


def _cpu(work: Callable[[], None]) -> float:
    def once() -> float:
        begun = time.process_time()
        for _ in range(1_000):
            work()
        return time.process_time() - begun

    return min(once() for _ in range(5))


class Sink:
    """An audit log that keeps records only while it may."""

    def __init__(self) -> None:
        self.is_full = False
        self.events: list[str] = []
        self.admitted: Admission | None = None
        self.receipt = ""

    @contextlib.contextmanager
    def entry(self, event: str, _context: RequestContext) -> Iterator[AuditEntry]:
        try:
            yield self
        finally:
            self.check()
            self.events.append(event)

    def part(self) -> contextlib.AbstractContextManager[AuditEntry]:
        raise NotImplementedError

    def note(self, **_facts: Any) -> None:
        return

    def noted(self, name: str) -> Any:
        raise NotImplementedError(name)

    def check(self) -> None:
        if self.is_full:
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE)

    def close(self) -> None:
        self.events.append("closed")


CONTEXT = RequestContext(face="http", request_id="1")


def test_a_request_is_measured_whether_it_is_granted_or_refused(directory: Path) -> None:
    metrics, sink = Metrics(directory, "http"), Sink()
    audit = ObservedAuditLog(sink, metrics)

    with audit.entry("token.issue", CONTEXT) as entry:
        entry.note(jti="1")
    with pytest.raises(ValueError, match="refused"), audit.entry("token.issue", CONTEXT):
        raise ValueError("refused")
    sink.is_full = True
    with pytest.raises(TemporarilyUnavailable), audit.entry("token.issue", CONTEXT):
        pass
    metrics.flush()

    labels = {"face": "http", "event": "token.issue"}
    assert value(directory, "broker_request_seconds_count", labels) == 3
    assert value(directory, "broker_audit_commit_seconds_count", {}) == 3
    with pytest.raises(TemporarilyUnavailable):
        audit.check()
    audit.close()
    assert sink.events == ["token.issue", "token.issue", "closed"]


class Keys:
    """A key store whose key signs with nothing, or cannot be reached."""

    kid = "k1"
    algorithm = "ES256"
    is_away = False

    def signing_key(self, _algorithm: str) -> SigningKey:
        return self

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return [{"kid": self.kid}]

    def fresh_for(self) -> int:
        return 60

    def sign(self, signing_input: bytes) -> bytes:
        if self.is_away:
            raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE)
        return signing_input

    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]:
        return [self.sign(one) for one in signing_inputs]

    def close(self) -> None:
        self.is_away = True


def test_a_signature_is_measured_even_if_it_fails(directory: Path) -> None:
    metrics, keys = Metrics(directory, "http"), Keys()
    store = ObservedKeyStore(keys, metrics, "vault-transit")
    key = store.signing_key("ES256")

    assert (key.kid, key.algorithm, store.public_keys()) == ("k1", "ES256", [{"kid": "k1"}])
    assert store.fresh_for() == 60
    assert key.sign(b"input") == b"input"
    assert key.sign_all([b"one", b"two"]) == [b"one", b"two"]
    store.close()
    with pytest.raises(TemporarilyUnavailable):
        key.sign(b"input")
    metrics.flush()

    assert value(directory, "broker_sign_seconds_count", {"store": "vault-transit"}) == 3
