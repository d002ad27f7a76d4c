"""What every process that answers stands on: what is in force, state, record, and others' keys."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from broker import __version__
from broker.apart import WorkFailed, word_of
from broker.assembly import CallerParts
from broker.audit.log import FileAuditLog, Observer
from broker.audit.people.naming import InClear, Naming, NoPeople
from broker.audit.sinks.terms import open_sink
from broker.bounded import MemoryStatus
from broker.client_auth.secrets import CHOSEN_PREFIX
from broker.config import Settings
from broker.config.settings import ServerAddress, ValkeySettings
from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.errors import OAuthError, Reason, TemporarilyUnavailable
from broker.fetch import GuardedFetcher
from broker.in_force import Configuration, InForce, OneConfigurationPerEntry
from broker.interfaces import Allowances, AuditLog
from broker.issuers import FetchedClientDocuments, IssuerKeyRing
from broker.metrics import Metrics, ObservedAuditLog
from broker.model import KeySource, RequestContext, new_request_id
from broker.monitor import Check
from broker.orders import Order
from broker.state.database import StateRefused
from broker.state.memory import MemoryState
from broker.state.sqlite import SqliteState
from broker.state.sqlite_allowances import SqliteAllowances

if TYPE_CHECKING:
    from broker.state.valkey import ValkeyState
    from broker.state.valkey_primary import Primary

    State = MemoryState | SqliteState | ValkeyState

_LONGEST_LOOK: Final = 10.0
"""How long the start waits for a shared store, in seconds; each of its servers has a deadline of its own."""
_LIMIT_SECONDS: Final = 0.1
"""How long a limit may take to be looked up; then this process keeps it by itself."""
_LIMIT_CONNECTIONS: Final = 4

_log = structlog.get_logger("broker.foundation")


def now() -> int:
    """The clock of a running broker: unix seconds."""
    return int(time.time())


def open_audit_log(
    settings: Settings,
    *,
    writer: str,
    observe: Observer | None = None,
    is_command: bool = False,
    naming: Naming | None = None,
) -> FileAuditLog:
    """
    The chain of this name in the configured audit record; raises as ``FileAuditLog`` does.

    A command waits for the files alone: what it has to do may be urgent, and its output is its own. The
    broker ships its records to the other sinks, required ones included. Where people are not named in
    clear, a chain has none in it unless it has a ``naming``.
    """
    required = [one for one in settings.audit.sinks if one.is_required and not is_command]
    if naming is None:
        is_clear = settings.audit.people.names == "clear"
        naming = InClear() if is_clear else NoPeople(settings.issuer)
    log = FileAuditLog(
        settings.audit.directory,
        writer=writer,
        now=time.time,
        segment_bytes=settings.audit.segment_size,
        write_timeout=settings.audit.write_timeout.total_seconds(),
        observe=observe,
        required=[open_sink(one, settings.audit.directory) for one in required],
    )
    log.name_people(naming)
    return log


class OnwardClock:
    """
    The clock by which tokens are judged: unix seconds, or a refusal once it has gone back.

    What has expired by it must not come to life again, so until it has caught up, to within
    ``allowance``, nobody is told what time it is: ``TemporarilyUnavailable`` is raised.
    """

    def __init__(self, allowance: timedelta, *, read: Callable[[], float] = time.time) -> None:
        self._allowance = int(allowance.total_seconds())
        self._read = read
        self._latest = int(read())

    def __call__(self) -> int:
        seconds = int(self._read())
        if seconds >= self._latest:
            self._latest = seconds
        elif seconds < self._latest - self._allowance:
            behind = self._latest - seconds
            raise TemporarilyUnavailable(
                Reason.CLOCK_WENT_BACK, detail=f"the clock went back by {behind} s"
            )
        return seconds

    def check(self) -> None:
        """Raise as a reading of the clock does."""
        self()


class Foundation:
    """
    The parts that processes of all kinds have, made after the fork and closed before its end.

    ``configuration`` is what is in force until it is told otherwise. ``writer`` names the chain of the
    process's audit records, which begins and ends with ``begin`` and ``close``, and ``naming`` names the
    people in them.
    """

    def __init__(
        self, configuration: Configuration, *, writer: str, metrics: Metrics, naming: Naming
    ) -> None:
        settings = configuration.settings
        self._is_behind = False
        self._rejected = 0
        self.in_force = InForce(configuration)
        self._clock = OnwardClock(settings.tokens.leeway)
        self.state = _open_state(settings)
        self._limits = Limits(
            _open_allowances(settings),
            LimitTerms(settings.limits.per_client, settings.limits.per_source),
            observe=metrics.count_turned_away,
        )
        self._fetcher = open_fetcher(settings)
        self._key_ring = IssuerKeyRing(self._fetcher, key_hosts=settings.fetch.key_hosts)
        self._naming = naming
        log = open_audit_log(settings, writer=writer, observe=metrics.observe_record, naming=naming)
        self.audit: AuditLog = ObservedAuditLog(log, metrics)

    def caller_parts(self) -> CallerParts:
        """What it takes to know who is asking."""
        return CallerParts(
            registry=self.in_force,
            key_ring=self._key_ring,
            client_documents=FetchedClientDocuments(self._fetcher),
            replay=self.state,
            audit=OneConfigurationPerEntry(self.audit, self.in_force),
            now=self._clock,
            most_chosen_secrets=self._most_chosen_secrets,
            limits=self._limits,
        )

    def begin(self) -> None:
        """Fetch the keys that will be needed, and record that the process runs."""
        self._key_ring.warm(_key_sources(self.in_force.current.settings), within=0)
        self._record("service.started", __version__)

    def checks(self) -> Sequence[Check]:
        """What must be well for the process to be ready."""
        return (
            Check("audit", self.audit.check),
            Check("people", self._naming.check),
            Check("clock", self._clock.check),
            Check("configuration", self._check_in_step, every=timedelta(milliseconds=200)),
            Check("state", self.state.check),
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
        found = self.in_force.current.changed_to(order.in_force)
        self.in_force.take(found)
        self._key_ring.keep_only(_key_sources(found.settings))
        self._is_behind = False
        if not order.problem:
            self._record("config.loaded", _not_in_force(order.needs_restart))

    def key_ages(self) -> Mapping[str, float]:
        """For each issuer whose keys were fetched, how many seconds ago that was."""
        return {
            issuer: status.age
            for issuer, status in self._key_ring.status().items()
            if status.age is not None
        }

    def memories(self) -> Mapping[str, MemoryStatus]:
        """How the memories of others' keys and of policy are doing, by name."""
        return {"keys": self._key_ring.memory(), **self.in_force.current.policy.memories()}

    def close(self) -> None:
        """Record the end, stop every thread and write what is still to be written."""
        self._record("service.stopped", "")
        self._key_ring.close()
        self._limits.close()
        self.state.close()
        self.audit.close()
        self._naming.close()

    def _record(self, event: str, detail: str) -> None:
        context = RequestContext("service", new_request_id())
        try:
            with self.audit.entry(event, context) as entry:
                entry.note(policy_digest=self.in_force.digest, detail=detail or None)
        except OAuthError:
            _log.exception("not_recorded", record=event)

    def _check_in_step(self) -> None:
        if self._is_behind:
            raise TemporarilyUnavailable(
                Reason.CONFIGURATION_STALE, detail="what is in force cannot be loaded"
            )

    def _most_chosen_secrets(self) -> int:
        return max(
            (
                sum(secret.encoded.startswith(CHOSEN_PREFIX) for secret in client.secrets)
                for client in self.in_force.current.settings.clients
            ),
            default=0,
        )


