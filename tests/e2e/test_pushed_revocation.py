"""What one worker withdraws, a verifier elsewhere refuses within a second, or refuses everything."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import grpc
import pytest
import urllib3

from broker.client import KeyFile, Secret
from broker.client.refusals import InvalidToken, Unverifiable
from broker.client.revocations import StaleView, SyncRevocationView
from broker.client.verify import SyncTokenVerifier
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER, GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN
from broker.v1 import admin_service_pb2, admin_service_pb2_grpc
from broker.v1.token_pb2 import ClientAuthentication
from tests.client.whole_broker import write_key
from tests.e2e.patience import is_swift, until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    API,
    DESK,
    POLICIES,
    READ,
    SERVER,
    TICKETS,
    TICKETS_SECRET,
    Document,
    Setting,
    assertion,
    by_assertion,
    fresh_id,
    id_token,
    login,
    new_setting,
)
from tests.e2e.wires import settled, wire
from tests.harness import decode_claims
from tests.idp import signer
from tests.ports import free_port

CRM: Final = "crm-api"
OPERATOR: Final = "operator"
LEDGER: Final = "https://ledger.example/v1"
SECOND: Final = 1.0
MAX_AGE: Final = 60.0
SHORT_AGE: Final = 3.0
PERMIT: Final = '@id("all")\npermit (principal, action == Action::"exchange", resource);\n'


def new_stream_setting(directory: Path) -> Setting:
    """A broker with streams, and one resource more behind the API, which is a client too."""
    policies = directory / "policies"
    policies.mkdir()
    shutil.copy(POLICIES / "broker.cedarschema", policies)
    (policies / "permits.cedar").write_text(PERMIT)
    setting = new_setting(directory, policies=str(policies))
    document = setting.document
    server, api = document["resources"]
    ledger = {"resource": LEDGER, "scopes": {"ledger.read": {"from": [READ]}}}
    crm = {"id": CRM, "auth": by_key(CRM), "grants": ["token_exchange"]}
    operator = {"id": OPERATOR, "auth": by_key(OPERATOR), "grants": [], "administer": True}
    return setting.with_document(
        listen={**document["listen"], "streams": f"127.0.0.1:{free_port()}"},
        clients=[*document["clients"], crm, operator],
        resources=[server, {**api, "owner": CRM}, ledger],
    )


def by_key(client_id: str) -> Document:
    return {"method": "private_key_jwt", "jwks": signer(client_id).jwks}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A ready broker with streams, which tests leave as it is."""
    with running(new_stream_setting(tmp_path_factory.mktemp("streams"))) as one:
        yield one


@contextmanager
def running(setting: Setting) -> Iterator[RunningBroker]:
    broker = RunningBroker(setting)
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


@contextmanager
def listening(
    setting: Setting, credential: Any = None, /, *, max_age: float = MAX_AGE
) -> Iterator[SyncRevocationView]:
    """The view of a verifier that has caught up."""
    streams = setting.document["listen"]["streams"]
    credential = credential or Secret(TICKETS, TICKETS_SECRET)
    with SyncRevocationView(setting.issuer, credential, streams, max_age=max_age) as view:
        view.caught_up(60)
        yield view


def verifier(setting: Setting, resource: str, view: SyncRevocationView) -> Callable[[str], object]:
    return SyncTokenVerifier(
        setting.issuer, resource, algorithms=["ES256", "RS256"], revocations=view
    ).verify


def exchanged(setting: Setting, token: str, client_id: str, *, resource: str) -> str:
    """The token that a client gets for the resource, made of one that it received."""
    parameters = {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": token,
        "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "resource": resource,
    }
    with wire("grpc", setting) as face:
        proved = lambda: parameters | by_assertion(assertion(setting, client_id))  # noqa: E731 - asked anew.
        answer = settled(face, proved)
    assert answer.is_granted, answer.everything
    return answer.token


def family(setting: Setting) -> tuple[str, str, str]:
    """A token of Ann's, what was made of it, and what was made of that."""
    person = id_token(sub=fresh_id())
    with wire("http", setting) as face:
        first = settled(face, lambda: {**login(setting), "subject_token": person}).token
    second = exchanged(setting, first, TICKETS, resource=API)
    return first, second, exchanged(setting, second, CRM, resource=LEDGER)


