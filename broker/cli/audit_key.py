"""``broker audit key``: the public key that checkpoints of the audit record are verified with."""

from pathlib import Path

import rich_click as click

from broker.audit.log_id import make_log_id, origin_of
from broker.audit.segments import AuditLogRefused
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option
from broker.cli.stop import Negative
from broker.errors import TemporarilyUnavailable
from broker.keys.key_files import KeyFileRefused
from broker.signing import open_audit_signer


@click.command()
@config_option()
@output_option("table", "json")
def key(config: Path, output: str) -> None:
    """
    Print the public key of the checkpoints, in one word, for auditors to keep.

    A key with several versions has a word for each, the newest first. The name of the record is a part
    of each, and is made here if there was none. Its fingerprint goes to standard error, for the operator and
    the auditor to compare by another way than the key came: `broker audit verify --key` tells it as well.
    """
    settings = settings_from(config)
    try:
        origin = origin_of(settings.issuer, make_log_id(settings.audit.directory))
        keys = open_audit_signer(settings, origin=origin).keys()
    except (AuditLogRefused, KeyFileRefused) as refused:
        raise Negative(f"{refused}.") from None
    except TemporarilyUnavailable as error:
        raise Negative(f"The key cannot be had: {error.detail}.") from None
    except OSError as error:
        raise Negative(f"{settings.audit.directory} cannot be used: {error.strerror}.") from None
    if output == "json":
        fingerprints = [one.fingerprint for one in keys]
        echo_json(
            {"origin": origin, "keys": [one.text for one in keys], "fingerprints": fingerprints}
        )
        return
    for one in keys:
        click.echo(one.text)
        click.echo(f"Fingerprint: {one.fingerprint}", err=True)
