"""Cases of tokens whose claims are good and that the issuer never signed (RFC 8725 2.1, 3)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.verify_server.cases import Case, Failed, Stage
from broker.verify_server.keys import Key
from broker.verify_server.minting import encoded
from broker.verify_server.refused import Shot, refused

_NONES: Final = ("none", "None", "NONE", "nOnE")
_HASHES: Final = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_OWN_KEY: Final = "Refuse a header that carries a key or tells where one is; ask your issuer alone."
_PINNED: Final = "Pin the algorithms that your issuer signs with; never do as the header says."


def _unsigned(stage: Stage) -> Iterable[Shot]:
    text = json.dumps(stage.mint.claims())
    for none in _NONES:
        yield f"alg {none}", stage.mint.signed(text, header={"alg": none}, sign=lambda _: b"")
        yield (
            f"alg {none}, no kid",
            stage.mint.signed(text, header={"alg": none, "kid": None}, sign=lambda _: b""),
        )
    signed = stage.mint.token()
    yield "the signature cut off", signed.rpartition(".")[0] + "."


def _public_key_as_secret(stage: Stage) -> Iterable[Shot]:
    key = stage.issuer.key
    secrets = {
        "PEM": key.public_pem,
        "PEM without its last line break": key.public_pem.rstrip(),
        "JWK": json.dumps(key.public_jwk).encode(),
        "nothing": b"",
    }
    text = json.dumps(stage.mint.claims())
    for algorithm in _HASHES:
        for label, secret in secrets.items():
            token = stage.mint.signed(
                text, header={"alg": algorithm}, sign=_keyed(secret, algorithm)
            )
            yield f"{algorithm} by {label}", token


def _keyed(secret: bytes, algorithm: str) -> Callable[[bytes], bytes]:
    return lambda text: hmac.new(secret, text, _HASHES[algorithm]).digest()


def _by_stranger(
    name: str, sent: str, carried: Callable[[Stage, str], dict[str, Any]], *, mend: str = _OWN_KEY
) -> Case:
    """
    A token that a stranger signed and whose header has ``carried`` besides.

    It claims the issuer's key, the stranger's, and none: a server may look at any of these first.
    """

    def forge(stage: Stage) -> Iterable[Shot]:
        stranger = stage.canary.key
        for label, kid in (
            ("under the issuer's kid", stage.issuer.key.kid),
            ("under its own kid", stranger.kid),
            ("under no kid", None),
        ):
            header = {"kid": kid, **carried(stage, name)}
            yield label, stage.mint.token(header=header, key=stranger)

    return refused(name, sent, forge, mend=mend)


def _jwk(stage: Stage, _name: str) -> dict[str, Any]:
    return {"jwk": stage.canary.key.public_jwk}


def _jku(stage: Stage, name: str) -> dict[str, Any]:
    return {"jku": stage.canary.place(name) + "/jwks"}


def _x5u(stage: Stage, name: str) -> dict[str, Any]:
    return {"x5u": stage.canary.place(name) + "/chain.pem"}


def _x5c(stage: Stage, _name: str) -> dict[str, Any]:
    return {"x5c": [base64.b64encode(_certificate(stage.canary.key)).decode()]}


def _certificate(key: Key) -> bytes:
    """A certificate that a key made of itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key.private, None if key.algorithm == "EdDSA" else SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


def _nothing(_stage: Stage, _name: str) -> dict[str, Any]:
    return {}


def _unknown_kid(stage: Stage) -> Iterable[Shot]:
    for kid in ("no-such-key", "../../etc/passwd", "' OR 1=1 --"):
        yield f"kid {kid}", stage.mint.token(header={"kid": kid}, key=stage.canary.key)


def _changed_afterwards(stage: Stage) -> Iterable[Shot]:
    head, payload, signature = stage.mint.token().split(".")
    changed = encoded(json.dumps(stage.mint.claims({"sub": "somebody-else"})).encode())
    yield "another sub", f"{head}.{changed}.{signature}"
    yield "another signature", f"{head}.{payload}.{encoded(bytes(64))}"


def _signed_otherwise(stage: Stage) -> Iterable[Shot]:
    token = stage.mint.token()
    if not stage.server.ask(token).is_success:
        raise Failed("it refused the token with its own signature")
    unsigned = token.rpartition(".")[0]
    yield "no signature", f"{unsigned}."
    yield "another signature", f"{unsigned}.{encoded(bytes(64))}"
    yield "a signature of another token", f"{unsigned}.{stage.mint.token().rpartition('.')[2]}"


def _critical(stage: Stage) -> Iterable[Shot]:
    header = {"crit": ["urn:example:must-understand"], "urn:example:must-understand": True}
    yield "an extension that nobody knows", stage.mint.token(header=header)


SIGNATURE_CASES: Final = (
    refused("unsigned", "a token without a signature", _unsigned, mend=_PINNED),
    refused(
        "public-key-as-secret",
        "a token signed by HMAC with the public key",
        _public_key_as_secret,
        mend=_PINNED,
    ),
    _by_stranger("key-in-header", "a token that carries its own key (jwk)", _jwk),
    _by_stranger("key-set-url", "a token that says where its keys are (jku)", _jku),
    _by_stranger("certificate-url", "a token that says where its certificate is (x5u)", _x5u),
    _by_stranger("certificate-in-header", "a token that carries a certificate (x5c)", _x5c),
    _by_stranger(
        "other-key",
        "a token signed by another key",
        _nothing,
        mend="Verify the signature, with the one key that kid names among your issuer's.",
    ),
    refused(
        "unknown-kid",
        "a token that names a key nobody published",
        _unknown_kid,
        mend="Refuse an unknown kid. Keys may be fetched anew for it, from your issuer, now and then.",
    ),
    refused(
        "changed-afterwards",
        "a token that was changed after it was signed",
        _changed_afterwards,
        mend="Verify the signature before you believe any claim.",
    ),
    refused(
        "signature-remembered",
        "a token that was taken, with another signature",
        _signed_otherwise,
        mend="Remember verified tokens by all of their text, never by what was signed alone.",
    ),
    refused(
        "critical-header",
        "a token with a critical header",
        _critical,
        mend="Refuse crit with anything that you do not implement (RFC 7515 4.1.11).",
        is_malformed=True,
    ),
)