def revoke(setting: Setting, token: str) -> None:
    """The agent withdraws a token of its own over HTTP."""
    parameters = {"token": token, **by_assertion(assertion(setting, DESK))}
    answer = urllib3.PoolManager(retries=False).request(
        "POST",
        f"{setting.issuer}/revoke",
        body=urlencode(parameters, doseq=True),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status == 200


def withdraw(setting: Setting, subject: str) -> None:
    """The operator withdraws all tokens of a person over gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{setting.ports.grpc}") as channel:
        proof = ClientAuthentication(
            client_assertion=assertion(setting, OPERATOR),
            client_assertion_type=CLIENT_ASSERTION_JWT_BEARER,
        )
        admin_service_pb2_grpc.AdminServiceStub(channel).RevokeIssuedTokens(
            admin_service_pb2.RevokeIssuedTokensRequest(
                party=admin_service_pb2.REVOKED_PARTY_SUBJECT,
                name=subject,
                client_authentication=proof,
            ),
            timeout=60,
        )


def verdict(verify: Callable[[str], object], token: str) -> str:
    """What a verifier says of a token; nothing while its view is stale."""
    try:
        verify(token)
    except InvalidToken:
        return "refused"
    except Unverifiable:
        return ""
    return "accepted"


def wait_for(word: str, verify: Callable[[str], object], token: str) -> None:
    """Return once the verifier is able to decide; fails the test unless it decides so."""
    found = until(lambda: verdict(verify, token), seconds=60, what="it is able to decide")
    assert found == word


def is_stale(view: SyncRevocationView) -> bool:
    try:
        view.refuses({})
    except StaleView:
        return True
    return False


def has_grown_stale(view: SyncRevocationView) -> bool:
    """Whether it is stale, as it is from its greatest age on and not before."""
    age_before = view.age
    if is_stale(view):
        assert view.age > view.max_age, "it was refused too early"
        return True
    assert age_before <= view.max_age, "it counted for too long"
    return False


def stream_count(broker: RunningBroker) -> int:
    """How many streams were ever opened."""
    return len(broker.records("revocations.watch"))


def wait_until_all_are_refused(
    setting: Setting, view: SyncRevocationView, tokens: tuple[str, str, str]
) -> float:
    """Seconds until the verifiers of all three resources refuse their tokens."""
    verifiers = [verifier(setting, one, view) for one in (SERVER, API, LEDGER)]
    began = time.monotonic()
    until(
        lambda: all(
            verdict(verify, token) == "refused"
            for verify, token in zip(verifiers, tokens, strict=True)
        ),
        seconds=60,
        what="they are refused",
    )
    return time.monotonic() - began


@pytest.mark.requirement("RPL-07")
def test_a_token_revoked_over_http_ends_what_is_two_hops_away_within_a_second(
    broker: RunningBroker,
) -> None:
    setting = broker.setting
    others = family(setting)
    with listening(setting) as view:
        verifiers = [verifier(setting, one, view) for one in (SERVER, API, LEDGER)]

        def seconds_until_refused() -> float:
            tokens = family(setting)
            for verify, token in zip(verifiers, tokens, strict=True):
                verify(token)
            revoke(setting, tokens[0])
            return wait_until_all_are_refused(setting, view, tokens)

        assert is_swift(seconds_until_refused, seconds=SECOND)
        for verify, token in zip(verifiers, others, strict=True):
            verify(token)


@pytest.mark.requirement("RPL-07")
def test_withdrawing_for_a_person_ends_all_of_theirs_within_a_second(
    broker: RunningBroker,
) -> None:
    setting = broker.setting
    others = family(setting)
    with listening(setting) as view:

        def seconds_until_refused() -> float:
            tokens = family(setting)
            assert not view.refuses(decode_claims(tokens[2]))
            withdraw(setting, decode_claims(tokens[2])["sub"])
            return wait_until_all_are_refused(setting, view, tokens)

        assert is_swift(seconds_until_refused, seconds=SECOND)
        assert not any(view.refuses(decode_claims(token)) for token in others)


def test_what_was_withdrawn_before_anybody_listened_is_known_too(broker: RunningBroker) -> None:
    tokens = family(broker.setting)
    revoke(broker.setting, tokens[0])

    with listening(broker.setting) as view:
        wait_until_all_are_refused(broker.setting, view, tokens)


def test_every_stream_is_on_record_in_a_chain_that_verifies(broker: RunningBroker) -> None:
    before = len(broker.records("revocations.watch"))
    key = write_key(broker.setting.directory / "crm.pem", signer(CRM))
    with listening(broker.setting, KeyFile(CRM, key, kid=CRM)):
        pass
    streams = broker.setting.document["listen"]["streams"]
    with SyncRevocationView(broker.setting.issuer, Secret(TICKETS, "bks_wrong"), streams) as view:
        until(lambda: "invalid_client" in view.failure, seconds=60, what="it is refused")
        assert is_stale(view)

    opened, *refused = broker.records("revocations.watch")[before:]
    assert (opened["decision"], opened["client_id"]) == ("permit", CRM)
    assert (opened["writer"], opened["face"]) == ("control", "grpc")
    assert {one["decision"] for one in refused} == {"deny"}
    assert broker.verify_audit().returncode == 0


def test_readiness_and_measures_speak_of_the_streams(broker: RunningBroker) -> None:
    with listening(broker.setting):
        until(
            lambda: 'event="revocations.watch",face="grpc"' in broker.page("/metrics"),
            seconds=60,
            what="the stream is counted",
        )

    well = {"[+]control ok", "[+]control/revocations ok"}
    until(
        lambda: well <= set(broker.findings().splitlines()),
        seconds=60,
        what="the control process is well",
    )
    is_up = 'broker_worker_up{worker="control"} 1.0'
    until(lambda: is_up in broker.page("/metrics"), seconds=60, what="it is measured as well")


@pytest.mark.requirement("CAU-15")
def test_a_reload_that_disables_the_client_ends_its_stream(
    tmp_path: Path,
) -> None:
    setting = new_stream_setting(tmp_path)
    with running(setting) as broker, listening(setting, max_age=SHORT_AGE) as view:
        clients = [
            {**one, "disabled": True} if one["id"] == TICKETS else one
            for one in setting.document["clients"]
        ]
        setting.write({**setting.document, "clients": clients})
        broker.send(signal.SIGHUP)

        until(lambda: "invalid_client" in view.failure, seconds=60, what="the stream has ended")
        until(lambda: is_stale(view), seconds=60, what="the view is stale")

        records = [one for one in broker.records("config.loaded") if one["writer"] == "control"]
        assert len(records) == 1


@pytest.mark.requirement("RPL-03")
def test_a_view_outlives_the_control_process_goes_stale_without_a_broker_and_heals(
    tmp_path: Path,
) -> None:
    setting = new_stream_setting(tmp_path)
    with ExitStack() as closing:
        broker = closing.enter_context(running(setting))
        tokens = family(setting)
        with listening(setting) as view:
            verifier(setting, LEDGER, view)(tokens[2])

            # It is started again before anything known is too old.
            os.kill(broker.worker_process("control"), signal.SIGKILL)
            until(
                lambda: stream_count(broker) >= 2, seconds=MAX_AGE, what="another stream is opened"
            )
            assert not is_stale(view)
            revoke(setting, tokens[0])
            wait_until_all_are_refused(setting, view, tokens)

        view = closing.enter_context(listening(setting, max_age=SHORT_AGE))
        verify = verifier(setting, LEDGER, view)
        broker.send(signal.SIGKILL)
        until(partial(has_grown_stale, view), seconds=60, what="the view is stale")
        with pytest.raises(Unverifiable):
            verify(tokens[2])
        broker.close()

        closing.enter_context(running(setting))
        wait_for("refused", verify, tokens[2])
        wait_for("accepted", verify, family(setting)[2])


def test_without_the_setting_nobody_listens_for_streams(
    starting: Callable[..., RunningBroker],
) -> None:
    broker = starting()

    assert "control" not in broker.findings()
    assert not list(broker.setting.audit_directory.glob("control*"))
