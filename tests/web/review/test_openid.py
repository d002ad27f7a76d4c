"""Who is believed to be an auditor: whoever a provider vouches for in just this login, and a rule lets in."""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.errors import OAuthError, TemporarilyUnavailable, TokenRejected
from broker.fetch import GuardedFetcher
from broker.issuers import IssuerKeyRing
from broker.web.review.openid import AuditorRules, Begun, OpenIdProvider, OpenIdTerms
from broker.web.review.sessions import Auditor
from tests.idp import signer
from tests.web.review.provider import CLIENT, SECRET, Provider, running

RETURN = "http://127.0.0.1:9443/audit/login/return"
AUDITORS = AuditorRules(claim="groups", values=frozenset({"auditors"}))


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    with running(Provider()) as provider:
        yield provider


@pytest.fixture
def provider(served: Provider) -> Provider:
    served.reset()
    return served


Make = Callable[..., OpenIdProvider]


@pytest.fixture
def make(provider: Provider) -> Iterator[Make]:
    fetcher = GuardedFetcher(allow_loopback=True)
    ring = IssuerKeyRing(fetcher, refreshers=0)

    def make(rules: AuditorRules = AUDITORS, **terms: Any) -> OpenIdProvider:
        return OpenIdProvider(
            OpenIdTerms(provider.issuer, CLIENT, rules, **terms),
            redirect_uri=RETURN,
            sender=fetcher,
            key_ring=ring,
            now=lambda: int(time.time()),
        )

    yield make
    ring.close()


def log_in(made: OpenIdProvider, provider: Provider, **changes: str | None) -> Auditor:
    begun = made.begin()
    right = {"state": provider.send_away(begun.url), "code": "a-code"}
    answer = {name: value for name, value in {**right, **changes}.items() if value is not None}
    return made.finish(begun, answer)


def refusal(made: OpenIdProvider, provider: Provider, **changes: str | None) -> str:
    try:
        found = log_in(made, provider, **changes)
    except (TokenRejected, OAuthError) as refused:
        return f"{refused.reason.code} {refused.detail}".strip()
    pytest.fail(f"{found} was let in")


def test_an_auditor_is_let_in(make: Make, provider: Provider) -> None:
    assert log_in(make(), provider) == Auditor("olga", "openid")


def test_the_browser_is_sent_with_a_challenge_and_without_its_answer(make: Make) -> None:
    begun = make().begin()
    assert "code_challenge_method=S256" in begun.url
    assert begun.verifier not in begun.url
    assert "scope=openid" in begun.url
    assert begun.verifier not in repr(begun)


def test_a_claim_may_be_one_text(make: Make, provider: Provider) -> None:
    provider.claims = {"groups": "auditors"}
    assert log_in(make(), provider).name == "olga"


def test_a_subject_may_be_named(make: Make, provider: Provider) -> None:
    provider.claims = {"groups": None}
    made = make(AuditorRules(subjects=frozenset({"olga"})), name_claim="sub")
    assert log_in(made, provider).name == "olga"


@pytest.mark.parametrize(
    "rules",
    [
        AuditorRules(),
        AuditorRules(subjects=frozenset({"Olga"})),
        AuditorRules(claim="roles", values=frozenset({"auditors"})),
        AuditorRules(claim="groups", values=frozenset({"Auditors"})),
        AuditorRules(claim="groups", values=frozenset()),
    ],
)
def test_whom_no_rule_lets_in_is_refused(
    make: Make, provider: Provider, rules: AuditorRules
) -> None:
    assert refusal(make(rules), provider) == "auditor_unknown"


@pytest.mark.parametrize(
    "groups", [None, [], "staff", ["auditors2"], {"auditors": True}, [["auditors"]], 1, True]
)
def test_a_claim_of_another_form_lets_nobody_in(
    make: Make, provider: Provider, groups: object
) -> None:
    provider.claims = {"groups": groups}
    assert refusal(make(), provider) == "auditor_unknown"


