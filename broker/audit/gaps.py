"""Where a chain that no longer fits can be taken up again."""

from pathlib import Path

from broker.audit.chain import MAX_LINE_BYTES, Head, decode_link
from broker.audit.follow import Position
from broker.audit.segments import find_segments, regular


def next_beginning(directory: Path, writer: str, position: Position) -> Position | None:
    """
    The beginning of the next segment after a position, or ``None`` while there is none.

    What its first line says of the line before is taken as it is. Raises ``OSError``.
    """
    for number, path in find_segments(directory).get(writer, {}).items():
        if number > position.number:
            with open(path, "rb", opener=regular) as file:
                opening = decode_link(file.readline(MAX_LINE_BYTES)[:-1])
            if opening is not None and opening.writer == writer:
                return Position(number, 0, Head(opening.seq, opening.prev))
    return None
