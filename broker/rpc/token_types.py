"""The token types of RFC 8693 3 as the messages enumerate them."""

from collections.abc import Mapping
from typing import Final

from broker import oauth
from broker.v1 import token_pb2

_URIS: Final[Mapping[int, str | None]] = {
    token_pb2.TOKEN_TYPE_UNSPECIFIED: None,
    token_pb2.TOKEN_TYPE_ACCESS_TOKEN: oauth.TOKEN_TYPE_ACCESS_TOKEN,
    token_pb2.TOKEN_TYPE_REFRESH_TOKEN: oauth.TOKEN_TYPE_REFRESH_TOKEN,
    token_pb2.TOKEN_TYPE_ID_TOKEN: oauth.TOKEN_TYPE_ID_TOKEN,
    token_pb2.TOKEN_TYPE_SAML1: oauth.TOKEN_TYPE_SAML1,
    token_pb2.TOKEN_TYPE_SAML2: oauth.TOKEN_TYPE_SAML2,
    token_pb2.TOKEN_TYPE_JWT: oauth.TOKEN_TYPE_JWT,
    token_pb2.TOKEN_TYPE_ID_JAG: oauth.TOKEN_TYPE_ID_JAG,
}
_NUMBERS: Final = {uri: number for number, uri in _URIS.items() if uri is not None}


def token_type_uri(number: int) -> str | None:
    """
    The URI of an enumerated type; ``None`` when not stated.

    An unknown number becomes a type that nobody supports, so that it is refused where and as an
    unknown URI would be.
    """
    if number in _URIS:
        return _URIS[number]
    return f"urn:broker:unknown-token-type:{number}"


def token_type_number(uri: str) -> token_pb2.TokenType.ValueType:
    """The enumerated type of a URI; unspecified where there is none."""
    return token_pb2.TokenType.ValueType(_NUMBERS.get(uri, token_pb2.TOKEN_TYPE_UNSPECIFIED))
