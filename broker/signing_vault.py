"""The signing keys that live in Vault or OpenBao: the stores that sign with them, and what rotates them."""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from broker.config import Settings
from broker.config.settings import KeySettings, RecordSettings, VaultAuthSettings, VaultSettings
from broker.interfaces import KeyStore, Now
from broker.keys.board import StatementBoard
from broker.keys.book import KeyBook
from broker.keys.ephemeral import (
    Certifier,
    EphemeralKeys,
    StatedKey,
    replica_name,
    stated_keys,
)
from broker.keys.followed import FollowedKeys
from broker.keys.life import Schedule
from broker.keys.record import NoRecord, RecordStore
from broker.keys.record_vault import VaultDocument, VaultRecord
from broker.keys.rotator import Rotator
from broker.keys.statement import certifiers_of
from broker.keys.transit_smith import TransitSmith
from broker.keys.vault_audit import VaultAuditKey
from broker.keys.vault_auth import AppRoleAuth, KubernetesAuth, TokenFileAuth, VaultAuth
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.keys.vault_export import VaultExportKeyStore
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore

# Making an RSA key takes Vault seconds at times.
_ROTATOR_TIMEOUT: Final = 15.0


def open_vault_key_store(
    settings: Settings, vault: VaultSettings, schedule: Schedule, *, now: Now, worker: str
) -> KeyStore:
    """
    The store that signs with the configured keys of Vault; it starts, and recovers, while Vault is away.

    ``worker`` is the name of this process, by which people find a key that is in its memory.
    """
    keys = settings.keys
    followed = _follow(keys, vault, schedule, now)
    if keys.store == "vault-export":
        return VaultExportKeyStore(followed)
    if vault.ephemeral is None or vault.record is None:
        return VaultTransitKeyStore(followed)
    own = EphemeralKeys(
        _board(followed.session, vault.record),
        _certifier(settings.issuer, vault, followed.session, worker=worker),
        followed.book,
        algorithms=keys.algorithms,
    )
    poll = schedule.poll.total_seconds()
    return VaultEphemeralKeyStore(own, VaultTransitKeyStore(followed), poll=poll)


def open_vault_rotator(
    settings: Settings,
    vault: VaultSettings,
    schedule: Schedule,
    *,
    now: Now,
    auth: VaultAuth | None = None,
) -> Rotator:
    """
    What rotates the configured keys of Vault, as far as anything is on record.

    It logs in by ``auth``, else as the rotator of the settings, else as the broker does.
    """
    keys = settings.keys
    session = VaultSession(
        vault_server(vault, read_timeout=_ROTATOR_TIMEOUT),
        auth=auth or vault_auth(vault.rotator or vault.auth),
    )
    return Rotator(
        _vault_record(session, vault.record),
        TransitSmith(session, keys=_transit_keys(keys, vault), mount=vault.mount),
        algorithms=keys.algorithms,
        schedule=schedule,
        now=now,
        stated=_stated(settings, vault, session, now),
    )


def open_vault_audit_key(vault: VaultSettings) -> VaultAuditKey:
    """The key that seals the audit record."""
    session = VaultSession(vault_server(vault), auth=vault_auth(vault.auth))
    return VaultAuditKey(session, name=vault.audit_key, mount=vault.mount)


def open_vault_anchor(
    vault: VaultSettings, record: RecordSettings, *, log_id: str
) -> VaultDocument:
    """The document in which the newest checkpoint of an audit record is anchored."""
    session = VaultSession(vault_server(vault), auth=vault_auth(vault.auth))
    return VaultDocument(session, mount=record.mount, path=f"{record.path}/checkpoint/{log_id}")


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


def _follow(keys: KeySettings, vault: VaultSettings, schedule: Schedule, now: Now) -> FollowedKeys:
    session = VaultSession(vault_server(vault), auth=vault_auth(vault.auth))
    return FollowedKeys(
        session,
        KeyBook(schedule, now=now, records=_vault_record(session, vault.record)),
        keys=_transit_keys(keys, vault),
        mount=vault.mount,
    )


def _stated(
    settings: Settings, vault: VaultSettings, session: VaultSession, now: Now
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
            now=now() + ahead,
        )

    return stated


def vault_server(vault: VaultSettings, *, read_timeout: float = 1.0) -> VaultServer:
    """Where Vault is; ``read_timeout`` is in seconds."""
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


def vault_auth(auth: VaultAuthSettings) -> VaultAuth:
    """How to log in."""
    if auth.method == "approle" and auth.role_id_file and auth.secret_id_file:
        return AppRoleAuth(auth.role_id_file, auth.secret_id_file, auth.mount or "approle")
    if auth.method == "kubernetes" and auth.jwt_file:
        return KubernetesAuth(auth.role, auth.jwt_file, auth.mount or "kubernetes")
    if auth.method == "token_file" and auth.token_file:
        return TokenFileAuth(auth.token_file)
    raise ValueError(f"the settings of the Vault login {auth.method!r} are incomplete")
