"""Hashes of many lines and nodes at once: the same by whoever computes them, and the same verdicts."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit import columns
from broker.audit.chain import GENESIS
from broker.audit.columns import Columns, hashing_for
from broker.audit.diagnosis import Wrong
from broker.audit.hashing import ONE_BY_ONE, Hashing
from broker.audit.merkle import Frontier
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.sealed import Trust
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of
from tests.audit.trees import root_as_defined

COLUMNS = Columns(block_bytes=1_000)
BOTH = pytest.mark.parametrize("hashing", [ONE_BY_ONE, COLUMNS], ids=["one by one", "columns"])
HASH = "0123456789abcdef" * 4


def block_of(lines: Sequence[bytes]) -> tuple[bytearray, list[int]]:
    """Lines as a walk has them before it: a byte before each, and where those stand."""
    data = bytearray(b"".join(b"\0" + line for line in lines) + b"\0half a li")
    return data, [0, *accumulate(len(line) + 1 for line in lines)]


LINES = st.lists(
    st.binary(max_size=60)
    | st.text(max_size=20).map(str.encode)
    | st.text("0123456789abcdef", min_size=60, max_size=70).map(
        lambda told: b'{"one":"\0","prev":"' + told.encode() + b'","seq":7}'
    ),
    max_size=12,
)


@BOTH
@settings(max_examples=40)
@given(lines=LINES)
def test_every_line_is_hashed_as_a_leaf(hashing: Hashing, lines: Sequence[bytes]) -> None:
    found = hashing.lines(*block_of(lines))

    assert found.leaves == b"".join(hashlib.sha256(b"\0" + line).digest() for line in lines)


@BOTH
@settings(max_examples=40)
@given(ends=st.lists(st.text("abc", max_size=9), min_size=1, max_size=9))
def test_what_each_line_remembers_is_read(hashing: Hashing, ends: Sequence[str]) -> None:
    prevs = [hashlib.sha256(end.encode()).hexdigest() for end in ends]
    lines = [
        f'{{"a":1,"prev":"{prev}","z":"{end}"}}' for prev, end in zip(prevs, ends, strict=True)
    ]

    assert (
        hashing.lines(*block_of([line.encode() for line in lines])).prevs == "".join(prevs).encode()
    )


@BOTH
@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"prev":"0123"}', f'{{"prev": "{HASH}"}}'.encode(), b"\xff" * 90]
)
def test_a_line_that_remembers_nothing_is_taken_for_no_other(hashing: Hashing, line: bytes) -> None:
    whole = f'{{"prev":"{HASH}"}}'.encode()

    for lines in ([line], [line, whole], [whole, line], [whole, line, whole]):
        assert hashing.lines(*block_of(lines)).prevs != HASH.encode() * len(lines)


@BOTH
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1_000, 4_097])
def test_a_tree_is_the_same_whoever_hashes(hashing: Hashing, count: int) -> None:
    leaves = [hashlib.sha256(b"%d" % number).digest() for number in range(count)]
    tree = Frontier(hashing=hashing)
    tree.extend(b"".join(leaves))

    assert tree.root() == root_as_defined(leaves)


def test_the_engine_is_not_loaded_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashing_for(columns.WORTH_BYTES - 1) is ONE_BY_ONE
    assert isinstance(hashing_for(columns.WORTH_BYTES), Columns)
    monkeypatch.setattr(columns, "find_spec", lambda _: None)
    assert hashing_for(columns.WORTH_BYTES) is ONE_BY_ONE


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


def by_columns(log: SealedLog, *, threads: int = 1) -> Evidence:
    return verify_log(log.directory, Trust(keys=[log.key]), processes=threads, hashing=COLUMNS)


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("threads", [1, 3])
def test_an_untouched_log_is_whole_by_columns(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("broker.audit.seal.chains.WORTH_SHARING", 0)

    assert by_columns(log, threads=threads) == log.verify()
    assert by_columns(log).is_whole


def test_processes_that_are_forked_before_the_engine_is_used_walk_as_well(log: SealedLog) -> None:
    program = """
import sys
from pathlib import Path
import broker.audit.seal.chains
from broker.audit.columns import Columns
from broker.audit.notes import NoteKey
from broker.audit.seal.evidence import verify_log
from broker.audit.seal.sealed import Trust
broker.audit.seal.chains.WORTH_SHARING = 0
hashing = Columns(block_bytes=1_000)
trust = Trust(keys=[NoteKey.read(sys.argv[2])])
for _ in range(2):
    shared = hashing.takes_turns
    found = verify_log(Path(sys.argv[1]), trust, processes=2, hashing=hashing)
    print(shared, found.is_whole, found.report.records)
    hashing.parents(bytes(64 * 2_000))
