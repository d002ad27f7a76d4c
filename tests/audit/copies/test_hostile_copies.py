"""A copy may hold anything at any length: it is read to its end, in bounded memory, and named."""

import os
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO, RawIOBase
from pathlib import Path

import pytest

from broker.audit.chain import MAX_LINE_BYTES
from broker.audit.copies import comparing, reading, whose
from broker.audit.copies.comparing import Expected, compare_copies
from broker.audit.copies.reading import Copied, Copy, NoRecord, read_line
from broker.audit.copies.standing import read_log
from tests.audit.copies.received import compared, kept, received
from tests.audit.seal.sealed_logs import SealedLog

HASH = "a" * 64
CEF = (
    b"CEF:0|delegation-broker|delegation-broker|1|token.issue|Token requested|2|"
    b"rt=1 deviceExternalId=%s cn1=%s cn1Label=seq flexString2=%s"
)


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\xff\xfe" * 50,
        b"\x1b]0;owned\x07\x1b[2J",
        b"{",
        b'{"',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"writer":"http-0"}',
        b'{"writer":"http-0","seq":0}',
        b'{"writer":"http-0","seq":-1,"prev":"x"}',
        b'{"writer":"http-0","seq":1.5,"prev":"x"}',
        b'{"writer":"http-0","seq":true,"prev":"x"}',
        b'{"writer":"http-0","seq":' + b"9" * 4_000 + b',"prev":"x"}',
        b'{"writer":"../x","seq":0,"prev":"x"}',
        b'{"writer":"\\u001b[2J","seq":0,"prev":"x"}',
        b'{"writer":"http-0","seq":0,"prev":"x"} trailing',
        b'{"writer":"http-0","seq":0,"cut_bytes":5,"hash":"short"}',
        b'{"writer":"http-0","seq":0,"cut_bytes":5,"hash":"%s"}' % ("z" * 64).encode(),
        b'{"writer":"http-0","seq":0,"cut_bytes":5,"hash":"%s"}' % (" aa" * 32).encode(),
        b'{"writer":"http-0","seq":0,"hash":"%s"}' % HASH.encode(),
        b'{"metadata":{"log_name":"http-0","sequence":0}}',
        b'{"metadata":7,"unmapped":{"line_hash":"%s"}}' % HASH.encode(),
        b'{"metadata":{"log_name":"../x","sequence":0},"unmapped":{"line_hash":"%s"}}'
        % HASH.encode(),
        b'{"metadata":{"log_name":"w","sequence":-1},"unmapped":{"line_hash":"%s"}}'
        % HASH.encode(),
        b'{"metadata":{"log_name":"w","sequence":0},"unmapped":{"line_hash":"short"}}',
        CEF % (b"../x", b"0", HASH.encode()),
        CEF % (b"w", b"-1", HASH.encode()),
        CEF % (b"w", b"9" * 4_000, HASH.encode()),
        CEF % (b"w", b"\xc2\xb2", HASH.encode()),
        CEF % (b"\xff", b"0", HASH.encode()),
        CEF % (b"w", b"0", b"short"),
        CEF % (b"w", b"0 cn1=1", HASH.encode()),
        CEF % (b"w", b"0", HASH.encode() + b" flexString2=" + HASH.encode()),
        (CEF % (b"w", b"0", HASH.encode())).replace(b"|delegation-broker", b"|somebody-else", 1),
    ],
)
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert read_line(line) is NoRecord.SOMETHING_ELSE


def test_a_line_of_cef_that_ends_too_early_was_cut_off() -> None:
    line = CEF % (b"w", b"0", HASH.encode())

    assert isinstance(read_line(line), Copied)
    assert read_line(line.partition(b" flexString2")[0]) is NoRecord.CUT_OFF


def test_a_name_of_a_log_that_is_none_is_passed_over() -> None:
    found = read_line(b'{"writer":"w","seq":0,"prev":"x","log_id":"\\u001b[2J"}')

    assert isinstance(found, Copied)
    assert found.log_id == ""


@pytest.mark.parametrize(
    "row",
    [
        b'"w"',
        b'"w","1"',
        b'"../x","1","%s"' % HASH.encode(),
        b'"w","-1","%s"' % HASH.encode(),
        b'"w","\xc2\xb2","%s"' % HASH.encode(),
        b'"w","%s","%s"' % (b"9" * 40, HASH.encode()),
        b'"w","1","%s"' % (b"a" * 63),
        b'"w","1","' + b"x" * 140_000,
        b'"\x00","1","%s"' % HASH.encode(),
    ],
)
def test_a_row_that_is_no_record_is_none(row: bytes) -> None:
    copy = Copy(Path("x"), BytesIO(b'"writer","seq","line_hash"\r\n' + row + b"\r\n"), 0)

    assert [entry for _, entry in copy.entries()] == [None, NoRecord.SOMETHING_ELSE]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_copy_that_ends_in_the_middle_of_a_record_is_read_until_there(
    sound: SealedLog, tmp_path: Path, cut: float
) -> None:
    lines = received(sound, "http-0")
    copy = kept(tmp_path / "copy", lines[:5])
    with copy.open("ab") as file:
        file.write(lines[5][: int(len(lines[5]) * cut)])

    found = compared(sound, copy)

    assert (found.is_whole, found.matching, found.unread) == (True, 5, 1)
    assert found.remarks[-1].startswith(f"{copy}:6: it ")


