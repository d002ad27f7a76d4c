"""Mistakes that servers make, and the cases that are about each."""

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.client.refusals import InsufficientScope, NotServed
from broker.errors import Reason
from tests.verify_kit.servers import (
    Asked,
    Fault,
    Refusal,
    fetched,
    part_of,
    tokens_in_query,
)

_ELSEWHERE = "https://elsewhere.example/mcp"


def ignoring(*reasons: Reason) -> Fault:
    """A server that does not look at what these reasons are about."""
    return Fault(takes=lambda _asked, reason: reason in reasons)


def lacking(claim: str) -> Fault:
    """A server that does not miss a claim."""
    return Fault(
        takes=lambda asked, reason: reason is Reason.CLAIM_MALFORMED and claim not in asked.claims
    )


def unsigned_as(algorithm: str) -> Fault:
    """A server that takes unsigned tokens under one spelling."""
    return Fault(takes=lambda asked, _reason: part_of(asked.token, 0).get("alg") == algorithm)


def telling(**changes: Any) -> Fault:
    """A server whose metadata differ."""
    return Fault(tells=lambda document: document | changes)


def asking(member: str) -> Fault:
    """A server that asks whatever address a header names, and believes nothing of the answer."""

    def takes(asked: Asked, _reason: Reason) -> bool:
        place = part_of(asked.token, 0).get(member)
        return place is not None and fetched(place) is None

    return Fault(takes=takes)


def _one_of_many(asked: Asked, reason: Reason) -> bool:
    return reason is Reason.AUD_MISMATCH and asked.url in asked.audiences


def _by_its_beginning(asked: Asked, reason: Reason) -> bool:
    begins = [one.startswith(asked.url) for one in asked.audiences]
    return reason is Reason.AUD_MISMATCH and begins == [True]


def _of_the_host(asked: Asked, reason: Reason) -> bool:
    within = [bool(one) and one in asked.url for one in asked.audiences]
    return reason is Reason.AUD_MISMATCH and within == [True]


def _id_tokens(asked: Asked, reason: Reason) -> bool:
    return reason is Reason.WRONG_TOKEN_TYPE and "nonce" in asked.claims


def _public_key_as_secret(asked: Asked, _reason: Reason) -> bool:
    if part_of(asked.token, 0).get("alg") != "HS256":
        return False
    public = jwt.PyJWK(fetched(f"{asked.issuer}/jwks")["keys"][0]).key
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text, _, signature = asked.token.rpartition(".")
    expected = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return jwt.utils.base64url_encode(expected).decode() == signature


def _key_in_header(asked: Asked, _reason: Reason) -> bool:
    return _verifies(asked.token, part_of(asked.token, 0).get("jwk"))


def _follows_key_set_url(asked: Asked, _reason: Reason) -> bool:
    place = part_of(asked.token, 0).get("jku")
    return place is not None and _verifies(asked.token, fetched(place)["keys"][0])


def _keys_of_whoever_is_named(asked: Asked, reason: Reason) -> bool:
    issuer = str(asked.claims.get("iss"))
    if reason is not Reason.ISS_UNKNOWN or "issuer-of-its-own" not in issuer:
        return False
    metadata = fetched(f"{issuer}/.well-known/openid-configuration")
    return any(_verifies(asked.token, key) for key in fetched(metadata["jwks_uri"])["keys"])


def _verifies(token: str, key: Any) -> bool:
    """Whether a token verifies by this key; nothing else is looked at."""
    if not isinstance(key, dict):
        return False
    try:
        jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], options={"verify_aud": False})
    except jwt.PyJWTError:
        return False
    return True


def _hears_query(asked: Asked) -> Asked:
    found = tuple(f"Bearer {token}" for token in tokens_in_query(asked.query))
    return asked.bearing(*asked.authorization, *found)


def _hears_any_scheme(asked: Asked) -> Asked:
    return asked.bearing(*(f"Bearer {asked.token}" for _ in asked.authorization))


def proved_otherwise(is_so: Callable[[Asked], bool]) -> Fault:
    """A server that takes proofs of a kind, however they are."""
    return Fault(takes=lambda asked, reason: reason is Reason.POP_MALFORMED and is_so(asked))


def _proof_is(**members: Any) -> Callable[[Asked], bool]:
    """Whether a request has one proof, whose header has these members."""

    def is_so(asked: Asked) -> bool:
        header = part_of("".join(asked.proofs), 0)
        return len(asked.proofs) == 1 and all(
            header.get(name) == value for name, value in members.items()
        )

    return is_so


