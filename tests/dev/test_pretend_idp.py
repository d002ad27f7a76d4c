"""The pretend provider of development mode: no passwords, and all the rest as a provider has it."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from broker.dev.idp import PretendIdp

VERIFIER = "v" * 43
ASKED = {
    "response_type": "code",
    "client_id": "audit-desk",
    "redirect_uri": "http://127.0.0.1:9464/audit/login/return",
    "state": "a-state",
    "nonce": "a-nonce",
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .rstrip(b"=")
    .decode(),
    "code_challenge_method": "S256",
}
TOLD = {
    "grant_type": "authorization_code",
    "client_id": ASKED["client_id"],
    "redirect_uri": ASKED["redirect_uri"],
    "code_verifier": VERIFIER,
}


@pytest.fixture(scope="module")
def idp() -> Iterator[PretendIdp]:
    made = PretendIdp(0)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()


def code(idp: PretendIdp, user: str = "olga") -> str:
    answer = idp.page("/authorize?" + urlencode({**ASKED, "user": user}))
    assert answer.status == 303
    back = parse_qs(urlsplit(answer.location).query)
    assert (back["state"], back["iss"]) == (["a-state"], [idp.issuer])
    return back["code"][0]


def test_a_code_is_exchanged_for_who_was_picked(idp: PretendIdp) -> None:
    told = idp.form("/token", urlencode({**TOLD, "code": code(idp)})).told
    assert told is not None
    claims = jwt.decode(told["id_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["groups"], claims["nonce"]) == ("olga", ["auditors"], "a-nonce")
    assert claims["aud"] == "audit-desk"


def test_one_picks_who_to_be(idp: PretendIdp) -> None:
    page = idp.page("/authorize?" + urlencode(ASKED)).page
    assert "user=olga" in page
    assert "user=ann" in page
    hostile = idp.page("/authorize?" + urlencode({**ASKED, "state": '"><script>'})).page
    assert "<script>" not in hostile


@pytest.mark.parametrize(
    "change",
    [
        {"code": "another"},
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:1/"},
        {"client_id": "another"},
    ],
)
def test_a_code_is_for_who_asked_for_it(idp: PretendIdp, change: dict[str, str]) -> None:
    answer = idp.form("/token", urlencode({**TOLD, "code": code(idp), **change}))
    assert (answer.status, answer.told) == (400, {"error": "invalid_grant"})


def test_a_code_is_exchanged_once(idp: PretendIdp) -> None:
    form = urlencode({**TOLD, "code": code(idp)})
    assert idp.form("/token", form).status == 200
    assert idp.form("/token", form).status == 400


@pytest.mark.parametrize(
    "url", ["", "https://127.0.0.1/", "http://other.example/", "http://127.0.0.1/\r\nA: b"]
)
def test_nobody_is_sent_off_this_machine(idp: PretendIdp, url: str) -> None:
    query = urlencode({**ASKED, "redirect_uri": url, "user": "olga"})
    assert idp.page(f"/authorize?{query}").status == 400