def test_an_empty_copy_and_one_of_empty_lines_have_no_record(
    sound: SealedLog, tmp_path: Path
) -> None:
    for content in (b"", b"\n" * 1000, b"\xef\xbb\xbf"):
        (tmp_path / "copy").write_bytes(content)
        found = compared(sound, tmp_path / "copy")
        assert (found.records, found.unread) == (0, 0)


def test_a_line_that_never_ends_is_passed_over_and_the_next_one_is_read(
    sound: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 2_000)
    lines = received(sound, "http-0")
    long = lines[0] + b" " * 9_000
    exact = b"x" * 1_999

    found = compared(
        sound, kept(tmp_path / "copy", [lines[0], long, exact, b"x" * 2_000, lines[1]])
    )

    assert (found.matching, found.unread) == (2, 3)
    assert [one.partition("copy:")[2] for one in found.remarks[-3:]] == [
        "2: it is longer than a record can be",
        "3: it is no record",
        "4: it is longer than a record can be",
    ]


def test_a_record_of_the_greatest_length_has_room_for_what_stands_before_it() -> None:
    assert reading.LONGEST_LINE - MAX_LINE_BYTES >= 8 * 1024


class Endless(RawIOBase):
    """A stream of lines, turn by turn, of which only what is asked for is there."""

    def __init__(self, turn: Callable[[int], list[bytes]], times: int) -> None:
        self._chunks = (b"".join(one + b"\n" for one in turn(number)) for number in range(times))
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        end = self._rest.find(b"\n") + 1
        end = min(end or len(self._rest), size if size and size > 0 else len(self._rest))
        line, self._rest = self._rest[:end], self._rest[end:]
        return line


def test_however_long_a_copy_is_what_is_remembered_of_it_is_bounded(
    sound: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, unknown ones of ever new chains, numbers and logs, and lines that are none."""
    monkeypatch.setattr(comparing, "MOST_CHAINS", 20)
    monkeypatch.setattr(whose, "MOST_LINKS", 20)
    monkeypatch.setattr(whose, "MOST_LOGS", 8)

    def turn(number: int) -> list[bytes]:
        some = range(60 * number, 60 * number + 60)
        return [
            *received_once,
            *(b'x {"writer":"w%d","seq":%d,"prev":"p"}' % (at, at * 10**6) for at in some),
            *(b'{"writer":"http-0","seq":%d,"prev":"p"}' % at for at in some),
            *(b'{"writer":"w","seq":0,"prev":"p","log_id":"%016x"}' % at for at in some),
            *(b"\xff%d" % at for at in some),
        ]

    received_once = received(sound, "keys")
    peaks = []
    for times in (1, 2, 10):
        copy = Copy(Path("-"), Endless(turn, times), 0)  # type: ignore[arg-type]
        monkeypatch.setattr(comparing, "opened", lambda _path, given=copy: nullcontext(given))
        tracemalloc.start()
        found = compare_copies(sound.directory, [Path("-")], Expected())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.records, found.unread) == (183 * times, 60 * times)
        assert len(found.faults) <= 3 * comparing.MOST_TOLD + whose.MOST_LOGS
        assert len(found.remarks) <= 2 * comparing.MOST_TOLD
        assert len(found.chains) <= 3 + comparing.MOST_CHAINS
    assert peaks[2] < peaks[1] + 15_000


def test_what_is_kept_of_the_log_is_a_hash_and_a_mark_for_each_record(sound: SealedLog) -> None:
    chains = read_log(sound.directory).chains

    for one in chains.values():
        assert isinstance(one.hashes, bytearray)
        assert (len(one.hashes), len(one.marks)) == (32 * one.records, one.records)


def test_a_pipe_is_read_to_its_end(sound: SealedLog, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = received(sound)
    writer = threading.Thread(target=kept, args=(pipe, lines))
    writer.start()

    found = compared(sound, pipe)

    writer.join()
    assert found.matching == len(lines)


def test_progress_goes_through_the_log_and_then_through_the_copies(
    sound: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_TELLS_EVERY", 10)
    copies = [kept(tmp_path / name, received(sound)) for name in ("a", "b")]
    told: list[tuple[int, int]] = []

    compare_copies(
        sound.directory, copies, Expected(), progress=lambda done, whole: told.append((done, whole))
    )

    walked = [done for done, _ in told]
    assert walked == sorted(walked)
    assert len({whole for _, whole in told[3:]}) == 1
    assert told[-1][0] == told[-1][1]
