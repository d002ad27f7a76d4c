"""How a client authenticates to the broker: by a secret, a key, or its workload's token."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote_plus

from broker.client._addresses import private_origin
from broker.client.failures import CredentialUnusable, Unavailable
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    CLIENT_ASSERTION_JWT_SPIFFE,
    TYP_CLIENT_AUTHENTICATION,
    VERIFICATION_ALGORITHMS,
)

_ASSERTION_SECONDS: Final = 60
_LARGEST_FILE: Final = 64 * 1024
_SIGNING_SECONDS: Final = 5.0
_SPIFFE: Final = "spiffe://"


@dataclass(frozen=True, slots=True)
class Presented:
    """
    What goes along with one attempt: form parameters, or an ``Authorization`` value.

    ``grant`` is a token that says who the client is and stands in place of the grant (RFC 7523 2.1).
    """

    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)
    grant: str | None = field(default=None, repr=False)


class Credential(Protocol):
    """
    Proves who the client is.

    ``present`` is asked for each attempt anew, since an assertion is good for one; ``issuer`` is the
    broker's. It may block for as long as a file or a key server takes. It raises ``CredentialUnusable``,
    or ``Unavailable`` when it may be able to later.
    """

    def present(self, issuer: str) -> Presented: ...


@dataclass(frozen=True, slots=True)
class Secret:
    """A client secret (``client_secret_basic``, or ``client_secret_post`` when ``is_posted``)."""

    client_id: str
    secret: str = field(repr=False)
    is_posted: bool = False

    def present(self, issuer: str) -> Presented:  # noqa: ARG002 - a secret is for one broker anyway.
        if self.is_posted:
            return Presented({"client_id": self.client_id, "client_secret": self.secret})
        # RFC 6749 2.3.1 wants both parts form-encoded.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}"
        return Presented(authorization="Basic " + base64.b64encode(pair.encode()).decode())


class KeyFile:
    """
    A private key in a file (``private_key_jwt``), which is read for each assertion, as it rotates.

    The file is a JWK, which may name its own ``kid`` and ``alg``, or PEM. ``kid`` is what the broker
    knows the key by where the file does not say; ``clock`` is unix seconds.
    """

    def __init__(
        self,
        client_id: str,
        path: str | Path,
        *,
        kid: str | None = None,
        algorithm: str = "ES256",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client_id = client_id
        self._path = Path(path)
        self._kid = kid
        self._algorithm = algorithm
        self._clock = clock

    def present(self, issuer: str) -> Presented:
        """A fresh assertion."""
        import jwt  # noqa: PLC0415 - only whoever has a key needs it.

        claims = _assertion_claims(self._client_id, issuer, now=self._clock())
        text = _text_of(self._path)
        try:
            key, kid, algorithm = self._read(text)
            headers = {"typ": TYP_CLIENT_AUTHENTICATION} | ({"kid": kid} if kid else {})
            assertion = jwt.encode(claims, key, algorithm=algorithm, headers=headers)
        except (
            ValueError,
            TypeError,
            RecursionError,
            NotImplementedError,
            jwt.PyJWTError,
        ) as error:
            # What the library says of a key may be the key itself.
            sentence = f"The key in {self._path} cannot sign: {type(error).__name__}."
            raise CredentialUnusable(sentence) from None
        return _asserted(assertion, CLIENT_ASSERTION_JWT_BEARER)

    def _read(self, text: str) -> tuple[Any, str | None, str]:
        import jwt  # noqa: PLC0415 - see above.

        if not text.lstrip().startswith("{"):
            return text, self._kid, self._algorithm
        document = json.loads(text)
        key = jwt.PyJWK(document)
        if key.algorithm_name not in VERIFICATION_ALGORITHMS:
            # A secret signs as well, and whoever verifies by it could sign the same.
            raise ValueError("It is not a private key.")
        return key.key, document.get("kid") or self._kid, key.algorithm_name


@dataclass(frozen=True)
class VaultKey:
    """
    A key in the transit engine of Vault or OpenBao, which signs the assertions and keeps the key.

    ``key_url`` is where it signs, such as ``https://vault.example:8200/v1/transit/sign/agent``.
    ``token_file`` holds a token that may do so, and is read for each. ``kid`` names the version to the
    broker; ``key_version`` is the one that signs. ``clock`` is unix seconds.
    """

    client_id: str
    key_url: str
    _: KW_ONLY
    key_version: int
    kid: str
    token_file: str | Path
    ca_file: str | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        private_origin(self.key_url)

    def present(self, issuer: str) -> Presented:
        """A fresh assertion, signed by the engine with ES256."""
        header = {"typ": TYP_CLIENT_AUTHENTICATION, "alg": "ES256", "kid": self.kid}
        parts = (header, _assertion_claims(self.client_id, issuer, now=self.clock()))
        signing_input = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return _asserted(
            f"{signing_input}.{self._sign(signing_input)}", CLIENT_ASSERTION_JWT_BEARER
        )

    def _sign(self, signing_input: str) -> str:
        status, answer = self._server.post(
            {
                "input": base64.b64encode(signing_input.encode()).decode(),
                "key_version": self.key_version,
                "hash_algorithm": "sha2-256",
                "marshaling_algorithm": "jws",
            },
            headers={"X-Vault-Token": self._token()},
            within=_SIGNING_SECONDS,
        )
        signature = _member(answer, "data", "signature")
        if isinstance(signature, str):
            return signature.rpartition(":")[2]
        if status >= 500:
            raise Unavailable(f"The key server answers with status {status}.")
        raise CredentialUnusable(f"The key server did not sign; it answers with status {status}.")

    def _token(self) -> str:
        token = _text_of(Path(self.token_file)).strip()
        if not (token.isascii() and token.isprintable()):
            # A header cannot hold it, and whoever says so would show it.
            raise CredentialUnusable(f"{self.token_file} holds no token.")
        return token

    @cached_property
    def _server(self) -> Any:
        from broker.client._key_server import KeyServer  # noqa: PLC0415 - it loads an HTTP client.

        return KeyServer(self.key_url, ca_file=self.ca_file)


class WorkloadTokenFile:
    """
    The token that a platform gives its workloads; the file is read for each attempt, as it rotates.

    It must be made out to the broker. A SPIFFE JWT-SVID authenticates the client for whatever it asks
    (``jwt-spiffe``). Any other, such as a projected Kubernetes token, is an authorization grant
    (RFC 7523 2.1): it gets the workload a token of its own, and nothing else.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def present(self, issuer: str) -> Presented:  # noqa: ARG002 - the platform chose the audience.
        token = _text_of(self._path).strip()
        if str(_member(_unverified_claims(token), "sub")).startswith(_SPIFFE):
            return _asserted(token, CLIENT_ASSERTION_JWT_SPIFFE)
        return Presented(grant=token)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        text = content.decode()
    except OSError as error:
        raise CredentialUnusable(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CredentialUnusable(f"{path} is not text.") from None
    if not 0 < len(content) <= _LARGEST_FILE:
        raise CredentialUnusable(f"{path} is empty or too large.")
    return text


def _unverified_claims(token: str) -> object:
    """What a token says of itself; the broker decides whether that is so."""
    try:
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError, RecursionError):
        raise CredentialUnusable("The workload's token is not a JWT.") from None


def _member(document: object, *path: str) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _assertion_claims(client_id: str, issuer: str, *, now: float) -> dict[str, Any]:
    """A client assertion for the broker alone (RFC 7523 3)."""
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": int(now),
        "exp": int(now) + _ASSERTION_SECONDS,
        "jti": secrets.token_urlsafe(18),
    }


def _asserted(assertion: str, kind: str) -> Presented:
    return Presented({"client_assertion": assertion, "client_assertion_type": kind})


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
