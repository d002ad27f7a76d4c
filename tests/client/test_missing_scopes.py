"""What a resource's challenges say that a token misses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client._challenges import scopes_missing

MISSES = 'Bearer error="insufficient_scope", scope="{}"'


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        ([MISSES.format("a b")], {"a", "b"}),
        (["bearer scope=a, ERROR=insufficient_scope"], {"a"}),
        (['Bearer scope = "a" , error = "insufficient_scope"'], {"a"}),
        (['Basic realm="x", Bearer error="insufficient_scope", scope="a"'], {"a"}),
        (['Bearer error="insufficient_scope", scope="a", DPoP algs="ES256", scope="b"'], {"a"}),
        (["Negotiate abc==", MISSES.format("a")], {"a"}),
        ([r'Bearer realm="\", scope=\"b", error="insufficient_scope", scope="a"'], {"a"}),
        (['Bearer error="insufficient_scope", scope="a", scope="b"'], {"a"}),
        ([MISSES.format("a"), MISSES.format("b")], {"a", "b"}),
        ([MISSES.format("a  b")], {"a", "b"}),
        ([MISSES.format("a\tb")], set()),
        ([MISSES.format("grün")], set()),
        ([MISSES.format(" ".join(str(one) for one in range(65)))], set()),
        ([MISSES.format("a" * 9000)], set()),
        (['Bearer error="insufficient_scope", scope="a'], set()),
        (['DPoP error="insufficient_scope", scope="a"'], set()),
        (['error="insufficient_scope", scope="a"'], set()),
        (["Bearer error=insufficient_scope"], set()),
        ([MISSES.replace("insufficient_scope", "invalid_token").format("a")], set()),
        ([""], set()),
        ([], set()),
    ],
)
def test_scopes_are_read_from_bearer_challenges_alone(
    headers: list[str], missing: set[str]
) -> None:
    assert scopes_missing(headers) == missing


@given(st.lists(st.text()))
def test_no_header_is_too_strange(headers: list[str]) -> None:
    assert len(scopes_missing(headers)) <= 64


@pytest.mark.parametrize("piece", ['a="', "a=\\", 'Bearer a="\\"', " \t", "a ", ",", '"'])
def test_a_long_header_is_read_in_time(piece: str) -> None:
    # Were this read in quadratic time, nobody would wait for the end of the test.
    for _ in range(20):
        scopes_missing([piece * 100_000])
