"""Group 1D of the attack catalogue: clients known by a metadata document at an https URL."""

import json
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from broker.fetch import FetchReason, GuardedFetcher
from broker.issuers.fetch_places import MOST_AT_ONCE_PER_HOST
from broker.model import ClientDocumentTerms, KeySource
from broker.oauth import (
    AUTH_NONE,
    AUTH_PRIVATE_KEY_JWT,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ID_TOKEN,
    TYP_ACCESS_TOKEN,
)
from tests.harness import basic
from tests.idp import signer
from tests.issuers.scripted import Clock, ScriptedFetcher
from tests.stage import Stage
from tests.stagehands import Staging
from tests.tokens.test_client_url import MALFORMED
from tests.world import (
    AGENTS,
    ALL_GRANTS,
    ISS,
    NOW,
    RES_1,
    Cast,
    Parameters,
    by_assertion,
    client_parameters,
    exchange_parameters,
    good_assertion_claims,
    good_id_jag,
    good_id_token,
    jwt_client,
    redeem_parameters,
    without_none,
)

DOC = "https://c.test/app.json"
KEYS = "https://keys.test/jwks"
TERMS = ClientDocumentTerms(frozenset({"c.test", "xn--c-xka.test"}), ALL_GRANTS, AGENTS)
WORLD = Cast(client_documents=TERMS)
INVALID = {"error": "invalid_client"}


def document(url: str = DOC, **changes: Any) -> dict[str, Any]:
    """The good document at this URL; a member given as ``None`` is left out."""
    members = {
        "client_id": url,
        "client_name": "App",
        "token_endpoint_auth_method": AUTH_PRIVATE_KEY_JWT,
        "jwks": signer(url).jwks,
        **changes,
    }
    return without_none(members)


@pytest.fixture
def web() -> ScriptedFetcher:
    """The servers of the world, of which one has the good document."""
    fetcher = ScriptedFetcher(Clock())
    fetcher.publish(document(), at=DOC)
    return fetcher


@pytest.fixture
def stage(staging: Staging, web: ScriptedFetcher) -> Stage:
    """A stage where clients of ``c.test`` are known by their documents."""
    return staging(WORLD, fetcher=web)


def app(url: str = DOC, /, **changes: Any) -> Parameters:
    """GOOD-CC by the client of this URL."""
    return client_parameters(url, **changes)


def unproved(parameters: Parameters, client_id: str = DOC) -> Parameters:
    """The same by somebody who merely says who he is."""
    credential = ("client_assertion", "client_assertion_type")
    rest = {name: value for name, value in parameters.items() if name not in credential}
    return rest | {"client_id": client_id}


def identity_exchange(client_id: str = DOC) -> Parameters:
    """An exchange of the ID token of this client's user."""
    return exchange_parameters(
        good_id_token(aud=client_id),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read",
    )


def all_grants(client_id: str = DOC) -> list[Parameters]:
    """A good request of each grant."""
    return [
        parameters | by_assertion(client_id)
        for parameters in (
            app(client_id),
            identity_exchange(client_id),
            redeem_parameters(good_id_jag(client_id=client_id)),
        )
    ]


# ---- what works


@pytest.mark.requirement("CIMD-03", "IDJAG-R-26", "CC-07")
def test_a_client_is_known_by_its_document_for_every_grant(
    stage: Stage, web: ScriptedFetcher
) -> None:
    """The document has no redirects, names nothing but keys, and is fetched once."""
    machine, identity, redeemed = [stage.grant(one).claims for one in all_grants()]

    assert machine["sub"] == f"client:{DOC}"
    assert identity["act"] == {"iss": ISS, "sub": DOC, "sub_profile": "ai_agent"}
    assert redeemed["client_id"] == DOC
    assert web.fetched == [DOC]


