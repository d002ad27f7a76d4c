"""What is taken away from the auditor's pages: verified elsewhere by the real command, or not there."""

import asyncio
import gc
import io
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from click.testing import CliRunner, Result
from starlette.requests import Request
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from broker.audit.chain import line_hash
from broker.audit.query import Extent, Query
from broker.audit.telling.formats import FORMATS
from broker.audit.telling.handover import NotSigned, SignedHandover, Terms
from broker.audit.telling.manifest import Manifest
from broker.cli import main
from broker.web.review.desk import QUESTIONS_AT_ONCE, TooBusy
from broker.web.review.download import Downloads
from broker.web.review.export import Bounds, Exporting
from broker.web.review.routes import review_routes
from tests.e2e.patience import until
from tests.fakes import RecordingAuditLog
from tests.web.review.browsing import served_routes
from tests.web.review.conftest import client_of, desk_of
from tests.web.review.story import NOW, PEOPLE, Story, issue, told_in
from tests.web.review.taking import rest_of, unpacked
from tests.web.review.test_pages_under_attack import recorded

NAME = "audit-2026-11-22T140510Z"
MANY = 1_200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """More records than one piece of a download has, sealed."""
    story = Story(tmp_path_factory.mktemp("many") / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW - 1) for number in range(MANY - 1)))
    story.seal()
    yield story
    story.close()


def verify(story: Story, manifest: Path) -> Result:
    """What the command says, which has the public key and nothing else of the log."""
    (key,) = story.signer.keys()
    command = ["audit", "verify-export", str(manifest), "--key", key.text, "-o", "json"]
    return CliRunner().invoke(main, command)


def told_by(story: Story, archive: bytes, to: Path) -> dict[str, Any]:
    """What the command says of a download that is as its manifest says."""
    result = verify(story, unpacked(archive, to))
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["is_whole"]
    return told


def made(exporting: Exporting) -> bytes:
    """All of an archive."""
    return exporting.first_piece() + rest_of(exporting)


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("form", FORMATS)
def test_a_download_is_verified_elsewhere_by_the_public_key_alone(
    form: str, client: TestClient, story: Story, tmp_path: Path
) -> None:
    answer = client.get(f"/audit/export?format={form}&decision=deny&person={PEOPLE[0]}")
    told = told_by(story, answer.content, tmp_path)

    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}.zip"'
    assert told["file"] == f"{NAME}.{FORMATS[form].suffix}"
    assert told["format"] == form
    assert json.loads(told["query"]) == {"decisions": ["deny"], "people": [PEOPLE[0]]}
    assert told["count"] > 0
    assert told["is_complete"]
    assert told["by"] == "somebody, on the auditor's pages"
    assert told["time"] == "2026-11-22T14:05:10.000000Z"


def test_a_download_says_the_newest_checkpoint_and_the_records_at_both_ends(
    many: Story, tmp_path: Path
) -> None:
    answer = client_of(desk_of(many)).get("/audit/export?format=ndjson")
    told = told_by(many, answer.content, tmp_path)
    lines = (tmp_path / f"{NAME}.ndjson").read_bytes().splitlines()

    assert many.sealer.last is not None
    assert told["checkpoint"] == {
        "digest": many.sealer.last.checkpoint.digest,
        "size": MANY,
    }
    assert told["count"] == len(lines) == MANY
    assert (told["first"]["hash"], told["last"]["hash"]) == (
        line_hash(lines[0]),
        line_hash(lines[-1]),
    )
    assert (told["first"]["seq"], told["last"]["seq"]) == (MANY - 1, 0)


def test_a_download_of_nothing_says_so_and_is_signed(
    client: TestClient, story: Story, tmp_path: Path
) -> None:
    answer = client.get("/audit/export?format=csv&client=nobody")

    assert told_by(story, answer.content, tmp_path)["count"] == 0


def test_what_is_recorded_after_the_click_is_not_in_the_download(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW - 1) for number in range(700)))
    story.seal()
    exporting = Exporting(desk_of(story), Query(), FORMATS["ndjson"], by="olga")
    first = exporting.first_piece()
    story.tell(issue("late", at=NOW))
    story.seal()
    told = told_by(story, first + rest_of(exporting), tmp_path / "out")
    story.close()

    assert told["count"] == 701
    assert told["checkpoint"]["size"] == 701
    assert told["by"] == "olga"
    assert b"late" not in (tmp_path / "out" / f"{NAME}.ndjson").read_bytes()


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("form", FORMATS)
def test_a_byte_that_was_changed_in_the_file_is_refused(
    form: str, client: TestClient, story: Story, tmp_path: Path
) -> None:
    answer = client.get(f"/audit/export?format={form}&decision=deny")
    manifest = unpacked(answer.content, tmp_path)
    file = tmp_path / manifest.name.removesuffix(".manifest")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    assert verify(story, manifest).exit_code == 1


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("count 77", "count 76"),
        ('"decisions": ["deny"]', '"decisions": []'),
        ("unread {}", 'unread {"a": "b"}'),
        ("on the auditor's pages", "on the auditor's couch"),
        ("2026-11-22T14", "2026-11-22T15"),
        ("\u2014 ", "\u2014 x"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    before: str, after: str, client: TestClient, story: Story, tmp_path: Path
) -> None:
    answer = client.get("/audit/export?format=csv&decision=deny")
    manifest = unpacked(answer.content, tmp_path)
    text = manifest.read_text()
    assert before in text
    manifest.write_text(text.replace(before, after))

    assert verify(story, manifest).exit_code == 1


