"""How a request presents its token: in one Authorization header, and perhaps with a proof."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.client._proofs import Proof
from broker.errors import Reason, TokenRejected
from broker.oauth import TOKEN_TYPE_BEARER, TOKEN_TYPE_DPOP

_SCHEMES: Final = frozenset({TOKEN_TYPE_BEARER.lower(), TOKEN_TYPE_DPOP.lower()})
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Incoming:
    """
    A request as it came: all values of its ``Authorization`` and ``DPoP`` headers, and what it asks for.

    ``url`` is the address as the client knows it. It matters to proofs alone, and so does ``method``.
    """

    authorization: tuple[str, ...] = field(repr=False)
    proofs: tuple[str, ...] = field(default=(), repr=False)
    method: str = "POST"
    url: str = ""

    def presented(self) -> tuple[str, Proof | None] | None:
        """
        The token, with its proof where it is presented as bound; ``None`` for a request without one.

        What stands anywhere else, such as in the query, is no token. Raises ``TokenRejected``.
        """
        if len(self.authorization) > 1:
            raise TokenRejected(Reason.MALFORMED_TOKEN)
        scheme, _, token = "".join(self.authorization).partition(" ")
        if scheme.lower() not in _SCHEMES:
            return None
        token = token.strip(" ")
        if not _TOKEN.fullmatch(token):
            raise TokenRejected(Reason.MALFORMED_TOKEN)
        if scheme.lower() == TOKEN_TYPE_BEARER.lower():
            return token, None
        return token, Proof(self.proofs, self.method, self.url)


def incoming_over_asgi(scope: Mapping[str, Any], *, origin: str) -> Incoming:
    """
    A connection as ASGI tells of it.

    ``origin`` is the resource's: by that the client knows the server, whatever host a proxy asks for.
    """
    path = scope.get("raw_path") or scope["path"].encode()
    return Incoming(
        _values(scope, b"authorization"),
        _values(scope, b"dpop"),
        method=scope.get("method", "GET"),
        url=origin + path.decode("latin-1"),
    )


def _values(scope: Mapping[str, Any], name: bytes) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)
