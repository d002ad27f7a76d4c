"""The signing keys that the settings ask for: the store that signs, and what rotates them."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from broker.config import Settings
from broker.config.settings import (
    KeySettings,
    RecordSettings,
    VaultAuthSettings,
    VaultSettings,
)
from broker.foundation import open_audit_log
from broker.interfaces import AuditLog, KeyStore
from broker.keys.board import StatementBoard
from broker.keys.book import KeyBook
from broker.keys.dev import DevKeySmith, DevKeyStore
from broker.keys.ephemeral import (
    Certifier,
    EphemeralKeys,
    StatedKey,
    replica_name,
    stated_keys,
)
from broker.keys.followed import FollowedKeys
from broker.keys.journal import KeyJournal
from broker.keys.leaps import LeapGuard
from broker.keys.life import Schedule
from broker.keys.outlook import exposure_of
from broker.keys.record import NoRecord, RecordStore
from broker.keys.record_file import FileRecord
from broker.keys.record_vault import VaultDocument, VaultRecord
from broker.keys.rotator import Revoked, Rotator
from broker.keys.statement import certifiers_of
from broker.keys.tender import KeyTender
from broker.keys.transit_smith import TransitSmith
from broker.keys.vault_auth import AppRoleAuth, KubernetesAuth, TokenFileAuth, VaultAuth
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.keys.vault_export import VaultExportKeyStore
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore
from broker.keys.witness import KeyWitness
from broker.model import KeyExposure

# Making an RSA key takes Vault seconds at times.
_ROTATOR_TIMEOUT: Final = 15.0
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
    followed = _follow(keys, keys.vault, schedule)
    if keys.store == "vault-export":
        return VaultExportKeyStore(followed)
    if keys.vault.ephemeral is None or keys.vault.record is None:
        return VaultTransitKeyStore(followed)
    own = EphemeralKeys(
        _board(followed.session, keys.vault.record),
        _certifier(settings.issuer, keys.vault, followed.session, worker=worker),
        followed.book,
        algorithms=keys.algorithms,
    )
    poll = schedule.poll.total_seconds()
    return VaultEphemeralKeyStore(own, VaultTransitKeyStore(followed), poll=poll)


def _certifier(
    issuer: str, vault: VaultSettings, session: VaultSession, *, worker: str = ""
) -> Certifier:
    ephemeral = vault.ephemeral
    if ephemeral is None:
        raise ValueError("no certifier is configured")
    return Certifier(
        session,
        mount=vault.mount,
        key_name=ephemeral.certifier,
        issuer=issuer,
        replica=replica_name(socket.gethostname(), worker),
        lifetime=ephemeral.lifetime,
    )


def _board(session: VaultSession, record: RecordSettings) -> StatementBoard:
    path = f"{record.path}/statements"
    return StatementBoard(VaultDocument(session, mount=record.mount, path=path))


def _follow(keys: KeySettings, vault: VaultSettings, schedule: Schedule) -> FollowedKeys:
    session = VaultSession(_vault_server(vault), auth=_vault_auth(vault.auth))
    return FollowedKeys(
        session,
        KeyBook(schedule, now=_now, records=_vault_record(session, vault.record)),
        keys=_transit_keys(keys, vault),
        mount=vault.mount,
    )


def open_rotator(settings: Settings, *, auth: VaultAuth | None = None) -> Rotator:
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
    vault = keys.vault
    session = VaultSession(
        _vault_server(vault, read_timeout=_ROTATOR_TIMEOUT),
        auth=auth or _vault_auth(vault.rotator or vault.auth),
    )

    return Rotator(
        _vault_record(session, vault.record),
        TransitSmith(session, keys=_transit_keys(keys, vault), mount=vault.mount),
        algorithms=keys.algorithms,
        schedule=schedule,
        now=_now,
        stated=_stated(settings, vault, session),
    )


def _stated(
    settings: Settings, vault: VaultSettings, session: VaultSession
) -> Callable[[], Sequence[StatedKey]] | None:
    """What reads the statements of keys in memory, where keys are there."""
    if vault.ephemeral is None or vault.record is None:
        return None
    board = _board(session, vault.record)
    certifier = _certifier(settings.issuer, vault, session)
    ahead = int(settings.keys.times.clock_difference.total_seconds())

    def stated() -> Sequence[StatedKey]:
        return stated_keys(
            board.read(),
            certifiers_of(certifier.versions()),
            issuer=settings.issuer,
            now=_now() + ahead,
        )

    return stated


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


def _vault_server(vault: VaultSettings, *, read_timeout: float = 1.0) -> VaultServer:
    return VaultServer(
        vault.url, namespace=vault.namespace, ca_file=vault.ca_file, read_timeout=read_timeout
    )


def _vault_record(session: VaultSession, record: RecordSettings | None) -> RecordStore:
    if record is None:
        return NoRecord()
    path = f"{record.path}/record"
    return VaultRecord(VaultDocument(session, mount=record.mount, path=path))


def _transit_keys(keys: KeySettings, vault: VaultSettings) -> Mapping[str, str]:
    return {algorithm: vault.keys[algorithm] for algorithm in keys.algorithms}


def _vault_auth(auth: VaultAuthSettings) -> VaultAuth:
    if auth.method == "approle" and auth.role_id_file and auth.secret_id_file:
        return AppRoleAuth(auth.role_id_file, auth.secret_id_file, auth.mount or "approle")
    if auth.method == "kubernetes" and auth.jwt_file:
        return KubernetesAuth(auth.role, auth.jwt_file, auth.mount or "kubernetes")
    if auth.method == "token_file" and auth.token_file:
        return TokenFileAuth(auth.token_file)
    raise ValueError(f"the settings of the Vault login {auth.method!r} are incomplete")


def _now() -> int:
    return int(time.time())