def _not_in_force(sections: Sequence[str]) -> str:
    """What a record says of changed settings that wait for a restart."""
    return f"needs_restart: [{', '.join(sections)}]" if sections else ""


def _key_sources(settings: Settings) -> list[KeySource]:
    of_issuers = [issuer.keys for issuer in settings.issuers if not issuer.is_disabled]
    of_clients = [client.keys for client in settings.clients if client.keys is not None]
    # What is in a client's document is fetched when the client comes, and never ahead of it.
    return of_issuers + [keys for keys in of_clients if keys.document is None]


def check_state(settings: Settings) -> None:
    """
    Look at a store that brokers share before anything is started; one that is away may come later.

    That is done in a process of its own: to look up a name takes a thread, which may live on for as long
    as the system's resolver wants, and this process is going to be forked. Raises ``StateRefused`` when
    the store cannot be used as it is.
    """
    valkey = settings.state.valkey
    if settings.state.store != "valkey" or valkey is None:
        return
    # It is loaded here, so that the processes to come share it.
    import broker.state.valkey  # noqa: PLC0415 - the other stores do without.
    import broker.state.valkey_opening  # noqa: F401, PLC0415 - the same.

    try:
        refused = word_of(lambda: _refusal(settings, valkey), within=_LONGEST_LOOK)
    except WorkFailed:
        raise StateRefused("the state store cannot be looked at") from None
    if refused is None:
        _log.warning("state_away", detail=f"no answer within {_LONGEST_LOOK:.0f} s")
    elif refused:
        raise StateRefused(refused)


