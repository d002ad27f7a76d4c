"""A broker whose keys never leave a real OpenBao, which is sealed and unsealed under it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jwt
import pytest

from tests.e2e.conftest import Starting
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import API, SERVER, Setting, exchange, login
from tests.e2e.vault import Vault
from tests.e2e.wires import UNABLE, settled, wire
from tests.openbao import OpenBao

pytestmark = pytest.mark.openbao

WORKERS: Final = ("grpc-0", "http-0")
FAST: Final = 2.0
SLOWEST: Final = 5.0
"""Within these seconds nineteen of twenty callers are told, and the others on a machine that held them up."""
RECOVERY: Final = 5.0


@pytest.fixture
def bao(vault: Vault) -> Iterator[OpenBao]:
    """The OpenBao, unsealed before and after."""
    yield vault.bao
    if vault.bao.health() != 200:
        vault.bao.unseal()


@pytest.fixture
def setting(tmp_path: Path, vault: Vault) -> Setting:
    """A broker that signs in the OpenBao."""
    return vault.setting(tmp_path)


def verify(broker: RunningBroker, token: str, audience: str) -> None:
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(broker.key_set())[header["kid"]]
    issuer = broker.setting.issuer
    jwt.decode(token, key, algorithms=[header["alg"]], audience=audience, issuer=issuer)


@pytest.mark.requirement("SGN-01")
@pytest.mark.requirement("R-02")
@pytest.mark.requirement("R-38")
def test_tokens_signed_in_openbao_verify_and_a_seal_stops_them_only_until_it_is_lifted(
    starting: Starting, setting: Setting, bao: OpenBao
) -> None:
    broker = starting(setting)
    with wire("http", setting) as http, wire("grpc", setting) as grpc:
        for face in (http, grpc):
            verify(broker, settled(face, lambda: login(setting)).token, SERVER)
            verify(broker, settled(face, lambda: exchange(setting)).token, API)
    keys = broker.key_set()

    with Load(setting, callers=4, pause=0.05) as load:
        load.wait_for(10)
        bao.seal()
        until(lambda: load.refused(UNABLE) >= 20, seconds=60, what="callers are told")
        until(
            lambda: all(f"[-]{one}/keys failed" in broker.findings() for one in WORKERS),
            seconds=RECOVERY,
            what="readiness names the keys",
        )
        assert "signer_unavailable" in broker.findings()
        assert not broker.is_ready()
        assert broker.key_set() == keys
        bao.unseal()
        load.wait_for(10, seconds=RECOVERY)
        broker.wait_until_ready(RECOVERY)

    refused = [call for call in load.calls if not call.token]
    assert {call.answer.error for call in refused if call.answer} == {UNABLE}
    assert all(call.answer for call in refused)
    took = sorted(call.seconds for call in refused)
    assert took[len(took) * 19 // 20] < FAST
    assert took[-1] < SLOWEST
    assert not broker.events("worker_died")


@pytest.mark.requirement("R-01")
def test_a_broker_started_while_openbao_is_sealed_is_ready_once_it_is_unsealed(
    starting: Starting, setting: Setting, bao: OpenBao
) -> None:
    bao.seal()
    broker = starting(setting, is_awaited=False)
    until(
        lambda: all(f"[-]{one}/keys failed" in broker.findings() for one in WORKERS),
        seconds=60,
        what="it runs and says what is missing",
    )
    assert broker.page("/livez") == "ok\n"
    with wire("http", setting) as http, wire("grpc", setting) as grpc:
        for face in (http, grpc):
            assert face.exchange(exchange(setting)).error == UNABLE

        bao.unseal()

        broker.wait_until_ready(RECOVERY)
        for face in (http, grpc):
            verify(broker, settled(face, lambda: exchange(setting)).token, API)
    assert not broker.events("worker_died")