def _proof_lacks_hash(asked: Asked) -> bool:
    claims = part_of("".join(asked.proofs), 1)
    return bool(claims) and "ath" not in claims


def _proof_has_private_key(asked: Asked) -> bool:
    return "d" in part_of("".join(asked.proofs), 0).get("jwk", {})


def _tells_token(_refused: NotServed, asked: Asked, told: Refusal) -> Refusal:
    return (*told[:2], json.dumps({"bad token": asked.token}).encode())


def _tells_signature(_refused: NotServed, asked: Asked, told: Refusal) -> Refusal:
    return told[0], f'{told[1]}, hint="{asked.token.rpartition(".")[2]}"', told[2]


def _needs_no_scopes(refused: NotServed, _asked: Asked, told: Refusal) -> Refusal:
    return (200, "", b"{}") if isinstance(refused, InsufficientScope) else told


def _calls_it_a_bad_token(refused: NotServed, _asked: Asked, told: Refusal) -> Refusal:
    is_scope = isinstance(refused, InsufficientScope)
    return (401, 'Bearer error="invalid_token"', b"") if is_scope else told


def _breaks(_refused: NotServed, asked: Asked, told: Refusal) -> Refusal:
    is_old = repr(asked.claims.get("exp")) == "1"
    return (500, "", b"") if is_old else told


def _points_elsewhere(_refused: NotServed, asked: Asked, told: Refusal) -> Refusal:
    return told[0], told[1].replace(asked.url.removesuffix("/mcp"), "https://x.example"), told[2]


def remembering_what_was_signed() -> Fault:
    """A server that knows a token again by what was signed, whatever the signature."""
    known: set[str] = set()

    def remember(asked: Asked) -> bool:
        known.add(asked.token.rpartition(".")[0])
        return True

    def takes(asked: Asked, _reason: Reason) -> bool:
        return asked.token.rpartition(".")[0] in known

    return Fault(takes=takes, serves=remember)


def remembering_for_ever() -> Fault:
    """A server that knows a token again by its text, and never forgets one."""
    known: set[str] = set()

    def remember(asked: Asked) -> bool:
        known.add(asked.token)
        return True

    return Fault(takes=lambda asked, _reason: asked.token in known, serves=remember)


def _digits(asked: Asked, reason: Reason) -> bool:
    expiry = asked.claims.get("exp")
    return reason is Reason.CLAIM_MALFORMED and isinstance(expiry, str) and expiry.isdigit()


def last_token(asked: Asked) -> Asked:
    return asked.bearing(*asked.authorization[-1:])


def _guards_posts_alone(_refused: NotServed, asked: Asked, told: Refusal) -> Refusal:
    return told if asked.method == "POST" else (200, "", b"{}")


def respelling(asked: Asked, reason: Reason) -> bool:
    """Whether an audience is the server's but for a slash and for capitals."""
    here = [one.rstrip("/").lower() == asked.url for one in asked.audiences]
    return reason is Reason.AUD_MISMATCH and here == [True]


NO_CHALLENGE = Fault(answers=lambda _refused, _asked, told: (told[0], "", b""))