"""
    told = subprocess.run(
        [sys.executable, "-c", program, log.directory, log.key.text],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    records = log.verify().report.records
    assert told.stdout.splitlines() == [f"True True {records}", f"False True {records}"]


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "harm", ["a letter", "a line gone", "two lines changed about", "cut", "not ASCII"]
)
def test_any_harm_is_found_and_named_alike(
    log: SealedLog, tmp_path: Path, harm: str, place: float
) -> None:
    harmed = log.copy(tmp_path / "audit")
    path = sorted(harmed.directory.glob("http-0.*.jsonl"))[1]
    path.write_bytes(harmed_by(harm, path.read_bytes(), place))
    found = by_columns(harmed)

    assert not found.is_whole
    assert found == harmed.verify()


def harmed_by(harm: str, data: bytes, place: float) -> bytes:
    lines = data.splitlines(keepends=True)
    number = int(place * (len(lines) - 1))
    line = lines[number]
    match harm:
        case "a letter":
            lines[number] = line.replace(b'"time":"2', b'"time":"3')
        case "not ASCII":
            lines[number] = line.replace(b'"time":"2', b'"time":"\xff')
        case "a line gone":
            del lines[number]
        case "two lines changed about":
            lines[number : number + 2] = lines[number : number + 2][::-1]
        case "cut":
            return data[: int(place * len(data))]
    return b"".join(lines)


def test_lines_that_say_their_place_in_another_order_still_fit(tmp_path: Path) -> None:
    """Those of another version: each is decoded, as nothing is where it is looked for first."""
    previous, lines = "0" * 64, []
    for seq in range(30):
        line = (
            f'{{"v":9,"more":{{"prev":"{HASH}"}},"prev" : "{previous}","event":"x",'
            f'"time":"2026-01-01T00:00:00Z","writer":"w","seq":{seq}}}'
        ).encode()
        lines.append(line + b"\n")
        previous = hashlib.sha256(b"\0" + line).hexdigest()
    (tmp_path / "w.000001.jsonl").write_bytes(b"".join(lines))
    for hashing in (ONE_BY_ONE, COLUMNS):
        found = verify_log(tmp_path, Trust(), hashing=hashing)
        assert found.is_whole
        assert found.report.records == 30
    (tmp_path / "w.000001.jsonl").write_bytes(b"".join([*lines[:9], *lines[10:]]))
    for hashing in (ONE_BY_ONE, COLUMNS):
        (fault,) = verify_log(tmp_path, Trust(), hashing=hashing).all_faults
        assert (fault.place.line, fault.wrong) == (10, Wrong.MISSING)


def chain_of(directory: Path, odd: str, *, at: int, count: int = 40) -> None:
    """A chain of another version, in which one line is ``odd``, where ``{prev}`` is the hash before it."""
    previous, lines = GENESIS, []
    for seq in range(count):
        line = f'{{"event":"x","prev":"{previous}","seq":{seq},"time":"","v":9,"writer":"w"}}'
        told = (odd.replace("{prev}", previous) if seq == at else line).encode()
        lines.append(told + b"\n")
        previous = hashlib.sha256(b"\0" + told).hexdigest()
    (directory / "w.000001.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize("hashing", [ONE_BY_ONE, COLUMNS, Columns()])
@pytest.mark.parametrize("at", [*range(10, 20), 39])
@pytest.mark.parametrize(
    "odd", ['{"p":"{prev}","event":"x"}', "x" * 300_000 + '"prev":"{prev}"', ""]
)
def test_what_is_no_line_does_not_fit(tmp_path: Path, hashing: Hashing, odd: str, at: int) -> None:
    chain_of(tmp_path, odd, at=at)

    found = verify_log(tmp_path, Trust(), hashing=hashing)
    assert not found.is_whole
    assert found.report.records == at


@BOTH
def test_the_last_line_has_to_be_a_record(tmp_path: Path, hashing: Hashing) -> None:
    chain_of(tmp_path, '"prev":"{prev}"', at=39)

    assert not verify_log(tmp_path, Trust(), hashing=hashing).is_whole


def test_the_engine_keeps_nothing_of_what_it_was_asked() -> None:
    hashing = Columns()
    for _ in range(3):
        hashing.lines(*block_of([b"{}"] * 4))

    assert not hashing._engine._session.catalog().schema().names()
