"""``broker audit export``: records as a file for other systems, with a manifest that the audit key signs."""

import time
from pathlib import Path
from typing import Any

import rich_click as click

from broker.audit.record import rfc3339
from broker.audit.segments import AuditLogRefused
from broker.audit.telling.export import MANIFEST, Exported, ExportRefused, write_export
from broker.audit.telling.formats import FORMATS
from broker.audit.telling.manifest import Manifest, Standing, query_text
from broker.audit.telling.placement import Seals
from broker.audit.telling.words import counted
from broker.cli.audit_asking import (
    asked_reader,
    directory_argument,
    filter_options,
    query_of,
    tell_faults,
)
from broker.cli.audit_sources import (
    Sealing,
    directory_of,
    sealing_of,
    settings_for,
)
from broker.cli.inputs import config_option
from broker.cli.output import plain, print_wrapped
from broker.cli.recording import account
from broker.cli.stop import Negative
from broker.errors import TemporarilyUnavailable


@click.command()
@directory_argument()
@click.option(
    "--format",
    "format_name",
    type=click.Choice(tuple(FORMATS)),
    default="ndjson",
    show_default=True,
    help="How the records are written.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR_OR_FILE",
    help="The file to write, which must not be there, or a directory for it.",
)
@click.option("--unsigned", is_flag=True, help="Do without the key; nobody can verify the export.")
@click.option("--rebuild", is_flag=True, help="Make the index anew from the records first.")
@filter_options()
@config_option()
def export(
    directory: Path | None,
    format_name: str,
    target: Path,
    config: Path,
    *,
    unsigned: bool,
    rebuild: bool,
    **filters: Any,
) -> None:
    """
    Write the records that meet the filters, of DIRECTORY or of the one that the settings name, to a file.

    Beside it comes a manifest, in a file of the same name with .manifest behind: what was asked for, how
    many records there are, the first and the last of them, the SHA-256 of the file and the checkpoint that
    the record stood under. The audit key of the settings signs it. `broker audit verify-export` verifies
    both, anywhere, with the public key alone. The records come from an index; one that was made by others
    may leave some out, and --rebuild makes it anew.
    """
    settings = settings_for(directory, config)
    place = directory_of(directory, settings)
    query, chosen = query_of(filters), FORMATS[format_name]
    sealing = Sealing() if unsigned else sealing_of(settings, place)
    if sealing.signer is None and not unsigned:
        raise click.UsageError(
            "Without the settings there is no key to sign the manifest with: name them with --config, "
            "or use --unsigned."
        )
    now = rfc3339(time.time())
    to = target
    if target.is_dir():
        to = target / f"audit-{now[:19].replace(':', '')}Z.{chosen.suffix}"
    with asked_reader(place, config, is_anew=rebuild) as reader:
        under = _standing(Seals(place))

        def manifest(exported: Exported) -> str:
            told = Manifest(
                origin=sealing.origin,
                format=chosen.name,
                query=query_text(query),
                count=exported.count,
                first=exported.first,
                last=exported.last,
                file=to.name,
                size=exported.size,
                sha256=exported.sha256,
                checkpoint=under,
                unread=reader.extent().faults,
                time=now,
                by=account(),
            )
            return (
                told.text
                if sealing.signer is None
                else told.signed(sealing.signer, before=sealing.before)
            )

        try:
            exported = write_export(reader, query, chosen, to=to, manifest=manifest)
        except ExportRefused as refused:
            raise Negative(f"{refused}.") from None
        except TemporarilyUnavailable as away:
            raise Negative(f"The manifest could not be signed: {away.detail}.") from None
        told = f"{counted(exported.count, 'record')} written to {to}, and the manifest to {to.name}{MANIFEST}"
        print_wrapped(plain(told), indent=2)
        tell_faults(reader)


def _standing(seals: Seals) -> Standing | None:
    try:
        latest = seals.latest()
    except AuditLogRefused as refused:
        raise Negative(f"{refused}.") from None
    return None if latest is None else Standing(latest.digest, latest.size)
