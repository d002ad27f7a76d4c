"""``broker audit prove``: the proof that a record is in the log, for somebody who has neither."""

from pathlib import Path

import rich_click as click

from broker.audit.merkle import ProofRefused
from broker.audit.notes import NoteRefused
from broker.audit.seal.integrity import NotSealed
from broker.audit.seal.prover import Prover
from broker.audit.segments import AuditLogRefused
from broker.cli.audit_asking import asked_reader
from broker.cli.audit_inputs import key_option, read_keys
from broker.cli.audit_sources import NOTHING_KNOWN, directory_of, found_by, settings_for
from broker.cli.inputs import config_option
from broker.cli.stop import Negative


@click.command()
@click.argument("name", metavar="JTI|EVENT_ID")
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@key_option()
@config_option()
def prove(name: str, directory: Path | None, *, keys: tuple[str, ...], config: Path) -> None:
    """
    Print the proof of the record of an event, or of the issue of a token (C2SP tlog-proof).

    It is read in DIRECTORY, or in the one that the settings name. Whoever has the public key of the log
    verifies it with `broker audit verify-proof`, and needs nothing else. A record is proved from the next
    checkpoint on, which comes within `audit.seal.every`.
    """
    place = directory_of(directory, settings_for(directory, config))
    known = read_keys(keys)
    with asked_reader(place, config) as reader:
        found = found_by(reader, name)
    if found is None:
        raise Negative(NOTHING_KNOWN)
    record = found.record
    try:
        text = Prover(place, lambda: known).prove(record.writer, record.seq)
    except NotSealed:
        raise Negative(
            f"The record of {record.writer} with seq {record.seq} is in no checkpoint yet. A broker that "
            "seals writes the next one within `audit.seal.every`: ask again then."
        ) from None
    except (AuditLogRefused, ProofRefused, NoteRefused) as refused:
        raise Negative(f"{refused}. `broker audit verify` tells what this means.") from None
    except OSError as error:
        raise Negative(f"{place} cannot be read: {error.strerror}.") from None
    click.echo(text, nl=False)
