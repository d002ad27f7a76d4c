"""What the control process does for auditors: it seals the record, proves it, ships it and watches it."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import structlog
from prometheus_client.metrics_core import Metric

from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.log_id import make_log_id, origin_of
from broker.audit.notes import NoteRefused
from broker.audit.outlets import Outlets
from broker.audit.seal.anchor import Anchor, AnchorConflict, anchored_note
from broker.audit.seal.integrity import Integrity, NotSealed, Unproved
from broker.audit.seal.prover import Prover
from broker.audit.seal.rounds import Rounds
from broker.audit.seal.sealer import Sealer
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.seal.time_stamps import Authority, TimeStamper
from broker.audit.seal.verified import Question
from broker.audit.seal.verifying import Unverified, Verifying, VerifyTerms
from broker.audit.segments import AuditLogRefused
from broker.audit.telling.handover import NotSigned, SignedHandover, Terms
from broker.audit.telling.manifest import Manifest
from broker.config import Settings
from broker.config.settings import VerifySettings
from broker.fetch.guarded import GuardedFetcher
from broker.keys.key_files import KeyFileRefused
from broker.metrics.outlets import outlet_families
from broker.metrics.sealing import (
    SealMeasures,
    VerificationMeasures,
    seal_families,
    verification_families,
)
from broker.people import open_pseudonyms
from broker.signing import open_audit_anchor, open_audit_signer

_log = structlog.get_logger("broker.audit")

_STAMP_SECONDS: Final = 10.0
"""How long a time-stamping authority has for its answer."""

_CLOSING_SECONDS: Final = 8.0
"""How long the end of all that goes on here is waited for."""

_SETTLED_SECONDS: Final = 30.0
"""So long after the start nothing is verified, while there is more to do."""

_MOST_CHANGED: Final = 100
"""So many records that could not be proved are remembered."""

_INDEX_SECONDS: Final = 1.0
"""How often the index is brought up to date."""


class _Evidence:
    """The parts that belong to one record. Raises ``AuditLogRefused`` and ``OSError``."""

    def __init__(self, settings: Settings, *, now: Callable[[], float]) -> None:
        directory = settings.audit.directory
        log_id = make_log_id(directory)
        self.origin = origin_of(settings.issuer, log_id)
        signer = open_audit_signer(settings, origin=self.origin)
        self.sealer = Sealer(directory, signer, origin=self.origin, now=now)
        self.prover = Prover(directory, signer.keys)
        document = open_audit_anchor(settings, log_id=log_id)
        self.anchor = (
            # It has a thread of its own, and so a signer of its own.
            Anchor(
                document,
                CheckpointStore(directory),
                open_audit_signer(settings, origin=self.origin),
            )
            if document is not None
            else None
        )
        self.stamper = _stamper(settings, now=now)
        # So have downloads.
        self.handover = SignedHandover(directory, open_audit_signer(settings, origin=self.origin))
        # Verifying has a thread of its own, too.
        self._verified_by = open_audit_signer(settings, origin=self.origin)
        self._anchored_at = open_audit_anchor(settings, log_id=log_id)
        stamps = settings.audit.seal.time_stamps
        self._stamp_roots = "" if stamps is None else str(stamps.ca_file.absolute())
        self._directory = str(directory.absolute())

    def question(self, *, within: float) -> Question:
        """What is to be verified, by the public keys and with what is anchored at this moment."""
        document, keys = self._anchored_at, self._verified_by.keys()
        return Question(
            directory=self._directory,
            keys=[key.text for key in keys],
            anchor="" if document is None else anchored_note(document) or "",
            stamp_roots=self._stamp_roots,
            parent=os.getpid(),
            within=within,
        )


class Auditing:
    """
    The evidence of one broker, looked after in threads of its own from ``begin`` to ``close``.

    Whatever fails here is tried again and told, and keeps no token from being issued. Raises ``OSError`` for
    certificates of second sinks that cannot be read.
    """

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self._evidence: _Evidence | None = None
        self._has_conflict = False
        every = settings.audit.seal.every.total_seconds()
        self._sealing = Rounds("audit_sealing", self._seal, interval=every)
        self._witnessing = Rounds("audit_witnessing", self._witness, interval=every)
        self.reader = _reader(settings)
        self._indexing = Rounds("audit_indexing", self.reader.catch_up, interval=_INDEX_SECONDS)
        audit = settings.audit
        # By the record that was to be proved: the place that is to blame, and why.
        self._changed: dict[tuple[str, int], tuple[str, str]] = {}
        self._verifying = None if audit.verify is None else self._verifier(audit.verify)
        self._outlets = Outlets(
            audit.directory,
            sinks=audit.sinks,
            alerts=audit.alerts,
            damaged=self._damaged,
            unverified=self._unverified,
        )

    def begin(self) -> None:
        """Start sealing, shipping and watching; to be called after any fork."""
        self._sealing.begin()
        self._witnessing.begin()
        self._indexing.begin()
        self._outlets.begin()
        if self._verifying is not None:
            self._verifying.begin()

    def close(self) -> None:
        """Seal what there is, and stop; whoever writes chains should have closed them by then."""
        # All at once: each has seconds for its end, and the broker has few for all of them together.
        for one in (self._sealing, self._witnessing, self._indexing, self._outlets):
            one.ask_to_end()
        self.reader.ask_to_end()
        if self._verifying is not None:
            self._verifying.ask_to_end()
        until = time.monotonic() + _CLOSING_SECONDS
        self._sealing.close()
        for rounds in (self._witnessing, self._indexing):
            rounds.close(within=_left(until))
        self._outlets.close(within=_left(until))
        if self._verifying is not None:
            self._verifying.close(within=_left(until))
        self.reader.close()
        # A round that takes longer keeps the lock for as long as this process lives: two who seal at the same
        # time would write two lists of checkpoints.
        if self._evidence is not None and self._sealing.has_ended:
            self._evidence.sealer.close()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Be looked after until the end of the block."""
        self.begin()
        try:
            yield
        finally:
            self.close()

    def integrity(self) -> Integrity:
        """How far the record is sealed, and whether that goes on."""
        failure, failures = self._sealing.failure, self._sealing.failures
        found, verifying = self._evidence, self._verifying
        verified = None if verifying is None else verifying.last
        unverified = self._unverified()
        if found is None:
            return Integrity(failure=failure, failures=failures, unverified=unverified)
        last, anchor, stamper = found.sealer.last, found.anchor, found.stamper
        anchored = None if anchor is None else anchor.anchored
        return Integrity(
            origin=found.origin,
            keys=found.sealer.key_texts,
            records=0 if last is None else last.checkpoint.size,
            sealed_until=None if last is None else _seconds(last),
            faults={writer: str(fault) for writer, fault in found.sealer.faults.items()},
            failure=failure,
            failures=failures,
            has_anchor=anchor is not None,
            anchored_records=None if anchored is None else anchored.size,
            anchor_failure=self._witnessing.failure,
            has_anchor_conflict=self._has_conflict,
            stamped_at=None if stamper is None or stamper.last is None else stamper.last.time,
            changed=dict([*self._changed.values()]),
            verified=verified,
            unverified=unverified,
        )

    def first_over(self, writer: str, seq: int) -> Checkpoint:
        """The first checkpoint that a record is in, as ``Proofs`` tells."""
        if self._evidence is None:
            raise NotSealed("nothing was sealed yet")
        return self._evidence.prover.first_over(writer, seq)

    def prove(self, writer: str, seq: int) -> str:
        """The proof of one record, as ``Proofs`` tells."""
        if self._evidence is None:
            raise NotSealed("nothing was sealed yet")
        try:
            proof = self._evidence.prover.prove(writer, seq)
        except NotSealed:
            raise
        except (AuditLogRefused, NoteRefused, CheckpointRefused) as refused:
            if len(self._changed) < _MOST_CHANGED:
                self._changed.setdefault((writer, seq), _blamed(refused, writer, seq))
            raise AuditLogRefused(str(refused)) from refused
        # What was put back as it was is wrong no more.
        self._changed.pop((writer, seq), None)
        return proof

    def signing_terms(self) -> Terms:
        """What is handed over now is signed under, as ``Handover`` tells."""
        with _told_if_not_signed():
            return self._handover().signing_terms()

    def signed_manifest(self, manifest: Manifest, terms: Terms) -> str:
        """The manifest as a note, as ``Handover`` tells."""
        with _told_if_not_signed():
            return self._handover().signed_manifest(manifest, terms)

    def _handover(self) -> SignedHandover:
        if self._evidence is None:
            raise NotSigned("nothing was sealed yet")
        return self._evidence.handover

    def measures(self) -> Iterable[Metric]:
        """What is measured, for the metrics page."""
        found = self.integrity()
        stamped = found.stamped_at
        measured = SealMeasures(
            sealed_records=found.records,
            sealed_at=found.sealed_until,
            failures=found.failures,
            broken_chains=len(found.faults),
            anchored_records=found.anchored_records,
            has_anchor_conflict=found.has_anchor_conflict if found.has_anchor else None,
            stamped_at=None if stamped is None else stamped.timestamp(),
        )
        yield from seal_families(measured, now=self._now())
        yield from verification_families(_measured(self._verifying))
        outlets = self._outlets
        yield from outlet_families(backlogs=outlets.backlogs(), alerts=outlets.alerts())

    def _damaged(self) -> Mapping[str, str]:
        """What sealing, questions, proofs and the last verification found to be wrong, for the alerts."""
        found = self.integrity()
        damaged = {f"seal of {writer}": fault for writer, fault in found.faults.items()}
        damaged |= {**self.reader.changed(), **found.changed}
        if found.verified is not None:
            # Of a place that a question has met as well, verification knows more.
            faults = found.verified.faults
            damaged |= {one.place: f"{one.kind}: {one.sentence}" for one in faults}
        if found.has_anchor_conflict:
            damaged["anchor"] = "what is anchored is no checkpoint of this record"
        return damaged

    def _unverified(self) -> str:
        return "" if self._verifying is None else self._verifying.trouble

    def _verifier(self, settings: VerifySettings) -> Verifying:
        within = settings.within.total_seconds()
        terms = VerifyTerms(
            every=settings.every.total_seconds(), within=within, settled=_SETTLED_SECONDS
        )

        def ask() -> Question | None:
            found, failure = self._evidence, self._sealing.failure
            if found is not None and (failure or found.sealer.last is not None):
                return found.question(within=within)
            if failure:
                raise Unverified(f"nothing could be sealed: {failure}")
            # It has only just begun.
            return None

        return Verifying(self._settings.audit.directory, terms, ask, now=self._now)

    def _seal(self) -> None:
        if self._evidence is None:
            self._evidence = _Evidence(self._settings, now=self._now)
        self._evidence.sealer.step()

    def _witness(self) -> None:
        found = self._evidence
        last = None if found is None else found.sealer.last
        if found is None or last is None:
            return
        try:
            if found.stamper is not None:
                found.stamper.step(last)
        finally:
            if found.anchor is not None:
                self._put(found.anchor, last)

    def _put(self, anchor: Anchor, last: Kept) -> None:
        try:
            anchor.step(last)
        except AnchorConflict:
            self._has_conflict = True
            raise
        self._has_conflict = False


