"""What a reload can change, read at one time, checked as a whole and put in force in one step."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog

from broker.config import ConfigError, Settings, load_settings
from broker.interfaces import AuditEntry, AuditLog
from broker.model import (
    Client,
    ClientDocumentTerms,
    Decision,
    PolicyQuery,
    RequestContext,
    Resource,
    ResourceAuthorizationServer,
    ScopeExplanation,
    TrustedIssuer,
)
from broker.orders import MOST_OF_A_CONTENT, Order
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.files import PolicyFiles, read_files
from broker.policy.problems import PolicyLoadError, Problem
from broker.registry import FileRegistry

_log = structlog.get_logger("broker.configuration")


@dataclass(frozen=True, slots=True)
class Files:
    """
    Everything that a reload can change, as plain values: what the files say, and nothing of where.

    Key sets that the configuration names by file are part of it.
    """

    clients: tuple[Client, ...]
    resources: tuple[Resource, ...]
    issuers: tuple[TrustedIssuer, ...]
    authorization_servers: tuple[ResourceAuthorizationServer, ...]
    client_documents: ClientDocumentTerms | None
    disabled_subjects: frozenset[str]
    disabled_policies: frozenset[str]
    policies: PolicyFiles

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings declare, and the policies as they stand on disk."""
        return cls(
            settings.clients,
            settings.resources,
            settings.issuers,
            settings.authorization_servers,
            settings.client_documents,
            settings.disabled_subjects,
            settings.disabled_policies,
            read_files(settings.policies),
        )

    def encode(self) -> bytes:
        """
        The values as they travel from process to process; equal values give equal bytes.

        Raises ``PolicyLoadError`` when they are more than can be handed to a process.
        """
        encoded = msgspec.json.encode(self, order="deterministic")
        if len(encoded) > MOST_OF_A_CONTENT:
            sentence = "The policies are too large together with what the configuration declares."
            raise PolicyLoadError([Problem(".", 0, sentence)])
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read what was encoded. Raises ``ValueError`` for anything else."""
        return msgspec.json.decode(encoded, type=cls)


# The folder of the policies is read again; which folder that is belongs to the start.
READ_AT_START: Final = tuple(
    one.name
    for one in fields(Settings)
    if one.name not in {"source", *(file.name for file in fields(Files))} or one.name == "policies"
)
"""The sections of the settings that no reload changes, as a file names them."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """
    Clients, resources, issuers and policies as they stood at one moment; they never change.

    All other settings are those that the broker started with, since what is built from them, such as
    listeners and keys, changes with a restart only. ``encoded`` is the ``Files`` it was made of.
    """

    settings: Settings
    registry: FileRegistry
    policy: CedarPolicyEngine
    encoded: bytes = field(repr=False)

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Read the policies that the settings name. Raises ``PolicyLoadError``."""
        files = Files.of(settings)
        policy = _engine(files)
        return cls(settings, _registry(settings), policy, files.encode())

    def changed_to(self, encoded: bytes) -> "Configuration":
        """
        The configuration of other ``Files``. Raises ``PolicyLoadError``.

        A policy set that has not changed keeps its engine, and with it what has been decided already.
        """
        if encoded == self.encoded:
            return self
        files = Files.decode(encoded)
        settings = replace(
            self.settings,
            clients=files.clients,
            resources=files.resources,
            issuers=files.issuers,
            authorization_servers=files.authorization_servers,
            client_documents=files.client_documents,
            disabled_subjects=files.disabled_subjects,
            disabled_policies=files.disabled_policies,
        )
        policy = _engine(files)
        if policy.digest == self.policy.digest:
            policy = self.policy
        return Configuration(settings, _registry(settings), policy, encoded)


class Accepted:
    """
    The supervisor's own copy: the last configuration that was good, from which workers are forked.

    Files are read and judged here alone. Workers that there are already get what was accepted with
    the order, so nothing that happens to the files meanwhile makes a difference. ``environ`` is what
    the settings are laid over with.
    """

    def __init__(self, configuration: Configuration, environ: Mapping[str, str]) -> None:
        self.configuration = configuration
        self._environ = environ

    def reload(self) -> Order:
        """Accept what the files hold now, or keep what there is and say why. Does not raise."""
        problem, needs_restart = "", tuple[str, ...]()
        try:
            needs_restart = self._accept()
        except (ConfigError, PolicyLoadError) as error:
            told = error.in_brief if isinstance(error, ConfigError) else str(error)
            problem = f"{type(error).__name__}: {told}"
            _log.error("reload_refused", problems=told)
        except Exception as error:  # noqa: BLE001 - Whatever the files did, the supervisor lives on.
            problem = f"The files cannot be loaded: {type(error).__name__}"
            _log.exception("reload_refused")
        else:
            self._tell(needs_restart)
        return Order(self.configuration.encoded, problem, needs_restart=needs_restart)

    def _tell(self, needs_restart: Sequence[str]) -> None:
        digest = self.configuration.policy.digest
        if needs_restart:
            # What an operator has just written would otherwise be believed to be in force.
            _log.warning("reload_accepted", policy_digest=digest, needs_restart=list(needs_restart))
        else:
            _log.info("reload_accepted", policy_digest=digest)

    def _accept(self) -> tuple[str, ...]:
        """Accept what can be put in force, and tell which sections of the rest have changed."""
        settings = self.configuration.settings
        found = load_settings(settings.source, self._environ)
        encoded = Files.of(replace(found, policies=settings.policies)).encode()
        # A worker makes its configuration from the same bytes, so what fails there fails here.
        self.configuration = self.configuration.changed_to(encoded)
        return tuple(_waiting(found, settings))


