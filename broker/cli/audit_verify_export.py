"""``broker audit verify-export``: whether an export is what its manifest says, offline."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import rich_click as click
from rich.text import Text

from broker.audit.notes import NoteKey
from broker.audit.telling.export import ExportRefused, check_export
from broker.audit.telling.manifest import Manifest
from broker.audit.telling.words import counted
from broker.cli.audit_inputs import key_option, print_keys, read_keys
from broker.cli.output import echo_json, output_option, plain, print_wrapped
from broker.cli.stop import Negative


@click.command("verify-export")
@click.argument("manifest", type=click.Path(path_type=Path))
@key_option(is_required=True)
@output_option("text", "json")
def verify_export(manifest: Path, keys: Sequence[str], output: str) -> None:
    """
    Verify the MANIFEST of an export and the file that it tells of, beside it.

    The manifest has to be signed by one of the keys, and the file has to be the one it was made for. It
    takes neither settings nor a network. What the export itself says that it leaves out is told.
    """
    try:
        known = read_keys(keys)
        told = check_export(manifest, known)
    except ExportRefused as refused:
        raise Negative(f"{refused}.") from None
    except OSError as error:
        raise Negative(f"{error.filename} cannot be read: {error.strerror}.") from None
    if output == "json":
        echo_json({"is_whole": True, "is_complete": not told.unread, **asdict(told)})
    else:
        _print(told, known)


def _print(told: Manifest, keys: Sequence[NoteKey]) -> None:
    headline = "✔ the export is what its manifest says"
    if told.unread:
        print_wrapped(
            plain(f"{headline}: it is not all that was asked for", "bold yellow"), indent=2
        )
    else:
        print_wrapped(Text(headline, style="green"))
    for fault in told.unread.values():
        print_wrapped(plain(f"! it leaves something out: {fault}", "bold red"), indent=2)
    checkpoint = told.checkpoint
    under = f"{counted(checkpoint.size, 'record')}, {checkpoint.digest}" if checkpoint else "none"
    rows = (
        ("log", told.origin or "without a name"),
        ("records", told.count),
        ("format", told.format),
        ("query", told.query),
        ("made", f"{told.time} by {told.by}"),
        ("checkpoint", under),
        ("file", f"{told.file}, SHA-256 {told.sha256}"),
    )
    for name, value in rows:
        print_wrapped(plain(f"{name:<11} ", "cyan").append_text(plain(value)), indent=12)
    print_keys([key for key in keys if key.name == told.origin])
