"""The signing keys that the settings ask for: the store that signs, and what rotates them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.audit.seal.anchor import AnchorDocument
from broker.audit.seal.keys import CheckpointSigner, NamedSigner
from broker.config import Settings
from broker.foundation import open_audit_log
from broker.interfaces import AuditLog, KeyStore
from broker.keys.audit_file import AuditKeyFile
from broker.keys.dev import DevKeySmith, DevKeyStore
from broker.keys.journal import KeyJournal
from broker.keys.leaps import LeapGuard
from broker.keys.life import Schedule
from broker.keys.outlook import exposure_of
from broker.keys.record_file import FileRecord
from broker.keys.rotator import Revoked, Rotator
from broker.keys.tender import KeyTender
from broker.keys.witness import KeyWitness
from broker.model import KeyExposure

if TYPE_CHECKING:
    from broker.keys.vault_auth import VaultAuth

_WRITER: Final = "keys"
"""The audit chain in which a broker records what becomes of its keys."""


def schedule_of(settings: Settings) -> Schedule:
    """How the lives of the keys follow each other."""
    times = settings.keys.times
    return Schedule(
        publish_ahead=times.publish_ahead,
        keep_published=times.keep_published,
        poll=times.poll,
        clock_difference=times.clock_difference,
        rotate_every=times.rotate_every,
        has_spare=times.has_spare,
        outage=times.outage,
    )


def open_key_store(settings: Settings, *, worker: str = "") -> KeyStore:
    """
    The configured key store; it starts, and recovers, while Vault is away.

    ``worker`` is the name of this process, by which people find a key that is in its memory.
    """
    keys, schedule = settings.keys, schedule_of(settings)
    if keys.vault is None:
        return DevKeyStore(keys.directory, algorithms=keys.algorithms, schedule=schedule, now=_now)
    # What it takes is loaded where it is used: embedded keys do without.
    from broker.signing_vault import open_vault_key_store  # noqa: PLC0415 - see above.

    return open_vault_key_store(settings, keys.vault, schedule, now=_now, worker=worker)


def open_rotator(settings: Settings, *, auth: "VaultAuth | None" = None) -> Rotator:
    """
    What rotates the configured keys, as far as anything is on record.

    In Vault it logs in by ``auth``, else as the rotator of the settings, else as the broker does.
    """
    keys, schedule = settings.keys, schedule_of(settings)
    if keys.vault is None:
        return Rotator(
            FileRecord(keys.directory),
            DevKeySmith(keys.directory),
            algorithms=keys.algorithms,
            schedule=schedule,
            now=_now,
        )
    from broker.signing_vault import open_vault_rotator  # noqa: PLC0415 - as above.

    return open_vault_rotator(settings, keys.vault, schedule, now=_now, auth=auth)


def open_audit_signer(settings: Settings, *, origin: str) -> CheckpointSigner:
    """What signs the checkpoints of the record of that name; it starts, and recovers, while Vault is away."""
    keys = settings.keys
    if keys.vault is None:
        return NamedSigner(AuditKeyFile(keys.directory), origin=origin)
    from broker.signing_vault import open_vault_audit_key  # noqa: PLC0415 - as above.

    return NamedSigner(open_vault_audit_key(keys.vault), origin=origin)


def open_audit_anchor(settings: Settings, *, log_id: str) -> AnchorDocument | None:
    """Where the checkpoints of a record are anchored; ``None`` where keys are not on record in Vault."""
    vault = settings.keys.vault
    if vault is None or vault.record is None:
        return None
    from broker.signing_vault import open_vault_anchor  # noqa: PLC0415 - as above.

    return open_vault_anchor(vault, vault.record, log_id=log_id)


def open_journal(
    settings: Settings, audit: AuditLog, *, face: str, operator: str = ""
) -> KeyJournal:
    """What announces changes of the configured keys in an audit log."""
    return KeyJournal(
        audit, face=face, operator=operator, exposure=partial(exposure_under, settings)
    )


def exposure_under(settings: Settings, revoked: Revoked) -> KeyExposure:
    """What remains after a revocation, under these settings."""
    tokens = settings.tokens
    longest = max(tokens.lifetime, tokens.machine_lifetime, tokens.id_jag_lifetime)
    return exposure_of(
        revoked,
        schedule=schedule_of(settings),
        max_age=tokens.jwks_max_age,
        longest_token=longest + tokens.leeway,
    )


@contextmanager
def keys_looked_after(settings: Settings) -> Iterator[None]:
    """
    Have keys rotated as they are due, by a broker with the right to, until the end of the block.

    Every state that a key comes into is recorded, whoever may rotate. Raises ``AuditLogRefused``.
    """
    vault = settings.keys.vault
    audit = open_audit_log(settings, writer=_WRITER)
    rotator = open_rotator(settings)
    rotator.journal = open_journal(settings, audit, face="service")
    witness = KeyWitness(rotator, audit)
    times = settings.keys.times
    guard = LeapGuard(_now, allowance=times.clock_difference, patience=times.keep_published)

    def tend() -> None:
        try:
            if vault is None or vault.rotator is not None:
                guard.check()
                rotator.tend()
        finally:
            witness.look()

    tender = KeyTender(tend, interval=times.poll.total_seconds())
    tender.start()
    try:
        yield
    finally:
        tender.close()
        audit.close()


def _now() -> int:
    return int(time.time())
