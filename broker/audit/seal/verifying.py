"""Looks through the whole record again and again, by a process that disturbs nobody, unasked."""

import os
import random
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog
from msgspec import Struct

from broker.audit.replacing import replace_file
from broker.audit.seal.verified import LARGEST_MESSAGE, Answer, Failed, Question, Verified
from broker.audit.segments import regular

MEMORY: Final = "verification.json"
"""The file beside the record that tells when the next look is due."""

VERIFIER: Final = ("-m", "broker.audit.seal.verifier")

_FIRST: Final = 0.1
"""Of the interval: within that part of it a record is looked through that never was."""
_AGAIN: Final = 0.125
"""Of the interval: so much later it is tried again where it could not be verified."""
_JITTER: Final = 0.1
_TICK: Final = 0.2
_LOWEST_PRIORITY: Final = 19
_LARGEST_MEMORY: Final = 1024

_log = structlog.get_logger("broker.audit")


class Unverified(Exception):
    """It could not be told whether the record is whole; the sentence says why."""


class _Kept(Struct, forbid_unknown_fields=True):
    due: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyTerms:
    """
    How often the whole record is verified, and how long that may take, in seconds.

    No look begins sooner than ``settled`` after the start.
    """

    every: float
    within: float
    settled: float


class Verifying:
    """
    Has the record of a directory verified again and again, one look at a time.

    ``ask`` makes the question, and is ``None`` while there is nothing to verify; whatever it raises is a
    failure, which is told and tried again. When the next look is due, and since when there was none, is
    remembered beside the record, so that a broker that is started often looks as often as another, and tells
    when it never lives long enough; whoever forges that puts the next look off by an interval with each
    start, and no result is ever read from there. To be begun in the process that uses it, after any fork.
    ``now`` is in unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        terms: VerifyTerms,
        ask: Callable[[], Question | None],
        *,
        now: Callable[[], float] = time.time,
        verifier: Sequence[str] = VERIFIER,
    ) -> None:
        self.last: Verified | None = None
        self.failures = 0
        self._failure = ""
        self._path = directory / MEMORY
        self._terms = terms
        self._ask = ask
        self._now = now
        self._verifier = verifier
        self._since = now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit_verifying", daemon=True)

    @property
    def age(self) -> float:
        """How many seconds ago the last look ended that found anything, or the first was waited for."""
        return max(self._now() - self._since, 0.0)

    @property
    def trouble(self) -> str:
        """Why it is not known whether the record is whole, and empty while it is known well enough."""
        if self._failure:
            return self._failure
        terms = self._terms
        if self.age > 2 * terms.every + terms.within + terms.settled:
            return "no look through the whole record has come to an end for two intervals"
        return ""

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask_to_end(self) -> None:
        """Have a look that is under way broken off."""
        self._stopping.set()

    def close(self, *, within: float = 5.0) -> None:
        """Break off, and wait so many seconds for the end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(within)

    def _run(self) -> None:
        pause = self._first_pause()
        while not self._stopping.wait(pause):
            pause = self._pause_after_look()

    def _first_pause(self) -> float:
        kept, now, every = self._recall(), self._now(), self._terms.every
        if kept is not None:
            self._since = min(kept.since, now)
        due = now + every + 1 if kept is None else kept.due
        is_overdue = self.age > every + self._terms.within
        if due > now + every or (is_overdue and due > now + _FIRST * every):
            due = now + random.uniform(0, _FIRST) * every  # noqa: S311 - no secret.
            self._keep(due)
        return max(due - now, self._terms.settled)

    def _pause_after_look(self) -> float:
        every = self._terms.every
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001 - whatever it was is told, and tried again.
            self._fail(error)
            pause = every * _AGAIN
        else:
            if found is None:
                return max(self._terms.settled, _TICK)
            pause = every * random.uniform(1 - _JITTER, 1)  # noqa: S311 - no secret.
        is_broken = self.last is not None and self.last.fault_count > 0
        # Another process knows nothing of a fault until it has looked for itself.
        self._keep(self._now() + (0 if is_broken else pause))
        return pause

    def _look(self) -> Verified | None:
        question = self._ask()
        if question is None or self._stopping.is_set():
            return None
        found = answer_apart(question, is_ending=self._stopping.is_set, verifier=self._verifier)
        if found is None:
            return None
        self.last, self._failure, self._since = found, "", self._now()
        _tell(found)
        return found

    def _fail(self, error: Exception) -> None:
        kind = "" if isinstance(error, Unverified) else f"{type(error).__name__}: "
        self._failure = f"{kind}{getattr(error, 'detail', '') or error}"
        self.failures += 1
        _log.error("audit_verification_failed", reason=self._failure)

    def _recall(self) -> _Kept | None:
        try:
            with open(self._path, "rb", opener=regular) as file:
                return msgspec.json.decode(file.read(_LARGEST_MEMORY), type=_Kept)
        except (OSError, ValueError):
            return None

    def _keep(self, due: float) -> None:
        # What cannot be kept is drawn anew.
        with suppress(OSError):
            replace_file(self._path, msgspec.json.encode(_Kept(due, self._since)))