def _refusal(settings: Settings, valkey: ValkeySettings) -> str:
    """Why the store cannot be used as it is, or nothing."""
    state = _open_valkey(settings, valkey)
    try:
        state.check_policy()
    except StateRefused as refused:
        return str(refused)
    finally:
        state.close()
    return ""


def _open_state(settings: Settings) -> "State":
    state = settings.state
    if state.store == "memory":
        return MemoryState(now=now)
    if state.store == "valkey" and state.valkey is not None:
        return _open_valkey(settings, state.valkey)
    return SqliteState(state.directory / "state.sqlite", now=now)


def _open_valkey(settings: Settings, valkey: ValkeySettings) -> "ValkeyState":
    # What it takes is loaded where it is used: the other stores do without.
    from broker.state.valkey import ValkeyState  # noqa: PLC0415 - see above.
    from broker.state.valkey_keeper import StoreTerms  # noqa: PLC0415 - the same.

    primary = _primary(
        valkey, connections=valkey.connections, deadline=valkey.deadline.total_seconds()
    )
    terms = StoreTerms(valkey.prefix, valkey.replicas)
    return ValkeyState(primary, terms, now=now, leeway=settings.tokens.leeway)


def _open_allowances(settings: Settings) -> Allowances:
    state = settings.state
    if state.store == "memory":
        return LocalAllowances()
    if state.store == "valkey" and state.valkey is not None:
        from broker.state.valkey_allowances import ValkeyAllowances  # noqa: PLC0415 - the same.

        opening = state.valkey.deadline.total_seconds()
        primary = _primary(
            state.valkey,
            connections=_LIMIT_CONNECTIONS,
            deadline=min(_LIMIT_SECONDS, opening),
            opening=opening,
        )
        return ValkeyAllowances(primary, state.valkey.prefix)
    return SqliteAllowances(state.directory)


def _primary(
    valkey: ValkeySettings, *, connections: int, deadline: float, opening: float = 0.0
) -> "Primary":
    from broker.state.valkey_opening import Servers, primary_of  # noqa: PLC0415 - the same.

    sentinel, tls = valkey.sentinel, valkey.tls
    servers = Servers(
        hosts=[(one.host, one.port) for one in _hosts(valkey)],
        service=None if sentinel is None else sentinel.service,
        is_cluster=bool(valkey.cluster),
        tls=None if tls is None else (tls.ca_file, tls.cert_file, tls.key_file),
        credential=(valkey.username, valkey.password_file),
        sentinel_credential=(
            (None, None) if sentinel is None else (sentinel.username, sentinel.password_file)
        ),
        database=valkey.database,
    )
    return primary_of(
        servers,
        prefix=valkey.prefix,
        connections=connections,
        deadline=deadline,
        opening=opening,
    )


def _hosts(valkey: ValkeySettings) -> tuple[ServerAddress, ...]:
    if valkey.sentinel is not None:
        return valkey.sentinel.hosts
    return valkey.cluster or ((valkey.host,) if valkey.host is not None else ())


def open_fetcher(settings: Settings) -> GuardedFetcher:
    """What fetches from others, with the bounds that the settings draw."""
    return GuardedFetcher(
        # Only a broker that is itself on loopback, for development, may fetch from there.
        allow_loopback=settings.issuer.startswith("http://"),
        ca_file=settings.fetch.ca_file,
        private_networks=settings.fetch.private_networks,
    )