@pytest.mark.requirement("LOG-05")
def test_the_manifest_of_one_download_does_not_pass_for_another(
    client: TestClient, story: Story, tmp_path: Path
) -> None:
    denied = unpacked(
        client.get("/audit/export?format=csv&decision=deny").content, tmp_path / "denied"
    )
    permitted = unpacked(
        client.get("/audit/export?format=csv&decision=permit").content, tmp_path / "permitted"
    )
    denied.write_bytes(permitted.read_bytes())

    assert verify(story, denied).exit_code == 1


@pytest.mark.parametrize(
    ("bounds", "count", "told"),
    [
        (Bounds(records=700), 700, "700 records"),
        (Bounds(records=MANY - 1), MANY - 1, "1,199 records"),
        (Bounds(size=1), 1, "1 bytes"),
        (Bounds(seconds=0), 0, "0 seconds"),
    ],
)
def test_a_download_that_ends_at_a_bound_says_so_in_its_manifest(
    many: Story, bounds: Bounds, count: int, told: str, tmp_path: Path
) -> None:
    exporting = Exporting(desk_of(many), Query(), FORMATS["ndjson"], by="olga", bounds=bounds)
    found = told_by(many, made(exporting), tmp_path)

    assert found["count"] == count
    assert not found["is_complete"]
    sentence = f"a download from the pages ends after {told}, and there are older records"
    assert found["unread"] == {"older records": sentence}
    assert exporting.expected <= bounds.records


def test_one_that_has_just_as_many_records_as_it_may_is_complete(
    many: Story, tmp_path: Path
) -> None:
    bounds = Bounds(records=MANY)
    exporting = Exporting(desk_of(many), Query(), FORMATS["ndjson"], by="olga", bounds=bounds)

    assert told_by(many, made(exporting), tmp_path)["is_complete"]
    assert exporting.expected == MANY


def test_what_of_the_record_is_not_known_is_told_in_the_manifest(
    many: Story, tmp_path: Path
) -> None:
    class Faulty:
        def __getattr__(self, name: str) -> Any:
            return getattr(many.reader, name)

        def extent(self) -> Extent:
            return Extent(1, NOW, {"grpc-0": "the rest of the chain is gone"})

    answer = client_of(desk_of(many, reader=Faulty())).get("/audit/export?format=csv")
    told = told_by(many, answer.content, tmp_path)

    assert told["unread"] == {"grpc-0": "the rest of the chain is gone"}
    assert not told["is_complete"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Story]:
    """A day whose key can be taken away."""
    story = told_in(tmp_path / "audit")
    yield story
    story.close()


def test_without_the_key_nothing_is_handed_over_and_a_page_says_so(own: Story) -> None:
    audit = RecordingAuditLog()
    browser = recorded(own, audit)
    own.keys.is_away = True

    answer = browser.get("/audit/export?format=csv&decision=deny")

    assert answer.status_code == 503
    assert "This cannot be signed just now" in answer.text
    assert "Nothing was handed over" in answer.text
    assert "content-disposition" not in answer.headers
    assert "away" not in answer.text
    assert audit.records[-1]["asked"] == "export csv?decision=deny"
    assert (audit.records[-1]["decision"], audit.records[-1]["reason"]) == (
        "deny",
        "signer_unavailable",
    )
    assert browser.get("/audit").status_code == 200

    own.keys.is_away = False
    assert browser.get("/audit/export?format=csv&decision=deny").status_code == 200


def test_a_key_that_did_not_sign_the_checkpoints_signs_no_download(own: Story) -> None:
    own.keys.keys.clear()
    own.keys.rotate()

    answer = client_of(desk_of(own)).get("/audit/export?format=csv")

    assert answer.status_code == 503
    assert "This cannot be signed just now" in answer.text


class Leaving(SignedHandover):
    """A holder of the key who goes away while a file is on its way."""

    def signed_manifest(self, manifest: Manifest, terms: Terms) -> str:
        raise NotSigned(f"{terms.key.name} is away, and so {manifest.file} is not signed")


def test_a_small_download_that_cannot_be_signed_in_the_end_is_still_a_page(story: Story) -> None:
    desk = desk_of(story, handover=Leaving(story.directory, story.signer))

    answer = client_of(desk).get("/audit/export?format=csv&decision=deny")

    assert answer.status_code == 503
    assert "This cannot be signed just now" in answer.text


