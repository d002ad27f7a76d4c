"""Secrets of every kind, right and wrong, in every field: none of them is seen again anywhere."""

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.oauth import TOKEN_TYPE_JWT
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    TICKETS,
    TICKETS_SECRET,
    Setting,
    assertion,
    by_assertion,
    exchange,
    login,
    subject_token,
)
from tests.e2e.vault import Vault
from tests.e2e.wires import wire
from tests.harness import basic
from tests.idp import signer
from tests.world import Parameters

pytestmark = pytest.mark.openbao

SECRET_FIELDS: Final = (
    "subject_token",
    "actor_token",
    "client_secret",
    "client_assertion",
    "assertion",
)


class Canaries:
    """The secrets that were used, in every form in which they could be seen again."""

    def __init__(self) -> None:
        self.forms: set[str] = set()

    def remember(self, secret: str) -> str:
        """Look out for this secret: as it is, as base64, and a token also by its signature."""
        self.forms.add(secret)
        self.forms.add(base64.b64encode(secret.encode()).decode().rstrip("="))
        if secret.count(".") == 2:
            self.forms.add(secret.rpartition(".")[2])
        return secret

    def seen_in(self, text: str) -> set[str]:
        """The secrets that are in a text."""
        return {form for form in self.forms if form in text}

    def watch(self, parameters: Parameters) -> Parameters:
        """The same parameters, with every secret in them remembered."""
        for name in SECRET_FIELDS:
            value = parameters.get(name)
            if isinstance(value, str) and value:
                self.remember(value)
        return parameters


def fresh_secret() -> str:
    return "bks_" + secrets.token_hex(24)


def mixed_requests(setting: Setting) -> Iterator[tuple[Parameters, tuple[str, ...]]]:
    """Good and bad requests, each with its Authorization values."""
    bare = {name: one for name, one in exchange(setting).items() if not name.startswith("client_")}
    odd = fresh_secret()
    forged = signer("mallory").sign({"iss": TICKETS, "sub": TICKETS, "canary": odd})
    yield exchange(setting), ()
    yield login(setting), ()
    yield bare, (basic(TICKETS, TICKETS_SECRET),)
    yield bare, (basic(TICKETS, fresh_secret()),)
    yield bare, (basic(fresh_secret(), fresh_secret()),)
    yield bare, ("Bearer " + subject_token(),)
    yield bare, ("Basic " + fresh_secret(),)
    yield bare | {"client_id": TICKETS, "client_secret": fresh_secret()}, ()
    yield bare | {"client_id": TICKETS, "client_secret": fresh_secret() * 40}, ()
    yield bare | {"client_secret": fresh_secret()}, ()
    yield exchange(setting) | by_assertion(forged), ()
    yield exchange(setting) | by_assertion(fresh_secret()), ()
    yield exchange(setting) | by_assertion(assertion(setting, aud=odd)), ()
    yield exchange(setting) | by_assertion(assertion(setting, exp=1)), ()
    yield exchange(setting) | {"subject_token": fresh_secret()}, ()
    yield exchange(setting) | {"subject_token": forged}, ()
    yield exchange(setting) | {"subject_token": subject_token(exp=1)}, ()
    yield exchange(setting) | {"subject_token": subject_token(aud=odd)}, ()
    yield exchange(setting) | {"subject_token": subject_token(act="wrong")}, ()
    yield exchange(setting) | {"subject_token": subject_token(jti="x" * 9000)}, ()
    yield exchange(setting) | {"actor_token": forged, "actor_token_type": TOKEN_TYPE_JWT}, ()
    yield (
        exchange(setting) | {"actor_token": assertion(setting), "actor_token_type": TOKEN_TYPE_JWT},
        (),
    )
    yield exchange(setting) | {"client_secret": fresh_secret()}, (basic(TICKETS, odd),)


@pytest.fixture(scope="module")
def talkative(
    vault: Vault, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningBroker, Canaries]]:
    """A broker that logs all it ever would, and what it must not tell to begin with."""
    canaries = Canaries()
    canaries.remember(vault.role.auth.secret_id_file.read_text().strip())
    directory = tmp_path_factory.mktemp("talkative")
    broker = RunningBroker(vault.setting(directory, log={"level": "debug"}))
    try:
        broker.wait_until_ready()
        yield broker, canaries
    finally:
        broker.close()


def everything_written(directory: Path) -> Iterator[tuple[str, str]]:
    """Every file that the broker has written, by its name."""
    for path in directory.rglob("*"):
        if path.is_file() and path.name not in {"broker.yaml", "broker.draft"}:
            yield path.name, path.read_bytes().decode("latin-1")


@pytest.mark.requirement("LOG-01")
def test_no_secret_of_any_request_is_in_a_log_a_record_a_metric_or_an_answer(
    talkative: tuple[RunningBroker, Canaries],
) -> None:
    broker, canaries = talkative
    setting = broker.setting
    answers: list[str] = []
    with wire("http", setting) as http, wire("grpc", setting) as grpc:
        for face in (http, grpc):
            for parameters, authorization in mixed_requests(setting):
                for value in authorization:
                    canaries.remember(value.partition(" ")[2])
                answer = face.exchange(canaries.watch(parameters), *authorization)
                answers.append(answer.everything)
                if answer.token:
                    # The caller alone may have it.
                    canaries.remember(answer.token)
                    answers.pop()

    assert len(canaries.forms) > 50
    for answer_text in answers:
        assert not canaries.seen_in(answer_text)
    for page in ("/metrics", "/readyz?verbose", "/livez"):
        assert broker.page(page)
        assert not canaries.seen_in(broker.page(page))
    assert broker.stop() == 0
    assert broker.events("stopped")
    for name, text in everything_written(setting.directory):
        assert not canaries.seen_in(text), name
