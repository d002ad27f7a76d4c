"""``broker audit compare``: whether the record still says what somebody else received of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.text import Text

from broker.audit.copies.comparing import Expected, compare_copies
from broker.audit.copies.outcome import UNDETECTED, ChainComparison, Comparison, Finding
from broker.audit.copies.reading import CopyPacked
from broker.audit.telling.words import counted
from broker.cli.audit_inputs import print_undetected
from broker.cli.output import console, echo_json, output_option, plain, print_table, print_wrapped
from broker.cli.stop import Negative
from broker.cli.walking import walking

_COLUMNS: Final = ("writer", "in log", "in copy", "from", "to", "lost", "state")
_SPARE: Final = (_COLUMNS.index("from"), _COLUMNS.index("to"), _COLUMNS.index("lost"))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument(
    "copies",
    nargs=-1,
    required=True,
    metavar="COPY...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--complete",
    is_flag=True,
    help="It is a fault as well when the copy lacks a chain, or records between its first and its last.",
)
@click.option(
    "--mixed", is_flag=True, help="It is no fault when the copy has records of other logs as well."
)
@output_option("table", "json")
def compare(
    directory: Path, copies: tuple[Path, ...], *, complete: bool, mixed: bool, output: str
) -> None:
    """
    Compare the record in DIRECTORY with each COPY that somebody else received of it.

    A copy is what a collector got, lines of standard output, what a syslog server wrote to a file, or an
    export; several are taken for parts of one, and - is standard input. Every record of it
    has to be in the files as it is there. It takes no key and no broker: it finds what whoever holds all
    keys has written anew.
    """
    try:
        with walking("comparing") as told:
            compared = compare_copies(
                directory,
                copies,
                Expected(is_complete=complete, is_mixed=mixed),
                processes=len(os.sched_getaffinity(0)),
                progress=told,
            )
    except CopyPacked as packed:
        raise click.UsageError(f"{packed} is compressed: unpack it first (gunzip).") from None
    except OSError as error:
        raise Negative(f"{error.filename or directory} cannot be read: {error.strerror}.") from None
    if not compared.records:
        raise click.UsageError("There is no record in what was brought along.")
    if output == "json":
        echo_json(_members(compared))
    else:
        _print(compared)
    if not compared.is_whole:
        raise Negative("The audit record and the copy differ, or it is not whole.")


def _print(compared: Comparison) -> None:
    screen = console()
    print_wrapped(_headline(compared), indent=2)
    for fault in compared.faults:
        print_wrapped(plain(f"  {fault}", "bold red"), indent=4)
    screen.print()
    heading = [plain(name, "dim") for name in _COLUMNS]
    print_table([heading, *(_cells(one) for one in compared.chains)], spare=_SPARE)
    screen.print()
    for remark in compared.remarks:
        print_wrapped(plain(remark, "yellow"), indent=4)
    print_undetected(UNDETECTED)


def _headline(compared: Comparison) -> Text:
    counts = f"{counted(compared.records, 'record')}, {compared.matching} as they are"
    if compared.is_whole:
        return plain(f"✔ the log has what the copy has: {counts}", "bold green")
    found = {
        "changed": compared.changed,
        "relinked": compared.relinked,
        "missing": compared.missing,
        "foreign": compared.foreign,
        "lost": compared.lost,
    }
    told = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    if not told:
        return plain(f"✖ the log is not whole, and has what the copy has: {counts}", "bold red")
    return plain(f"✖ the log and the copy differ: {told}", "bold red")


def _cells(one: ChainComparison) -> Sequence[Text]:
    ends = ["-" if end is None else end for end in (one.first, one.last)]
    cells = (one.writer, one.in_log, one.in_copy, *ends, one.lost, _state(one))
    return [plain(cell) for cell in cells]


def _state(one: ChainComparison) -> str:
    counts = {"changed": one.changed, "relinked": one.relinked, "missing": one.missing}
    told = [f"{count} {name}" for name, count in counts.items() if count]
    if one.has_fault:
        told.append("not whole")
    if told:
        return f"✖ {', '.join(told)}"
    return "✔ as received" if one.in_copy else "? not in the copy"


def _members(compared: Comparison) -> dict[str, Any]:
    return {
        "is_intact": compared.is_whole,
        "log": compared.log_id,
        "records": compared.records,
        "matching": compared.matching,
        "rewritten": compared.rewritten,
        "repeated": compared.repeated,
        "changed": compared.changed,
        "relinked": compared.relinked,
        "missing": compared.missing,
        "foreign": compared.foreign,
        "compared_by_hash": compared.by_hash,
        "lost": compared.lost,
        "lines_unread": compared.unread,
        "other_logs": dict(compared.other_logs),
        "faults": [_fault_members(one) for one in compared.faults],
        "chains": [_chain_members(one) for one in compared.chains],
        "remarks": list(compared.remarks),
        "undetected": list(UNDETECTED),
    }


def _fault_members(one: Finding) -> dict[str, Any]:
    return {
        "wrong": one.wrong,
        "file": one.place and one.place.file,
        "line": one.place and one.place.line,
        "sentence": str(one),
    }


def _chain_members(one: ChainComparison) -> dict[str, Any]:
    return {
        "writer": one.writer,
        "in_log": one.in_log,
        "in_copy": one.in_copy,
        "first": one.first,
        "last": one.last,
        "changed": one.changed,
        "relinked": one.relinked,
        "missing": one.missing,
        "lost": one.lost,
    }