def test_a_large_one_is_broken_off_by_the_server_and_is_no_archive(many: Story) -> None:
    desk = desk_of(many, handover=Leaving(many.directory, many.signer))
    got = bytearray()

    def fetch(answer: urllib3.BaseHTTPResponse) -> None:
        for piece in answer.stream(256):
            got.extend(piece)

    with (
        served_routes(lambda _: review_routes(desk)) as origin,
        urllib3.PoolManager(retries=False, timeout=20) as browser,
    ):
        address = f"{origin}/audit/export?format=ndjson"
        answer = browser.request("GET", address, preload_content=False)
        assert answer.status == 200
        with capture_logs() as logs, pytest.raises(urllib3.exceptions.ProtocolError):
            fetch(answer)

    assert got
    told = [one for one in logs if one["event"] == "audit_download_broken_off"]
    assert [one["reason"].partition(":")[0] for one in told] == ["NotSigned"]
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(bytes(got)))


def test_a_download_comes_over_a_socket_as_it_was_signed(many: Story, tmp_path: Path) -> None:
    with (
        served_routes(lambda _: review_routes(desk_of(many))) as origin,
        urllib3.PoolManager(retries=False, timeout=20) as browser,
    ):
        answer = browser.request("GET", f"{origin}/audit/export?format=ocsf")

    assert told_by(many, answer.data, tmp_path)["count"] == MANY


class Slow(SignedHandover):
    """A holder of the key who answers when told to, and tells how many wait."""

    def __init__(self, story: Story) -> None:
        super().__init__(story.directory, story.signer)
        self.go = threading.Event()
        self.asked_in: list[str] = []

    def signing_terms(self) -> Terms:
        self.asked_in.append(threading.current_thread().name)
        self.go.wait(30)
        return super().signing_terms()


def test_no_page_waits_behind_a_key_that_is_slow_to_come(story: Story) -> None:
    slow = Slow(story)
    desk = desk_of(story, handover=slow)
    codes: list[int] = []
    with (
        served_routes(lambda _: review_routes(desk)) as origin,
        urllib3.PoolManager(retries=False, timeout=60, maxsize=20) as browser,
    ):

        def download() -> None:
            answer = browser.request("GET", f"{origin}/audit/export?format=csv&decision=deny")
            codes.append(answer.status)

        waiting = [threading.Thread(target=download) for _ in range(QUESTIONS_AT_ONCE + 1)]
        for one in waiting:
            one.start()
        try:
            until(lambda: slow.asked_in, seconds=30, what="the key is asked for")
            assert browser.request("GET", f"{origin}/audit").status == 200
            assert len(slow.asked_in) == 1
        finally:
            slow.go.set()
            for one in waiting:
                one.join()

    assert codes == [200] * len(waiting)
    assert all(name.startswith("audit-handover") for name in slow.asked_in)


def request_of() -> Request:
    return Request({"type": "http", "method": "GET", "path": "/audit/export", "headers": []})


def test_no_more_files_are_on_their_way_than_there_may_be(story: Story) -> None:
    downloads = Downloads(most=1)
    desk = desk_of(story)

    async def asked() -> None:
        exporting = Exporting(desk, Query(), FORMATS["csv"], by="olga")
        look: Any = None
        async with downloads.under_way():
            with pytest.raises(TooBusy):
                await downloads.answer(request_of(), desk, look, exporting)
        assert (await downloads.answer(request_of(), desk, look, exporting)).status_code == 200

    asyncio.run(asked())


def test_a_file_that_nobody_fetches_is_given_up_in_time(many: Story) -> None:
    downloads = Downloads(most=1, longest=0.1)
    desk = desk_of(many)
    asked = request_of()
    look: Any = None

    async def waits(_message: object = None) -> Any:
        await asyncio.Event().wait()

    async def sent() -> None:
        exporting = Exporting(desk, Query(), FORMATS["csv"], by="olga")
        answer = await downloads.answer(asked, desk, look, exporting)
        with pytest.raises(TimeoutError):
            await answer(asked.scope, waits, waits)
        # There is room for the next one.
        exporting = Exporting(desk, Query(), FORMATS["csv"], by="olga")
        assert (await downloads.answer(asked, desk, look, exporting)).status_code == 200

    asyncio.run(sent())


def test_an_archive_that_was_given_up_goes_in_silence(
    many: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: told.append(problem.exc_value))
    exporting = Exporting(desk_of(many), Query(), FORMATS["csv"], by="olga")
    piece = exporting.first_piece()
    del exporting
    gc.collect()

    assert told == []
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(piece))


def test_a_hostile_name_of_an_auditor_is_text_in_the_manifest(many: Story, tmp_path: Path) -> None:
    name = 'olga\n\u2014 eve AAAA\u202e"\x1b[31m'
    told = told_by(many, made(Exporting(desk_of(many), Query(), FORMATS["csv"], by=name)), tmp_path)

    assert told["by"] == name
    assert (tmp_path / f"{NAME}.csv.manifest").read_bytes().count(b"\n") == 16
