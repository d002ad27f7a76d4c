"""What was tried against the pages: what an auditor asks is on record, and nobody's name with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from tests.web.review.conftest import client_of, desk_of
from tests.web.review.story import NOW, Story, issue


@dataclass
class Noting:
    """An entry whose facts go into what the witness keeps."""

    record: dict[str, Any]

    def note(self, **facts: Any) -> None:
        self.record.update(facts)


@dataclass
class Witness:
    """Keeps what is noted last, as a record would."""

    records: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def __call__(
        self, _request: Request, asked: str, *, people: Sequence[str] = ()
    ) -> Iterator[Noting]:
        record = {"asked": asked, "people_asked": tuple(people) or None}
        self.records.append(record)
        yield Noting(record)


Asked = tuple[TestClient, Witness]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """More records than one piece of an export has."""
    story = Story(tmp_path_factory.mktemp("many") / "audit")
    story.tell(*(issue(f"id-{number}", at=NOW - 1) for number in range(1_200)))
    yield story
    story.close()


@pytest.fixture
def asked(many: Story) -> Asked:
    """The pages, and who sees what is asked of them."""
    witness = Witness()
    return client_of(desk_of(many, witness=witness)), witness


@pytest.mark.parametrize(
    "place",
    [
        "find?id=alice%40example.com",
        "events/alice%40example.com",
        "clients?name=alice%40example.com",
        "lineage?token=alice%40example.com",
        "proofs/alice%40example.com",
    ],
)
def test_a_name_in_the_wrong_field_is_not_on_record_in_clear(asked: Asked, place: str) -> None:
    browser, witness = asked
    browser.get(f"/audit/{place}")
    assert "alice" not in witness.records[-1]["asked"]
    assert witness.records[-1]["people_asked"] == ("alice@example.com",)


@pytest.mark.parametrize("name", ["client", "token", "resource", "server", "policy", "reason"])
def test_nor_is_one_in_the_wrong_filter(asked: Asked, name: str) -> None:
    browser, witness = asked
    browser.get(f"/audit?decision=permit&{name}=alice%40example.com")
    assert witness.records[-1]["asked"] == "records?decision=permit"


def test_what_is_found_is_asked_for_by_its_id(asked: Asked) -> None:
    browser, witness = asked
    browser.get("/audit/events/id-7")
    assert witness.records[-1] == {"asked": "record id-7", "people_asked": None, "found": 1}


def test_an_export_tells_how_much_it_gave(asked: Asked) -> None:
    browser, witness = asked
    lines = browser.get("/audit/export?format=ndjson").text.count("\n")
    assert lines > 1_200
    assert witness.records[-1]["found"] == lines
