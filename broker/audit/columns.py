"""Hashes of whole columns by Apache DataFusion, where it is installed: a call for thousands of them."""

import threading
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, Final

from broker.audit.hashing import (
    HASH_BYTES,
    HEX_BYTES,
    NODE,
    ONE_BY_ONE,
    PAIR_BYTES,
    PREV,
    Hashing,
    Lines,
)

WORTH_BYTES: Final = 256 * 1024 * 1024
"""From so many bytes on the engine is used: before that it takes longer to be loaded than it saves."""

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""So much is asked at a time, as asking takes a third of a millisecond."""

_FEW: Final = 1_024
"""Fewer nodes are hashed one by one: asking the engine costs as much, however little is asked."""

_COLUMN: Final = "content"
_MOST_ROWS: Final = 1 << 20


def hashing_for(size: int) -> Hashing:
    """Who hashes a record of so many bytes best."""
    if size < WORTH_BYTES or find_spec("datafusion") is None:
        return ONE_BY_ONE
    try:
        return Columns()
    except ImportError:
        # It is there and does not fit this machine.
        return ONE_BY_ONE


class Columns:
    """
    The engine, for processes that were forked before it was ever used, and for threads from then on.

    It lets go of the interpreter's lock while it computes. Raises ``ImportError`` where it is not installed.
    """

    def __init__(self, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes: Final = block_bytes
        _load()

    def __reduce__(self) -> tuple[Callable[[], "Columns"], tuple[()]]:
        return partial(Columns, block_bytes=self.block_bytes), ()

    @property
    def takes_turns(self) -> bool:
        """Whether more processes are of use to it: it has threads of its own, which no fork survives."""
        return not _PerThread.is_begun

    @property
    def _engine(self) -> "_Engine":
        if _HERE.engine is None:
            _PerThread.is_begun = True
            _HERE.engine = _Engine()
        return _HERE.engine

    def lines(self, data: bytearray, bounds: Sequence[int]) -> Lines:
        """Read the lines that begin right after the bounds."""
        # Our lines are ASCII, and the engine counts letters.
        if len(bounds) < 2 or not data.isascii():
            return ONE_BY_ONE.lines(data, bounds)
        return self._engine.lines(data, bounds)

    def parents(self, nodes: bytes) -> bytes:
        """The hashes over all whole pairs of hashes."""
        size = len(nodes) // PAIR_BYTES * PAIR_BYTES
        if size < _FEW * PAIR_BYTES:
            return ONE_BY_ONE.parents(nodes)
        step = _MOST_ROWS * PAIR_BYTES
        parts = [nodes[start : min(start + step, size)] for start in range(0, size, step)]
        return b"".join(map(self._engine.parents, parts))


def _load() -> tuple[Any, Any, Any]:
    import datafusion as engine  # noqa: PLC0415 - It is large, and few have it.
    import pyarrow as arrow  # noqa: PLC0415, ICN001
    import pyarrow.compute as compute  # noqa: PLC0415, PLR0402

    return engine, arrow, compute


class _Engine:
    """What one thread asks the engine with."""

    def __init__(self) -> None:
        engine, arrow, compute = _load()
        settings = engine.SessionConfig().with_target_partitions(1).with_batch_size(_MOST_ROWS)
        column, calls = engine.col(_COLUMN), engine.functions
        # Where it is not found there is no place, so that nothing is taken for what follows it.
        found = calls.nullif(calls.strpos(column, engine.lit(PREV.decode())), engine.lit(0))
        place = found + engine.lit(len(PREV))
        self._arrow: Any = arrow
        self._joined: Any = compute.binary_join_element_wise
        self._session: Any = engine.SessionContext(settings)
        self._hash: Any = calls.sha256(column).alias("hash")
        self._prev: Any = calls.substring(column, place, engine.lit(HEX_BYTES)).alias("prev")

    def lines(self, data: bytearray, bounds: Sequence[int]) -> Lines:
        """What stands between the bounds, hashed with the byte at the first bound."""
        column = self._column(self._arrow.string(), data, bounds)
        leaves, prevs = self._asked(column, self._hash, self._prev)
        count = len(bounds) - 1
        return Lines(
            _exactly(leaves, HASH_BYTES * count), prevs if len(prevs) == HEX_BYTES * count else b""
        )

    def parents(self, nodes: bytes) -> bytes:
        """The hashes over pairs of hashes."""
        arrow, count = self._arrow, len(nodes) // PAIR_BYTES
        pairs = self._column(arrow.binary(), nodes, range(0, len(nodes) + 1, PAIR_BYTES))
        content = self._joined(_scalar(arrow, NODE), pairs, _scalar(arrow, b""))
        (hashes,) = self._asked(content, self._hash)
        return _exactly(hashes, HASH_BYTES * count)

    def _column(self, kind: Any, data: bytes | bytearray, bounds: Sequence[int]) -> Any:
        """What stands between the bounds, without a copy."""
        arrow = self._arrow
        places, content = arrow.py_buffer(array("i", bounds)), arrow.py_buffer(data)
        return arrow.Array.from_buffers(kind, len(bounds) - 1, [None, places, content])

    def _asked(self, column: Any, *wanted: Any) -> Sequence[bytes]:
        """The values of what is wanted of a column, one after the other."""
        batch = self._arrow.record_batch([column], [_COLUMN])
        # Not ``from_arrow``, which keeps what it is given as a table for as long as the session lives.
        answers = self._session.read_batch(batch).select(*wanted).collect()
        return [
            b"".join(_values(answer.column(number)) for answer in answers)
            for number in range(len(wanted))
        ]


class _PerThread(threading.local):
    """The engine of each thread, and whether this process has begun to use any."""

    is_begun: ClassVar[bool] = False
    engine: _Engine | None = None


_HERE: Final = _PerThread()


def _values(column: Any) -> bytes:
    """What a column of texts or bytes has, one after the other (Arrow's variable-size binary layout)."""
    _, offsets, data = column.buffers()
    places = memoryview(offsets).cast("i")
    first, last = places[column.offset], places[column.offset + len(column)]
    return bytes(memoryview(data)[first:last])


def _scalar(arrow: Any, value: bytes) -> Any:
    return arrow.scalar(value, arrow.binary())


def _exactly(hashes: bytes, size: int) -> bytes:
    if len(hashes) != size:
        raise RuntimeError("the engine for columns gave other hashes than it was asked for")
    return hashes
