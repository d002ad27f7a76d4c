"""An exchange by clients that know nothing of us: curl on one face, ``buf curl`` on the other."""

import json
import shutil
from typing import Any, Final

import pytest

from broker.oauth import GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN
from tests.e2e.running import RunningBroker, run
from tests.e2e.setting import API, READ, TICKETS, TICKETS_SECRET, subject_token
from tests.harness import decode_claims

_RPC: Final = "broker.v1.TokenService/ExchangeToken"
_FRESH: Final = {"iat", "exp", "jti", "txn"}

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_buf = pytest.mark.skipif(shutil.which("buf") is None, reason="buf is not installed")


def by_curl(broker: RunningBroker, token: str, secret: str = TICKETS_SECRET) -> dict[str, Any]:
    form = {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": token,
        "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "resource": API,
        "scope": READ,
    }
    fields = [part for name in form for part in ("--data-urlencode", f"{name}={form[name]}")]
    url = broker.setting.issuer + "/token"
    answer = run(["curl", "-sS", "-u", f"{TICKETS}:{secret}", *fields, url])
    assert answer.returncode == 0, answer.stderr
    read: dict[str, Any] = json.loads(answer.stdout)
    return read


def by_buf(broker: RunningBroker, token: str, secret: str = TICKETS_SECRET) -> dict[str, Any]:
    message = {
        "subjectToken": token,
        "subjectTokenType": "TOKEN_TYPE_ACCESS_TOKEN",
        "resources": [API],
        "scopes": [READ],
        "clientAuthentication": {"clientId": TICKETS, "clientSecret": secret},
    }
    url = f"http://127.0.0.1:{broker.setting.ports.grpc}/{_RPC}"
    command = ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    answer = run([*command, "-d", json.dumps(message), url])
    read: dict[str, Any] = json.loads(answer.stdout if answer.returncode == 0 else answer.stderr)
    return read


def lasting(token: str) -> dict[str, Any]:
    """The claims without those that differ from token to token."""
    return {name: text for name, text in decode_claims(token).items() if name not in _FRESH}


@needs_curl
@needs_buf
def test_curl_and_buf_curl_get_the_same_token_for_the_same_exchange(broker: RunningBroker) -> None:
    token = subject_token()

    over_http = by_curl(broker, token)
    over_grpc = by_buf(broker, token)["issuedToken"]

    assert lasting(over_http["access_token"]) == lasting(over_grpc["accessToken"])
    assert over_http["token_type"] == over_grpc["tokenType"] == "Bearer"
    assert over_http["resource"] == over_grpc["resource"] == API
    assert over_http["scope"].split() == over_grpc["scopes"] == [READ]
    # JSON has no 64-bit integers, so protobuf writes them as text.
    assert over_http["expires_in"] == int(over_grpc["expiresIn"])


@needs_curl
@needs_buf
def test_curl_and_buf_curl_are_told_the_same_when_the_secret_is_wrong(
    broker: RunningBroker,
) -> None:
    token = subject_token()

    over_http = by_curl(broker, token, "bks_" + "wrong" * 9)
    over_grpc = by_buf(broker, token, "bks_" + "wrong" * 9)

    assert over_http["error"] == "invalid_client"
    assert over_grpc["code"] == "unauthenticated"
    assert over_grpc["message"] == over_http["error_description"]


@needs_buf
def test_reflection_describes_every_service_to_buf_curl(broker: RunningBroker) -> None:
    address = f"http://127.0.0.1:{broker.setting.ports.grpc}"

    listed = run(["buf", "curl", "--protocol", "grpc", "--list-methods", address])

    assert listed.returncode == 0, listed.stderr
    assert _RPC in listed.stdout
    assert "broker.v1.DiscoveryService/GetKeySet" in listed.stdout
    assert "broker.v1.PolicyService/ExplainDecision" in listed.stdout
    assert "grpc.health.v1.Health/Check" in listed.stdout
