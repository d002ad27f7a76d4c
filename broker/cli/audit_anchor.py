"""``broker audit anchor``: the checkpoint that is kept outside the record, for an auditor to keep as well."""

from pathlib import Path

import rich_click as click

from broker.audit.log_id import read_log_id
from broker.audit.seal.anchor import anchored_note
from broker.audit.segments import AuditLogRefused
from broker.cli.inputs import config_option, settings_from
from broker.cli.stop import Negative
from broker.errors import TemporarilyUnavailable
from broker.signing import open_audit_anchor


@click.command()
@config_option()
def anchor(config: Path) -> None:
    """
    Print the newest checkpoint that is anchored in Vault, as the signed note that it is.

    Whoever keeps it can tell later that the record was not rolled back: `broker audit verify --anchor`.
    """
    settings = settings_from(config)
    try:
        log_id = read_log_id(settings.audit.directory)
    except (AuditLogRefused, OSError) as refused:
        raise Negative(f"{refused}.") from None
    if log_id is None:
        raise Negative(f"{settings.audit.directory} was never sealed.")
    document = open_audit_anchor(settings, log_id=log_id)
    if document is None:
        raise Negative("Nothing is anchored: the settings have no keys.vault.record.")
    try:
        note = anchored_note(document)
    except TemporarilyUnavailable as error:
        raise Negative(f"The anchor cannot be read: {error.detail}.") from None
    if note is None:
        raise Negative("Nothing is anchored yet.")
    click.echo(note, nl=False)
