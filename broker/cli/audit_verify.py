"""``broker audit verify``: whether the audit record is whole, and how far anybody else can be sure of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.text import Text

from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.receipts import Seen
from broker.audit.seal.sealed import Sealed
from broker.audit.verify import ChainReport
from broker.cli.audit_inputs import audit_directory, trust_from, trust_options
from broker.cli.inputs import config_option
from broker.cli.output import console, echo_json, output_option, plain, print_columns
from broker.cli.stop import Negative
from broker.cli.walking import walking

_COLUMNS: Final = ("writer", "segments", "records", "first", "last", "state")


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
    if output == "json":
        echo_json(_members(evidence))
    else:
        _print(evidence)
    if not evidence.is_whole:
        raise Negative("The audit record is not whole.")


def _print(evidence: Evidence) -> None:
    screen = console()
    screen.print(_headline(evidence))
    for fault in evidence.all_faults:
        screen.print(plain(f"  {fault}", "bold red"))
    screen.print()
    heading = [plain(name, "dim") for name in _COLUMNS]
    wrong = _wrong(evidence)
    print_columns([heading, *(_cells(one, wrong) for one in evidence.report.chains)])
    screen.print()
    for line in _told(evidence):
        screen.print(line)


def _headline(evidence: Evidence) -> Text:
    count = evidence.report.records
    if not evidence.is_whole:
        number = len(evidence.all_faults)
        faults = "1 fault" if number == 1 else f"{number} faults"
        return plain(f"✖ not whole: {faults}, the first of each chain or list", "bold red")
    if evidence.sealed is None:
        told = f"✔ whole as far as its chains show: {count} records; nothing is shown by a key"
    elif not evidence.sealed.checkpoints:
        told = f"✔ whole, and nothing is sealed: {count} records"
    else:
        told = f"✔ whole: {count} records, {evidence.sealed.records} sealed until {evidence.sealed.until}"
    return plain(told, "bold green")


def _told(evidence: Evidence) -> Iterator[Text]:
    """What was checked, what was seen on the way, and what none of it can show."""
    for chain in evidence.report.chains:
        for group in chain.unfinished_groups:
            told = f"the group {group} was cut short; none of its tokens left the broker."
            yield plain(f"{chain.writer}: {told}", "yellow")
    for remark in evidence.remarks:
        yield plain(f"{remark}.", "yellow")
    for seen in evidence.seen:
        yield plain(f"{_MARKS[seen.is_there]} receipt {seen.receipt.text}: {seen.sentence}.")
    if evidence.sealed is not None and evidence.sealed.checkpoints:
        yield from _sealing(evidence.sealed, is_whole=evidence.is_whole)
    yield plain(f"Verified with {evidence.mode.value}. Undetectable by this:")
    for one in evidence.undetected:
        yield plain(f"  - {one}")


_MARKS: Final = {True: "✔", False: "✖", None: "?"}


def _sealing(sealed: Sealed, *, is_whole: bool) -> Iterator[Text]:
    yield plain(
        f"{sealed.checkpoints} checkpoints of {sealed.origin} are signed by the key, follow one "
        f"another, and seal {sealed.records} records as they are here, until {sealed.until}."
    )
    if sealed.anchors:
        yield plain(f"{sealed.anchors} checkpoints that were kept elsewhere are among them.")
    if sealed.stamps:
        yield plain(
            f"{sealed.stamps} time-stamps of them are right, the last of {sealed.stamped_until}."
        )
    if sealed.unsealed:
        last = "the last checkpoint" if is_whole else "the last checkpoint that fits the record"
        yield plain(
            f"{sealed.unsealed} records came after {last}: only their chains hold them yet.",
            "yellow",
        )


def _wrong(evidence: Evidence) -> dict[str, str]:
    """What is wrong with each chain, by its writer, also where only the checkpoints tell."""
    names = {Path(one.place.file).name: str(one.wrong) for one in reversed(evidence.all_faults)}
    return {
        name.partition(".")[0]: wrong for name, wrong in names.items() if name.endswith(".jsonl")
    }


def _cells(one: ChainReport, wrong: dict[str, str]) -> list[Text]:
    counts = (one.segments, one.records)
    state = _state(one, wrong.get(one.writer))
    return [plain(cell) for cell in (one.writer, *counts, one.first_time, one.last_time, state)]


def _state(one: ChainReport, wrong: str | None) -> str:
    if one.fault is not None:
        return f"✖ {one.fault.wrong}"
    if wrong is not None:
        return f"✖ {wrong}"
    return "✔ whole, closed" if one.is_closed else "✔ whole, open"


def _members(evidence: Evidence) -> dict[str, Any]:
    return {
        "is_intact": evidence.is_whole,
        "verified_with": evidence.mode.name.lower(),
        "records": evidence.report.records,
        "faults": [
            {
                "wrong": one.wrong,
                "file": one.place.file,
                "line": one.place.line,
                "sentence": str(one),
            }
            for one in evidence.all_faults
        ],
        "chains": [_chain_members(one) for one in evidence.report.chains],
        "sealed": evidence.sealed and _sealed_members(evidence.sealed),
        "receipts": [_seen_members(one) for one in evidence.seen],
        "remarks": list(evidence.remarks),
        "undetected": list(evidence.undetected),
    }


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
        "fault": one.fault and {"wrong": one.fault.wrong, "sentence": str(one.fault)},
    }
