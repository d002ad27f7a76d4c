"""Where streams of what is revoked are asked for, and what is refused there."""

from collections.abc import Callable

import pytest

from broker.config import Settings
from broker.config.settings import Address

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\n"
VAULT = (
    "issuer: https://broker.example\nkeys:\n  store: vault-transit\n  also: []\n  vault:\n"
    "    url: https://vault.example\n    keys: {ES256: broker-at}\n"
    f"    auth: {{method: kubernetes, role: broker, jwt_file: {__file__}}}\n"
)


def test_there_are_no_streams_unless_they_are_asked_for(load: Load) -> None:
    assert load(OWN).listen.streams is None


def test_streams_have_an_address_of_their_own(load: Load) -> None:
    listen = load(OWN + "listen: {streams: 'localhost:8444'}\n").listen

    assert listen.streams == Address("127.0.0.1", 8444)
    assert listen.grpc == Address("127.0.0.1", 8443)


@pytest.mark.requirement("std:OPS-01")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            VAULT + "listen: {streams: '10.0.0.1:8444'}\n",
            "listen.streams: needs grpc.tls to listen off loopback",
        ),
        (
            OWN + "listen: {streams: '10.0.0.1:8444'}\ngrpc: {tls: {cert_file: c, key_file: k}}\n",
            "listen.streams: must be on loopback with the embedded keys (keys.store: dev)",
        ),
        (
            OWN + "listen: {streams: '127.0.0.1:8443'}\n",
            "listen.streams: is the address of listen.grpc as well",
        ),
        (
            OWN + "listen: {streams: '127.0.0.1:9443'}\n",
            "listen.streams: is the address of listen.admin as well",
        ),
        (
            OWN + "listen: {grpc: null, streams: '127.0.0.1:8444'}\nstate: {store: memory}\n",
            "listen.streams: needs state.store: sqlite or valkey",
        ),
        (OWN + "listen: {streams: 8444}\n", "listen.streams: must be an address and a port"),
    ],
)
def test_streams_that_are_unsafe_or_impossible_are_refused(
    refuse: Refuse, text: str, problem: str
) -> None:
    assert any(problem in one for one in refuse(text))
