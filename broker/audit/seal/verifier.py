"""
The process that looks through the whole record: it gets one question, gives one answer, and ends.

It holds no secret, disturbs nobody, and does not outlive who asks.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from broker.audit.checkpoints import CheckpointRefused
from broker.audit.diagnosis import Wrong
from broker.audit.notes import NoteKey, NoteRefused
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.listing import opened_note
from broker.audit.seal.sealed import Anchor, Trust
from broker.audit.seal.stamps import StampsUnread, StampVerifier
from broker.audit.seal.verified import (
    LARGEST_MESSAGE,
    LONGEST_SENTENCE,
    MOST_FAULTS,
    Answer,
    Failed,
    Question,
    ToldFault,
    Verified,
    told,
)
from broker.lifeline import end_with_parent

_ANCHOR: Final = "anchor"
_MARGIN: Final = 5.0
"""Who asks is to end this process in time; only when it cannot does this process end by itself."""


def main() -> None:
    """Answer the question on standard input on standard output."""
    answers = _only_for_the_answer()
    _offer_itself()
    question = msgspec.json.decode(sys.stdin.buffer.read(LARGEST_MESSAGE), type=Question)
    if _tie(question):
        with open(answers, "wb") as file:  # noqa: PTH123 - of a descriptor.
            file.write(msgspec.json.encode(answer(question)))


def answer(question: Question) -> Answer:
    """What is found, or why nothing could be."""
    begun = time.monotonic()
    try:
        keys = [NoteKey.read(text) for text in question.keys]
        roots = question.stamp_roots
        stamps = StampVerifier(Path(roots)) if roots else None
        anchors, conflicts = _anchored(question.anchor, keys)
        trust = Trust(keys=keys, anchors=anchors, stamps=stamps)
        evidence = verify_log(Path(question.directory), trust)
    except OSError as error:
        return Failed(f"{type(error).__name__}: {error.strerror or ''}")
    except (StampsUnread, ValueError, MemoryError) as error:
        return Failed(f"{type(error).__name__}: {error}"[:LONGEST_SENTENCE])
    return _verified(evidence, conflicts, seconds=time.monotonic() - begun)


def _only_for_the_answer() -> int:
    """Standard output as a descriptor of its own; what anybody prints goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _offer_itself() -> None:
    """Be the first to be ended where memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _tie(question: Question) -> bool:
    """Have this process end with who asks, and in time; tells whether who asks is still there."""
    end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, question.within + _MARGIN)
    # It may have gone before the kernel was told.
    return os.getppid() == question.parent


def _anchored(note: str, keys: Sequence[NoteKey]) -> tuple[Sequence[Anchor], Sequence[ToldFault]]:
    if not note:
        return [], []
    try:
        return [Anchor(Path(_ANCHOR), opened_note(note, keys))], []
    except (NoteRefused, CheckpointRefused) as refused:
        sentence = f"what is anchored is no checkpoint by these keys: {refused}"
        return [], [ToldFault(_ANCHOR, Wrong.FOREIGN.value, sentence[:LONGEST_SENTENCE])]


def _verified(evidence: Evidence, conflicts: Sequence[ToldFault], *, seconds: float) -> Verified:
    faults = [*conflicts, *map(told, evidence.all_faults)]
    sealed = evidence.sealed
    return Verified(
        at=time.time(),
        seconds=round(seconds, 3),
        records=evidence.report.records,
        sealed=0 if sealed is None else sealed.records,
        anchors=0 if sealed is None else sealed.anchors,
        fault_count=len(faults),
        faults=tuple(faults[:MOST_FAULTS]),
    )


if __name__ == "__main__":
    main()
