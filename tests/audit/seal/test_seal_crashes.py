"""Whatever a crash or a disk leaves of the sealer's files, the next step goes on from what was sealed."""

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.audit.merkle import root_of
from broker.audit.notes import open_note
from broker.audit.seal.lines import first_line
from broker.audit.seal.store import CheckpointsDamaged, CheckpointStore, Spot
from tests.audit.disks import fill, small_disk
from tests.audit.seal.logs import Log, leaves_by_definition
from tests.audit.seal.signers import signer_of

CHECKPOINTS = Path("checkpoints/000001.jsonl")
STATE = Path("tree/state.json")


@pytest.fixture(scope="module")
def sealed_twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Log]:
    """A record after its second checkpoint, and a copy of it from before that."""
    folder = tmp_path_factory.mktemp("crashes")
    log = Log(folder / "audit")
    log.write("a", 5)
    log.sealer.step()
    log.write("a", 5)
    log.write("b", 2)
    shutil.copytree(log.directory, folder / "before")
    log.sealer.step()
    log.close()
    return folder / "before", log


def goes_on(directory: Path, log: Log) -> None:
    """A new process seals all there is, so that every root comes out."""
    sealer = Log.new_sealer(log, directory=directory)
    sealer.step()
    faults = sealer.faults
    sealer.close()
    assert not faults
    kept = list(CheckpointStore(directory).all())
    checkpoints = [one.checkpoint for one in kept]
    for number, one in enumerate(kept, start=1):
        open_note(one.note, signer_of(log.keys).keys())
        leaves = leaves_by_definition(directory, checkpoints[:number])
        assert one.checkpoint.root == root_of(leaves)


def crashed(sealed: tuple[Path, Log], target: Path, *, written: set[str], cut: int | None) -> Path:
    """The files of before, with what was written of the second checkpoint until the crash."""
    before, log = sealed
    shutil.copytree(before, target)
    if "tree" in written:
        shutil.rmtree(target / "tree")
        shutil.copytree(log.directory / "tree", target / "tree")
        shutil.copy(before / STATE, target / STATE)
    if "checkpoint" in written:
        whole = (log.directory / CHECKPOINTS).read_bytes()
        first = len((before / CHECKPOINTS).read_bytes())
        (target / CHECKPOINTS).write_bytes(whole if cut is None else whole[: first + cut])
    if "state" in written:
        shutil.copy(log.directory / STATE, target / STATE)
    return target


@pytest.mark.parametrize(
    ("written", "cut"),
    [
        (set(), None),
        ({"tree"}, None),
        ({"tree", "checkpoint"}, 1),
        ({"tree", "checkpoint"}, 200),
        ({"tree", "checkpoint"}, -1),
        ({"tree", "checkpoint"}, None),
        ({"checkpoint"}, None),
        ({"checkpoint", "state"}, None),
        ({"tree", "checkpoint", "state"}, None),
    ],
)
def test_a_crash_between_any_two_writes_loses_nothing(
    sealed_twice: tuple[Path, Log], tmp_path: Path, written: set[str], cut: int | None
) -> None:
    before, log = sealed_twice
    if cut == -1:
        whole = (log.directory / CHECKPOINTS).stat().st_size
        cut = whole - (before / CHECKPOINTS).stat().st_size - 1
    directory = crashed(sealed_twice, tmp_path / "audit", written=written, cut=cut)
    torn = cut is not None
    with capture_logs() as told:
        goes_on(directory, log)
    assert ("audit_line_cut_off" in [one["event"] for one in told]) == torn
    assert not [one for one in told if one["log_level"] == "critical"]


def test_readers_pass_over_what_is_being_written_and_nothing_else(
    sealed_twice: tuple[Path, Log], tmp_path: Path
) -> None:
    directory = crashed(sealed_twice, tmp_path / "audit", written={"checkpoint"}, cut=300)
    store = CheckpointStore(directory)
    assert len(list(store.all())) == 1
    last = store.last()
    assert last is not None
    assert last.end == Spot(1, (sealed_twice[0] / CHECKPOINTS).stat().st_size)
    path = directory / CHECKPOINTS
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(CheckpointsDamaged, match=r"000001\.jsonl"):
        list(store.all())
    with pytest.raises(CheckpointsDamaged, match=r"000001\.jsonl"):
        store.last()


def test_the_first_line_of_many_is_found_by_few_reads(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = [b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(2_000)]
    path.write_bytes(b"".join(lines))
    looks = 0

    def is_there(line: bytes) -> bool:
        nonlocal looks
        looks += 1
        return int(line.split()[0]) >= wanted

    with path.open("rb") as file:
        end = path.stat().st_size
        for wanted in (0, 1, 777, 1_500, 1_999):
            start = len(b"".join(lines[:wanted]))
            assert first_line(file, end, is_there) == (start, lines[wanted])
        wanted = 2_000
        assert first_line(file, end, is_there) == (end, b"")
    assert looks < 6 * len(lines) / 4


def test_the_first_checkpoint_of_which_something_is_so_is_found_among_many(tmp_path: Path) -> None:
    log = Log(tmp_path / "audit")
    log.sealer._store = CheckpointStore(log.directory, file_bytes=9_000)
    for _ in range(40):
        log.write("a", 1)
        log.sealer.step()
    log.close()
    store = CheckpointStore(log.directory)
    kept = list(store.all())
    assert len(store.files()) > 1
    for number in (0, 1, 13, 14, 15, 25, 39):
        size = kept[number].checkpoint.size
        found = store.first(lambda one, size=size: one.size >= size)  # type: ignore[misc]
        assert found is not None
        assert found[1].checkpoint == kept[number].checkpoint
        assert found[0] == (kept[number - 1].checkpoint if number else None)
    assert store.first(lambda _: False) is None
    assert store.holds(kept[10].note)
    assert not store.holds(kept[10].note + "x")


def step_until_full(log: Log) -> None:
    """Seal again and again: the last page of a file may have room for a while."""
    for _ in range(100):
        log.clock.now += 3_600
        log.sealer.step()


@pytest.mark.requirement("R-30")
def test_a_full_disk_stops_sealing_and_room_lets_it_go_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        log = Log(disk / "audit")
        log.sealer.step()
        log.write("a", 3)
        filler = fill(disk)
        with pytest.raises(OSError, match="No space"):
            step_until_full(log)
        filler.unlink()
        log.sealer.step()
        log.close()
        goes_on(log.directory, log)
