"""Group 1B of the attack catalogue: JSON and claims, in every slot."""

import json
from typing import Any

import pytest

from tests.idp import signer
from tests.stage import ACTOR, ASSERTION, CLIENT, SLOTS, SUBJECT, Slot, Stage
from tests.world import (
    IDP_A,
    ISS,
    NOW,
    RES_1,
    by_assertion,
    exchange_parameters,
    good_id_token,
)

TOO_DEEP = [33, 900, 3000]
LEEWAY = 30


@pytest.fixture(params=SLOTS, ids=lambda slot: slot.name)
def slot(request: pytest.FixtureRequest) -> Slot:
    chosen = request.param
    assert isinstance(chosen, Slot)
    return chosen


@pytest.fixture(params=[SUBJECT, ASSERTION], ids=lambda slot: slot.name)
def foreign(request: pytest.FixtureRequest) -> Slot:
    """A slot for what another issuer says of a user."""
    chosen = request.param
    assert isinstance(chosen, Slot)
    return chosen


def attack(stage: Stage, slot: Slot, token: str, reason: str) -> None:
    stage.attack(slot.place(stage, token), error=slot.error, reason=slot.reason(reason))


def raw_token(slot: Slot, payload: bytes, header: bytes | None = None) -> str:
    good_header = {"alg": slot.signer.algorithm, "typ": slot.typ, "kid": slot.signer.kid}
    return slot.signer.sign_raw(header or json.dumps(good_header).encode(), payload)


@pytest.mark.requirement("CLM-01", "JWT-10")
@pytest.mark.parametrize("name", ["sub", "aud", "exp", "iss", "act", "scope"])
@pytest.mark.parametrize("is_evil_first", [True, False])
def test_a_member_given_twice_is_refused(
    stage: Stage, slot: Slot, name: str, *, is_evil_first: bool
) -> None:
    good = {"iss": ISS, **slot.claims(), "act": {"sub": "x"}, "scope": "b:read"}
    rest = json.dumps({key: value for key, value in good.items() if key != name})[1:-1]
    pair = [f'"{name}":"evil"', f'"{name}":{json.dumps(good[name])}']
    members = [*(pair if is_evil_first else reversed(pair)), rest]
    payload = ("{" + ",".join(members) + "}").encode()
    attack(stage, slot, raw_token(slot, payload), "duplicate_member")


@pytest.mark.requirement("CLM-01")
@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_a_header_member_given_twice_is_refused(stage: Stage, slot: Slot, name: str) -> None:
    header = {"alg": slot.signer.algorithm, "typ": slot.typ, "kid": slot.signer.kid}
    raw = (json.dumps(header)[:-1] + f',"{name}":"evil"}}').encode()
    payload = json.dumps(slot.claims()).encode()
    attack(stage, slot, raw_token(slot, payload, raw), "duplicate_member")


