"""The composition root: settings in, the parts of one process out."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from broker import __version__
from broker.assembly import Parts, TokenRules, assemble
from broker.audit.log import FileAuditLog
from broker.client_auth.secrets import CHOSEN_PREFIX
from broker.config import Settings
from broker.config.settings import KeySettings, VaultAuthSettings, VaultSettings
from broker.endpoints import Endpoints
from broker.errors import OAuthError, Reason, TemporarilyUnavailable
from broker.fetch import GuardedFetcher
from broker.in_force import Configuration, InForce, OneConfigurationPerEntry
from broker.interfaces import AuditLog, KeyStore
from broker.issuers import FetchedClientDocuments, IssuerKeyRing
from broker.keys.dev import DevKeyStore
from broker.keys.transit_key import PublishedLongEnough
from broker.keys.vault_auth import AppRoleAuth, KubernetesAuth, TokenFileAuth, VaultAuth
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore
from broker.metrics import Metrics, ObservedAuditLog, ObservedKeyStore, ObservedPolicyEngine
from broker.model import KeySource, RequestContext, new_request_id
from broker.monitor import Check
from broker.orders import Order
from broker.state.memory import MemoryState
from broker.state.sqlite import SqliteState
from broker.tokens.minter import Lifetimes

_POLL_SECONDS: Final = 5
_CLOCK_DIFFERENCE: Final = timedelta(seconds=30)
# It has no dot, so no signature of it can ever pass for that of a JWS.
_CANARY: Final = b"delegation broker: is the signer there?"

_log = structlog.get_logger("broker.app")


def now() -> int:
    """The clock of a running broker: unix seconds."""
    return int(time.time())


class Process:
    """
    The parts of one worker process, made after the fork and closed before its end.

    ``configuration`` is what it serves until it is told otherwise. ``writer`` names the chain of its
    audit records.
    """

    def __init__(self, configuration: Configuration, *, writer: str, metrics: Metrics) -> None:
        settings = configuration.settings
        self._in_force = InForce(configuration)
        self._is_behind = False
        self._rejected = 0
        self._key_store = ObservedKeyStore(open_key_store(settings), metrics, settings.keys.store)
        self._state = _open_state(settings)
        fetcher = _open_fetcher(settings)
        self._key_ring = IssuerKeyRing(fetcher, key_hosts=settings.fetch.key_hosts)
        self._file_audit = FileAuditLog(
            settings.audit.directory,
            writer=writer,
            now=time.time,
            segment_bytes=settings.audit.segment_size,
            write_timeout=settings.audit.write_timeout.total_seconds(),
            observe=metrics.observe_record,
        )
        self.audit: AuditLog = ObservedAuditLog(self._file_audit, metrics)
        self.endpoints: Endpoints = assemble(
            _rules(settings),
            Parts(
                registry=self._in_force,
                key_store=self._key_store,
                key_ring=self._key_ring,
                client_documents=FetchedClientDocuments(fetcher),
                policy=ObservedPolicyEngine(self._in_force, metrics),
                replay=self._state,
                revocations=self._state,
                audit=OneConfigurationPerEntry(self.audit, self._in_force),
                now=now,
                most_chosen_secrets=self._most_chosen_secrets,
            ),
        )
        self._key_ring.warm(_key_sources(settings), within=0)
        self._record("service.started", __version__)

    def checks(self) -> Sequence[Check]:
        """What must be well for this process to be ready."""
        return (
            Check("audit", self.audit.check),
            Check("configuration", self._check_in_step, every=timedelta(milliseconds=200)),
            Check("state", self._state.check),
            Check("keys", self._sign_canary, every=timedelta(seconds=2)),
        )

    def reload(self, order: Order) -> None:
        """
        Serve what the order says is in force, and record the order; raises when that is impossible.

        If not, what was served so far is served on, this process is not ready, and the order is to be
        tried again. A new process would begin with what is in force, so it is better to end this one
        than to try for long.
        """
        if order.problem and order.generation != self._rejected:
            self._rejected = order.generation
            self._record("config.rejected", order.problem)
        self._is_behind = True
        found = self._in_force.current.changed_to(order.in_force)
        self._in_force.take(found)
        self._key_ring.keep_only(_key_sources(found.settings))
        self._is_behind = False
        if not order.problem:
            self._record("config.loaded", "")

    def key_ages(self) -> Mapping[str, float]:
        """For each issuer whose keys were fetched, how many seconds ago that was."""
        return {
            issuer: status.age
            for issuer, status in self._key_ring.status().items()
            if status.age is not None
        }

    def close(self) -> None:
        """Stop every thread and write what is still to be written."""
        self._record("service.stopped", "")
        self._key_ring.close()
        self._key_store.close()
        self._state.close()
        self.audit.close()

    def _record(self, event: str, detail: str) -> None:
        context = RequestContext("service", new_request_id())
        try:
            with self.audit.entry(event, context) as entry:
                entry.note(policy_digest=self._in_force.digest, detail=detail or None)
        except OAuthError:
            _log.exception("not_recorded", record=event)

    def _check_in_step(self) -> None:
        if self._is_behind:
            raise TemporarilyUnavailable(
                Reason.CONFIGURATION_STALE, detail="what is in force cannot be loaded"
            )

    def _sign_canary(self) -> None:
        for algorithm in self._in_force.current.settings.keys.algorithms:
            self._key_store.signing_key(algorithm).sign(_CANARY)

    def _most_chosen_secrets(self) -> int:
        return max(
            (
                sum(secret.encoded.startswith(CHOSEN_PREFIX) for secret in client.secrets)
                for client in self._in_force.current.settings.clients
            ),
            default=0,
        )


def _rules(settings: Settings) -> TokenRules:
    tokens = settings.tokens
    return TokenRules(
        issuer=settings.issuer,
        mcp_claim=tokens.mcp_claim,
        algorithm=settings.keys.algorithm,
        lifetimes=Lifetimes(tokens.lifetime, tokens.machine_lifetime, tokens.id_jag_lifetime),
        leeway=tokens.leeway,
        max_actors=tokens.max_actors,
        max_token_bytes=tokens.max_token_bytes,
        jwks_max_age=tokens.jwks_max_age,
        default_resource=settings.default_resource,
        pairwise_key=_pairwise_key(tokens.pairwise_key_file),
    )


def _pairwise_key(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes().strip()


def _key_sources(settings: Settings) -> list[KeySource]:
    of_issuers = [issuer.keys for issuer in settings.issuers if not issuer.is_disabled]
    of_clients = [client.keys for client in settings.clients if client.keys is not None]
    # What is in a client's document is fetched when the client comes, and never ahead of it.
    return of_issuers + [keys for keys in of_clients if keys.document is None]


def _open_state(settings: Settings) -> MemoryState | SqliteState:
    if settings.state.store == "memory":
        return MemoryState(now=now)
    return SqliteState(settings.state.directory / "state.sqlite", now=now)


def _open_fetcher(settings: Settings) -> GuardedFetcher:
    return GuardedFetcher(
        # Only a broker that is itself on loopback, for development, may fetch from there.
        allow_loopback=settings.issuer.startswith("http://"),
        ca_file=settings.fetch.ca_file,
        private_networks=settings.fetch.private_networks,
    )


def open_key_store(settings: Settings) -> KeyStore:
    """The configured key store; it starts, and recovers, while Vault is away."""
    keys = settings.keys
    if keys.vault is None:
        return DevKeyStore(keys.directory, algorithms=keys.algorithms)
    return _open_transit(keys, keys.vault, settings.tokens.jwks_max_age)


def _open_transit(
    keys: KeySettings, vault: VaultSettings, jwks_max_age: timedelta
) -> VaultTransitKeyStore:
    lead = jwks_max_age + timedelta(seconds=3 * _POLL_SECONDS) + _CLOCK_DIFFERENCE
    return VaultTransitKeyStore(
        VaultSession(
            VaultServer(vault.url, namespace=vault.namespace, ca_file=vault.ca_file),
            auth=_vault_auth(vault.auth),
        ),
        keys={algorithm: vault.keys[algorithm] for algorithm in keys.algorithms},
        signing_version=PublishedLongEnough(now, lead),
        mount=vault.mount,
        refresh_interval=_POLL_SECONDS,
    )


def _vault_auth(auth: VaultAuthSettings) -> VaultAuth:
    if auth.method == "approle" and auth.role_id_file and auth.secret_id_file:
        return AppRoleAuth(auth.role_id_file, auth.secret_id_file, auth.mount or "approle")
    if auth.method == "kubernetes" and auth.jwt_file:
        return KubernetesAuth(auth.role, auth.jwt_file, auth.mount or "kubernetes")
    if auth.method == "token_file" and auth.token_file:
        return TokenFileAuth(auth.token_file)
    raise ValueError(f"the settings of the Vault login {auth.method!r} are incomplete")