def answer_apart(
    question: Question,
    *,
    is_ending: Callable[[], bool] = lambda: False,
    verifier: Sequence[str] = VERIFIER,
) -> Verified | None:
    """
    What a process of its own finds, which ends with the calling thread; ``None`` when it was broken off.

    It is a program of its own and no fork, since threads are about; of this process it gets standard error
    and where the code is, and nothing else. Raises ``Unverified`` and ``OSError``.
    """
    with (
        _file_of(question) as asked,
        subprocess.Popen(
            [sys.executable, "-P", *verifier],
            stdin=asked,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))},
            cwd="/",
        ) as process,
    ):
        try:
            # From here, so that it gives way while it loads as well.
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)
            said = _said(process, question.within, is_ending)
        finally:
            process.kill()
    if said is None:
        return None
    return _read(said, process.returncode)


@contextmanager
def _file_of(question: Question) -> Iterator[BinaryIO]:
    """The question in a file without a name, read from its beginning: nobody waits until it is taken."""
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(question))
        file.seek(0)
        yield file


def _said(
    process: "subprocess.Popen[bytes]", within: float, is_ending: Callable[[], bool]
) -> bytes | None:
    """What it says until it ends, and no more of that than an answer may have."""
    until = time.monotonic() + within
    said, told, answers = bytearray(), select.poll(), process.stdout
    if answers is None:
        raise Unverified("the verifier cannot be heard")
    told.register(answers)
    is_over = False
    while not is_ending():
        if time.monotonic() >= until:
            raise Unverified(f"it took longer than {within:.0f} s")
        if is_over:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_TICK)
                return bytes(said)
        elif told.poll(_TICK * 1000):
            some = os.read(answers.fileno(), 64 * 1024)
            is_over = not some
            said += some
            if len(said) > LARGEST_MESSAGE:
                raise Unverified("the verifier gave no answer of ours")
    return None


def _read(said: bytes, status: int) -> Verified:
    if status < 0:
        raise Unverified(f"the verifier was ended by signal {-status}")
    if status > 0:
        raise Unverified(f"the verifier ended with status {status}")
    if len(said) > LARGEST_MESSAGE:
        raise Unverified("the verifier gave no answer of ours")
    try:
        answer: Answer = msgspec.json.decode(said, type=Verified | Failed)
    except ValueError:
        raise Unverified("the verifier gave no answer of ours") from None
    if isinstance(answer, Failed):
        raise Unverified(answer.failure)
    return answer


def _tell(found: Verified) -> None:
    facts = {"records": found.records, "sealed": found.sealed, "anchors": found.anchors}
    if not found.fault_count:
        _log.info("audit_verified", seconds=found.seconds, **facts)
        return
    first = found.faults[0]
    _log.critical(
        "audit_not_whole",
        faults=found.fault_count,
        place=first.place,
        kind=first.kind,
        sentence=first.sentence,
        **facts,
    )
