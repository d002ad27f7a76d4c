"""What a resource accepts and what it refuses, by the verifier for event loops and by the one that blocks."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from broker.client.refusals import InsufficientScope, InvalidToken, NotServed, Unverifiable
from broker.client.verify import (
    Actor,
    Login,
    Person,
    SyncTokenVerifier,
    TokenVerifier,
)
from broker.errors import Reason
from tests.client.key_server import KeyServer, running_key_server
from tests.client.receiving import (
    BROKER_KEY,
    KINDS,
    NOW,
    RESOURCE,
    STRANGER,
    Receiver,
    about,
    good_claims,
    good_token,
    receiver,
)
from tests.idp import encode, signer

RSA = signer("broker-rsa", "RS256")
BadToken = Callable[[str], str]


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running_key_server() as running:
        running.publish(BROKER_KEY.jwk, RSA.jwk)
        yield running


@pytest.fixture(scope="module", params=KINDS)
def verifier(request: pytest.FixtureRequest, server: KeyServer) -> Receiver:
    return receiver(request.param, server)


def test_a_good_token_becomes_a_typed_delegation(verifier: Receiver, server: KeyServer) -> None:
    delegation = verifier.verify(good_token(server.issuer))

    assert delegation.subject == "ann"
    assert delegation.person == Person("ann", "https://idp.example")
    assert delegation.mcp_client == "agent"
    assert delegation.mcp_server == "https://desk.mcp.example/mcp"
    assert delegation.resource == RESOURCE
    assert delegation.client_id == "mcp-desk"
    assert delegation.actors == (
        Actor("mcp-desk", server.issuer),
        Actor("agent", server.issuer, "ai_agent"),
    )
    assert delegation.scopes == {"tickets:read", "tickets:comment"}
    assert delegation.login == Login("phr", ("hwk", "user"), NOW - 600)
    assert (delegation.expires_at, delegation.token_id) == (NOW + 300, "T-1")
    assert (delegation.tenant, delegation.key) == ("acme", None)
    assert delegation.claims["iss"] == server.issuer


def test_a_clients_own_token_tells_of_no_person(verifier: Receiver, server: KeyServer) -> None:
    token = good_token(server.issuer, sub="client:nightly", client_id="nightly", act=None)

    delegation = verifier.verify(token)

    assert delegation.person is None
    assert (delegation.subject, delegation.actors) == ("client:nightly", ())


def test_a_token_without_our_statements_is_told_by_its_issuer(
    verifier: Receiver, server: KeyServer
) -> None:
    token = good_token(server.issuer, **about(server.issuer, None))

    delegation = verifier.verify(token)

    assert delegation.person == Person("ann", server.issuer)
    assert (delegation.mcp_client, delegation.mcp_server, delegation.tenant) == (None, None, None)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_every_spelling_of_the_media_type_is_accepted(
    verifier: Receiver, server: KeyServer, typ: str
) -> None:
    token = BROKER_KEY.sign(good_claims(server.issuer), typ=typ)

    assert verifier.verify(token).subject == "ann"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [RESOURCE]},
        {"iat": NOW - 300, "exp": NOW - 29},
        {"exp": NOW + 300.5},
        {"iat": NOW + 30},
        {"nbf": NOW + 30},
        {"scope": ""},
        {"scope": None},
        {"auth_time": None, "acr": None, "amr": None},
        {"act": None},
    ],
    ids=str,
)
def test_what_the_rules_leave_open_is_accepted(
    verifier: Receiver, server: KeyServer, changes: dict[str, Any]
) -> None:
    assert verifier.verify(good_token(server.issuer, **changes)).token_id == "T-1"


def with_claims(**changes: Any) -> BadToken:
    return lambda issuer: good_token(issuer, **changes)


def with_header(**header: Any) -> BadToken:
    return lambda issuer: BROKER_KEY.sign(good_claims(issuer), **({"typ": "at+jwt"} | header))


def with_statements(**changes: Any) -> BadToken:
    def make(issuer: str) -> str:
        name = f"{issuer}/claims/mcp"
        return good_token(issuer, **about(issuer, {**good_claims(issuer)[name], **changes}))

    return make


def raw(header: str, payload: str | None = None) -> BadToken:
    def make(issuer: str) -> str:
        claims = json.dumps(good_claims(issuer)) if payload is None else payload
        return BROKER_KEY.sign_raw(header.encode(), claims.encode())

    return make


def mangled(change: Callable[[str], str]) -> BadToken:
    return lambda issuer: change(good_token(issuer))


def by_a_shared_secret(issuer: str) -> str:
    """A token signed by HMAC with the public key as its secret (RFC 8725 2.1)."""
    header = {"alg": "HS256", "typ": "at+jwt", "kid": BROKER_KEY.kid}
    claims = good_claims(issuer)
    signing_input = b".".join(encode(json.dumps(part).encode()) for part in (header, claims))
    secret = json.dumps(BROKER_KEY.jwk).encode()
    signature = hmac.new(secret, signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + encode(signature)).decode()


def without_signature(issuer: str) -> str:
    header = {"alg": "none", "typ": "at+jwt"}
    parts = (header, good_claims(issuer))
    return (b".".join(encode(json.dumps(part).encode()) for part in parts) + b".").decode()


def in_json_form(issuer: str) -> str:
    protected, payload, signature = good_token(issuer).split(".")
    return json.dumps({"payload": payload, "protected": protected, "signature": signature})


def with_other_padding_bits(token: str) -> str:
    """The same signature in another spelling, which lenient decoders take for the same."""
    last = "AEIMQUYcgkosw048"
    found = token[-1]
    return token[:-1] + chr(ord(found) + 1) if found in last else token[:-1] + found + "="


def with_payload_changed(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    changed = encode(json.dumps({**claims, "sub": "bob"}).encode()).decode()
    return f"{header}.{changed}.{signature}"


def with_der_signature(issuer: str) -> str:
    """A signature as other protocols write it (RFC 7518 3.4 wants r and s alone)."""
    signing_input, _, signature = good_token(issuer).rpartition(".")
    raw_signature = base64.urlsafe_b64decode(signature + "==")
    return f"{signing_input}.{encode(b'0D' + raw_signature).decode()}"


CONTAINERS: Mapping[str, tuple[BadToken, Reason]] = {
    "nothing": (lambda _: "", Reason.MALFORMED_TOKEN),
    "no_jwt": (lambda _: "hello", Reason.MALFORMED_TOKEN),
    "an_opaque_token": (lambda _: "tok_0123456789abcdef", Reason.MALFORMED_TOKEN),
    "two_parts": (mangled(lambda one: one.rpartition(".")[0]), Reason.MALFORMED_TOKEN),
    "four_parts": (mangled(lambda one: one + ".e30"), Reason.MALFORMED_TOKEN),
    "an_encrypted_token": (lambda _: "e30.e30.e30.e30.e30", Reason.JWE_REFUSED),
    "the_json_form": (in_json_form, Reason.MALFORMED_TOKEN),
    "a_space_before": (mangled(lambda one: " " + one), Reason.MALFORMED_TOKEN),
    "a_line_end_after": (mangled(lambda one: one + "\n"), Reason.MALFORMED_TOKEN),
    "padding": (mangled(lambda one: one + "="), Reason.MALFORMED_TOKEN),
    "other_padding_bits": (mangled(with_other_padding_bits), Reason.MALFORMED_TOKEN),
    "other_letters": (mangled(lambda one: "é" + one), Reason.MALFORMED_TOKEN),
    "16_kilobytes": (with_claims(note="x" * 16_384), Reason.TOKEN_TOO_LARGE),
    "a_header_that_is_a_list": (raw("[]"), Reason.MALFORMED_TOKEN),
    "a_header_that_is_no_json": (raw("{"), Reason.MALFORMED_TOKEN),
    "claims_that_are_a_list": (
        raw('{"alg":"ES256","typ":"at+jwt","kid":"broker-at"}', "[]"),
        Reason.MALFORMED_TOKEN,
    ),
    "a_header_member_twice": (
        raw('{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"broker-at"}'),
        Reason.DUPLICATE_MEMBER,
    ),
    "a_claim_twice": (
        raw('{"alg":"ES256","typ":"at+jwt","kid":"broker-at"}', '{"sub":"ann","sub":"bob"}'),
        Reason.DUPLICATE_MEMBER,
    ),
    "a_bomb_of_brackets": (
        raw('{"alg":"ES256","typ":"at+jwt","kid":"broker-at"}', "[" * 900 + "]" * 900),
        Reason.JSON_TOO_DEEP,
    ),
    "a_critical_header": (with_header(crit=["exp"]), Reason.CRIT_UNSUPPORTED),
    "an_unencoded_payload": (with_header(b64=False), Reason.CRIT_UNSUPPORTED),
    "a_key_in_the_header": (with_header(jwk=STRANGER.jwk), Reason.UNKNOWN_KEY),
    "a_key_at_an_address": (with_header(jku="https://evil.example/jwks"), Reason.UNKNOWN_KEY),
    "a_certificate": (with_header(x5c=["MIIB"]), Reason.UNKNOWN_KEY),
    "a_compressed_token": (with_header(zip="DEF"), Reason.JWE_REFUSED),
    "no_type": (with_header(typ=None), Reason.WRONG_TOKEN_TYPE),
    "an_id_token": (with_header(typ="JWT"), Reason.WRONG_TOKEN_TYPE),
    "an_identity_assertion": (with_header(typ="oauth-id-jag+jwt"), Reason.WRONG_TOKEN_TYPE),
    "a_proof": (with_header(typ="dpop+jwt"), Reason.WRONG_TOKEN_TYPE),
    "a_type_twice_prefixed": (
        with_header(typ="application/application/at+jwt"),
        Reason.WRONG_TOKEN_TYPE,
    ),
    "a_type_that_is_a_number": (with_header(typ=7), Reason.WRONG_TOKEN_TYPE),
}

SIGNATURES: Mapping[str, tuple[BadToken, Reason]] = {
    "none": (without_signature, Reason.ALG_NOT_ALLOWED),
    "a_shared_secret": (by_a_shared_secret, Reason.ALG_NOT_ALLOWED),
    "no_algorithm": (with_header(alg=None), Reason.ALG_NOT_ALLOWED),
    "an_algorithm_that_is_a_list": (with_header(alg=["ES256"]), Reason.ALG_NOT_ALLOWED),
    "an_algorithm_not_pinned": (
        lambda issuer: good_token(issuer, key=RSA),
        Reason.ALG_NOT_ALLOWED,
    ),
    "an_algorithm_that_is_not_the_keys": (with_header(kid=RSA.kid), Reason.UNKNOWN_KEY),
    "no_key_id": (with_header(kid=None), Reason.UNKNOWN_KEY),
    "a_key_id_that_is_a_number": (with_header(kid=7), Reason.UNKNOWN_KEY),
    "a_key_id_too_long": (with_header(kid="k" * 513), Reason.UNKNOWN_KEY),
    "a_path_for_a_key_id": (with_header(kid="../../etc/passwd"), Reason.UNKNOWN_KEY),
    "an_unknown_key": (lambda issuer: good_token(issuer, key=STRANGER), Reason.UNKNOWN_KEY),
    "a_strangers_key_under_our_id": (
        lambda issuer: STRANGER.sign(good_claims(issuer), typ="at+jwt", kid=BROKER_KEY.kid),
        Reason.SIG_INVALID,
    ),
    "a_changed_claim": (mangled(with_payload_changed), Reason.SIG_INVALID),
    "no_signature": (mangled(lambda one: one.rpartition(".")[0] + "."), Reason.SIG_INVALID),
    "zeros": (
        mangled(lambda one: one.rpartition(".")[0] + "." + encode(bytes(64)).decode()),
        Reason.SIG_INVALID,
    ),
    "a_der_signature": (with_der_signature, Reason.SIG_INVALID),
}

CLAIMS: Mapping[str, tuple[BadToken, Reason]] = {
    "another_issuer": (with_claims(iss="https://evil.example"), Reason.ISS_UNKNOWN),
    "no_issuer": (with_claims(iss=None), Reason.ISS_UNKNOWN),
    "the_issuer_with_a_slash": (
        lambda issuer: good_token(issuer, iss=issuer + "/"),
        Reason.ISS_UNKNOWN,
    ),
    "the_issuer_in_a_list": (lambda issuer: good_token(issuer, iss=[issuer]), Reason.ISS_UNKNOWN),
    "no_audience": (with_claims(aud=None), Reason.AUD_MISMATCH),
    "another_audience": (with_claims(aud="https://wiki.mcp.example/mcp"), Reason.AUD_MISMATCH),
    "the_parent_of_the_resource": (
        with_claims(aud="https://tickets.mcp.example"),
        Reason.AUD_MISMATCH,
    ),
    "the_resource_with_a_slash": (with_claims(aud=RESOURCE + "/"), Reason.AUD_MISMATCH),
    "the_resource_in_capitals": (with_claims(aud=RESOURCE.upper()), Reason.AUD_MISMATCH),
    "two_audiences": (
        with_claims(aud=[RESOURCE, "https://wiki.mcp.example/mcp"]),
        Reason.AUD_MISMATCH,
    ),
    "the_resource_twice": (with_claims(aud=[RESOURCE, RESOURCE]), Reason.AUD_MISMATCH),
    "an_empty_audience": (with_claims(aud=[]), Reason.AUD_MISMATCH),
    "the_resource_in_two_lists": (with_claims(aud=[[RESOURCE]]), Reason.AUD_MISMATCH),
    "expired": (with_claims(iat=NOW - 300, exp=NOW - 30), Reason.TOKEN_EXPIRED),
    "no_expiry": (with_claims(exp=None), Reason.CLAIM_MALFORMED),
    "an_expiry_as_text": (with_claims(exp=str(NOW + 300)), Reason.CLAIM_MALFORMED),
    "an_expiry_that_is_true": (with_claims(exp=True), Reason.CLAIM_MALFORMED),
    "an_expiry_after_all_time": (with_claims(exp=10**15), Reason.CLAIM_MALFORMED),
    "an_infinite_expiry": (with_claims(exp=float("inf")), Reason.CLAIM_MALFORMED),
    "a_negative_time": (with_claims(iat=-1), Reason.CLAIM_MALFORMED),
    "no_time_of_issue": (with_claims(iat=None), Reason.CLAIM_MALFORMED),
    "issued_in_the_future": (with_claims(iat=NOW + 31), Reason.NOT_YET_VALID),
    "not_before_the_future": (with_claims(nbf=NOW + 31), Reason.NOT_YET_VALID),
    "expired_before_it_was_issued": (
        with_claims(iat=NOW + 20, exp=NOW + 10),
        Reason.CLAIM_INCONSISTENT,
    ),
    "expired_before_it_is_valid": (
        with_claims(nbf=NOW + 20, exp=NOW + 10),
        Reason.CLAIM_INCONSISTENT,
    ),
    "a_login_in_the_future": (with_claims(auth_time=NOW + 31), Reason.CLAIM_INCONSISTENT),
    "no_subject": (with_claims(sub=None), Reason.CLAIM_MALFORMED),
    "an_empty_subject": (with_claims(sub=""), Reason.CLAIM_MALFORMED),
    "a_subject_that_is_a_number": (with_claims(sub=7), Reason.CLAIM_MALFORMED),
    "a_subject_with_a_line_end": (with_claims(sub="ann\n"), Reason.CLAIM_MALFORMED),
    "an_endless_subject": (with_claims(sub="a" * 2049), Reason.CLAIM_MALFORMED),
    "no_id": (with_claims(jti=None), Reason.CLAIM_MALFORMED),
    "no_client": (with_claims(client_id=None), Reason.CLAIM_MALFORMED),
    "a_client_that_is_a_list": (with_claims(client_id=["mcp-desk"]), Reason.CLAIM_MALFORMED),
    "scopes_in_a_list": (with_claims(scope=["tickets:read"]), Reason.CLAIM_MALFORMED),
    "two_spaces_between_scopes": (
        with_claims(scope="tickets:read  tickets:comment"),
        Reason.CLAIM_MALFORMED,
    ),
    "a_scope_with_a_quote": (with_claims(scope='tickets"read'), Reason.CLAIM_MALFORMED),
    "methods_that_are_text": (with_claims(amr="pwd"), Reason.CLAIM_MALFORMED),
    "an_actor_that_is_text": (with_claims(act="mcp-desk"), Reason.CHAIN_MALFORMED),
    "an_actor_that_is_null": (
        lambda issuer: BROKER_KEY.sign({**good_claims(issuer), "act": None}, typ="at+jwt"),
        Reason.CHAIN_MALFORMED,
    ),
    "an_actor_without_a_name": (
        with_claims(act={"iss": "https://idp.example"}),
        Reason.CHAIN_MALFORMED,
    ),
    "statements_that_are_text": (
        lambda issuer: good_token(issuer, **about(issuer, "agent")),
        Reason.CLAIM_MALFORMED,
    ),
    "statements_of_another_resource": (
        with_statements(resource="https://wiki.mcp.example/mcp"),
        Reason.CLAIM_INCONSISTENT,
    ),
    "a_server_that_is_a_number": (with_statements(server=7), Reason.CLAIM_MALFORMED),
    "bound_to_a_certificate": (
        with_claims(cnf={"x5t#S256": "A" * 43}),
        Reason.CNF_UNSUPPORTED,
    ),
    "bound_by_two_means": (
        with_claims(cnf={"jkt": "A" * 43, "x5t#S256": "A" * 43}),
        Reason.CNF_UNSUPPORTED,
    ),
    "bound_to_nothing": (with_claims(cnf={}), Reason.CNF_UNSUPPORTED),
    "bound_to_text": (with_claims(cnf="A" * 43), Reason.CNF_UNSUPPORTED),
    "bound_to_a_key_and_no_proof": (with_claims(cnf={"jkt": "A" * 43}), Reason.POP_REQUIRED),
}

REFUSED = {**CONTAINERS, **SIGNATURES, **CLAIMS}


def refusal(verifier: Receiver, token: str) -> InvalidToken:
    with pytest.raises(NotServed) as refused:
        verifier.verify(token)
    assert type(refused.value) is InvalidToken
    return refused.value


@pytest.mark.requirement(
    "AT-12", "MCPRS-01", "MCPRS-07", "JWT-01", "JWT-02", "JWT-04", "JWT-05", "JWT-09", "JWT-10"
)
@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_token_is_refused(verifier: Receiver, server: KeyServer, name: str) -> None:
    make, reason = REFUSED[name]

    assert refusal(verifier, make(server.issuer)).reason is reason


@pytest.mark.parametrize("name", REFUSED)
def test_no_refusal_shows_any_part_of_the_token(
    verifier: Receiver, server: KeyServer, name: str
) -> None:
    token = REFUSED[name][0](server.issuer)
    refused = refusal(verifier, token)

    shown = f"{refused} {refused!r} {refused.www_authenticate} {refused.__context__}"
    long_parts = [part for part in token.split(".") if len(part) > 20]
    assert not any(part in shown for part in long_parts)
    assert "ann" not in shown


def test_the_operator_reads_which_rule_it_was(
    verifier: Receiver, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="broker.client"):
        refusal(verifier, good_token(server.issuer, jti=None))

    assert [one.getMessage() for one in caplog.records] == [
        "A token was refused: claim_malformed jti"
    ]


def test_a_chain_of_more_than_sixteen_actors_is_refused(
    verifier: Receiver, server: KeyServer
) -> None:
    # The depth of its JSON is refused before anybody counts; nearly as many pass that.
    act: dict[str, Any] = {"sub": "actor-0"}
    for number in range(1, 15):
        act = {"sub": f"actor-{number}", "act": act}
    fifteen = verifier.verify(good_token(server.issuer, act=act))
    too_deep = good_token(server.issuer, act={"sub": "x", "act": {"sub": "y", "act": act}})

    assert len(fifteen.actors) == 15
    assert refusal(verifier, too_deep).reason is Reason.JSON_TOO_DEEP


@pytest.mark.parametrize("kind", KINDS)
def test_the_pinned_algorithm_decides_and_not_the_header(kind: str, server: KeyServer) -> None:
    by_rsa = receiver(kind, server, algorithms=("RS256",))

    assert by_rsa.verify(good_token(server.issuer, key=RSA)).subject == "ann"
    assert refusal(by_rsa, good_token(server.issuer)).reason is Reason.ALG_NOT_ALLOWED


@pytest.mark.parametrize("kind", KINDS)
def test_a_leeway_of_nothing_forgives_nothing(kind: str, server: KeyServer) -> None:
    strict = receiver(kind, server, leeway=timedelta())

    assert refusal(strict, good_token(server.issuer, exp=NOW)).reason is Reason.TOKEN_EXPIRED
    assert refusal(strict, good_token(server.issuer, iat=NOW + 1)).reason is Reason.NOT_YET_VALID


@pytest.mark.requirement("STEP-05")
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_without_a_required_scope_is_refused_with_all_that_is_needed(
    kind: str, server: KeyServer
) -> None:
    demanding = receiver(kind, server, required_scopes=("tickets:close", "tickets:read"))

    with pytest.raises(InsufficientScope) as refused:
        demanding.verify(good_token(server.issuer))

    assert refused.value.status == 403
    assert refused.value.missing == {"tickets:close"}
    assert 'scope="tickets:close tickets:read"' in refused.value.www_authenticate


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_may_need_other_scopes(kind: str, server: KeyServer) -> None:
    lenient = receiver(kind, server, required_scopes=("tickets:close",))

    assert lenient.verify(good_token(server.issuer), scopes=("tickets:read",)).subject == "ann"
    assert lenient.verify(good_token(server.issuer), scopes=()).subject == "ann"
    with pytest.raises(InsufficientScope):
        lenient.verify(good_token(server.issuer), scopes=("tickets:close",))


class View:
    """A revocation view that refuses one token, or knows nothing new."""

    def __init__(self, revoked: str = "", *, is_stale: bool = False) -> None:
        self.revoked, self.is_stale = revoked, is_stale

    def refuses(self, claims: Mapping[str, Any]) -> bool:
        if self.is_stale:
            raise Unverifiable("The list of withdrawn tokens is too old.")
        return bool(claims["jti"] == self.revoked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_revoked_token_is_refused(kind: str, server: KeyServer) -> None:
    watching = receiver(kind, server, revocations=View("T-1"))

    assert refusal(watching, good_token(server.issuer)).reason is Reason.REVOKED
    assert watching.verify(good_token(server.issuer, jti="T-2")).token_id == "T-2"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_accepted_while_the_view_of_revocations_is_old(
    kind: str, server: KeyServer
) -> None:
    blind = receiver(kind, server, revocations=View(is_stale=True))

    with pytest.raises(Unverifiable) as refused:
        blind.verify(good_token(server.issuer))

    assert (refused.value.status, refused.value.www_authenticate) == (503, "")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algorithms": ()}, "Pin one or more"),
        ({"algorithms": ("none",)}, "Pin one or more"),
        ({"algorithms": ("ES256", "HS256")}, "Pin one or more"),
        ({"leeway": timedelta(seconds=61)}, "at most a minute"),
        ({"leeway": timedelta(seconds=-1)}, "at most a minute"),
        ({"required_scopes": "tickets:read"}, "collection"),
        ({"resource": "tickets"}, "no|not"),
        ({"resource": "https://ann@tickets.example/mcp"}, "not"),
        ({"resource": "https://tickets.example/mcp#a"}, "not"),
        ({"issuer": "http://broker.example"}, "https"),
        ({"issuer": "http://127.0.0.1.evil.example"}, "https"),
        ({"issuer": "https://user@broker.example"}, "user"),
        ({"issuer": "https://broker.example?x"}, "path"),
        ({"jwks_uri": "http://broker.example/jwks"}, "https"),
        ({"jwks_uri": "file:///etc/passwd"}, "host"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [TokenVerifier, SyncTokenVerifier])
def test_what_cannot_be_meant_is_refused_at_once(
    kind: type[TokenVerifier | SyncTokenVerifier], settings: dict[str, Any], sentence: str
) -> None:
    given = {"issuer": "https://broker.example", "resource": RESOURCE, **settings}

    with pytest.raises((ValueError, TypeError), match=sentence):
        kind(**given)


def test_a_verifier_may_be_shown_without_showing_its_inside(server: KeyServer) -> None:
    verifier = SyncTokenVerifier(server.issuer, RESOURCE)

    assert "_keys" not in repr(verifier)