def test_what_such_a_client_delegates_counts_as_long_as_its_host_is_listed(stage: Stage) -> None:
    token = stage.grant(identity_exchange() | {"scope": "b:read"} | by_assertion(DOC)).token
    onwards = exchange_parameters(token)

    assert stage.grant(onwards | by_assertion("mcp1-srv")).claims["act"]["act"]["sub"] == DOC
    stage.broker.replace_cast(replace(WORLD, client_documents=None))
    onwards |= by_assertion("mcp1-srv")
    stage.attack(onwards, error="invalid_request", reason="principal_disabled")


@pytest.mark.requirement("CIMD-09", "META-08")
def test_the_metadata_tells_whether_documents_are_read(stage: Stage, staging: Staging) -> None:
    name = "client_id_metadata_document_supported"
    declared = jwt_client(DOC, keys=KeySource(document=DOC))

    assert stage.face.metadata()[name] is True
    assert staging(Cast().with_client(declared)).face.metadata()[name] is True
    assert name not in staging(Cast()).face.metadata()
    stage.broker.replace_cast(Cast())
    assert name not in stage.face.metadata()


@pytest.mark.requirement("CIMD-13")
def test_a_registered_client_may_take_its_keys_from_a_document_of_any_host(
    staging: Staging, web: ScriptedFetcher
) -> None:
    elsewhere = "https://elsewhere.test/app.json"
    declared = jwt_client(elsewhere, keys=KeySource(document=elsewhere), groups=AGENTS)
    web.publish(document(elsewhere), at=elsewhere)
    stage = staging(Cast().with_client(declared), fetcher=web)

    assert stage.grant(app(elsewhere)).claims["client_id"] == elsewhere
    stage.attack(app(DOC), **INVALID, reason="cimd_domain_refused")
    assert web.fetched == [elsewhere]


@pytest.mark.requirement("CIMD-12")
def test_what_is_registered_for_an_id_wins_over_its_document(
    staging: Staging, web: ScriptedFetcher
) -> None:
    registered = jwt_client(DOC, groups=AGENTS, keys=KeySource(jwks=signer("own").jwks))
    stage = staging(WORLD.with_client(registered), fetcher=web)
    own = signer("own").sign(good_assertion_claims(DOC))

    stage.grant(app() | {"client_assertion": own})
    stage.attack(app(), **INVALID, reason="unknown_key")
    assert web.fetched == []


@pytest.mark.requirement("CAU-15")
@pytest.mark.parametrize("keys", [KeySource(document=DOC), KeySource(jwks=signer(DOC).jwks)])
def test_one_such_client_is_switched_off_by_registering_it(
    staging: Staging, web: ScriptedFetcher, keys: KeySource
) -> None:
    off = jwt_client(DOC, keys=keys, is_disabled=True)
    stage = staging(WORLD.with_client(off), fetcher=web)

    stage.attack(app(), **INVALID, reason="client_disabled")
    stage.attack(unproved(app()), **INVALID, reason="client_auth_missing")
    assert web.fetched == []
    stage.broker.replace_cast(WORLD)
    stage.grant(app())
    stage.broker.replace_cast(WORLD.with_client(off))
    stage.attack(app(), **INVALID, reason="client_disabled")


def test_without_the_setting_a_url_is_an_unknown_client_like_any_other(
    staging: Staging, web: ScriptedFetcher
) -> None:
    stage = staging(Cast(), fetcher=web)
    for client_id in (DOC, "https://evil.test/a", "https://c.test", "http://c.test/a"):
        stage.attack(app(client_id), **INVALID, reason="client_unknown")
    stage.attack(unproved(app()), **INVALID, reason="client_auth_missing")
    assert web.fetched == []


# ---- ids


def _is_url_like(client_id: str) -> bool:
    return client_id.strip().lower().startswith(("https:", "http:"))


@pytest.mark.requirement("NET-01", "NET-04", "CIMD-01")
def test_a_malformed_url_is_refused_before_any_lookup(stage: Stage, web: ScriptedFetcher) -> None:
    secret = {"client_secret": "s", "client_assertion": None, "client_assertion_type": None}
    stage.grant(stage.good())
    for client_id in filter(_is_url_like, MALFORMED):
        signed = signer("any").sign(good_assertion_claims(client_id))
        for parameters in (
            app(client_assertion=signed),
            unproved(app(), client_id),
            app(client_id=client_id, **secret),
        ):
            stage.refuse(parameters, **INVALID, reason="cimd_url_invalid")
    stage.grant(stage.good())
    assert web.fetched == []