@pytest.mark.requirement("CLM-02", "JWT-11")
@pytest.mark.parametrize("depth", TOO_DEEP)
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_nesting_bomb_is_refused(stage: Stage, slot: Slot, depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    bomb = f"{opening * (depth - 1)}{'[]' if opening == '[' else '{}'}{closing * (depth - 1)}"
    payload = (json.dumps(slot.claims())[:-1] + f',"bomb":{bomb}}}').encode()
    if len(payload) * 4 // 3 < 15_000:
        attack(stage, slot, raw_token(slot, payload), "json_too_deep")
    header = (
        f'{{"alg":"{slot.signer.algorithm}","typ":"{slot.typ}","kid":"{slot.signer.kid}",'
        f'"bomb":{bomb}}}'
    ).encode()
    if len(header) * 4 // 3 < 15_000:
        good = json.dumps(slot.claims()).encode()
        attack(stage, slot, raw_token(slot, good, header), "json_too_deep")


WILD_TIMES = [
    "null",
    '"9999999999"',
    "true",
    "1e308",
    "9" * 4000,
    "-1",
    "NaN",
    "Infinity",
    "1e400",
    "[]",
    "{}",
]


@pytest.mark.requirement("CLM-03", "JWT-10")
@pytest.mark.parametrize("value", WILD_TIMES, ids=lambda value: value[:12])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_a_wild_time_is_refused(stage: Stage, slot: Slot, name: str, value: str) -> None:
    claims = {key: one for key, one in slot.claims().items() if key != name}
    payload = (json.dumps(claims)[:-1] + f',"{name}":{value}}}').encode()
    attack(stage, slot, raw_token(slot, payload), "claim_malformed")


@pytest.mark.requirement("CLM-03", "JWT-10")
def test_a_token_without_expiry_is_refused(stage: Stage, slot: Slot) -> None:
    attack(stage, slot, slot.token(exp=None), "claim_malformed")


@pytest.mark.requirement("CLM-04", "CA-10", "JAG-18", "IDJAG-R-06")
@pytest.mark.parametrize("expires_at", [NOW + 301, NOW + 3600, 4_102_444_800])
def test_an_assertion_lives_five_minutes_at_most(stage: Stage, expires_at: int) -> None:
    for slot in (ACTOR, CLIENT, ASSERTION):
        attack(stage, slot, slot.token(exp=expires_at), "lifetime_too_long")


@pytest.mark.requirement("CLM-04")
def test_a_subject_token_of_the_year_2100_is_refused(stage: Stage) -> None:
    attack(stage, SUBJECT, SUBJECT.token(exp=4_102_444_800), "lifetime_too_long")


@pytest.mark.requirement("CLM-05")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iat": NOW, "exp": NOW}, "claim_inconsistent"),
        ({"iat": NOW + 20, "exp": NOW + 10}, "claim_inconsistent"),
        ({"nbf": NOW + 120}, "claim_inconsistent"),
        ({"iat": NOW + 31, "exp": NOW + 60}, "not_yet_valid"),
        ({"nbf": NOW + 31, "exp": NOW + 60}, "not_yet_valid"),
    ],
)
def test_contradictory_times_are_refused(
    stage: Stage, slot: Slot, changes: dict[str, int], reason: str
) -> None:
    attack(stage, slot, slot.token(header=None, **{"exp": NOW + 60, **changes}), reason)


@pytest.mark.requirement("CLM-05")
def test_an_assertion_issued_a_day_ago_is_refused(stage: Stage) -> None:
    for slot in (CLIENT, ASSERTION):
        attack(stage, slot, slot.token(iat=NOW - 86_400), "lifetime_too_long")


@pytest.mark.requirement("CLM-06", "TEX-16", "sec:ACT-05")
@pytest.mark.parametrize("past", [LEEWAY, LEEWAY + 1, 3600])
def test_a_token_is_dead_once_the_leeway_is_over(stage: Stage, slot: Slot, past: int) -> None:
    token = slot.token(iat=NOW - past - 60, exp=NOW - past)
    attack(stage, slot, token, "token_expired")


@pytest.mark.requirement("CLM-06")
def test_an_assertion_is_accepted_within_the_leeway(stage: Stage) -> None:
    token = CLIENT.token(iat=NOW - 60, exp=NOW - LEEWAY + 1)
    stage.grant(CLIENT.place(stage, token))


@pytest.mark.requirement("CLM-06", "TEX-12")
@pytest.mark.parametrize("past", [0, LEEWAY - 1])
def test_leeway_accepts_but_never_lengthens_a_life(stage: Stage, foreign: Slot, past: int) -> None:
    """A token that is accepted by leeway alone has nothing left to give."""
    attack(stage, foreign, foreign.token(iat=NOW - 60, exp=NOW - past), "born_expired")


ODD_AUDIENCES: list[Any] = [None, "", [], 1, {}, True, [["x"]], ["x", "y"], [1], "x" * 3000]


@pytest.mark.requirement("CLM-07", "JWT-04")
@pytest.mark.parametrize("audience", ODD_AUDIENCES, ids=lambda one: str(one)[:12])
def test_an_odd_audience_is_refused(stage: Stage, slot: Slot, audience: Any) -> None:
    attack(stage, slot, slot.token(aud=audience), "aud_not_sole_issuer")