FAULTS = {
    "takes any audience": (
        ignoring(Reason.AUD_MISMATCH),
        (
            "wrong-audience no-audience two-audiences parent-audience child-audience "
            "look-alike-audience"
        ),
    ),
    "takes it as one of many audiences": (Fault(takes=_one_of_many), "two-audiences"),
    "compares the beginning of the audience": (
        Fault(takes=_by_its_beginning),
        "child-audience look-alike-audience",
    ),
    "takes the audience of its host": (Fault(takes=_of_the_host), "parent-audience"),
    "ignores typ": (
        ignoring(Reason.WRONG_TOKEN_TYPE),
        "plain-jwt id-token id-jag other-type",
    ),
    "takes ID tokens": (Fault(takes=_id_tokens), "id-token"),
    "takes alg none": (unsigned_as("none"), "unsigned"),
    "takes alg NONE": (unsigned_as("NONE"), "unsigned"),
    "verifies by the alg of the header": (
        Fault(takes=_public_key_as_secret),
        "public-key-as-secret",
    ),
    "believes the key in the header": (Fault(takes=_key_in_header), "key-in-header"),
    "follows jku": (Fault(takes=_follows_key_set_url), "key-set-url"),
    "asks jku": (asking("jku"), "key-set-url"),
    "asks x5u": (asking("x5u"), "certificate-url"),
    "finds keys by iss": (Fault(takes=_keys_of_whoever_is_named), "issuer-of-its-own"),
    "verifies no signature": (
        ignoring(Reason.SIG_INVALID),
        "unsigned other-key changed-afterwards signature-remembered",
    ),
    "ignores iss": (ignoring(Reason.ISS_UNKNOWN), "wrong-issuer issuer-of-its-own"),
    "ignores exp": (ignoring(Reason.TOKEN_EXPIRED), "expired"),
    "ignores nbf": (ignoring(Reason.NOT_YET_VALID), "not-yet-valid"),
    "needs no sub": (lacking("sub"), "no-sub"),
    "needs no client_id": (lacking("client_id"), "no-client-id"),
    "needs no iat": (lacking("iat"), "no-iat"),
    "takes digits for a time": (Fault(takes=_digits), "no-exp"),
    "guards one method alone": (Fault(answers=_guards_posts_alone), "other-methods"),
    "knows tokens by what was signed": (remembering_what_was_signed(), "signature-remembered"),
    "needs no jti": (lacking("jti"), "no-jti"),
    "takes bound tokens": (
        ignoring(Reason.POP_REQUIRED, Reason.CNF_UNSUPPORTED),
        "bound-as-bearer proof-as-bearer",
    ),
    "takes duplicate members": (ignoring(Reason.DUPLICATE_MEMBER), "duplicate-members"),
    "ignores critical headers": (ignoring(Reason.CRIT_UNSUPPORTED), "critical-header"),
    "reads the query": (Fault(hears=_hears_query), "token-in-query"),
    "reads any scheme": (Fault(hears=_hears_any_scheme), "other-scheme good-proof"),
    "ignores the request of a proof": (
        ignoring(Reason.POP_HTM, Reason.POP_HTU),
        "proof-of-other-request",
    ),
    "ignores the time of a proof": (ignoring(Reason.POP_STALE), "proof-of-other-time"),
    "does not verify proofs": (ignoring(Reason.POP_SIGNATURE), "proof-of-other-key"),
    "compares nothing of a proof": (
        ignoring(Reason.POP_MISMATCH),
        "proof-without-binding proof-of-other-key proof-of-other-token",
    ),
    "needs no hash in a proof": (proved_otherwise(_proof_lacks_hash), "proof-of-other-token"),
    "takes JWTs as proofs": (proved_otherwise(_proof_is(typ="JWT")), "proof-of-other-type"),
    "takes unsigned proofs": (proved_otherwise(_proof_is(alg="none")), "proof-unsigned"),
    "takes proofs by secrets": (proved_otherwise(_proof_is(alg="HS256")), "proof-by-secret"),
    "takes private keys": (proved_otherwise(_proof_has_private_key), "proof-with-private-key"),
    "needs no proof": (proved_otherwise(lambda asked: not "".join(asked.proofs)), "proof-missing"),
    "takes the first of two proofs": (
        proved_otherwise(lambda asked: len(asked.proofs) > 1),
        "two-proofs",
    ),
    "tells the token": (Fault(answers=_tells_token), "token-not-told"),
    "tells the signature": (Fault(answers=_tells_signature), "token-not-told"),
    "needs no scopes": (Fault(answers=_needs_no_scopes), "insufficient-scope"),
    "calls missing scopes a bad token": (
        Fault(answers=_calls_it_a_bad_token),
        "insufficient-scope",
    ),
    "breaks on old tokens": (Fault(answers=_breaks), "expired"),
    "has no challenge": (NO_CHALLENGE, "no-token challenge-metadata insufficient-scope"),
    "points elsewhere": (Fault(answers=_points_elsewhere), "challenge-metadata"),
    "has no metadata": (
        Fault(tells=lambda _document: None),
        ("challenge-metadata metadata metadata-resource metadata-issuer"),
    ),
    "tells of another resource": (
        telling(resource=_ELSEWHERE),
        "challenge-metadata metadata-resource",
    ),
    "does not list its issuer": (
        telling(authorization_servers=["https://other.example"]),
        "metadata-issuer",
    ),
    "offers offline_access": (
        telling(scopes_supported=["offline_access"]),
        "metadata-offline-access",
    ),
    "offers the query": (
        telling(bearer_methods_supported=["header", "query"]),
        "metadata-query",
    ),
}
"""Every fault with the names of the cases that must find it."""