@pytest.mark.requirement("NET-13", "CIMD-13")
@pytest.mark.parametrize(
    ("client_id", "reason"),
    [
        ("https://evil-c.test/app.json", "cimd_domain_refused"),
        ("https://c.test.evil.test/app.json", "cimd_domain_refused"),
        ("https://a.c.test/app.json", "cimd_domain_refused"),
        ("https://test/app.json", "cimd_domain_refused"),
        ("https://c.test:8443/app.json", "cimd_domain_refused"),
        ("https://c.test:443/app.json", "cimd_domain_refused"),
        ("https://xn--c-nka.test/app.json", "cimd_domain_refused"),
        ("https://evil.test/c.test/app.json", "cimd_domain_refused"),
        ("https://c.test@evil.test/app.json", "cimd_url_invalid"),
        ("https://evil.test\\c.test/app.json", "cimd_url_invalid"),
        ("https://evil.test#c.test/app.json", "cimd_url_invalid"),
        ("https://C.TEST./app.json", "cimd_url_invalid"),
        ("https://C.TEST/app.json", "cimd_url_invalid"),
        ("https://c.test%2eevil/app.json", "cimd_url_invalid"),
        ("https://\u0441.test/app.json", "cimd_url_invalid"),
        ("https://c\uff0etest/app.json", "cimd_url_invalid"),
    ],
)
def test_a_host_that_is_not_listed_is_not_fetched_from(
    stage: Stage, web: ScriptedFetcher, client_id: str, reason: str
) -> None:
    web.publish(document(client_id), at=client_id)

    stage.attack(app(client_id), **INVALID, reason=reason)
    stage.attack(unproved(app(), client_id), **INVALID, reason=reason)
    assert web.fetched == []


@pytest.mark.requirement("CIMD-01")
def test_two_urls_that_differ_in_a_byte_are_two_clients(stage: Stage, web: ScriptedFetcher) -> None:
    other = "https://c.test/App.json"
    web.publish(document(other, jwks=signer(DOC).jwks), at=other)
    stage.grant(app())

    as_other = good_assertion_claims(other)
    crossed = app() | {"client_assertion": signer(DOC).sign(as_other), "client_id": DOC}
    stage.attack(crossed, **INVALID, reason="client_id_mismatch")
    crossed = app() | {"client_assertion": signer(other).sign(good_assertion_claims(DOC))}
    stage.attack(crossed, **INVALID, reason="unknown_key")


# ---- what is checked before anything is fetched


@pytest.mark.requirement("NET-17", "CA-06", "CA-08")
@pytest.mark.parametrize(
    ("header", "claims", "reason"),
    [
        ({"typ": TYP_ACCESS_TOKEN}, {}, "wrong_token_type"),
        ({"alg": "none"}, {}, "alg_not_allowed"),
        ({"alg": "HS256"}, {}, "alg_not_allowed"),
        ({}, {"iss": "agent-x"}, "claim_inconsistent"),
        ({}, {"iss": None}, "claim_inconsistent"),
        ({}, {"iat": NOW - 90, "exp": NOW - 31}, "token_expired"),
        ({}, {"exp": NOW + 7200}, "lifetime_too_long"),
        ({}, {"exp": None}, "claim_malformed"),
        ({}, {"iat": NOW + 60}, "claim_inconsistent"),
        ({}, {"nbf": NOW + 50}, "not_yet_valid"),
        ({}, {"jti": None}, "claim_malformed"),
        ({}, {"aud": ISS + "/introspect"}, "aud_not_sole_issuer"),
        ({}, {"aud": [ISS, "https://evil.test"]}, "aud_not_sole_issuer"),
    ],
    ids=str,
)
def test_nothing_is_fetched_for_an_assertion_that_could_not_count(
    stage: Stage, web: ScriptedFetcher, header: Any, claims: Any, reason: str
) -> None:
    token = signer(DOC).sign(good_assertion_claims(DOC, **claims), **{"typ": "JWT", **header})

    stage.attack(app() | {"client_assertion": token}, **INVALID, reason=reason)
    assert web.fetched == []