class _Held(threading.local):
    """What a thread holds on to."""

    configuration: Configuration | None = None


class InForce:
    """
    The configuration that a process serves, as the ``Registry`` and the ``PolicyEngine`` of its core.

    ``take`` replaces both in one step. Within ``held`` a thread goes on seeing the one that it began
    with, so that no request is decided by half of one configuration and half of the next.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._newest = configuration
        self._held = _Held()

    @property
    def current(self) -> Configuration:
        """The newest configuration, or the one that this thread holds on to."""
        return self._held.configuration or self._newest

    def take(self, configuration: Configuration) -> None:
        """Serve another configuration. Binding a name is atomic, so nothing is locked."""
        self._newest = configuration

    def hold(self) -> Configuration | None:
        """
        Hold on to what is in force now, for this thread, until ``let_go`` is given what this returns.

        That is what the thread held before, which it goes on to hold.
        """
        before = self._held.configuration
        self._held.configuration = self._newest if before is None else before
        return before

    def let_go(self, before: Configuration | None) -> None:
        """Hold what the thread held before."""
        self._held.configuration = before

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold on to what is in force now, for this thread, until the end of the block."""
        before = self.hold()
        try:
            yield
        finally:
            self.let_go(before)

    @property
    def has_client_documents(self) -> bool:
        return self.current.registry.has_client_documents

    def client(self, client_id: str) -> Client | None:
        return (self._held.configuration or self._newest).registry.client(client_id)

    def client_at(self, issuer: str, client_id: str) -> Client | None:
        return (self._held.configuration or self._newest).registry.client_at(issuer, client_id)

    def resource(self, name: str) -> Resource | None:
        return (self._held.configuration or self._newest).registry.resource(name)

    def issuer(self, issuer: str) -> TrustedIssuer | None:
        return (self._held.configuration or self._newest).registry.issuer(issuer)

    def authorization_server(self, name: str) -> ResourceAuthorizationServer | None:
        return self.current.registry.authorization_server(name)

    def is_subject_disabled(self, sub: str) -> bool:
        return (self._held.configuration or self._newest).registry.is_subject_disabled(sub)

    @property
    def digest(self) -> str:
        return self.current.policy.digest

    def decide(self, query: PolicyQuery) -> Decision:
        return (self._held.configuration or self._newest).policy.decide(query)

    def permits_any(self, query: PolicyQuery) -> bool:
        return self.current.policy.permits_any(query)

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        return self.current.policy.explain(query)


@dataclass(frozen=True, slots=True)
class OneConfigurationPerEntry:
    """
    An audit log whose entries hold on to the configuration in force when they are opened.

    Whatever is decided is decided inside an entry, in one thread, so what a record tells has come
    about under one configuration.
    """

    inner: AuditLog
    in_force: InForce

    def entry(self, event: str, context: RequestContext) -> AbstractContextManager[AuditEntry]:
        return _HoldingEntry(self.inner, self.in_force, event, context)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()


class _HoldingEntry:
    """An entry of ``OneConfigurationPerEntry``. Every request opens one, so it is no generator."""

    __slots__ = ("_before", "_context", "_entry", "_event", "_in_force", "_log")

    def __init__(
        self, log: AuditLog, in_force: InForce, event: str, context: RequestContext
    ) -> None:
        self._log = log
        self._in_force = in_force
        self._event = event
        self._context = context

    def __enter__(self) -> AuditEntry:
        self._before = self._in_force.hold()
        try:
            self._entry = self._log.entry(self._event, self._context)
            return self._entry.__enter__()
        except BaseException:
            self._in_force.let_go(self._before)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return self._entry.__exit__(kind, raised, trace)
        finally:
            self._in_force.let_go(self._before)


def _waiting(found: Settings, running: Settings) -> Iterator[str]:
    """The sections in which ``found`` differs from what runs, and which only a restart changes."""
    hosts = running.fetch.key_hosts
    for name in READ_AT_START:
        before, after = getattr(running, name), getattr(found, name)
        if name == "fetch":
            before, after = replace(before, key_hosts={}), replace(after, key_hosts={})
        if before != after:
            yield name
    # They stand with the issuers in the file, and guard what is fetched.
    if any(hosts.get(issuer) != named for issuer, named in found.fetch.key_hosts.items()):
        yield "issuers.key_hosts"


def _engine(files: Files) -> CedarPolicyEngine:
    try:
        return CedarPolicyEngine.of(files.policies, disabled=files.disabled_policies)
    except PolicyLoadError:
        raise
    except Exception as error:
        sentence = f"The policy folder cannot be loaded: {type(error).__name__}."
        raise PolicyLoadError([Problem(".", 0, sentence)]) from error


def _registry(settings: Settings) -> FileRegistry:
    return FileRegistry(
        settings.clients,
        settings.resources,
        settings.issuers,
        authorization_servers=settings.authorization_servers,
        disabled_subjects=settings.disabled_subjects,
        client_documents=settings.client_documents,
    )