@pytest.mark.requirement("CLM-07", "JWT-04")
def test_a_subject_token_for_several_recipients_is_refused(stage: Stage) -> None:
    attack(stage, SUBJECT, SUBJECT.token(aud=[RES_1, "https://evil.test"]), "aud_mismatch")


@pytest.mark.requirement("CLM-07", "TEX-21")
@pytest.mark.parametrize(
    "audience",
    [
        "account",
        RES_1[:-1],
        RES_1 + "x",
        RES_1 + "/",
        RES_1.upper(),
        "https://mcp1.test:443/mcp",
        "https://u@mcp1.test/mcp",
        ISS,
        "mcp-one",
    ],
)
def test_a_subject_token_for_somebody_else_is_refused(stage: Stage, audience: str) -> None:
    """Audiences compare byte for byte, and a logical name is a request parameter only."""
    attack(stage, SUBJECT, SUBJECT.token(aud=audience), "subject_not_for_broker")


@pytest.mark.requirement("CLM-08")
@pytest.mark.parametrize(
    "issuer",
    [
        None,
        [IDP_A],
        1,
        "",
        IDP_A[:-1],
        IDP_A + "/",
        IDP_A + "?x",
        IDP_A + ":443",
        "http://idp-a.test",
        "https://IDP-A.test",
    ],
    ids=str,
)
def test_an_issuer_compares_byte_for_byte(stage: Stage, foreign: Slot, issuer: Any) -> None:
    attack(stage, foreign, foreign.token(iss=issuer), "iss_unknown")


ODD_TEXTS: list[Any] = [
    None,
    "",
    1,
    [],
    "s" * 10_240,
    "a\0b",
    "a\u202eb",
    "a\u200bb",
    "a\nb",
]


@pytest.mark.requirement("CLM-09")
@pytest.mark.parametrize("sub", ODD_TEXTS, ids=lambda one: ascii(one)[:12])
def test_an_odd_subject_is_refused(stage: Stage, foreign: Slot, sub: Any) -> None:
    attack(stage, foreign, foreign.token(sub=sub), "claim_malformed")


@pytest.mark.requirement("CLM-09")
def test_a_lone_surrogate_is_refused(stage: Stage, slot: Slot) -> None:
    payload = (json.dumps(slot.claims())[:-1] + ',"note":"\\ud800"}').encode()
    attack(stage, slot, raw_token(slot, payload), "claim_malformed")


@pytest.mark.requirement("CLM-10")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_another_encoding_is_refused(stage: Stage, slot: Slot, encoding: str) -> None:
    payload = json.dumps(slot.claims()).encode(encoding)
    attack(stage, slot, raw_token(slot, payload), "malformed_token")


@pytest.mark.requirement("CLM-10")
@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_invalid_utf8_is_refused(stage: Stage, slot: Slot, bad: bytes) -> None:
    payload = json.dumps(slot.claims()).encode()[:-1] + b',"x":"' + bad + b'"}'
    attack(stage, slot, raw_token(slot, payload), "malformed_token")


@pytest.mark.requirement("CLM-12")
@pytest.mark.parametrize("jti", [1, "", "j" * 10_240, [], "a\0b"], ids=lambda j: str(j)[:8])
def test_an_unusable_jti_is_refused(stage: Stage, slot: Slot, jti: Any) -> None:
    attack(stage, slot, slot.token(jti=jti), "claim_malformed")


@pytest.mark.requirement("CLM-12")
def test_a_token_that_needs_a_jti_is_refused_without(stage: Stage) -> None:
    for slot in (SUBJECT, ACTOR, CLIENT, ASSERTION):
        attack(stage, slot, slot.token(jti=None), "claim_malformed")


