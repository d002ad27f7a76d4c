"""What the auditor's pages are told by the rest of the broker."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from starlette.requests import Request

from broker.audit.query import (
    AuditReader,
    PeopleAway,
    QueryRefused,
    QueryTooExpensive,
    RecordChanged,
)
from broker.audit.seal.integrity import Proofs
from broker.audit.telling.handover import Handover, NotSigned
from broker.audit.telling.why import Present
from broker.errors import (
    InvalidRequest,
    OAuthError,
    Reason,
    RecordDamaged,
    TemporarilyUnavailable,
)
from broker.interfaces import AuditEntry

_Answer = TypeVar("_Answer")

QUESTIONS_AT_ONCE: Final = 4
"""No more pages ask the record at the same time."""

PATIENCE: Final = 5.0
"""How long a page waits for its turn to ask, in seconds."""


SIGNING_PATIENCE: Final = 30.0
"""How long a download waits for its turn to have something signed, in seconds."""


class TooBusy(Exception):
    """Too many ask at once; somebody has to come again."""


@dataclass(frozen=True, slots=True)
class Look:
    """
    What auditors look at, as it goes on record itself; ``people`` are not in the text.

    ``values`` were typed in, and may be anybody's name until something is found by them: only then is it
    ``asked`` that goes on record, and ``bare``, which has none of them, until then.
    """

    asked: str
    people: tuple[str, ...] = ()
    bare: str = ""
    values: tuple[str, ...] = ()


class Witness(Protocol):
    """
    Records what auditors look at.

    The answer may leave only once the block has been left. Raises ``TemporarilyUnavailable`` when it cannot
    be recorded, and ``RateLimited`` for whoever asks too much.
    """

    def __call__(
        self, request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> AbstractContextManager[AuditEntry]: ...


@contextmanager
def _as_recorded() -> Iterator[None]:
    """What keeps a question from being answered, as its record tells it."""
    try:
        yield
    except QueryRefused as refused:
        raise InvalidRequest(Reason.QUERY_MALFORMED, detail=str(refused)) from refused
    except QueryTooExpensive as problem:
        raise InvalidRequest(Reason.QUERY_TOO_EXPENSIVE) from problem
    except RecordChanged as changed:
        raise RecordDamaged(Reason.EVENT_CHANGED, detail=str(changed)) from changed
    except (PeopleAway, OSError) as problem:
        detail = type(problem).__name__
        raise TemporarilyUnavailable(Reason.AUDIT_UNREADABLE, detail=detail) from problem
    except NotSigned as problem:
        raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, detail=str(problem)) from problem


@contextmanager
def _as_asked() -> Iterator[None]:
    """The same as the pages know it."""
    try:
        yield
    except OAuthError as error:
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        raise


def _always(_request: Request) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    Everything that the auditor's pages show.

    ``clock`` tells unix seconds. ``handover`` signs for what is taken away. ``present`` tells what is in
    force now, for what can be said of why. ``witness`` records what is looked at; without one nothing is.
    ``may_still_look`` tells of a stream that is open whether whoever asked for it is still logged in; it
    answers at once.
    """

    reader: AuditReader
    proofs: Proofs
    handover: Handover
    clock: Callable[[], float]
    present: Callable[[], Present] = Present
    witness: Witness | None = None
    may_still_look: Callable[[Request], bool] = _always
    _turns: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(QUESTIONS_AT_ONCE), repr=False
    )
    _signing_turn: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(1), repr=False
    )
    _signing_thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "audit-handover"), repr=False
    )

    async def show(
        self,
        request: Request,
        look: Look,
        question: Callable[[], _Answer],
        *,
        size: Callable[[_Answer], int] | None,
        is_signed: bool = False,
    ) -> _Answer:
        """
        The same for what somebody is shown, which is on record before it is.

        ``size`` counts it, where that can be known at all. ``is_signed`` tells that ``handover`` is asked.
        """
        ask = self.ask_signer if is_signed else self.ask
        witness = self.witness
        if witness is None:
            return await ask(question)

        def witnessed() -> _Answer:
            unknown = (*look.people, *look.values)
            with (
                _as_asked(),
                witness(request, look.bare or look.asked, people=unknown) as entry,
            ):
                with _as_recorded():
                    answer = question()
                if size is None:
                    return answer
                found = size(answer)
                entry.note(found=found)
                if found and look.values:
                    entry.note(asked=look.asked, people_asked=look.people or None)
            return answer

        return await ask(witnessed)

    async def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """
        The answer to a question that reads, from a thread beside the event loop.

        Raises ``TooBusy`` when others ask too much for too long, and whatever the question raises.
        """
        await _turn(self._turns, PATIENCE)
        return await _ended(asyncio.to_thread(question), self._turns)

    async def ask_signer(self, question: Callable[[], _Answer]) -> _Answer:
        """
        The same for a question in which ``handover`` is asked: one at a time, in a thread of its own.

        Whoever holds the key may be slow to answer, or away, and no page waits behind that.
        """
        await _turn(self._signing_turn, SIGNING_PATIENCE)
        run = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        answering = loop.run_in_executor(self._signing_thread, lambda: run(question))
        return await _ended(answering, self._signing_turn)


async def _turn(turns: asyncio.Semaphore, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            await turns.acquire()
    except TimeoutError:
        raise TooBusy("Too many questions at once.") from None


async def _ended(question: Awaitable[_Answer], turns: asyncio.Semaphore) -> _Answer:
    """The answer of a thread, with whose end a turn ends."""

    def end(answering: asyncio.Future[_Answer]) -> None:
        turns.release()
        if not answering.cancelled():
            # Who asked may have gone; then nobody else takes the error.
            answering.exception()

    answering = asyncio.ensure_future(question)
    # A thread goes on when nobody waits for it any more, so its turn ends with it and not before.
    answering.add_done_callback(end)
    return await asyncio.shield(answering)
