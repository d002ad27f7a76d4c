"""Everything that the library asks, of a real broker: both faces, async and sync."""

import time
from pathlib import Path
from typing import Any

import pytest

from broker.client import (
    BadAnswer,
    CredentialUnusable,
    KeyFile,
    Refused,
    Secret,
    StepUp,
    StepUpRequired,
    WorkloadTokenFile,
)
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_ID_TOKEN
from tests.client.conftest import Holding
from tests.client.whole_broker import (
    ALL_READ,
    AUDITOR,
    NIGHTLY,
    WIKI,
    WIKI_SERVER,
    WORKLOAD,
    WRITE,
    id_jag,
    pod_token,
    svid,
    write_jwk,
    write_key,
    write_whole,
)
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    API,
    DESK,
    READ,
    SERVER,
    TICKETS,
    TICKETS_SECRET,
    id_token,
    subject_token,
)
from tests.harness import decode_claims
from tests.idp import signer

TICKETS_BY_SECRET = Secret(TICKETS, TICKETS_SECRET)


def key_of(folder: Path, client_id: str) -> KeyFile:
    """The credential of a client whose key has its name."""
    return KeyFile(client_id, write_key(folder / client_id, signer(client_id)), kid=client_id)


def test_a_token_is_exchanged(holding: Holding) -> None:
    hand = holding(TICKETS_BY_SECRET)

    token = hand.do(lambda broker: broker.exchange(subject_token(), resource=API, scopes=[READ]))

    claims = decode_claims(token.access_token)
    assert (claims["aud"], claims["sub"], claims["act"]["sub"]) == (API, "ann", TICKETS)
    assert token.token_type == "Bearer"
    assert token.issued_token_type == TOKEN_TYPE_ACCESS_TOKEN
    assert (token.resource, token.scopes) == (API, {READ})
    assert 0 < token.expires_in <= 120


def test_scopes_may_come_in_one_string(holding: Holding) -> None:
    hand = holding(TICKETS_BY_SECRET)

    token = hand.do(lambda broker: broker.exchange(subject_token(), resource=API, scopes=READ))

    assert token.scopes == {READ}


def test_another_type_of_subject_token_is_told(holding: Holding, tmp_path: Path) -> None:
    hand = holding(key_of(tmp_path, DESK))

    token = hand.do(
        lambda broker: broker.exchange(
            id_token(), resource=SERVER, subject_token_type=TOKEN_TYPE_ID_TOKEN
        )
    )

    assert decode_claims(token.access_token)["aud"] == SERVER


def test_a_client_gets_a_token_of_its_own(holding: Holding, tmp_path: Path) -> None:
    hand = holding(key_of(tmp_path, NIGHTLY))

    token = hand.do(lambda broker: broker.client_token(resource=SERVER, scopes=[ALL_READ]))

    assert decode_claims(token.access_token)["sub"] == f"client:{NIGHTLY}"


def test_an_identity_assertion_is_issued(holding: Holding, tmp_path: Path) -> None:
    hand = holding(key_of(tmp_path, DESK))

    token = hand.do(
        lambda broker: broker.issue_id_jag(
            id_token(), audience=WIKI_SERVER, resource=WIKI, scopes=["pages.read"]
        )
    )

    assert (token.issued_token_type, token.token_type) == (TOKEN_TYPE_ID_JAG, "N_A")
    assert decode_claims(token.access_token)["aud"] == WIKI_SERVER


def test_an_identity_assertion_is_redeemed(
    holding: Holding, tmp_path: Path, running_broker: RunningBroker
) -> None:
    hand = holding(key_of(tmp_path, DESK))

    token = hand.do(lambda broker: broker.redeem(id_jag(running_broker.setting)))

    assert decode_claims(token.access_token)["aud"] == SERVER


def test_a_token_is_looked_up_and_withdrawn(holding: Holding, tmp_path: Path) -> None:
    agent, server = holding(key_of(tmp_path, DESK)), holding(TICKETS_BY_SECRET)
    issued = agent.do(
        lambda broker: broker.exchange(
            id_token(), resource=SERVER, subject_token_type=TOKEN_TYPE_ID_TOKEN
        )
    )

    before = server.do(lambda broker: broker.introspect(issued.access_token))
    agent.do(lambda broker: broker.revoke(issued.access_token))
    after = server.do(lambda broker: broker.introspect(issued.access_token))

    assert before.is_active
    assert (before.members["sub"], before.members["act"]["sub"]) == ("ann", DESK)
    assert not after.is_active
    assert not after.members


def test_a_decision_is_explained_over_grpc_alone(
    holding: Holding, way: str, tmp_path: Path
) -> None:
    hand = holding(key_of(tmp_path, AUDITOR))

    def ask(broker: Any) -> Any:
        return broker.explain(subject_token(), resource=API, scopes=[READ], client_id=TICKETS)

    if way.startswith("http"):
        with pytest.raises(BadAnswer, match="gRPC"):
            hand.do(ask)
        return
    explanation = hand.do(ask)
    assert explanation.is_permitted
    assert explanation.scopes == {READ: "permit"}
    assert "tickets-reads-contacts" in explanation.grounds[0]
    assert explanation.claims is not None
    assert explanation.claims["aud"] == API


@pytest.mark.parametrize("way", ["grpc-async", "grpc-sync"], indirect=True)
def test_a_refusal_is_explained_with_what_would_change_it(holding: Holding, tmp_path: Path) -> None:
    hand = holding(key_of(tmp_path, AUDITOR))

    explanation = hand.do(
        lambda broker: broker.explain(
            subject_token(scope="tickets:nothing"),
            resource=API,
            scopes=[READ],
            client_id=TICKETS,
        )
    )

    assert not explanation.is_permitted
    assert explanation.error == "invalid_target"
    assert explanation.reason.startswith("policy_")
    assert any("if the subject token carried tickets:read" in one for one in explanation.grounds)
    assert explanation.claims is None