@pytest.mark.requirement("CLM-13", "TEX-20", "TX-27")
def test_claims_are_not_smuggled_into_the_issued_token(stage: Stage) -> None:
    token = SUBJECT.token(
        mcp_server="evil",
        resource="https://evil.test",
        roles=["admin"],
        authorization_details=[{"type": "evil"}],
        tenant="evil",
        email="u1@test",
        txn="evil",
        **{ISS + "/claims/mcp": {"client": "evil", "server": "evil", "tenant": "evil"}},
    )
    claims = stage.grant(SUBJECT.place(stage, token)).claims
    assert "evil" not in json.dumps(claims)
    assert set(claims) == {
        "iss", "sub", "aud", "client_id", "iat", "exp", "jti", "txn", "scope", "act",
        ISS + "/claims/mcp",
    }  # fmt: skip


@pytest.mark.requirement("CLM-14")
@pytest.mark.parametrize("scope", [["b:read"], 1, {}, True, None, "b:read  a:read", 'b"read'])
def test_a_scope_of_another_type_is_refused(stage: Stage, foreign: Slot, scope: Any) -> None:
    payload = {**foreign.claims(), "scope": scope}
    token = foreign.signer.sign(payload, typ=foreign.typ)
    attack(stage, foreign, token, "claim_malformed")


@pytest.mark.requirement("CLM-14")
@pytest.mark.parametrize(
    ("name", "value"),
    [("amr", "pwd"), ("amr", [1]), ("acr", 1), ("auth_time", "x"), ("client_id", 1)],
)
def test_claims_of_another_type_are_refused(
    stage: Stage, foreign: Slot, name: str, value: Any
) -> None:
    attack(stage, foreign, foreign.token(**{name: value}), "claim_malformed")


@pytest.mark.requirement("CLM-15")
@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"1", b"null", b"", b"{", b"{}x"])
def test_a_payload_that_is_no_object_is_refused(stage: Stage, slot: Slot, payload: bytes) -> None:
    token = raw_token(slot, payload)
    attack(stage, slot, token, "malformed_token")


@pytest.mark.requirement("sec:POP-08", "TX-25", "std:ACT-15")
@pytest.mark.parametrize(
    ("confirmation", "reason"),
    [
        ({"jkt": "A" * 43}, "pop_required"),
        ({"x5t#S256": "x"}, "pop_required"),
        ({}, "cnf_unsupported"),
        ({"kid": "x"}, "cnf_unsupported"),
        ({"jkt": "x", "x5t#S256": "y"}, "cnf_unsupported"),
        ("x", "cnf_unsupported"),
    ],
)
def test_a_bound_token_is_never_taken_for_a_bearer_token(
    stage: Stage, confirmation: Any, reason: str
) -> None:
    attack(stage, SUBJECT, SUBJECT.token(cnf=confirmation), reason)


@pytest.mark.requirement("CLM-05", "CLM-06")
def test_the_same_rules_hold_for_an_id_token(stage: Stage) -> None:
    def parameters(**changes: Any) -> Any:
        return exchange_parameters(
            good_id_token(**changes),
            subject_token_type="urn:ietf:params:oauth:token-type:id_token",
            resource=RES_1,
        ) | by_assertion("agent-x")

    stage.grant(parameters())
    error = "invalid_request"
    dead = parameters(iat=NOW - 400, exp=NOW - 30)
    stage.refuse(dead, error=error, reason="subject_expired")
    stage.refuse(parameters(iat=NOW + 40), error=error, reason="not_yet_valid")
    stage.refuse(parameters(sub=1), error=error, reason="claim_malformed")
    forged = signer("attacker").sign({"iss": IDP_A}, kid="a1")
    stage.refuse(parameters() | {"subject_token": forged}, error=error, reason="sig_invalid")


def test_a_payload_may_not_hide_in_padding(stage: Stage) -> None:
    """Bits beyond the last byte are a second spelling of the same token."""
    token = SUBJECT.token()
    signing_input, _, signature = token.rpartition(".")
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(last) | 1]
    attack(stage, SUBJECT, f"{signing_input}.{signature[:-1]}{other}", "malformed_token")