def test_the_refusal_of_such_an_assertion_tells_nothing_about_who_is_known(stage: Stage) -> None:
    strangers = [DOC, "https://evil.test/app.json", "agent-x", "nobody"]
    answers = {
        stage.refuse(
            app() | by_assertion(name, iat=NOW - 90, exp=NOW - 31),
            **INVALID,
            reason="token_expired",
        ).description
        for name in strangers
    }

    assert len(answers) == 1


def test_nothing_is_fetched_where_the_request_names_another_client_besides(
    stage: Stage, web: ScriptedFetcher
) -> None:
    stage.attack(app(client_id="agent-x"), **INVALID, reason="client_id_mismatch")
    assert web.fetched == []


@pytest.mark.requirement("CA-07")
def test_the_issuer_alone_is_the_audience_of_such_a_clients_assertion(stage: Stage) -> None:
    to_endpoint = app() | by_assertion(DOC, aud=ISS + "/token")
    stage.attack(to_endpoint, **INVALID, reason="aud_not_sole_issuer")


# ---- where a fetch leads


def resolving(*addresses: str, opened: list[Any]) -> GuardedFetcher:
    """A real fetcher in a world where every name has these addresses."""

    def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    def connect(address: tuple[str, int], _timeout: float) -> socket.socket:
        opened.append(address)
        raise ConnectionRefusedError

    return GuardedFetcher(resolve=resolve, connect=connect)


@pytest.mark.requirement("NET-02", "NET-03", "NET-04", "CIMD-06")
@pytest.mark.parametrize(
    "addresses",
    [
        ["0.0.0.0"],  # noqa: S104 - nothing listens here.
        ["10.0.0.1"],
        ["100.64.0.1"],
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["172.16.0.1"],
        ["192.0.0.1"],
        ["192.168.0.1"],
        ["198.18.0.1"],
        ["224.0.0.1"],
        ["240.0.0.1"],
        ["255.255.255.255"],
        ["::"],
        ["::1"],
        ["fe80::1"],
        ["fd00::1"],
        ["ff02::1"],
        ["::ffff:10.0.0.1"],
        ["2001:db8::1"],
        ["64:ff9b::a9fe:a9fe"],
        ["2130706433"],
        ["0x7f.1"],
        ["93.184.216.34", "10.0.0.1"],
    ],
    ids=str,
)
def test_a_document_at_a_special_use_address_is_not_fetched(
    staging: Staging, addresses: list[str]
) -> None:
    opened: list[Any] = []
    stage = staging(WORLD, fetcher=resolving(*addresses, opened=opened))

    stage.attack(app(), **INVALID, reason="fetch_blocked")
    assert opened == []


@pytest.mark.requirement("NET-10", "CIMD-06")
@pytest.mark.parametrize(
    "jwks_uri",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/jwks",
        "https://[::1]/jwks",
        "https://2130706433/jwks",
        "https://0x7f.1/jwks",
        "https://127.1/jwks",
        "https://inside.test/jwks",
    ],
)
def test_the_second_hop_is_guarded_as_the_first(staging: Staging, jwks_uri: str) -> None:
    opened: list[Any] = []
    web = OneDocument(document(jwks=None, jwks_uri=jwks_uri), resolving("10.0.0.1", opened=opened))
    stage = staging(WORLD, fetcher=web)

    stage.attack(app(), **INVALID, reason="fetch_blocked")
    assert opened == []


class OneDocument(ScriptedFetcher):
    """A world of which one document is made up, and the rest is behind a real fetcher."""

    def __init__(self, published: dict[str, Any], others: GuardedFetcher) -> None:
        super().__init__(Clock())
        self.publish(published, at=DOC)
        self._others = others

    def get(self, url: str, **limits: Any) -> Any:
        return super().get(url, **limits) if url == DOC else self._others.get(url, **limits)