def _blamed(refused: Exception, writer: str, seq: int) -> tuple[str, str]:
    """The place of what keeps a record from being proved, or that record, and what is wrong."""
    if isinstance(refused, Unproved):
        return refused.place, refused.sentence
    return f"the record of {writer} with seq {seq}", str(refused)


@contextmanager
def _told_if_not_signed() -> Iterator[None]:
    try:
        yield
    except KeyFileRefused as refused:
        # Its words name a path of the machine, which is nothing for a record or a page.
        _log.error("audit_download_not_signed", reason=str(refused))
        raise NotSigned("the file of the key cannot be used") from refused
    except NotSigned as problem:
        _log.error("audit_download_not_signed", reason=str(problem))
        raise


def _measured(verifying: Verifying | None) -> VerificationMeasures | None:
    if verifying is None:
        return None
    last = verifying.last
    return VerificationMeasures(
        records=None if last is None else last.records,
        faults=None if last is None else last.fault_count,
        age=verifying.age,
        failures=verifying.failures,
    )


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.0)


def _reader(settings: Settings) -> SqliteAuditReader:
    directory = settings.audit.directory
    if settings.audit.people.names == "clear":
        return SqliteAuditReader(directory)
    return SqliteAuditReader(directory, pseudonyms_of=open_pseudonyms(settings))


def _stamper(settings: Settings, *, now: Callable[[], float]) -> TimeStamper | None:
    found = settings.audit.seal.time_stamps
    if found is None:
        return None
    fetcher = GuardedFetcher(
        allow_loopback=settings.issuer.startswith("http://"),
        deadline=_STAMP_SECONDS,
        ca_file=settings.fetch.ca_file,
        private_networks=settings.fetch.private_networks,
    )
    every = settings.audit.seal.timestamp_every.total_seconds()
    authority = Authority(found.url, every, found.ca_file)
    return TimeStamper(settings.audit.directory, fetcher, authority, now=now)


def _seconds(kept: Kept) -> float:
    return datetime.fromisoformat(kept.checkpoint.time).timestamp()
