"""The auditor's pages over a day of a broker."""

import io
import zipfile
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from broker.web.review.desk import Desk
from broker.web.review.routes import review_routes
from tests.web.review.story import NOW, Story, told_in


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A day of a broker, with a hostile record in it, for the tests of one module."""
    story = told_in(tmp_path_factory.mktemp("story") / "audit", is_hostile=True)
    yield story
    story.close()


@pytest.fixture(scope="module")
def client(story: Story) -> TestClient:
    """A program that asks for the pages of that day."""
    return client_of(desk_of(story))


def desk_of(story: Story, **others: object) -> Desk:
    """A desk over a story, whose clock stands still."""
    facts = {
        "reader": story.reader,
        "proofs": story,
        "handover": story.handover,
        "clock": lambda: NOW,
        **others,
    }
    return Desk(**facts)  # type: ignore[arg-type] # The test names what it replaces.


def client_of(desk: Desk) -> TestClient:
    """A program that asks for the pages of a desk."""
    return TestClient(Starlette(routes=review_routes(desk)), follow_redirects=False)


def file_in(archive: bytes) -> str:
    """The records of a download, without their manifest."""
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        file, manifest = found.namelist()
        assert manifest == f"{file}.manifest"
        return found.read(file).decode()