@pytest.mark.requirement("NET-05", "NET-07", "NET-14", "NET-16", "CIMD-04", "CIMD-07", "CIMD-14")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FetchReason.REDIRECT, "fetch_redirect"),
        (FetchReason.STATUS, "fetch_status"),
        (FetchReason.TIMEOUT, "fetch_timeout"),
        (FetchReason.TLS, "fetch_tls"),
        (FetchReason.FAILED, "fetch_failed"),
        (FetchReason.TOO_LARGE, "cimd_invalid"),
        (FetchReason.MEDIA_TYPE, "cimd_invalid"),
    ],
)
@pytest.mark.parametrize("hop", [DOC, KEYS])
def test_a_fetch_that_fails_is_a_client_that_is_not_authenticated(
    stage: Stage, web: ScriptedFetcher, fault: FetchReason, reason: str, hop: str
) -> None:
    web.publish(document(jwks=None, jwks_uri=KEYS), at=DOC)
    web.fail(fault, at=hop)

    stage.attack(app(), **INVALID, reason=reason)
    stage.attack(unproved(app()), **INVALID, reason=reason)
    assert web.fetched.count(DOC) == 1


@pytest.mark.requirement("NET-18")
def test_one_answer_to_whatever_is_at_an_address(stage: Stage, web: ScriptedFetcher) -> None:
    """Open, closed, filtered, something else, or not looked at: the bytes are the same."""
    answers = set()
    found: dict[str, FetchReason | Any] = {
        "fetch_blocked": FetchReason.BLOCKED,
        "fetch_failed": FetchReason.FAILED,
        "fetch_timeout": FetchReason.TIMEOUT,
        "fetch_status": FetchReason.STATUS,
        "fetch_tls": FetchReason.TLS,
        "cimd_invalid": b"SSH-2.0-OpenSSH",
        "cimd_id_mismatch": {"client_id": "https://c.test/x"},
    }
    for number, (reason, fault) in enumerate(found.items()):
        url = f"https://c.test/{number}"
        if isinstance(fault, FetchReason):
            web.fail(fault, at=url)
        else:
            web.publish(fault, at=url)
        answers.add(_told(stage.refuse(app(url), **INVALID, reason=reason)))
    unlisted = app("https://evil.test/a")
    answers.add(_told(stage.refuse(unlisted, **INVALID, reason="cimd_domain_refused")))
    answers.add(_told(stage.refuse(app("nobody"), **INVALID, reason="client_unknown")))

    assert len(answers) == 1


def _told(answer: Any) -> tuple[str, ...]:
    headers = {name: value for name, value in answer.headers.items() if "decision" not in name}
    return answer.status, answer.error, answer.description, str(sorted(headers.items()))


# ---- what a document says


@pytest.mark.requirement("NET-06", "CIMD-02")
@pytest.mark.parametrize(
    "client_id",
    [None, "https://c.test/App.json", DOC + "/", "https://c.test/%61pp.json", [DOC], 1],
    ids=str,
)
def test_a_document_of_another_client_is_refused(
    stage: Stage, web: ScriptedFetcher, client_id: Any
) -> None:
    web.publish(document(client_id=client_id, jwks=signer(DOC).jwks), at=DOC)
    stage.attack(app(), **INVALID, reason="cimd_id_mismatch")


@pytest.mark.requirement("NET-06")
def test_a_document_that_names_its_client_twice_is_refused(
    stage: Stage, web: ScriptedFetcher
) -> None:
    web.publish(json.dumps(document())[:-1].encode() + f', "client_id": "{DOC}"}}'.encode(), at=DOC)
    stage.attack(app(), **INVALID, reason="cimd_id_mismatch")


@pytest.mark.requirement("NET-07", "CLM-02", "CIMD-07")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf{}",
        b'{"client_id":"\xff"}',
        b"[" * 2500 + b"]" * 2500,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
    ids=lambda raw: ascii(raw[:12]),
)
def test_a_broken_document_is_refused(stage: Stage, web: ScriptedFetcher, raw: bytes) -> None:
    web.publish(raw, at=DOC)
    stage.attack(app(), **INVALID, reason="cimd_invalid")