def test_a_list_of_groups_without_end_lets_nobody_in(make: Make, provider: Provider) -> None:
    provider.claims = {"groups": ["auditors", *["a"] * 1024]}
    assert "auditor_unknown" in refusal(make(), provider)


ANOTHER = "another"
CLAIM_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "issuer": ({"iss": "https://other.example"}, "iss_unknown"),
    "no issuer": ({"iss": None}, "iss_unknown"),
    "audience": ({"aud": ANOTHER}, "aud_mismatch"),
    "audiences": ({"aud": [CLIENT, ANOTHER]}, "aud_mismatch"),
    "no audience": ({"aud": None}, "aud_mismatch"),
    "azp": ({"azp": ANOTHER}, "aud_mismatch azp is another client"),
    "nonce": ({"nonce": ANOTHER}, "login_unknown the nonce is another one"),
    "no nonce": ({"nonce": None}, "login_unknown the nonce is another one"),
    "nonce of another type": ({"nonce": 1}, "login_unknown the nonce is another one"),
    "expired": ({"iat": 1_700_000_000, "exp": 1_700_000_300}, "token_expired"),
    "no expiry": ({"exp": None}, "claim_malformed exp"),
    "no issue": ({"iat": None}, "claim_malformed iat"),
    "for years": ({"exp": 4_000_000_000}, "lifetime_too_long"),
    "no subject": ({"sub": None}, "claim_malformed sub"),
    "subject that shows less than it is": ({"sub": "olga\u200b"}, "claim_malformed sub"),
}


@pytest.mark.parametrize("fault", CLAIM_FAULTS)
def test_an_id_token_for_anything_else_is_refused(
    make: Make, provider: Provider, fault: str
) -> None:
    provider.claims, expected = CLAIM_FAULTS[fault]
    assert refusal(make(), provider) == expected


def test_an_id_token_by_another_key_is_refused(make: Make, provider: Provider) -> None:
    made = make()
    log_in(made, provider)
    provider.signer = signer("stranger")
    assert refusal(made, provider).startswith(("unknown_key", "sig_invalid"))


def test_an_id_token_by_an_algorithm_that_is_not_named_is_refused(
    make: Make, provider: Provider
) -> None:
    assert refusal(make(algorithms=frozenset({"RS256"})), provider) == "alg_not_allowed"


def test_an_access_token_is_no_id_token(make: Make, provider: Provider) -> None:
    provider.typ = "at+jwt"
    assert refusal(make(), provider) == "wrong_token_type"


@pytest.mark.requirement("META-14")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "another"}, "login_unknown the state is another one"),
        ({"state": None}, "login_unknown the state is another one"),
        ({"iss": "https://other.example"}, "login_refused the answer is of another issuer"),
        ({"iss": ""}, "login_refused the answer is of another issuer"),
        ({"error": "access_denied"}, "login_refused the provider answered with an error"),
        ({"code": None}, "login_refused the answer has no code"),
        ({"code": ""}, "login_refused the answer has no code"),
        ({"code": "c" * 4097}, "login_refused the answer has no code"),
    ],
)
def test_an_answer_to_another_question_is_refused_before_the_code_is_sent_anywhere(
    make: Make, provider: Provider, changes: dict[str, str | None], expected: str
) -> None:
    assert refusal(make(), provider, **changes) == expected
    assert provider.forms == []


