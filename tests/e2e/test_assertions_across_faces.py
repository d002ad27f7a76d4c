"""One identity assertion redeemed at both faces, which are processes of their own with one memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from tests.e2e.asserting import id_jag, idp_entry, redeem, wiki_setting
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import IDP
from tests.e2e.wires import UNABLE, settled, wire
from tests.harness import Answer, decode_claims

AT_ONCE = 64
PARTIES = 16


@pytest.fixture(scope="module")
def wiki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """The wiki's broker, ready."""
    broker = RunningBroker(wiki_setting(tmp_path_factory.mktemp("wiki"), idp_entry()))
    broker.wait_until_ready()
    yield broker
    broker.close()


@pytest.mark.requirement("JAG-13", "IDJAG-R-07", "RPL-02", "P-B")
@pytest.mark.parametrize(("first", "second"), [("http", "grpc"), ("grpc", "http")])
def test_an_assertion_redeemed_on_one_face_is_refused_on_the_other(
    wiki: RunningBroker, first: str, second: str
) -> None:
    with wire(first, wiki.setting) as one, wire(second, wiki.setting) as other:
        used: list[str] = []

        def fresh() -> str:
            used.append(id_jag(wiki.setting))
            return used[-1]

        assert settled(one, lambda: redeem(wiki.setting, fresh())).is_granted
        again = settled(other, lambda: redeem(wiki.setting, used[-1]))

        assert again.error == "invalid_grant"
        assert settled(other, lambda: redeem(wiki.setting)).is_granted


@pytest.mark.requirement("JAG-13", "IDJAG-R-07", "RPL-02", "P-B")
def test_of_sixty_four_redemptions_of_an_assertion_at_once_on_both_faces_one_gets_a_token(
    wiki: RunningBroker,
) -> None:
    """Each caller proves itself anew, so that the assertion alone decides who is first."""
    tokens: list[str] = []

    def race() -> list[Answer]:
        tokens.append(id_jag(wiki.setting))
        return raced_for(wiki, tokens[-1])

    # Whoever was the first may have to be told that the store is busy.
    answers = until(race, seconds=120, what="one gets a token")

    assert sum(answer.is_granted for answer in answers) == 1
    refused = [answer for answer in answers if not answer.is_granted]
    assert {answer.error for answer in refused} - {UNABLE} == {"invalid_grant"}
    assert {answer.face for answer in refused} == {"http", "grpc"}
    jti = decode_claims(tokens[-1])["jti"]
    granted = [
        one
        for one in wiki.records()
        if one["decision"] == "permit" and one["inputs"][0]["jti"] == jti
    ]
    assert [one["subject_issuer"] for one in granted] == [IDP]


def raced_for(wiki: RunningBroker, token: str) -> list[Answer]:
    """The answers to those who redeem a token at once; none when all were turned away."""
    requests = [redeem(wiki.setting, token) for _ in range(AT_ONCE)]
    gate = Barrier(PARTIES)

    with ExitStack() as stack, ThreadPoolExecutor(PARTIES) as pool:
        wires = [
            stack.enter_context(wire(("http", "grpc")[number % 2], wiki.setting))
            for number in range(PARTIES)
        ]
        for connected in wires:
            assert settled(connected, lambda: redeem(wiki.setting)).is_granted

        def use(number: int) -> Answer:
            gate.wait(timeout=120)
            return wires[number % PARTIES].exchange(requests[number])

        answers = list(pool.map(use, range(AT_ONCE)))
    # Only who was told that the store is busy may have been the first; without one nobody is excused.
    is_spoilt = not any(one.is_granted for one in answers) and UNABLE in {
        one.error for one in answers
    }
    return [] if is_spoilt else answers
