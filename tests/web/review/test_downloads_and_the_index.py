"""A download says so when the index did not know all that was sealed as it was begun; and few are begun."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from broker.audit.index import catching
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Query
from broker.audit.telling.export import check_export
from broker.audit.telling.formats import FORMATS
from broker.audit.telling.manifest import Manifest
from broker.web.review.desk import Look, TooBusy
from broker.web.review.download import Downloads
from broker.web.review.export import Bounds, Exporting
from tests.web.review.conftest import desk_of
from tests.web.review.story import NOW, Story, issue
from tests.web.review.taking import rest_of, unpacked


def told_by(story: Story, archive: bytes, to: Path) -> Manifest:
    return check_export(unpacked(archive, to), story.signer.keys())


def test_one_that_is_begun_while_the_index_is_made_anew_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(tmp_path / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW - 9 + number / 1e3) for number in range(1_500)))
    story.seal()
    story.reader.throw_away()
    monkeypatch.setattr(catching, "_BATCH", 700)
    broken_off = SqliteAuditReader(story.directory)
    broken_off.ask_to_end()
    broken_off.catch_up()
    exporting = Exporting(desk_of(story), Query(), FORMATS["ndjson"], by="olga")
    first = exporting.first_piece()
    story.reader.catch_up()
    told = told_by(story, first + rest_of(exporting), tmp_path / "out")
    story.close()

    assert told.count == 700
    assert told.checkpoint is not None
    assert told.checkpoint.size == 1_501
    assert "made anew" in told.unread["index"]


def test_one_from_an_index_that_stands_still_is_not_complete(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(issue("known", at=NOW))
    story.chains["http-0"].append([issue("sealed", at=NOW)])
    story.seal()
    at_once = Bounds(lag=0)
    exporting = Exporting(desk_of(story), Query(), FORMATS["ndjson"], by="olga", bounds=at_once)
    told = told_by(story, exporting.first_piece(), tmp_path / "out")
    story.reader.catch_up()
    later = Exporting(desk_of(story), Query(), FORMATS["ndjson"], by="olga")
    whole = told_by(story, later.first_piece(), tmp_path / "later")
    story.close()

    assert told.unread == {"index": "it knows 2 records, and 3 were sealed"}
    assert not whole.unread


def test_those_that_are_begun_at_the_same_moment_are_counted(tmp_path: Path) -> None:
    story = Story(tmp_path / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW) for number in range(600)))
    story.seal()
    desk, downloads = desk_of(story), Downloads(most=2)

    async def ask() -> Any:
        request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
        exporting = Exporting(desk, Query(), FORMATS["csv"], by="olga")
        return await downloads.answer(request, desk, Look("export csv"), exporting)

    async def asked() -> list[Any]:
        found = await asyncio.gather(*(ask() for _ in range(6)), return_exceptions=True)
        # Nobody has begun to send, and whoever was refused or has gone holds nothing.
        assert not isinstance(await ask(), Exception)
        return found

    found = asyncio.run(asked())
    story.close()

    assert sum(isinstance(one, TooBusy) for one in found) == 4
