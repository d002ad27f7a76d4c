"""Tokens for the server under test: a good one, and as many changes to it as there are mistakes."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from broker.oauth import TYP_ACCESS_TOKEN
from broker.verify_server.keys import Key

CLIENT_ID: Final = "broker-verify"
SUBJECT: Final = "broker-verify-user"
LIFETIME: Final = 300
"""For how many seconds a good token is good."""

Members = Mapping[str, Any]
_NOTHING: Final[Members] = {}


@dataclass(frozen=True, slots=True)
class Mint:
    """
    Makes tokens of one issuer for one audience.

    ``extra`` are claims that the server wants besides those of an access token (RFC 9068 2.2), and
    ``clock`` is unix seconds.
    """

    issuer: str
    audience: str
    key: Key
    _: KW_ONLY
    scopes: tuple[str, ...] = ()
    extra: Members = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def claims(self, changes: Members = _NOTHING) -> dict[str, Any]:
        """The claims of a good token, with changes; a claim that is changed to ``None`` is left out."""
        now = int(self.clock())
        claims = {
            "iss": self.issuer,
            "sub": SUBJECT,
            "aud": self.audience,
            "client_id": CLIENT_ID,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_urlsafe(12),
            "scope": " ".join(self.scopes) or None,
            **self.extra,
            **changes,
        }
        return _told(claims)

    def header(self, changes: Members = _NOTHING) -> dict[str, Any]:
        """The header of a good token, with changes of the same kind."""
        usual = {"alg": self.key.algorithm, "kid": self.key.kid, "typ": TYP_ACCESS_TOKEN}
        return _told({**usual, **changes})

    def token(
        self, changes: Members = _NOTHING, *, header: Members = _NOTHING, key: Key | None = None
    ) -> str:
        """A token with changes to its claims and its header, signed by ``key`` or else the issuer's."""
        text = json.dumps(self.claims(changes))
        return self.signed(text, header=header, sign=(key or self.key).sign)

    def signed(
        self, payload: str, *, header: Members = _NOTHING, sign: Callable[[bytes], bytes]
    ) -> str:
        """A token of exactly this payload, however odd."""
        head = encoded(json.dumps(self.header(header)).encode())
        signing_input = f"{head}.{encoded(payload.encode())}"
        return f"{signing_input}.{encoded(sign(signing_input.encode()))}"


def encoded(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _told(members: Members) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
