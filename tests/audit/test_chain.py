"""The form of a line, and how lines hold on to each other."""

import hashlib
import json

import msgspec
import pytest

from broker.audit.chain import GENESIS, Head, encode, link
from broker.audit.record import ExposureFact, InputFact, KeyChangeFact, Record, ScopeFact


def record(**facts: object) -> Record:
    required = {
        "v": 1,
        "event": "token.issue",
        "event_id": "req-1",
        "time": "2027-01-15T08:00:00.000000Z",
        "decision": "permit",
    }
    return Record(**{**required, **facts})  # type: ignore[arg-type] # The schema says what fits.


def test_a_line_is_sorted_json_in_ascii_without_blanks() -> None:
    one = record(writer="w1", seq=0, prev=GENESIS, subject="José \U0001f600", chain_depth=1)

    assert encode(one) == (
        b'{"chain_depth":1,"decision":"permit","event":"token.issue","event_id":"req-1",'
        b'"prev":"0000000000000000000000000000000000000000000000000000000000000000","seq":0,'
        b'"subject":"Jos\\u00e9 \\ud83d\\ude00","time":"2027-01-15T08:00:00.000000Z","v":1,'
        b'"writer":"w1"}'
    )


@pytest.mark.parametrize("kind", [Record, ExposureFact, InputFact, KeyChangeFact, ScopeFact])
def test_members_are_declared_in_the_order_in_which_a_line_has_them(
    kind: type[msgspec.Struct],
) -> None:
    names = [field.name for field in msgspec.structs.fields(kind)]

    assert names == sorted(names)


def test_the_members_of_objects_are_sorted_too() -> None:
    line = encode(record(actors=[{"sub": "mcp1-srv", "iss": "https://sts.test"}]))

    assert b'"actors":[{"iss":"https://sts.test","sub":"mcp1-srv"}]' in line


def test_each_line_has_the_next_number_and_the_hash_of_the_line_before() -> None:
    data, head = link([record(), record(), record()], Head(), writer="w1")

    lines = data.splitlines()
    links = [json.loads(line) for line in lines]
    assert [one["seq"] for one in links] == [0, 1, 2]
    assert [one["prev"] for one in links] == [
        GENESIS,
        hashlib.sha256(b"\0" + lines[0]).hexdigest(),
        hashlib.sha256(b"\0" + lines[1]).hexdigest(),
    ]
    assert {one["writer"] for one in links} == {"w1"}
    assert head == Head(3, hashlib.sha256(b"\0" + lines[2]).hexdigest())


def test_linking_in_two_steps_is_linking_in_one() -> None:
    at_once, end = link([record(), record()], Head(), writer="w1")
    first, middle = link([record()], Head(), writer="w1")
    second, last = link([record()], middle, writer="w1")

    assert (first + second, last) == (at_once, end)
