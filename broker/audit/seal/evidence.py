"""The whole evidence about a log, for somebody who has a copy of it and a public key, and trusts nobody."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.audit.diagnosis import Fault
from broker.audit.hashing import Hashing
from broker.audit.reader import Mode, Report, lost_chains, undetected
from broker.audit.seal.chains import Chains, Progress
from broker.audit.seal.listing import Listing
from broker.audit.seal.receipts import Seen, look_for
from broker.audit.seal.sealed import Sealed, SealWalk, Trust


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What verification found: in the chains, and beyond them where there was a key.

    ``faults`` are those that no chain has by itself. ``remarks`` are no faults.
    """

    report: Report
    mode: Mode
    sealed: Sealed | None = None
    faults: tuple[Fault, ...] = ()
    seen: tuple[Seen, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong. ``undetected`` tells what this cannot mean."""
        return self.report.is_intact and not self.faults

    @property
    def all_faults(self) -> tuple[Fault, ...]:
        """The first fault of each chain, and those beyond."""
        chains = [one.fault for one in self.report.chains if one.fault is not None]
        return (*chains, *self.faults)

    @property
    def undetected(self) -> Sequence[str]:
        """What stays undetected when it is verified like this."""
        return undetected(self.mode)


def verify_log(
    directory: Path,
    trust: Trust,
    *,
    processes: int = 1,
    hashing: Hashing | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """
    Verify all that there is about the log of a directory, line by line and in bounded memory.

    Without keys those are its chains. The list of checkpoints is read as it was at first, and the chains as
    they are then, so a log may be written to meanwhile. More ``processes`` are for programs without threads;
    ``hashing`` is who computes the hashes, where that is not to be chosen.
    Raises ``OSError``.
    """
    listing = Listing(directory)
    with Chains(
        directory,
        wants_leaves=bool(trust.keys),
        processes=processes,
        hashing=hashing,
        progress=progress,
    ) as chains:
        walk = SealWalk(listing, chains, trust)
        if trust.keys:
            walk.run()
        report = _report(directory, chains)
    if not trust.keys:
        return _of_chains(directory, trust, listing, report)
    sealed = walk.sealed(report)
    seen = [look_for(directory, one, report, sealed) for one in trust.receipts]
    return Evidence(
        report=report,
        mode=Mode.ANCHORED if sealed.anchors or sealed.stamps else Mode.SEALED,
        sealed=sealed,
        faults=(*walk.found_faults(report), *(one.fault for one in seen if one.fault is not None)),
        seen=tuple(seen),
        remarks=(*_remarks(report), *_stamp_remarks(walk), *walk.overdue(report)),
    )


def _of_chains(directory: Path, trust: Trust, listing: Listing, report: Report) -> Evidence:
    seen = [look_for(directory, one, report, None) for one in trust.receipts]
    remarks = _remarks(report)
    if not listing.is_empty:
        told = "there are checkpoints that were not looked at: that takes the public key they are signed by"
        remarks = (*remarks, told)
    faults = tuple(one.fault for one in seen if one.fault is not None)
    return Evidence(report, Mode.CHAINS, faults=faults, seen=tuple(seen), remarks=remarks)


def _remarks(report: Report) -> tuple[str, ...]:
    return tuple(
        f"{one.writer}: {one.unended_bytes} bytes after its last record are none yet: its writer is at "
        "work, or died at it"
        for one in report.chains
        if one.unended_bytes
    )


def _stamp_remarks(walk: SealWalk) -> tuple[str, ...]:
    if walk.has_unread_stamps:
        told = (
            "there are time-stamps that were not looked at: that takes who is trusted to make them"
        )
        return (told,)
    return ("no time-stamp was found",) if walk.has_no_stamps else ()


def _report(directory: Path, chains: Chains) -> Report:
    reports = [chain.report() for chain in chains.values()]
    return Report(tuple(sorted([*reports, *lost_chains(directory)], key=lambda one: one.writer)))