def test_a_refusal_tells_its_code_and_its_decision(
    holding: Holding, running_broker: RunningBroker
) -> None:
    hand = holding(TICKETS_BY_SECRET)

    with pytest.raises(Refused) as caught:
        hand.do(lambda broker: broker.exchange(subject_token(), resource="https://nowhere.example"))

    refused = caught.value
    assert (refused.code, refused.is_retryable, refused.step_up) == ("invalid_target", False, None)
    assert refused.description == "The target is unknown or not available to this request."
    records = {record["event_id"]: record for record in running_broker.records()}
    assert records[refused.decision_id]["reason"] == "target_unknown"
    assert refused.decision_id in str(refused)


def test_a_login_that_is_too_weak_is_told_with_the_one_that_would_do(holding: Holding) -> None:
    hand = holding(TICKETS_BY_SECRET)
    weak = subject_token(acr="pwd", auth_time=int(time.time()) - 60)

    with pytest.raises(StepUpRequired) as caught:
        hand.do(lambda broker: broker.exchange(weak, resource=API, scopes=[WRITE]))

    assert caught.value.code == "insufficient_user_authentication"
    assert caught.value.step_up == StepUp("phr", 3600)
    assert caught.value.decision_id
    assert not caught.value.is_retryable


def test_a_wrong_secret_is_refused_and_not_shown(holding: Holding) -> None:
    hand = holding(Secret(TICKETS, "bks_" + "wrong" * 9))

    with pytest.raises(Refused) as caught:
        hand.do(lambda broker: broker.exchange(subject_token(), resource=API))

    assert caught.value.code == "invalid_client"
    assert "wrong" not in f"{caught.value!r} {caught.value}"


def test_no_error_holds_the_token_that_was_refused(holding: Holding) -> None:
    hand = holding(TICKETS_BY_SECRET)
    expired = subject_token(exp=int(time.time()) - 100, iat=int(time.time()) - 900)

    with pytest.raises(Refused) as caught:
        hand.do(lambda broker: broker.exchange(expired, resource=API))

    assert caught.value.code == "invalid_request"
    assert not any(part in f"{caught.value!r} {caught.value}" for part in expired.split("."))


def test_a_secret_may_be_posted(holding: Holding) -> None:
    hand = holding(Secret(TICKETS, TICKETS_SECRET, is_posted=True))

    token = hand.do(lambda broker: broker.exchange(subject_token(), resource=API))

    assert decode_claims(token.access_token)["act"]["sub"] == TICKETS


def test_a_key_file_is_read_anew_when_it_is_rotated(holding: Holding, tmp_path: Path) -> None:
    path = write_jwk(tmp_path / "key.json", signer(DESK))
    hand = holding(KeyFile(DESK, path))

    def ask(broker: Any) -> Any:
        return broker.redeem("no assertion")

    # Whoever gets as far as the assertion has authenticated.
    with pytest.raises(Refused, match="invalid_grant"):
        hand.do(ask)
    write_jwk(path, signer("a-stranger"))
    with pytest.raises(Refused, match="invalid_client"):
        hand.do(ask)
    write_jwk(path, signer("desk-next"))
    with pytest.raises(Refused, match="invalid_grant"):
        hand.do(ask)


def test_a_jwt_svid_authenticates_and_is_read_anew_as_it_rotates(
    holding: Holding, tmp_path: Path, running_broker: RunningBroker
) -> None:
    expired = svid(running_broker.setting, exp=int(time.time()) - 100)
    path = write_whole(tmp_path / "svid", expired)
    hand = holding(WorkloadTokenFile(path))

    with pytest.raises(Refused, match="invalid_client"):
        hand.do(lambda broker: broker.client_token(resource=SERVER, scopes=[ALL_READ]))
    write_whole(path, svid(running_broker.setting))
    token = hand.do(lambda broker: broker.client_token(resource=SERVER, scopes=[ALL_READ]))

    assert decode_claims(token.access_token)["sub"] == f"client:{WORKLOAD}"


def test_a_pods_token_gets_the_pod_a_token_of_its_own(
    holding: Holding, tmp_path: Path, running_broker: RunningBroker
) -> None:
    path = write_whole(tmp_path / "token", pod_token(running_broker.setting, aud=["another"]))
    hand = holding(WorkloadTokenFile(path))

    with pytest.raises(Refused, match="invalid_"):
        hand.do(lambda broker: broker.own_token(resource=SERVER, scopes=[ALL_READ]))
    write_whole(path, pod_token(running_broker.setting))
    token = hand.do(lambda broker: broker.client_token(resource=SERVER, scopes=[ALL_READ]))

    assert decode_claims(token.access_token)["sub"] == "client:pod-agent"
    assert token.scopes == {ALL_READ}


def test_a_pods_token_is_good_for_nothing_else(
    holding: Holding, tmp_path: Path, running_broker: RunningBroker
) -> None:
    before = len(running_broker.records())
    path = write_whole(tmp_path / "token", pod_token(running_broker.setting))
    hand = holding(WorkloadTokenFile(path))

    for ask in (
        lambda broker: broker.exchange(subject_token(), resource=API),
        lambda broker: broker.redeem("assertion"),
        lambda broker: broker.introspect("token"),
        lambda broker: broker.revoke("token"),
    ):
        with pytest.raises(CredentialUnusable, match="alone"):
            hand.do(ask)

    assert len(running_broker.records()) == before
