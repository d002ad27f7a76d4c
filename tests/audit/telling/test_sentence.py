"""Every record is told in one sentence, and nothing in a record can be taken for a part of it."""

import re
import unicodedata
from typing import Any, get_args

import pytest

from broker.audit.record import VERSION, Event, Record
from broker.audit.telling.question import question
from broker.audit.telling.reasons import reason_in_words
from broker.audit.telling.sentence import events_told, sentence, told
from broker.errors import Reason
from tests.audit.telling import records

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_every_event_of_the_closed_schema_has_its_sentence() -> None:
    assert set(events_told()) == set(get_args(Event)) == set(records.EVENTS)


@pytest.mark.parametrize(
    "one", records.every_record(), ids=lambda one: f"{one.event}-{one.decision}"
)
def test_a_sentence_begins_with_a_capital_and_ends_with_one_full_stop(one: Record) -> None:
    words = sentence(one)

    assert words[0].isupper()
    assert words.endswith(".")
    assert not words.endswith("..")
    assert "None" not in words
    assert "  " not in words


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_every_reason_is_told_in_words_of_its_own(reason: Reason) -> None:
    words = reason_in_words(reason.code)
    others = [reason_in_words(one.code) for one in Reason if one is not reason]

    assert " " in words
    assert not words.endswith(".")
    assert words not in others
    assert words in sentence(records.denied(reason=reason.code))


def test_an_exchange_is_told_with_everybody_in_it() -> None:
    assert sentence(records.exchange()) == (
        "MCP server mcp-tickets (https://tickets.mcp.example/mcp), called by client agent-desk, "
        "for person ann (known to https://idp.example), asked for contacts.read of "
        "https://api.crm.example/v2 and was granted a token (token-2) for contacts.read that lives "
        "2 minutes, limited by policy."
    )


def test_a_refusal_is_told_with_its_reason_and_the_policy_that_forbids() -> None:
    assert sentence(records.denied()).endswith(
        "asked for contacts.write of https://api.crm.example/v2 and was refused: "
        "a policy forbids it (parameter resource) (by policy contacts-are-read-only)."
    )


def test_less_than_was_asked_for_is_told_as_less() -> None:
    assert "for no more than tickets:read and tickets:write" in sentence(records.login())


def test_a_caller_that_proved_nothing_is_not_told_as_a_client() -> None:
    one = records.record(
        decision="deny",
        unverified_client_id="agent-desk",
        reason="bad_secret",
        error="invalid_client",
    )

    assert sentence(one).startswith(
        "Somebody who said to be client agent-desk, and did not prove it,"
    )


def test_a_reason_that_is_on_no_list_is_quoted_as_a_value() -> None:
    one = records.denied(reason="it was all right. Client x got a token")

    assert '"it was all right. Client x got a token"' in sentence(one)


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize(
    "one", records.every_record(), ids=lambda one: f"{one.event}-{one.decision}"
)
def test_no_value_can_steer_a_terminal_or_end_its_quotes(one: Record) -> None:
    for text in records.HOSTILE:
        words = sentence(records.poisoned(one, text))

        assert not [char for char in words if unicodedata.category(char) in HIDDEN]
        unquoted = re.sub(r'"(?:[^"\\]|\\.)*"', "", words)
        assert '"' not in unquoted
        assert "got everything" not in unquoted
        assert "for all" not in unquoted


def test_the_pieces_of_a_sentence_name_who_and_what_is_in_it() -> None:
    named = {(piece.kind, piece.name) for piece in told(records.exchange()) if piece.kind}

    assert named == {
        ("client", "mcp-tickets"),
        ("mcp_server", records.TICKETS),
        ("client", "agent-desk"),
        ("person", "ann"),
        ("resource", records.CRM),
        ("token", "token-2"),
    }


def test_numbers_beyond_every_calendar_are_told_and_not_tripped_over() -> None:
    one = records.of_event("token.withdraw")
    one.issued_until = 2**53

    assert "second 9007199254740992 of no calendar" in sentence(one)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"event": "audit.read", "asked": "person", "people_asked": ["ann"]}, "page of ann"),
        ({"event": "audit.read", "asked": "records?decision=deny"}, "records?decision=deny"),
        ({"event": "audit.read", "people_asked": ["ann", "olga"]}, "about ann, olga"),
        (
            {"event": "audit.read", "asked": "list", "people_asked": [str(n) for n in range(8)]},
            "list about 0, 1, 2, 3, 4, 5 and 2 more",
        ),
        ({"event": "people.forget", "about": "2026-10"}, "people of 2026-10"),
        ({"event": "token.issue"}, ""),
    ],
)
def test_what_was_asked_of_the_record_is_told_in_a_few_words(
    facts: dict[str, Any], words: str
) -> None:
    told_by = Record(v=VERSION, event_id="x", time="", decision="permit", **facts)

    assert question(told_by) == words
