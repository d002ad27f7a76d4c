"""A view knows a withdrawn token by the same names as the broker does, and knows how old it is."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from broker.client._revoked import Stream, keys_of
from broker.client._view import StaleView, View
from broker.client.credentials import Secret
from broker.client.failures import BadAnswer, BrokerError, Refused, Unavailable
from broker.model import Party, PartyKind, Pedigree
from broker.state.entries import LAST_SECOND, Keys, everything_key, revoked_key, withdrawn_key
from broker.tokens.lineage import parties_of, read_lineage
from broker.v1.revocation_service_pb2 import Revocation, WatchRevocationsResponse

ISSUER = "https://broker.example"
CLAIM = f"{ISSUER}/claims/mcp"
IAT = 1_795_262_400
Claims = dict[str, Any]


def claims(told: Claims | None = None, /, **changes: Any) -> Claims:
    """A token two hops away from where it began."""
    return {
        "iss": ISSUER,
        "sub": "ann",
        "aud": "https://api.example/v1",
        "client_id": "mcp-crm",
        "act": {
            "iss": ISSUER,
            "sub": "mcp-crm",
            "act": {"iss": ISSUER, "sub": "mcp-desk", "act": {"iss": "https://idp", "sub": "far"}},
        },
        CLAIM: {
            "client": "agent",
            "server": "https://crm.example/mcp",
            "resource": "https://api.example/v1",
            "subject_issuer": "https://idp.example",
            "lineage": ["T-1", "T-2"],
            "heritage": {"mcp_server": ["https://desk.example/mcp"], "client": ["quiet"]},
            **(told or {}),
        },
        "iat": IAT,
        "exp": IAT + 300,
        "jti": "T-3",
        **changes,
    }


def keys(token: Claims) -> set[bytes]:
    return set(keys_of(token, issuer=ISSUER, mcp_claim=CLAIM))


def keys_at_the_broker(token: Claims) -> set[bytes]:
    told = token[CLAIM]
    found = Keys.of(
        Pedigree(
            token["jti"],
            token["iat"],
            parties_of(token, told, issuer=ISSUER),
            read_lineage(told),
        )
    )
    return {*found.own, *found.ancestral}


# ---- by which names


def party(kind: PartyKind, name: str) -> bytes:
    return withdrawn_key(Party(kind, name))


@pytest.mark.requirement("RPL-07")
def test_a_token_is_known_by_itself_by_what_it_derives_from_and_by_all_who_stand_in_it() -> None:
    assert keys(claims()) == {
        everything_key(),
        revoked_key("T-3"),
        revoked_key("T-2"),
        revoked_key("T-1"),
        party(PartyKind.SUBJECT, "ann"),
        party(PartyKind.ISSUER, "https://idp.example"),
        party(PartyKind.CLIENT, "mcp-crm"),
        party(PartyKind.CLIENT, "mcp-desk"),
        party(PartyKind.CLIENT, "agent"),
        party(PartyKind.CLIENT, "quiet"),
        party(PartyKind.MCP_SERVER, "https://api.example/v1"),
        party(PartyKind.MCP_SERVER, "https://crm.example/mcp"),
        party(PartyKind.MCP_SERVER, "https://desk.example/mcp"),
    }


NAMES = st.sampled_from(["a", "b", "https://broker.example", "agent", "é"])
LISTS = st.lists(NAMES, min_size=1, max_size=3)
ACTS: st.SearchStrategy[Claims] = st.recursive(
    st.fixed_dictionaries({"sub": NAMES}, optional={"iss": st.sampled_from([ISSUER, "https://x"])}),
    lambda inner: st.fixed_dictionaries(
        {"sub": NAMES, "act": inner}, optional={"iss": st.just(ISSUER)}
    ),
    max_leaves=4,
)
TOLD = st.fixed_dictionaries(
    {},
    optional={
        "client": NAMES,
        "client_issuer": NAMES,
        "server": NAMES,
        "subject_issuer": NAMES,
        "lineage": LISTS,
        "heritage": st.dictionaries(st.sampled_from([*map(str, PartyKind)]), LISTS, min_size=1),
    },
)


@given(TOLD, st.none() | ACTS, NAMES | LISTS, NAMES, NAMES)
def test_the_names_are_those_of_the_broker_whatever_stands_in_a_token(
    told: Claims, act: Claims | None, audience: str | list[str], sub: str, client_id: str
) -> None:
    token: Claims = {"sub": sub, "aud": audience, "client_id": client_id, "jti": "T", "iat": IAT}
    token |= {CLAIM: told} | ({} if act is None else {"act": act})

    assert keys(token) == keys_at_the_broker(token)


# ---- what is withdrawn


class Clocks:
    """Both clocks of this machine."""

    def __init__(self) -> None:
        self.passed = 100.0
        self.set_by = float(IAT)

    def monotonic(self) -> float:
        return self.passed

    def wall(self) -> float:
        return self.set_by + self.passed


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def view(clocks: Clocks) -> View:
    return View(
        ISSUER,
        Secret("api", "s"),
        "127.0.0.1:1",
        monotonic=clocks.monotonic,
        wall=clocks.wall,
    )


def revoked(key: bytes, **changes: int) -> Revocation:
    facts = {"issued_since": 0, "issued_until": LAST_SECOND, "kept_until": IAT + 4000, **changes}
    return Revocation(key=key, **facts)


def part(
    *revocations: Revocation, elapsed: float | None = 0.0, as_of: float = IAT + 100
) -> WatchRevocationsResponse:
    """A part that is complete as of so many seconds after the stream was opened; ``None`` is not yet."""
    told = WatchRevocationsResponse(revocations=revocations)
    if elapsed is not None:
        told.as_of.CopyFrom(Timestamp(seconds=int(as_of)))
        told.elapsed_ms = int(elapsed * 1000)
    return told


def tell(view: View, *parts: WatchRevocationsResponse) -> Stream:
    stream = view._begin()
    for one in parts:
        view._take(stream, one)
    return stream


def is_stale(view: View) -> bool:
    try:
        view.refuses(claims())
    except StaleView:
        return True
    return False


def test_a_token_that_nobody_withdrew_is_not_refused(view: View) -> None:
    tell(view, part(revoked(revoked_key("T-9")), revoked(party(PartyKind.SUBJECT, "bob"))))

    assert not view.refuses(claims())


@pytest.mark.requirement("RPL-07")
@pytest.mark.parametrize("key", sorted(keys(claims())))
def test_a_token_is_refused_for_any_of_its_names(view: View, key: bytes) -> None:
    tell(view, part(revoked(key)))

    assert view.refuses(claims())


@pytest.mark.parametrize(
    ("first", "last", "is_refused"),
    [
        (IAT, IAT, True),
        (0, IAT - 1, False),
        (IAT + 1, LAST_SECOND, False),
        (IAT - 9, IAT + 9, True),
    ],
)
def test_a_withdrawal_is_for_what_was_issued_in_its_time(
    view: View, first: int, last: int, *, is_refused: bool
) -> None:
    window = revoked(party(PartyKind.SUBJECT, "ann"), issued_since=first, issued_until=last)
    tell(view, part(window))

    assert view.refuses(claims()) is is_refused


def test_a_later_part_takes_the_place_of_what_had_the_same_key(view: View) -> None:
    key = party(PartyKind.SUBJECT, "ann")
    narrow, wide = revoked(key, issued_until=IAT - 60), revoked(key, issued_until=IAT + 60)

    tell(view, part(narrow), part(wide, elapsed=1))

    assert view.refuses(claims())


MALFORMED: dict[str, Callable[[], Claims]] = {
    "no statements": lambda: {name: one for name, one in claims().items() if name != CLAIM},
    "statements that are none": lambda: claims(**{CLAIM: "agent"}),
    "no id": lambda: claims(jti=None),
    "no subject": lambda: claims(sub=7),
    "lineage that is text": lambda: claims({"lineage": "T-1"}),
    "lineage of numbers": lambda: claims({"lineage": [1]}),
    "too much lineage": lambda: claims({"lineage": ["T"] * 129}),
    "heritage that is a list": lambda: claims({"heritage": ["x"]}),
    "heritage of an unknown sort": lambda: claims({"heritage": {"planet": ["x"]}}),
    "an actor that is text": lambda: claims(act="agent"),
    "an actor without a name": lambda: claims(act={"iss": ISSUER}),
    "no time": lambda: claims(iat=None),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_token_whose_origin_cannot_be_told_is_refused(view: View, what: str) -> None:
    tell(view, part())

    assert view.refuses(MALFORMED[what]())


# ---- how old it is


def test_a_view_that_was_told_nothing_refuses_everything(view: View) -> None:
    assert is_stale(view)
    assert view.age == float("inf")


def test_a_view_that_was_told_only_the_beginning_refuses_everything(view: View) -> None:
    tell(view, part(revoked(revoked_key("T-9")), elapsed=None))

    assert is_stale(view)


@pytest.mark.requirement("RPL-07")
def test_a_view_is_good_for_as_long_as_it_was_told_and_no_longer(
    view: View, clocks: Clocks
) -> None:
    tell(view, part())
    clocks.passed += 10
    assert not is_stale(view)

    clocks.passed += 0.1

    assert is_stale(view)


def test_a_heartbeat_keeps_a_view_good(view: View, clocks: Clocks) -> None:
    stream = tell(view, part())
    for second in range(1, 30):
        clocks.passed += 1
        view._take(stream, part(elapsed=second))

    assert view.age < 0.01
    assert not is_stale(view)


def test_what_was_underway_for_long_is_as_old_as_it_is(view: View, clocks: Clocks) -> None:
    """Whoever can hold parts back on their way does not make them younger."""
    stream = tell(view, part())
    clocks.passed += 8
    view._take(stream, part(elapsed=4))

    assert view.age == pytest.approx(4.0)


def test_a_stream_that_is_held_back_for_too_long_is_not_believed(
    view: View, clocks: Clocks
) -> None:
    stream = tell(view, part())
    clocks.passed += 9

    with pytest.raises(Unavailable, match="lags"):
        view._take(stream, part(elapsed=3))


def test_a_stream_ahead_of_its_time_is_not_believed(view: View, clocks: Clocks) -> None:
    """The machine slept: what it took for a second was an hour."""
    stream = tell(view, part())
    clocks.passed += 1

    with pytest.raises(Unavailable, match="ahead"):
        view._take(stream, part(elapsed=3600))


@pytest.mark.requirement("R-22")
def test_a_view_is_stale_when_the_machine_slept(view: View, clocks: Clocks) -> None:
    tell(view, part())
    clocks.set_by += 3600

    assert is_stale(view)


@pytest.mark.requirement("R-22")
def test_a_wall_clock_set_back_makes_nothing_younger(view: View, clocks: Clocks) -> None:
    tell(view, part())
    clocks.set_by -= 3600
    clocks.passed += 10.1

    assert is_stale(view)


def test_whatever_becomes_of_the_next_stream_what_is_known_stays_until_it_is_old(
    view: View, clocks: Clocks
) -> None:
    tell(view, part(revoked(revoked_key("T-3"))))
    clocks.passed += 2
    tell(view, part(revoked(revoked_key("T-9")), elapsed=None))

    assert view.refuses(claims())
    assert view.age == pytest.approx(2.0)


def test_a_new_stream_takes_the_place_of_the_old_one(view: View) -> None:
    tell(view, part(revoked(revoked_key("T-3"))))

    tell(view, part(revoked(revoked_key("T-9"), kept_until=IAT + 9000)))

    assert not view.refuses(claims())


def test_a_bound_below_three_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="least"):
        View(ISSUER, Secret("api", "s"), "127.0.0.1:1", max_age=2.9)


# ---- what is held


def held(stream: Stream) -> set[bytes]:
    return set(stream._withdrawn)


def test_what_nobody_needs_to_know_is_let_go(view: View, clocks: Clocks) -> None:
    short, long = revoked(b"s" * 32, kept_until=IAT + 150), revoked(b"l" * 32)
    stream = tell(view, part(short, long))
    clocks.passed += 61
    view._take(stream, part(elapsed=61, as_of=IAT + 161))

    assert held(stream) == {b"l" * 32}


@pytest.mark.requirement("R-22")
@pytest.mark.parametrize("who", ["the broker", "this machine"])
def test_what_one_clock_alone_takes_for_over_is_kept(view: View, clocks: Clocks, who: str) -> None:
    stream = tell(view, part(revoked(b"s" * 32, kept_until=IAT + 500)))
    clocks.passed += 61
    if who == "this machine":
        clocks.set_by += 86_400
    view._take(stream, part(elapsed=61, as_of=IAT + (86_400 if who == "the broker" else 161)))

    assert held(stream) == {b"s" * 32}


@pytest.mark.requirement("R-22")
def test_a_clock_that_goes_back_to_what_was_let_go_ends_the_stream(
    view: View, clocks: Clocks
) -> None:
    stream = tell(view, part(revoked(b"s" * 32, kept_until=IAT + 150)))
    clocks.passed += 61
    view._take(stream, part(elapsed=61, as_of=IAT + 161))
    clocks.passed += 1

    with pytest.raises(Unavailable, match="went back"):
        view._take(stream, part(elapsed=62, as_of=IAT + 140))


def many(number: int) -> Iterable[Revocation]:
    return (revoked(one.to_bytes(32, "big")) for one in itertools.islice(itertools.count(), number))


def test_more_than_there_is_room_for_is_not_taken_in_part() -> None:
    view = View(ISSUER, Secret("api", "s"), "127.0.0.1:1", capacity=3)
    stream = view._begin()
    view._take(stream, part(*many(3), elapsed=None))

    with pytest.raises(BadAnswer, match="room"):
        view._take(stream, part(*many(4)))
    assert is_stale(view)


def test_a_key_that_is_none_is_not_taken(view: View) -> None:
    with pytest.raises(BadAnswer, match="key"):
        tell(view, part(revoked(b"short")))


# ---- when to ask again


@pytest.mark.parametrize(
    ("failure", "least", "most"),
    [
        (Unavailable("away"), 2.5, 5.0),
        (Refused("invalid_client"), 7.5, 15.0),
        (BadAnswer("no broker"), 7.5, 15.0),
    ],
)
def test_who_fails_again_and_again_asks_ever_less_often(
    view: View, failure: BrokerError, least: float, most: float
) -> None:
    pauses = [view._pause_after(failure, was_told=False) for _ in range(20)]

    assert pauses[0] < most
    assert all(least <= pause <= most for pause in pauses[10:])
    assert len(set(pauses)) == len(pauses), "those who failed together do not ask together"
    assert view.failure == str(failure)


def test_who_was_told_something_asks_again_soon(view: View) -> None:
    for _ in range(9):
        view._pause_after(Unavailable("away"), was_told=False)

    assert view._pause_after(Unavailable("ended"), was_told=True) <= 0.2


def test_what_a_stale_view_tells_its_operator_is_why(view: View) -> None:
    view._pause_after(Refused("invalid_client", "No."), was_told=False)

    with pytest.raises(StaleView) as stale:
        view.refuses(claims())

    assert stale.value.detail == "invalid_client: No."
    assert "No." not in stale.value.description


def test_a_view_shows_no_secret(view: View) -> None:
    assert "'s'" not in repr(replace(view, credential=Secret("api", "canary-1")))
    assert "canary" not in repr(replace(view, credential=Secret("api", "canary-1")))
