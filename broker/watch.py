"""The parts of the process that tells verifiers what is withdrawn, and clients what is on record."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from broker.assembly import assemble_watch
from broker.bounded import MemoryStatus
from broker.endpoints.record_reading import RecordReadingEndpoint
from broker.endpoints.watching import WatchEndpoint
from broker.foundation import Foundation
from broker.in_force import Configuration
from broker.metrics import Metrics
from broker.monitor import Check
from broker.orders import Order
from broker.people import open_naming
from broker.rpc.revocation_feed import RevocationFeed


class WatchProcess:
    """
    What a process needs that knows its callers and tells them what is withdrawn, or was recorded.

    It has no signing keys and no policy, so whatever befalls it, it can issue nothing.
    """

    def __init__(self, configuration: Configuration, *, writer: str, metrics: Metrics) -> None:
        settings = configuration.settings
        self._foundation = Foundation(
            configuration, writer=writer, metrics=metrics, naming=open_naming(settings)
        )
        self.audit = self._foundation.audit
        self.feed = RevocationFeed(self._foundation.state)
        self.endpoint: WatchEndpoint = assemble_watch(
            settings.issuer, self._foundation.caller_parts(), leeway=settings.tokens.leeway
        )
        callers, registry = self.endpoint.callers, self.endpoint.registry
        self.reading = RecordReadingEndpoint(callers, registry, self.endpoint.audit)
        self.feed.begin()
        self._foundation.begin()

    def checks(self) -> Sequence[Check]:
        """What must be well for this process to be ready."""
        feed = Check("revocations", self.feed.check, every=timedelta(milliseconds=200))
        return (*self._foundation.checks(), feed)

    def reload(self, order: Order) -> None:
        """Know the clients that the order says are in force; raises as ``Foundation.reload`` does."""
        self._foundation.reload(order)

    def key_ages(self) -> Mapping[str, float]:
        """For each issuer whose keys were fetched, how many seconds ago that was."""
        return self._foundation.key_ages()

    def memories(self) -> Mapping[str, MemoryStatus]:
        """How everything is doing that is remembered between requests, by name."""
        return self._foundation.memories()

    def close(self) -> None:
        """Stop every thread and write what is still to be written."""
        self._foundation.close()
