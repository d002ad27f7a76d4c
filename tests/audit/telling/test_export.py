"""Records handed over as a file: all that were asked for, and a manifest that tells of any other file."""

import hashlib
import json
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.audit.chain import line_hash
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import AuditReader, Query
from broker.audit.telling import export as exporting
from broker.audit.telling.export import ExportRefused, check_export, stream, write_export
from broker.audit.telling.formats import FORMATS
from broker.audit.telling.manifest import Manifest, query_text
from tests.audit.telling import logs, records
from tests.audit.telling.signer import KEY, NAME, Signer

MANY = 25


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditReader]:
    """A record of some exchanges, of which some were refused."""
    directory = tmp_path_factory.mktemp("audit")
    told = [records.exchange(event_id=f"e{one}", jti=f"t{one}") for one in range(MANY)]
    logs.write(directory, *told, records.denied(event_id="refused"))
    found = SqliteAuditReader(directory)
    found.catch_up()
    yield found
    found.close()


def exported(
    reader: AuditReader, to: Path, name: str = "ndjson", query: Query | None = None
) -> Path:
    """An export with a signed manifest; its path."""
    asked = query or Query()

    def manifest(done: exporting.Exported) -> str:
        return Manifest(
            origin=NAME,
            format=name,
            query=query_text(asked),
            count=done.count,
            first=done.first,
            last=done.last,
            file=to.name,
            size=done.size,
            sha256=done.sha256,
            checkpoint=None,
            unread={},
            time="2026-11-22T08:00:00.000000Z",
            by="root",
        ).signed(Signer())

    write_export(reader, asked, FORMATS[name], to=to, manifest=manifest)
    return to


def beside(path: Path) -> Path:
    """The manifest of an export."""
    return path.with_name(path.name + ".manifest")


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_of_everything_verifies(name: str, reader: AuditReader, tmp_path: Path) -> None:
    told = check_export(beside(exported(reader, tmp_path / "out", name)), [KEY])

    assert told.count == MANY + 3
    assert told.sha256 == hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()


def test_only_what_was_asked_for_is_exported(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out", query=Query(decisions=("deny",)))

    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["event_id"] == "refused"
    assert check_export(beside(path), [KEY]).query == '{"decisions": ["deny"]}'


def test_the_manifest_names_the_records_at_both_ends(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out")

    first, *_, last = path.read_bytes().splitlines()
    told = check_export(beside(path), [KEY])
    assert told.first is not None
    assert told.last is not None
    assert (told.first.hash, told.last.hash) == (line_hash(first), line_hash(last))
    assert (told.first.seq, told.last.seq) == (MANY + 2, 0)


def test_an_export_of_nothing_is_empty_and_verifies(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out", query=Query(clients=("nobody",)))

    assert path.read_bytes() == b""
    assert check_export(beside(path), [KEY]).count == 0


def test_records_come_page_after_page(reader: AuditReader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(stream(reader, Query(), FORMATS["csv"]))
    monkeypatch.setattr(exporting, "MOST_ROWS", 4)

    assert list(stream(reader, Query(), FORMATS["csv"])) == whole
    assert len(whole) == MANY + 4


def test_both_files_are_for_their_owner_alone(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out")

    for one in (path, beside(path)):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [path, beside(path)]


@pytest.mark.parametrize("name", ["out", "out.manifest"])
def test_what_is_there_is_never_written_over(
    name: str, reader: AuditReader, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(ExportRefused, match="is there already"):
        exported(reader, tmp_path / "out")

    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_not_followed(reader: AuditReader, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ExportRefused):
        exported(reader, tmp_path / "out")

    assert not (tmp_path / "elsewhere").exists()


def test_an_export_that_fails_half_way_leaves_nothing(reader: AuditReader, tmp_path: Path) -> None:
    def refuse(_done: exporting.Exported) -> str:
        raise ExportRefused("no key")

    with pytest.raises(ExportRefused, match="no key"):
        write_export(reader, Query(), FORMATS["csv"], to=tmp_path / "out", manifest=refuse)

    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(reader: AuditReader, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="cannot be written: No such file"):
        exported(reader, tmp_path / "nowhere" / "out")


def test_a_full_disk_leaves_nothing(reader: AuditReader, tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        with pytest.raises(ExportRefused, match="cannot be written: File too large"):
            exported(reader, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, before)

    assert not list(tmp_path.iterdir())


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_a_row_removed_is_refused(
    name: str, reader: AuditReader, tmp_path: Path
) -> None:
    path = exported(reader, tmp_path / "out", name)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], *lines[6:]]))

    with pytest.raises(ExportRefused, match="bytes, and its manifest says"):
        check_export(beside(path), [KEY])


@pytest.mark.requirement("LOG-05")
def test_a_file_in_which_rows_changed_places_is_refused(
    reader: AuditReader, tmp_path: Path
) -> None:
    path = exported(reader, tmp_path / "out")
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))

    with pytest.raises(ExportRefused, match="SHA-256"):
        check_export(beside(path), [KEY])


@pytest.mark.requirement("LOG-05")
def test_a_manifest_that_was_changed_is_refused(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out")
    note = beside(path).read_text()
    beside(path).write_text(note.replace(f"count {MANY + 3}", f"count {MANY + 2}"))

    with pytest.raises(ExportRefused, match="signature"):
        check_export(beside(path), [KEY])


def test_a_manifest_that_nobody_signed_is_refused(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out")
    beside(path).write_text(beside(path).read_text().partition("\n\n")[0] + "\n")

    with pytest.raises(ExportRefused):
        check_export(beside(path), [KEY])


def test_a_file_without_its_manifest_cannot_be_checked(reader: AuditReader, tmp_path: Path) -> None:
    path = exported(reader, tmp_path / "out")
    path.unlink()

    with pytest.raises(FileNotFoundError):
        check_export(beside(path), [KEY])


def test_a_huge_manifest_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "out.manifest").write_bytes(b"x" * 200_000)

    with pytest.raises(ExportRefused, match="too large"):
        check_export(tmp_path / "out.manifest", [KEY])
