"""A server that answers questions about a real record, and those who ask."""

import asyncio
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from broker.audit.index.reader import SqliteAuditReader
from broker.audit.log import FileAuditLog
from broker.audit.seal.prover import Prover
from broker.audit.seal.sealer import Sealer
from broker.endpoints.record_reading import RecordReadingEndpoint
from broker.endpoints.watching import StreamLimits, StreamPlaces
from broker.errors import InvalidTarget, Reason
from broker.model import InputToken, RequestContext
from broker.rpc.audit_service import RecordReading
from broker.rpc.revocation_feed import RevocationFeed
from broker.rpc.streams import streaming
from broker.v1.audit_service_pb2_grpc import AuditServiceStub
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of
from tests.rpc.calling import Refusal, refusal_of
from tests.rpc.listening import Metadata, Streaming, by_basic
from tests.world import ISS, NOW, Cast

READER = "web-s"
_REFUSAL = InvalidTarget(Reason.TARGET_UNKNOWN)


class Recorded:
    """An audit record at work: written, indexed and sealed as by a broker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.written = 0
        self.log = FileAuditLog(directory, writer="http-0", now=lambda: NOW + self.written)
        self.reader = SqliteAuditReader(directory)
        self.keys = signer_of(KeysInMemory())
        self.sealer = Sealer(directory, self.keys, origin=ORIGIN, now=lambda: float(NOW))
        self.prover = Prover(directory, self.keys.keys)

    def issue(self, jti: str, *, of: str = "", client: str = "agent-x", sub: str = "alice") -> str:
        """Record the issue of a token, for one that was presented if any; gives the event's id."""
        self.written += 1
        event_id = f"issue-{jti}"
        with self.log.entry("token.issue", RequestContext("http", event_id, "127.0.0.1")) as entry:
            entry.note(client_id=client, subject=sub, jti=jti, chain_depth=1 if of else 0)
            if of:
                entry.note(inputs=(InputToken("subject", ISS, of, NOW + 300),))
        return event_id

    def withdraw(self, jti: str) -> str:
        """Record the withdrawal of a token; gives the event's id."""
        self.written += 1
        event_id = f"withdraw-{jti}"
        with self.log.entry("token.revoke", RequestContext("http", event_id)) as entry:
            given = (InputToken("token", ISS, jti, NOW + 300),)
            entry.note(client_id="agent-x", subject="alice", inputs=given)
        return event_id

    def deny(self, number: int, *, sub: str = "bob") -> str:
        """Record a refusal; gives the event's id."""
        self.written += 1
        event_id = f"deny-{number}"
        try:
            with self.log.entry("token.issue", RequestContext("http", event_id)) as entry:
                entry.note(client_id="agent-x", subject=sub)
                raise _REFUSAL
        except InvalidTarget:
            return event_id

    def catch_up(self) -> None:
        """Let the index and the checkpoints know what is written by now."""
        self.reader.catch_up()
        self.sealer.step()

    def close(self) -> None:
        """Close every file."""
        self.log.close()
        self.sealer.close()
        self.reader.close()


def auditors(*, are_disabled: bool = False, may_read: bool = True) -> Cast:
    """The usual cast, in which ``web-s`` may read the record."""
    cast = Cast()
    (reader,) = (one for one in cast.clients if one.client_id == READER)
    return cast.with_client(replace(reader, is_auditor=may_read, is_disabled=are_disabled))


@dataclass
class Asking(Streaming):
    """A server of streams that answers about a record as well."""

    recorded: Recorded | None = None
    reader: Any = None

    async def _serve(self, started: "queue.SimpleQueue[Any]", over: Any) -> None:
        feed = RevocationFeed(self.journal, wall=lambda: float(NOW))
        feed.begin()
        assert self.recorded is not None
        self.reading_places = StreamPlaces(StreamLimits(of_one=2, of_all=3))
        endpoint = RecordReadingEndpoint(
            self.endpoint.callers,
            self.endpoint.registry,
            self.endpoint.audit,
            self.reading_places,
        )
        reading = RecordReading(
            endpoint, self.reader or self.recorded.reader, self.recorded.prover.prove
        )
        async with streaming(self.endpoint, feed, self.listener, reading=reading) as port:
            started.put(port)
            await asyncio.to_thread(over.wait)

    @contextmanager
    def stub(self) -> Iterator[AuditServiceStub]:
        """A connection of one's own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            yield AuditServiceStub(channel)

    def ask(self, method: str, request: Any, metadata: Metadata | None = None) -> Any:
        """The answer to a question of ``web-s``."""
        with self.stub() as stub:
            sent = by_basic() if metadata is None else metadata
            answer = getattr(stub, method)(request, metadata=sent, timeout=20)
            return next(answer) if method == "WatchEvents" else answer

    def refuse(self, method: str, request: Any, metadata: Metadata | None = None) -> Refusal:
        """How somebody is refused who asks."""
        try:
            answer = self.ask(method, request, metadata)
        except grpc.RpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{answer} was told")

    def said(self) -> list[tuple[Any, ...]]:
        """Each record's event, decision, reason and client."""
        names = ("event", "decision", "reason", "client_id")
        return [tuple(one.get(name) for name in names) for one in self.audit.records]