@pytest.mark.requirement("NET-08", "CIMD-05")
@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"client_secret": "hush"},
    ],
    ids=str,
)
def test_a_document_with_a_shared_secret_is_refused(
    stage: Stage, web: ScriptedFetcher, changes: dict[str, Any]
) -> None:
    web.publish(document(**changes), at=DOC)

    stage.attack(app(), **INVALID, reason="cimd_forbidden_auth")
    with_secret = unproved(app()) | {"client_secret": "hush"}
    stage.attack(with_secret, **INVALID, reason="auth_method_refused")


@pytest.mark.requirement("NET-12", "CIMD-05")
@pytest.mark.parametrize(
    "changes",
    [
        {"jwks_uri": KEYS},
        {"jwks": {"keys": [{**signer(DOC).jwk, "d": "AAAA"}]}},
        {"jwks": {"keys": [signer(DOC).jwk, {"kty": "oct", "k": "AAAA"}]}},
        {"jwks": None},
    ],
    ids=["both", "private", "symmetric", "none"],
)
def test_a_document_with_unsound_keys_is_refused(
    stage: Stage, web: ScriptedFetcher, changes: dict[str, Any]
) -> None:
    web.publish(document(**changes), at=DOC)
    web.publish(signer(DOC).jwks, at=KEYS)

    stage.attack(app(), **INVALID, reason="cimd_invalid")
    assert web.fetched == [DOC]


@pytest.mark.requirement("NET-11", "CIMD-15")
def test_a_document_gives_its_client_no_rights(staging: Staging, web: ScriptedFetcher) -> None:
    greedy: dict[str, Any] = {
        "grant_types": [GRANT_TOKEN_EXCHANGE, GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER],
        "scope": "a:read b:read b:admin",
        "resources": ["https://api.test/v1"],
        "roles": ["admin"],
        "groups": ["servers"],
        "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"],
    }
    web.publish(document(**greedy), at=DOC)
    terms = replace(TERMS, grants=frozenset({GRANT_CLIENT_CREDENTIALS}))
    stage = staging(replace(WORLD, client_documents=terms), fetcher=web)

    assert stage.grant(app(scope="a:read b:admin")).claims["scope"] == "a:read"
    stage.attack(app(scope="b:admin"), error="invalid_scope", reason="scope_not_permitted")
    at_api = app(resource="https://api.test/v1", scope="b:read")
    stage.attack(at_api, error="invalid_target", reason="policy_no_permit")
    _, exchange, redeeming = all_grants()
    for parameters in (exchange, redeeming):
        stage.attack(parameters, error="unauthorized_client", reason="grant_not_allowed")


@pytest.mark.requirement("NET-11")
@pytest.mark.parametrize("grants", [[], ["authorization_code"], [GRANT_JWT_BEARER]], ids=str)
def test_a_document_can_renounce_grants(
    stage: Stage, web: ScriptedFetcher, grants: list[str]
) -> None:
    web.publish(document(grant_types=grants), at=DOC)
    stage.attack(app(), error="unauthorized_client", reason="grant_not_allowed")


def test_a_document_can_renounce_algorithms_and_bearer_tokens(
    stage: Stage, web: ScriptedFetcher
) -> None:
    picky, bound = "https://c.test/picky", "https://c.test/bound"
    web.publish(document(picky, token_endpoint_auth_signing_alg="RS256"), at=picky)
    web.publish(document(bound, dpop_bound_access_tokens=True), at=bound)

    stage.attack(app(picky), **INVALID, reason="alg_not_allowed")
    stage.attack(app(bound), error="invalid_dpop_proof", reason="pop_required")


# ---- how the client proves itself


