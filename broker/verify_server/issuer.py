"""The issuer of a trial's tokens: one that pretends to be one, or a key that a real one believes in."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt

from broker.oauth import TOKEN_TYPE_BEARER, TYP_ACCESS_TOKEN
from broker.strict_json import StrictJsonError, loads_strict
from broker.verify_server.keys import Key, fresh_key
from broker.verify_server.loopback import serving

_METADATA: Final = frozenset(
    {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}
)
_REQUIRED: Final = ["iss", "sub", "exp", "client_id", "jti"]
_KEY_SETS: Final = frozenset({"/jwks", "/jwks.json", "/.well-known/jwks.json"})


@dataclass(eq=False)
class Issuer:
    """
    Who signs the good tokens.

    ``withdrawn`` are tokens that its introspection calls inactive; it is ``None`` for an issuer
    that is not in our hands.
    """

    url: str
    key: Key
    withdrawn: set[str] | None = field(default=None, repr=False)


@contextmanager
def pretend_issuer(*, port: int = 0, algorithm: str = "ES256") -> Iterator[Issuer]:
    """
    An issuer on this machine with a fresh key, until the end of the block.

    It publishes metadata (RFC 8414, OpenID Connect Discovery) and keys, and introspects its own tokens for
    whoever asks (RFC 7662). Raises ``OSError`` for a port in use.
    """
    ready = threading.Event()
    pretender = _Pretender("", fresh_key(algorithm), set())

    def answering(target: str, body: bytes) -> Any:
        ready.wait()
        return pretender.answer(urlsplit(target).path, body)

    with serving(answering, port=port) as origin:
        pretender.url = origin
        ready.set()
        yield pretender


class _Pretender(Issuer):
    def answer(self, path: str, body: bytes) -> Any:
        if path in _METADATA:
            return self._metadata()
        if path in _KEY_SETS:
            return {"keys": [self.key.public_jwk]}
        if path == "/introspect":
            return self._introspect(parse_qs(body.decode("latin-1")).get("token", [""])[0])
        return None

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "introspection_endpoint": f"{self.url}/introspect",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.key.algorithm],
            "code_challenge_methods_supported": ["S256"],
        }

    def _introspect(self, token: str) -> dict[str, Any]:
        """An honest answer; whether the token is for who asks is theirs to see (RFC 7662 4)."""
        try:
            decoded = jwt.decode_complete(
                token,
                self.key.private.public_key(),
                algorithms=[self.key.algorithm],
                issuer=self.url,
                options={"verify_aud": False, "require": _REQUIRED},
            )
            # An issuer would know its own tokens; this one knows none that it would not have made.
            loads_strict(jwt.utils.base64url_decode(token.split(".")[1]))
        except (jwt.PyJWTError, StrictJsonError):
            return {"active": False}
        is_access_token = decoded["header"].get("typ") == TYP_ACCESS_TOKEN
        if not is_access_token or token in (self.withdrawn or ()):
            return {"active": False}
        return {**decoded["payload"], "active": True, "token_type": TOKEN_TYPE_BEARER}
