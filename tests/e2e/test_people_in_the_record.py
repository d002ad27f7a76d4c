"""Nobody is called by name in what a broker writes, on either face, and who may finds them all the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import grpc
import pytest
import urllib3

from broker.config import load_settings
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER
from broker.people import open_people
from broker.v1 import admin_service_pb2, admin_service_pb2_grpc
from broker.v1.token_pb2 import ClientAuthentication
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    DESK,
    IDP,
    TICKETS,
    Setting,
    assertion,
    by_assertion,
    exchange,
    id_token,
    login,
    new_setting,
    subject_token,
)
from tests.e2e.wires import settled, wire
from tests.idp import signer
from tests.world import Parameters

OPERATOR: Final = "operator"
# No address of electronic mail, which logs remove by its form.
PERSON: Final = "canary-alice-kowalska"
ACTOR: Final = "canary-bob-nowak"
EVENTS: Final = ("token.issue", "token.introspect", "token.revoke", "token.withdraw")
NAMES: Final = (PERSON, ACTOR, "kowalska", "nowak")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker that logs all it ever would, and takes actors of another issuer over."""
    setting = new_setting(tmp_path_factory.mktemp("people"), log={"level": "debug"})
    document = setting.document
    operator = {
        "id": OPERATOR,
        "auth": {"method": "private_key_jwt", "jwks": signer(OPERATOR).jwks},
        "grants": [],
        "administer": True,
    }
    running = RunningBroker(
        setting.with_document(
            clients=[*document["clients"], operator],
            issuers=[{**document["issuers"][0], "foreign_actors": "keep"}],
        )
    )
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


def requests_about_people(setting: Setting) -> Iterator[Parameters]:
    """Permitted and refused, with people in every place where a token may name somebody."""
    behind = {"iss": IDP, "sub": ACTOR}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON)}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON, act=behind)}
    yield login(setting) | {"subject_token": id_token(sub=PERSON, email=f"{PERSON}@acme.example")}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON), "scope": "nobody:may"}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON), "resource": "urn:none"}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON, exp=1)}
    yield exchange(setting) | {"subject_token": subject_token(sub=f"client:{PERSON}")}
    yield exchange(setting) | {"subject_token": subject_token(sub=PERSON, may_act={"sub": ACTOR})}


def asked_about(setting: Setting, path: str, token: str, client: str) -> dict[str, Any]:
    parameters = {"token": token, **by_assertion(assertion(setting, client))}
    answer = urllib3.PoolManager(retries=False).request(
        "POST",
        f"{setting.issuer}/{path}",
        body=urlencode(parameters, doseq=True),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status == 200
    told: dict[str, Any] = json.loads(answer.data) if answer.data else {}
    return told


def withdraw(setting: Setting, subject: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{setting.ports.grpc}") as channel:
        admin_service_pb2_grpc.AdminServiceStub(channel).RevokeIssuedTokens(
            admin_service_pb2.RevokeIssuedTokensRequest(
                party=admin_service_pb2.REVOKED_PARTY_SUBJECT,
                name=subject,
                client_authentication=ClientAuthentication(
                    client_assertion=assertion(setting, OPERATOR),
                    client_assertion_type=CLIENT_ASSERTION_JWT_BEARER,
                ),
            ),
            timeout=60,
        )


def named_in(text: str) -> list[str]:
    return [name for name in NAMES if name in text]


def pseudonym_of(setting: Setting, name: str) -> str:
    """What whoever has the settings and the keys makes of a name."""
    [pseudonym] = open_people(load_settings(setting.file, {})).pseudonyms_of(name)
    return pseudonym


@pytest.mark.requirement("LOG-07")
def test_nobody_is_named_in_records_logs_and_metrics_and_each_is_found_by_name(
    broker: RunningBroker,
) -> None:
    setting = broker.setting
    for face in ("http", "grpc"):
        assert ask_about_people(setting, face) == 3
    withdraw(setting, PERSON)
    with wire("http", setting) as http:
        old = subject_token(sub=PERSON, iat=1)
        assert http.exchange(exchange(setting) | {"subject_token": old}).error, "who is withdrawn"

    for page in ("/metrics", "/readyz?verbose"):
        assert not named_in(broker.page(page))
    assert not named_in(broker.session.text)
    about = {event: about_person(broker, event) for event in EVENTS}
    assert all(about.values()), "every event about them is found"
    assert {one["decision"] for one in about["token.issue"]} == {"permit", "deny"}
    assert {one.get("subject_issuer") for one in about["token.issue"]} == {IDP}

    assert broker.stop() == 0
    for file in written(setting.directory):
        assert not named_in(file.read_bytes().decode("latin-1")), file
    assert broker.verify_audit().returncode == 0


def test_the_next_broker_here_calls_people_by_the_same_pseudonyms(broker: RunningBroker) -> None:
    setting, actor = broker.setting, pseudonym_of(broker.setting, ACTOR)
    again = RunningBroker(setting)
    try:
        again.wait_until_ready()
        assert any(actor in json.dumps(one.get("actors")) for one in again.records())
        with wire("grpc", setting) as grpc_face:
            fresh = {"subject_token": subject_token(sub=ACTOR)}
            assert settled(grpc_face, lambda: exchange(setting) | fresh).token
        assert actor in {one.get("subject") for one in again.records()}
    finally:
        again.close()


def ask_about_people(setting: Setting, face: str) -> int:
    """How many tokens there were; the last is asked about and withdrawn over HTTP."""
    with wire(face, setting) as one:
        answers = [one.exchange(asked) for asked in requests_about_people(setting)]
    from_login = answers[2].token
    assert asked_about(setting, "introspect", from_login, TICKETS)["sub"] == PERSON
    assert asked_about(setting, "revoke", from_login, DESK) == {}
    return sum(1 for answer in answers if answer.token)


def about_person(broker: RunningBroker, event: str) -> list[dict[str, Any]]:
    """The records of an event in which the person is, by the pseudonym that the command tells."""
    person = pseudonym_of(broker.setting, PERSON)
    return [
        one for one in broker.records(event) if person in (one.get("subject"), one.get("party"))
    ]


def written(directory: Path) -> Iterator[Path]:
    """All that the broker wrote, but for whose tokens are withdrawn, which it must know by their names."""
    for path in directory.rglob("*"):
        if path.is_file() and path.parent.name != "state":
            yield path