@pytest.mark.requirement("NET-09", "CA-16")
@pytest.mark.parametrize("changes", [{}, {"token_endpoint_auth_method": None}], ids=str)
@pytest.mark.parametrize("number", range(3))
def test_a_public_client_gets_nothing_by_any_grant(
    stage: Stage, web: ScriptedFetcher, number: int, changes: dict[str, Any]
) -> None:
    public = {"token_endpoint_auth_method": AUTH_NONE, "jwks": None, **changes}
    web.publish(document(**public), at=DOC)
    parameters = all_grants()[number]

    stage.attack(
        unproved(parameters), error="unauthorized_client", reason="public_client_forbidden"
    )
    stage.attack(parameters, **INVALID, reason="auth_method_refused")


@pytest.mark.requirement("CA-17", "CIMD-10")
@pytest.mark.parametrize("number", range(3))
def test_a_client_that_declares_a_key_does_nothing_without_it(stage: Stage, number: int) -> None:
    parameters = all_grants()[number]
    stage.grant(parameters)

    stage.attack(unproved(parameters), **INVALID, reason="client_auth_missing")
    secret = unproved(parameters) | {"client_secret": "s"}
    stage.attack(secret, **INVALID, reason="auth_method_refused")
    header = basic(DOC, "s")
    stage.attack(unproved(parameters), header, **INVALID, reason="auth_method_refused")
    empty = parameters | {"client_assertion": signer(DOC).sign({})}
    stage.attack(empty, **INVALID, reason="claim_malformed")


@pytest.mark.requirement("CIMD-10", "CA-17", "CAU-15")
def test_only_a_key_of_the_document_proves_the_client(stage: Stage, web: ScriptedFetcher) -> None:
    claims = good_assertion_claims(DOC)
    forged = replace(signer("mallory"), kid=DOC).sign(claims)
    stage.attack(app() | {"client_assertion": forged}, **INVALID, reason="sig_invalid")
    foreign = signer("agent-x").sign(claims)
    stage.attack(app() | {"client_assertion": foreign}, **INVALID, reason="unknown_key")
    used = app()
    stage.grant(used)
    stage.attack(used, **INVALID, reason="replay")
    assert web.fetched == [DOC]


def test_a_client_without_any_keys_is_nobody_by_assertion(staging: Staging) -> None:
    stage = staging(Cast().with_client(jwt_client("keyless", keys=None)))
    stage.attack(client_parameters("keyless"), **INVALID, reason="auth_method_refused")


@pytest.mark.requirement("JWS-05")
@pytest.mark.parametrize("member", ["jku", "x5u", "jwk"])
def test_no_key_comes_with_the_assertion(stage: Stage, web: ScriptedFetcher, member: str) -> None:
    value: Any = signer("mallory").jwk if member == "jwk" else "https://evil.test/jwks"
    token = signer("mallory").sign(good_assertion_claims(DOC), **{member: value})

    stage.attack(app() | {"client_assertion": token}, **INVALID, reason="unknown_key")
    assert web.fetched == []


# ---- many at once


@pytest.mark.requirement("NET-14", "NET-17")
def test_a_slow_host_holds_up_nobody_else(stage: Stage, web: ScriptedFetcher) -> None:
    slow = [f"https://c.test/{number}" for number in range(MOST_AT_ONCE_PER_HOST + 1)]
    for url in slow:
        web.publish(document(url), at=url)
    stage.grant(app())
    web.gate.clear()
    with ThreadPoolExecutor(MOST_AT_ONCE_PER_HOST) as pool:
        try:
            held = []
            for url in slow[:-1]:
                web.is_waiting.clear()
                held.append(pool.submit(stage.ask, app(url)))
                assert web.is_waiting.wait(30)
            stage.grant(stage.good())
            stage.grant(app())
            stage.refuse(app(slow[-1]), error="temporarily_unavailable", reason="fetch_limit")
            limited = stage.refuse(
                unproved(app(), slow[-1]), error="temporarily_unavailable", reason="fetch_limit"
            )
        finally:
            web.gate.set()
        assert all(one.result(30).is_granted for one in held)

    assert ("retry-after" if stage.face.name == "http" else "RetryInfo") in limited.everything
    stage.grant(app(slow[-1]))
