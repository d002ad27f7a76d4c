"""Group 1J of the attack catalogue: DPoP proofs, and what only looks like one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.oauth import PROOF_ALGORITHMS
from tests.idp import signer
from tests.proofs import (
    HOLDER,
    OTHER_HOLDER,
    bare_jwk,
    good_proof,
    good_proof_claims,
    proof_for,
    signed_proof,
    thumbprint,
)
from tests.stage import SLOTS, Slot, Stage
from tests.world import ISS, NOW, by_assertion, client_parameters

BOUND = {"jkt": thumbprint(HOLDER)}
LEEWAY = 30


# ---- a proof that is good


@pytest.mark.requirement("DPOP-01", "ITR-05", "META-08")
@pytest.mark.parametrize("algorithm", PROOF_ALGORITHMS)
def test_every_algorithm_that_is_published_works(stage: Stage, algorithm: str) -> None:
    # A key for Ed25519 has two names for its algorithm (RFC 9864).
    own = "EdDSA" if algorithm == "Ed25519" else algorithm
    key, parameters = signer(f"proof-{own}", own), client_parameters()
    claims = good_proof_claims(stage.face.address(parameters))

    answer = stage.grant(parameters, proofs=[signed_proof(claims, key=key, alg=algorithm)])

    assert algorithm in stage.face.metadata()["dpop_signing_alg_values_supported"]
    assert answer.claims["cnf"] == {"jkt": thumbprint(key)}


@pytest.mark.requirement("DPOP-09")
@pytest.mark.parametrize("changes", [{"ath": "wrong"}, {"nonce": "x"}, {"aud": "x", "iss": 1}])
def test_what_a_proof_says_besides_is_not_looked_at(stage: Stage, changes: dict[str, Any]) -> None:
    parameters = client_parameters()

    answer = stage.grant(parameters, proofs=[proof_for(stage, parameters, **changes)])

    assert answer.claims["cnf"] == BOUND


@pytest.mark.requirement("DPOP-03")
@pytest.mark.parametrize("issued_at", [NOW + LEEWAY, NOW - 60 - LEEWAY, NOW - 0.5])
def test_a_proof_is_good_for_a_minute_within_the_leeway(stage: Stage, issued_at: float) -> None:
    parameters = client_parameters()
    stage.grant(parameters, proofs=[proof_for(stage, parameters, iat=issued_at)])


@pytest.mark.requirement("DPOP-02")
def test_the_address_is_compared_after_normalisation(stage: Stage) -> None:
    parameters = client_parameters()
    path = stage.face.address(parameters).removeprefix(ISS)
    for origin in ("https://sts.test", "HTTPS://STS.test", "https://sts.test:443"):
        claims = good_proof_claims(origin + path)
        stage.grant(client_parameters(), proofs=[signed_proof(claims)])


# ---- a proof that is none


def reject(stage: Stage, made: Callable[[str], str], *, reason: str) -> None:
    """A request is refused with the proof that is made for its address, and granted with a good one."""
    parameters = client_parameters()
    address = stage.face.address(parameters)
    stage.refuse(parameters, error="invalid_dpop_proof", reason=reason, proofs=[made(address)])
    stage.grant(parameters, proofs=[good_proof(address)])


def with_claims(**changes: Any) -> Callable[[str], str]:
    return lambda htu: good_proof(htu, **changes)


def with_header(**header: Any) -> Callable[[str], str]:
    return lambda htu: signed_proof(good_proof_claims(htu), **header)


@pytest.mark.requirement("POP-04", "DPOP-01")
@pytest.mark.parametrize("htm", ["GET", "post", "Post", "POST ", "PUT", "*"])
def test_a_proof_for_another_method_is_refused(stage: Stage, htm: str) -> None:
    reject(stage, with_claims(htm=htm), reason="pop_htm")


@pytest.mark.requirement("POP-04", "DPOP-02")
@pytest.mark.parametrize(
    "change",
    [
        lambda htu: htu.replace("https:", "http:"),
        lambda htu: htu.replace("sts.test", "sts.test."),
        lambda htu: htu.replace("sts.test", "evil.test"),
        lambda htu: htu.replace("sts.test", "sts.test@evil.test"),
        lambda htu: htu.replace("sts.test", "u:p@sts.test"),
        lambda htu: htu.replace("sts.test", "sts.test:*"),
        lambda htu: htu.replace("sts.test", "sts.test:"),
        lambda htu: htu.replace("sts.test", "sts.test:0443"),
        lambda htu: htu.replace("sts.test", "127.0.0.1"),
        lambda htu: htu + "/",
        lambda htu: htu + "?",
        lambda htu: htu + "?x=1",
        lambda htu: htu + "#",
        lambda htu: htu + "#x",
        lambda htu: htu + "%20",
        lambda htu: htu + " ",
        lambda htu: htu + "\n",
        lambda htu: htu.upper(),
        lambda htu: htu.replace("/token", "/t%6Fken").replace("Token", "T%6Fken"),
        lambda htu: htu.replace("sts.test/", "sts.test/./"),
        lambda htu: htu.replace("sts.test/", "sts.test/x/../"),
        lambda htu: htu.replace("sts.test/", "sts.test//"),
        lambda htu: htu.replace("https://sts.test", ""),
        lambda htu: htu.replace("https:", ""),
        lambda _htu: "https://sts.test",
        lambda _htu: "https://sts.test/authorize",
        lambda _htu: "https://[::1]/token",
    ],
)
def test_a_proof_for_another_address_is_refused(stage: Stage, change: Any) -> None:
    def made(htu: str) -> str:
        changed = change(htu)
        assert changed != htu
        return good_proof(changed)

    reason = "pop_htu" if change("").isprintable() else "pop_malformed"
    reject(stage, made, reason=reason)


@pytest.mark.requirement("POP-04")
def test_a_proof_for_another_port_is_refused_over_http(stage: Stage) -> None:
    """A call has a port too, but a face of gRPC is often behind another than it knows."""
    if stage.face.name == "http":
        reject(stage, lambda _htu: good_proof(f"{ISS}:8443/token"), reason="pop_htu")
    else:
        parameters = client_parameters()
        address = stage.face.address(parameters).replace("sts.test", "sts.test:8443")
        stage.grant(parameters, proofs=[good_proof(address)])


@pytest.mark.requirement("POP-04", "DPOP-03")
@pytest.mark.parametrize(
    "times",
    [
        {"iat": NOW + LEEWAY + 1},
        {"iat": NOW - 60 - LEEWAY - 1},
        {"iat": 0},
        {"iat": NOW * 1000},
        {"exp": NOW - LEEWAY},
        {"nbf": NOW + LEEWAY + 1},
    ],
    ids=str,
)
def test_a_proof_that_was_not_made_just_now_is_refused(stage: Stage, times: Any) -> None:
    reason = "pop_stale" if times != {"iat": NOW * 1000} else "pop_malformed"
    reject(stage, with_claims(**times), reason=reason)


ODD: list[Any] = [None, "", 1.5, True, [], {}, "x" * 5000]


@pytest.mark.requirement("POP-04", "DPOP-01")
@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat"])
def test_a_proof_with_a_claim_missing_or_odd_is_refused(stage: Stage, name: str) -> None:
    for value in ODD:
        if name == "iat" and value == 1.5:
            continue
        parameters = client_parameters()
        changed = {**good_proof_claims(stage.face.address(parameters)), name: value}
        for claims in (changed, {one: changed[one] for one in changed if one != name}):
            stage.refuse(
                parameters,
                error="invalid_dpop_proof",
                reason="pop_malformed",
                proofs=[signed_proof(claims)],
            )


@pytest.mark.requirement("POP-04", "JWS-18", "AT-16")
@pytest.mark.parametrize(
    "typ",
    [
        None,
        "",
        "JWT",
        "at+jwt",
        "client-authentication+jwt",
        "oauth-id-jag+jwt",
        "dpop",
        "dpop+jwt ",
    ],
)
def test_a_token_of_another_kind_is_no_proof(stage: Stage, typ: str | None) -> None:
    reject(stage, with_header(typ=typ), reason="pop_malformed")


@pytest.mark.requirement("POP-04", "JWS-01", "JWS-02", "JWS-04")
@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "HS512", "ES384", "ES512", "RS256", "EdDSA", "RS1"]
)
def test_a_proof_by_another_algorithm_is_refused(stage: Stage, algorithm: str) -> None:
    reject(stage, with_header(alg=algorithm), reason="pop_signature")


@pytest.mark.requirement("POP-04")
def test_a_proof_by_another_key_than_it_carries_is_refused(stage: Stage) -> None:
    reject(stage, with_header(jwk=bare_jwk(OTHER_HOLDER)), reason="pop_signature")
    reject(stage, with_header(jwk={**bare_jwk(HOLDER), "use": "enc"}), reason="pop_signature")
    reject(stage, with_header(jwk={**bare_jwk(HOLDER), "alg": "ES384"}), reason="pop_signature")
    reject(stage, lambda htu: good_proof(htu).rpartition(".")[0] + ".", reason="pop_signature")


ODD_KEYS: dict[str, Any] = {
    "missing": None,
    "text": "x",
    "list": [bare_jwk(HOLDER)],
    "empty": {},
    "private": {**bare_jwk(HOLDER), "d": "AAAA"},
    "symmetric": {"kty": "oct", "k": "c2VjcmV0"},
    "hybrid": {**bare_jwk(HOLDER), "k": "c2VjcmV0"},
    "certificate": {**bare_jwk(HOLDER), "x5c": ["AAAA"]},
    "address": {**bare_jwk(HOLDER), "x5u": "https://evil.test/"},
    "jku": {**bare_jwk(HOLDER), "jku": "https://evil.test/"},
    "strange": {**bare_jwk(HOLDER), "b": 1},
    "padded": {**bare_jwk(HOLDER), "x": bare_jwk(HOLDER)["x"] + "="},
    "longer": {**bare_jwk(HOLDER), "x": "AA" + bare_jwk(HOLDER)["x"]},
    "dirty": {**bare_jwk(HOLDER), "x": bare_jwk(HOLDER)["x"] + "\u20ac!"},
    "off-curve": {**bare_jwk(HOLDER), "y": "A" * 43},
    "number": {**bare_jwk(HOLDER), "x": 1},
    "half": {name: value for name, value in bare_jwk(HOLDER).items() if name != "y"},
}


@pytest.mark.requirement("POP-04", "DPOP-01", "JWT-05", "JWS-05")
@pytest.mark.parametrize("kind", ODD_KEYS)
def test_a_proof_carries_a_public_key_and_nothing_else(stage: Stage, kind: str) -> None:
    reject(stage, with_header(jwk=ODD_KEYS[kind]), reason="pop_malformed")


@pytest.mark.requirement("POP-04", "JWS-05", "JWS-07", "JWS-08", "JWS-10")
@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.test/jwks"},
        {"x5u": "https://evil.test/cert"},
        {"x5c": ["AAAA"]},
        {"crit": ["jwk"]},
        {"b64": False},
        {"enc": "A256GCM"},
        {"zip": "DEF"},
        {"kid": 1},
    ],
    ids=str,
)
def test_the_header_of_a_proof_is_as_strict_as_any(stage: Stage, header: dict[str, Any]) -> None:
    reject(stage, with_header(**header), reason="pop_malformed")


@pytest.mark.requirement("POP-04", "DPOP-01")
def test_exactly_one_proof_is_sent_or_none(stage: Stage) -> None:
    parameters = client_parameters()
    one, two = proof_for(stage, parameters), proof_for(stage, parameters)
    for proofs in (
        [one, two],
        [one, one],
        [one, ""],
        ["", one],
        [f"{one},{two}"],
        [f"{one} {two}"],
    ):
        stage.attack(parameters, error="invalid_dpop_proof", reason="pop_malformed", proofs=proofs)


@pytest.mark.requirement("POP-04", "JWS-09", "JWS-16", "JWS-17")
@pytest.mark.parametrize("text", ["", "x", ".", "..", "a.b.c.d.e", '{"payload":""}', "Bearer x"])
def test_what_is_no_token_is_no_proof(stage: Stage, text: str) -> None:
    reject(stage, lambda _htu: text, reason="pop_malformed")


@pytest.mark.requirement("POP-04", "JWS-17", "GRP-02")
def test_a_proof_of_a_hundred_kilobytes_is_refused(stage: Stage) -> None:
    if stage.face.name == "http":
        reject(stage, with_claims(padding="x" * 100_000), reason="pop_malformed")
    reject(stage, with_claims(padding="x" * 8_000), reason="pop_malformed")


@pytest.mark.requirement("JWS-18", "JWS-05", "AT-16")
@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_a_good_proof_is_no_other_token(stage: Stage, slot: Slot) -> None:
    """Its key is looked for in its header in this one place and nowhere else."""
    claims = {**slot.claims(), **good_proof_claims(f"{ISS}/token")}
    token = signed_proof(claims, key=slot.signer)
    stage.attack(slot.place(stage, token), error=slot.error, reason="unknown_key")


@pytest.mark.requirement("POP-10", "DPOP-11", "DPOP-02")
def test_a_proof_for_one_face_is_none_for_the_other(stage: Stage) -> None:
    http, service = f"{ISS}/token", f"{ISS}/broker.v1.TokenService"
    addresses = {http, f"{service}/IssueClientToken", f"{service}/ExchangeToken", service}
    for elsewhere in addresses - {stage.face.address(client_parameters())}:
        made = good_proof(elsewhere)
        parameters = client_parameters()
        stage.attack(parameters, error="invalid_dpop_proof", reason="pop_htu", proofs=[made])


# ---- a proof that was used


@pytest.mark.requirement("RPL-01", "DPOP-03")
def test_a_proof_is_good_for_one_token(stage: Stage) -> None:
    parameters = client_parameters()
    used = proof_for(stage, parameters)
    stage.grant(parameters, proofs=[used])

    again = client_parameters()
    stage.attack(again, error="invalid_dpop_proof", reason="replay", proofs=[used])

    stage.grant(again, proofs=[proof_for(stage, again)])


@pytest.mark.requirement("RPL-01")
def test_a_used_proof_is_refused_for_as_long_as_it_is_fresh(stage: Stage) -> None:
    parameters = client_parameters()
    used = proof_for(stage, parameters, iat=NOW + LEEWAY)
    stage.grant(parameters, proofs=[used])

    for seconds, reason in [(60 + 2 * LEEWAY, "replay"), (61 + 2 * LEEWAY, "pop_stale")]:
        stage.broker.clock.at = NOW + seconds
        now = stage.broker.clock.at
        again = client_parameters(**by_assertion("agent-x", iat=now, exp=now + 60))
        answer = stage.ask(again, proofs=[used])
        assert answer.error == "invalid_dpop_proof"
        assert stage.broker.records()[-1]["reason"] == reason


@pytest.mark.requirement("RPL-11")
def test_equal_ids_of_other_keys_and_kinds_do_not_meet(stage: Stage) -> None:
    for key in (HOLDER, OTHER_HOLDER):
        parameters = client_parameters(**by_assertion("agent-x", jti=f"same-{key.kid}"))
        stage.grant(parameters, proofs=[proof_for(stage, parameters, key=key, jti="same")])
    parameters = client_parameters(**by_assertion("agent-x", jti="same"))
    stage.grant(parameters, proofs=[proof_for(stage, parameters)])


@pytest.mark.requirement("POP-04", "RPL-01")
def test_a_refused_request_burns_no_proof(stage: Stage) -> None:
    denied = client_parameters(scope="b:admin")
    kept = proof_for(stage, denied)
    stage.refuse(denied, error="invalid_scope", reason="scope_not_permitted", proofs=[kept])

    stage.grant(client_parameters(), proofs=[kept])


@pytest.mark.requirement("DOS-01")
def test_a_proof_is_looked_at_once_the_client_is_known(stage: Stage) -> None:
    parameters = client_parameters() | {"client_assertion": "x"}
    stage.attack(parameters, error="invalid_client", reason="malformed_token", proofs=["x"])


@pytest.mark.requirement("LOG-01")
def test_a_refused_proof_is_not_repeated(stage: Stage) -> None:
    parameters = client_parameters()
    canary = proof_for(stage, parameters, key=OTHER_HOLDER, htm="GET", jti="canary-6f1d")

    answer = stage.ask(parameters, proofs=[canary])

    everything = answer.everything + json.dumps(stage.broker.records())
    assert not any(part in everything for part in (*canary.split("."), "canary-6f1d"))