@pytest.mark.requirement("META-14")
def test_a_provider_that_says_it_tells_its_issuer_must(make: Make, provider: Provider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    made = make()
    assert refusal(made, provider) == "login_refused the answer does not tell its issuer"
    assert log_in(made, provider, iss=provider.issuer).name == "olga"


def test_a_code_of_another_login_is_not_exchanged(make: Make, provider: Provider) -> None:
    made = make()
    theirs = made.begin()
    provider.send_away(theirs.url)
    ours = made.begin()
    with pytest.raises(TokenRejected) as refused:
        made.finish(ours, {"state": ours.state, "code": "a-code"})
    assert refused.value.detail == "the code was not accepted"


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        ({"error": "invalid_grant"}, 400, "login_refused the code was not accepted"),
        ({"error": "server_error"}, 500, "login_unavailable fetch_status"),
        ({"access_token": "a"}, 200, "login_refused the provider issued no ID token"),
        ({"id_token": 1}, 200, "login_refused the provider issued no ID token"),
        (b"<html>", 200, "login_unavailable the provider's answer is not JSON"),
        (
            b'{"id_token":"a","id_token":"b"}',
            200,
            "login_unavailable the provider's answer is not JSON",
        ),
        (b" " * 70_000, 200, "login_unavailable fetch_too_large"),
        ({"id_token": "no.token"}, 200, "malformed_token"),
    ],
)
def test_what_the_token_endpoint_may_not_answer(
    make: Make, provider: Provider, answer: Any, status: int, expected: str
) -> None:
    provider.answer, provider.status = answer, status
    assert refusal(make(), provider) == expected


METADATA_FAULTS: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://other.example"},
    "no token endpoint": {"token_endpoint": None},
    "a token endpoint elsewhere": {"token_endpoint": "https://other.example/token"},
    "a token endpoint that is no URL": {"token_endpoint": "javascript:alert(1)"},
    "a login elsewhere": {"authorization_endpoint": "https://other.example/authorize"},
    "a login that is a list": {"authorization_endpoint": ["https://other.example"]},
}


@pytest.mark.parametrize("fault", METADATA_FAULTS)
def test_metadata_that_points_elsewhere_is_not_followed(
    make: Make, provider: Provider, fault: str
) -> None:
    provider.metadata = METADATA_FAULTS[fault]
    with pytest.raises(TemporarilyUnavailable, match="login_unavailable"):
        make().begin()


def test_an_endpoint_at_a_host_that_is_declared_is_accepted(make: Make, provider: Provider) -> None:
    provider.metadata = {"authorization_endpoint": "https://login.example/authorize?tenant=1"}
    begun = make(hosts=frozenset({"login.example"})).begin()
    assert begun.url.startswith("https://login.example/authorize?tenant=1&response_type=code")


def test_a_provider_that_is_away_is_not_asked_again_at_once(make: Make, provider: Provider) -> None:
    provider.metadata_status = 503
    made = make()
    for _ in range(5):
        with pytest.raises(TemporarilyUnavailable, match="login_unavailable"):
            made.begin()
    assert len(provider.asked) == 1


def _authorization(sent: str) -> str:
    return base64.b64decode(sent.removeprefix("Basic ")).decode()


def test_the_client_proves_itself_as_the_provider_wants(
    make: Make, provider: Provider, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    log_in(make(secret_file=file), provider)
    form, sent = provider.forms.pop()
    assert _authorization(sent) == "audit-desk:a%20secret%2Fwith%2Bsigns"
    assert "client_secret" not in form
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    log_in(make(secret_file=file), provider)
    form, sent = provider.forms.pop()
    assert (form["client_secret"], sent) == (SECRET, "")
    log_in(make(), provider)
    form, sent = provider.forms.pop()
    assert (form["client_id"], form.get("client_secret"), sent) == (CLIENT, None, "")


def test_a_secret_that_cannot_be_read_sends_no_code(
    make: Make, provider: Provider, tmp_path: Path
) -> None:
    assert refusal(make(secret_file=tmp_path / "none"), provider) == (
        "login_unavailable the client's secret cannot be read"
    )
    assert provider.forms == []


def test_what_is_begun_shows_nothing_secret(make: Make) -> None:
    begun: Begun = make().begin()
    shown = repr(begun)
    assert begun.nonce not in shown.replace(begun.url, "")
    assert begun.verifier not in shown
