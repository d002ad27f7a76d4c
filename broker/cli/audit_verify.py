"""``broker audit verify``: whether the audit record is whole, and how far anybody else can be sure of it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.text import Text

from broker.audit.diagnosis import Fault
from broker.audit.notes import NoteKey
from broker.audit.reader import missing_chain
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.receipts import Seen
from broker.audit.seal.sealed import Sealed
from broker.audit.segments import writer_of
from broker.audit.telling.words import counted
from broker.audit.verify import ChainReport
from broker.cli.audit_inputs import (
    audit_directory,
    key_members,
    print_keys,
    print_undetected,
    trust_from,
    trust_options,
)
from broker.cli.inputs import config_option
from broker.cli.output import (
    console,
    echo_json,
    output_option,
    plain,
    print_table,
    print_wrapped,
)
from broker.cli.stop import Negative
from broker.cli.walking import walking

_COLUMNS: Final = ("writer", "segments", "records", "first", "last", "state")
_SPARE: Final = (_COLUMNS.index("first"), _COLUMNS.index("segments"))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@trust_options
@config_option()
@output_option("table", "json")
def verify(
    directory: Path | None,
    *,
    config: Path,
    output: str,
    **brought: Any,
) -> None:
    """
    Verify the record in DIRECTORY, or in the one that the settings name.

    The chains of records always; with the public key of its checkpoints also that nobody has changed them
    since, whoever can write the files. The first fault is named with its file and line, and what cannot be
    shown is said as well. It needs nothing but the files, and works on a copy.
    """
    place = audit_directory(directory, config)
    trust = trust_from(**brought)
    try:
        with walking("verifying") as told:
            cores = len(os.sched_getaffinity(0))
            evidence = verify_log(place, trust, processes=cores, progress=told)
    except OSError as error:
        raise Negative(f"{place} cannot be read: {error.strerror}.") from None
    if evidence.is_whole and not evidence.report.records:
        raise click.UsageError(f"{place} holds no audit record: no chain, and no checkpoint.")
    chains = _chains(evidence, place)
    if output == "json":
        echo_json(_members(evidence, chains, trust.keys))
    else:
        _print(evidence, chains, trust.keys)
    if not evidence.is_whole:
        raise Negative(
            "The audit record is not whole. Keep it as it is.\n"
            "docs/audit.md tells what each kind of fault means."
        )


def _chains(evidence: Evidence, directory: Path) -> Sequence[ChainReport]:
    """Every chain with its first fault, also where only a checkpoint or a receipt tells, and those gone."""
    faults = {
        writer_of(one.place.file.name): one
        for one in reversed(evidence.all_faults)
        if one.place.file.parent == directory
    }
    chains = {
        one.writer: one if one.fault is not None else replace(one, fault=faults.get(one.writer))
        for one in evidence.report.chains
    }
    gone = {
        writer: missing_chain(writer, fault)
        for writer, fault in faults.items()
        if writer and writer not in chains
    }
    return [one for _, one in sorted({**chains, **gone}.items())]


def _print(evidence: Evidence, chains: Sequence[ChainReport], keys: Sequence[NoteKey]) -> None:
    print_wrapped(_headline(evidence), indent=2)
    for fault in evidence.all_faults:
        told = Text.assemble("  ", (fault.wrong, "bold red"), "  ", plain(fault, "red"))
        print_wrapped(told, indent=4)
    console().print()
    heading = [plain(name, "dim") for name in _COLUMNS]
    broken = _broken_off(evidence)
    rows = [_cells(one, is_broken_off=one.writer in broken) for one in chains]
    print_table([heading, *rows], spare=_SPARE)
    console().print()
    for line in _told(evidence):
        print_wrapped(line, indent=2)
    print_keys(keys)
    print_undetected(evidence.undetected, before=f"Verified with {evidence.mode.value}.")


def _broken_off(evidence: Evidence) -> frozenset[str]:
    """The writers of the chains that were not looked at behind their fault."""
    return frozenset(
        one.writer for one in evidence.report.chains if one.fault is not None and one.segments
    )


def _headline(evidence: Evidence) -> Text:
    records = counted(evidence.report.records, "record")
    if not evidence.is_whole:
        faults = counted(len(evidence.all_faults), "fault")
        return plain(f"✖ not whole: {faults}, the first of each chain or list", "bold red")
    if evidence.sealed is None:
        told = f"✔ whole as far as its chains show: {records}; --key checks the seals too"
    elif not evidence.sealed.checkpoints:
        told = f"✔ whole, and nothing is sealed: {records}"
    else:
        told = f"✔ whole: {records}, {evidence.sealed.records} sealed until {evidence.sealed.until}"
    return plain(told, "bold green")


def _told(evidence: Evidence) -> Iterator[Text]:
    """What was checked, and what was seen on the way."""
    broken = _broken_off(evidence)
    for chain in evidence.report.chains:
        if chain.writer in broken:
            told = f"{counted(chain.records, 'record')} fit; what comes after the fault was not looked at."
            yield plain(f"{chain.writer}: {told}", "yellow")
        for group in chain.unfinished_groups:
            told = f"the group {group} was cut short; none of its tokens left the broker."
            yield plain(f"{chain.writer}: {told}", "yellow")
    for remark in evidence.remarks:
        yield plain(f"Note: {remark}.", "yellow")
    for seen in evidence.seen:
        yield plain(f"{_MARKS[seen.is_there]} receipt {seen.receipt.text}: {seen.sentence}.")
    if evidence.sealed is not None and evidence.sealed.checkpoints:
        yield from _sealing(evidence.sealed, is_whole=evidence.is_whole)


_MARKS: Final = {True: "✔", False: "✖", None: "?"}


def _sealing(sealed: Sealed, *, is_whole: bool) -> Iterator[Text]:
    checkpoints = f"{counted(sealed.checkpoints, 'checkpoint')} of {sealed.origin}"
    signed = (
        "is signed by the key"
        if sealed.checkpoints == 1
        else "are signed by the key, follow one another"
    )
    seal = "seals" if sealed.checkpoints == 1 else "seal"
    records = counted(sealed.records, "record")
    yield plain(
        f"{checkpoints} {signed}, and {seal} {records} exactly as found here, until {sealed.until}."
    )
    if sealed.anchors:
        are = "is" if sealed.anchors == 1 else "are"
        kept = counted(sealed.anchors, "checkpoint")
        yield plain(f"{kept} kept elsewhere {are} among them.")
    if sealed.stamps:
        stamps = counted(sealed.stamps, "time-stamp")
        yield plain(f"{stamps} checked, the newest made at {sealed.stamped_until}.")
    if sealed.unsealed:
        last = "the last checkpoint" if is_whole else "the last checkpoint that fits the record"
        records = counted(sealed.unsealed, "record")
        yield plain(f"{records} came after {last}, protected by the chains alone so far.", "yellow")


def _cells(one: ChainReport, *, is_broken_off: bool) -> list[Text]:
    records = f"first {one.records}" if is_broken_off else one.records
    times = (one.first_time or "-", one.last_time or "-")
    values = (one.writer, one.segments, records, *times)
    style = "green" if one.fault is None else "bold red"
    return [*map(plain, values), plain(_state(one), style)]


def _state(one: ChainReport) -> str:
    if one.fault is not None:
        return f"✖ {one.fault.wrong}"
    return "✔ whole, closed" if one.is_closed else "✔ whole, open"


def _members(
    evidence: Evidence, chains: Sequence[ChainReport], keys: Sequence[NoteKey]
) -> dict[str, Any]:
    return {
        "is_intact": evidence.is_whole,
        "verified_with": evidence.mode.name.lower(),
        "records": evidence.report.records,
        "faults": [_fault_members(one) for one in evidence.all_faults],
        "chains": [_chain_members(one) for one in chains],
        "keys": key_members(keys),
        "sealed": evidence.sealed and _sealed_members(evidence.sealed),
        "receipts": [_seen_members(one) for one in evidence.seen],
        "remarks": list(evidence.remarks),
        "undetected": list(evidence.undetected),
    }


def _fault_members(one: Fault) -> dict[str, Any]:
    place = one.place
    return {"wrong": one.wrong, "file": place.file, "line": place.line, "sentence": str(one)}


def _sealed_members(sealed: Sealed) -> dict[str, Any]:
    return {
        "origin": sealed.origin,
        "checkpoints": sealed.checkpoints,
        "records": sealed.records,
        "until": sealed.until,
        "records_after": sealed.unsealed,
        "anchors": sealed.anchors,
        "time_stamps": sealed.stamps,
        "time_stamped_until": sealed.stamped_until,
    }


def _seen_members(seen: Seen) -> dict[str, Any]:
    return {"receipt": seen.receipt.text, "is_there": seen.is_there, "sentence": seen.sentence}


def _chain_members(one: ChainReport) -> dict[str, Any]:
    return {
        "writer": one.writer,
        "segments": one.segments,
        "records": one.records,
        "first_time": one.first_time,
        "last_time": one.last_time,
        "torn_bytes": one.torn_bytes,
        "unended_bytes": one.unended_bytes,
        "is_closed": one.is_closed,
        "unfinished_groups": list(one.unfinished_groups),
        "fault": one.fault and _fault_members(one.fault),
    }
