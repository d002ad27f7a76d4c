"""How a client authenticates to the broker: by a secret, a key, or its workload's token."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote_plus

from broker.client.failures import BrokerError
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    CLIENT_ASSERTION_JWT_SPIFFE,
    TYP_CLIENT_AUTHENTICATION,
)

_ASSERTION_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Presented:
    """What goes along with one attempt: form parameters, and an ``Authorization`` value."""

    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)


class Credential(Protocol):
    """
    Proves who the client is.

    ``present`` is asked for each attempt anew, since an assertion is good for one; ``issuer`` is the
    broker's. It may block for as long as a file or a key server takes.
    """

    def present(self, issuer: str) -> Presented: ...


class CredentialUnusable(BrokerError):
    """A key or a file that authenticates the client cannot be used; nothing was sent."""

    def __init__(self, description: str) -> None:
        super().__init__("credential_unusable", description)


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


class _FileRead:
    """A file's content, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._text = ""

    def text(self) -> str:
        """What stands in it now; raises ``CredentialUnusable``."""
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._text = self._path.read_text()
                self._stamp = stamp
        except OSError as error:
            raise CredentialUnusable(f"{self._path} cannot be read: {error.strerror}.") from None
        return self._text


class KeyFile:
    """
    A private key in a PEM file (``private_key_jwt``), read again when the file changes.

    ``kid`` names it in the key set that the broker knows the client by.
    """

    def __init__(
        self, client_id: str, path: str | Path, *, kid: str | None = None, algorithm: str = "ES256"
    ) -> None:
        self._client_id = client_id
        self._file = _FileRead(Path(path))
        self._kid = kid
        self._algorithm = algorithm

    def present(self, issuer: str) -> Presented:
        """A fresh assertion."""
        import jwt  # noqa: PLC0415 - only whoever has a key needs it.

        headers = {"typ": TYP_CLIENT_AUTHENTICATION} | ({"kid": self._kid} if self._kid else {})
        claims = _assertion_claims(self._client_id, issuer)
        try:
            assertion = jwt.encode(
                claims, self._file.text(), algorithm=self._algorithm, headers=headers
            )
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            sentence = f"The key cannot sign by {self._algorithm}: {type(error).__name__}."
            raise CredentialUnusable(sentence) from None
        return _asserted(assertion, CLIENT_ASSERTION_JWT_BEARER)


class VaultKey:
    """
    A key in the transit engine of Vault or OpenBao, which signs the assertions and keeps the key.

    ``key_url`` is where it signs, such as ``https://vault.example:8200/v1/transit/sign/agent``.
    ``token_file`` holds a token that may do so, and is read again as it changes. ``kid`` names the version
    to the broker; ``key_version`` is the one that signs.
    """

    def __init__(
        self,
        client_id: str,
        key_url: str,
        *,
        key_version: int,
        kid: str,
        token_file: str | Path,
    ) -> None:
        self._client_id = client_id
        self._url = f"{key_url.rstrip('/')}/sha2-256"
        self._key_version = key_version
        self._kid = kid
        self._token = _FileRead(Path(token_file))

    def present(self, issuer: str) -> Presented:
        """A fresh assertion, signed by the engine with ES256."""
        header = {"typ": TYP_CLIENT_AUTHENTICATION, "alg": "ES256", "kid": self._kid}
        parts = (header, _assertion_claims(self._client_id, issuer))
        signing_input = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return _asserted(
            f"{signing_input}.{self._sign(signing_input)}", CLIENT_ASSERTION_JWT_BEARER
        )

    def _sign(self, signing_input: str) -> str:
        import httpx2  # noqa: PLC0415 - only whoever has a key in Vault needs it here.

        body = {
            "input": base64.b64encode(signing_input.encode()).decode(),
            "key_version": self._key_version,
            "marshaling_algorithm": "jws",
        }
        try:
            answer = httpx2.post(
                self._url,
                json=body,
                headers={"X-Vault-Token": self._token.text().strip()},
                timeout=5.0,
                trust_env=False,
            )
            signature: Any = answer.json()["data"]["signature"] if answer.is_success else None
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            signature = None
        if not isinstance(signature, str):
            raise CredentialUnusable("The key server did not sign.")
        return signature.rpartition(":")[2]


class WorkloadTokenFile:
    """
    The token that a platform gives its workloads, such as a projected Kubernetes token or a SPIFFE
    JWT-SVID; it must be made out to the broker. The file is read again as the platform rotates it.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = _FileRead(Path(path))

    def present(self, issuer: str) -> Presented:  # noqa: ARG002 - the platform chose the audience.
        token = self._file.text().strip()
        if not token:
            raise CredentialUnusable("The workload's token file is empty.")
        return _asserted(token, CLIENT_ASSERTION_JWT_SPIFFE)


def _assertion_claims(client_id: str, issuer: str) -> dict[str, Any]:
    """A client assertion for the broker alone (RFC 7523 3)."""
    now = int(time.time())
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer,
        "iat": now,
        "exp": now + _ASSERTION_SECONDS,
        "jti": secrets.token_urlsafe(18),
    }


def _asserted(assertion: str, kind: str) -> Presented:
    return Presented({"client_assertion": assertion, "client_assertion_type": kind})


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
