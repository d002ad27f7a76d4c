"""Where the commands about the audit record read: the record, the checkpoints, what is in force now."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rich_click as click

from broker.audit.log_id import make_log_id, origin_of
from broker.audit.notes import NoteKey
from broker.audit.query import (
    AuditReader,
    Found,
)
from broker.audit.segments import AuditLogRefused
from broker.audit.telling.manifest import ManifestSigner
from broker.audit.telling.placement import Seals
from broker.audit.telling.why import Present
from broker.cli.inputs import settings_from
from broker.cli.stop import Negative
from broker.config import Settings
from broker.errors import TemporarilyUnavailable
from broker.keys.key_files import KeyFileRefused
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.problems import PolicyLoadError
from broker.registry import FileRegistry
from broker.signing import open_audit_signer

NOTHING_KNOWN: Final = (
    "Nothing is known by this id: neither an event, nor a token that was issued.\n"
    "`broker audit query` finds records by what else is known of them."
)
"""What a command says that was given an id in vain."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """
    Whose record it is, by the name in its checkpoints, and who signs for it as far as there is anybody.

    ``before`` is the key of the newest checkpoint.
    """

    origin: str = ""
    signer: ManifestSigner | None = None
    before: NoteKey | None = None


def settings_for(directory: Path | None, config: Path) -> Settings | None:
    """The settings, or ``None`` where a directory was named and there are no settings beside."""
    if directory is not None and not config.exists():
        return None
    return settings_from(config)


def directory_of(directory: Path | None, settings: Settings | None) -> Path:
    """The directory of the record: the one that was named, or that of the settings."""
    place = directory if directory is not None or settings is None else settings.audit.directory
    if place is None or not place.is_dir():
        raise click.UsageError(f"{place} is not a directory.")
    return place


def sealing_of(settings: Settings | None, directory: Path) -> Sealing:
    """Who signs for the record of a directory, and by which key; ends the command where nobody can."""
    if settings is None:
        return Sealing()
    try:
        origin = origin_of(settings.issuer, make_log_id(directory))
        signer = open_audit_signer(settings, origin=origin)
        return Sealing(origin, signer, Seals(directory).signed_by(signer.keys()))
    except (AuditLogRefused, KeyFileRefused) as refused:
        raise Negative(f"{refused}.") from None
    except TemporarilyUnavailable as error:
        raise Negative(f"The audit key cannot be had: {error.detail}.") from None
    except OSError as error:
        raise Negative(f"{directory} cannot be used: {error.strerror}.") from None


def present_of(settings: Settings | None) -> Present:
    """What is in force now; policies that do not load are none."""
    if settings is None:
        return Present()
    registry = FileRegistry(
        settings.clients,
        settings.resources,
        settings.issuers,
        authorization_servers=settings.authorization_servers,
        client_documents=settings.client_documents,
    )
    try:
        disabled = settings.disabled_policies
        return Present(CedarPolicyEngine.load(settings.policies, disabled=disabled), registry)
    except PolicyLoadError:
        return Present(None, registry)


def found_by(reader: AuditReader, name: str) -> Found | None:
    """
    The record of an event, or of the issue of a token.

    The id of a request for several tokens at once finds the first of them.
    """
    return reader.get(name) or reader.of_token(name) or reader.get(f"{name}#1")
