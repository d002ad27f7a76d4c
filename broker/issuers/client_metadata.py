"""A client's metadata document, read strictly (Client ID Metadata Document 4, RFC 7591 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import Reason, TokenRejected
from broker.issuers.key_set import KeySet, SourceRefused, read_key_set
from broker.model import ClientDocument
from broker.oauth import AUTH_NONE, AUTH_PRIVATE_KEY_JWT
from broker.strict_json import StrictJsonError, loads_strict
from broker.tokens.jwk import is_secret

NO_KEYS: Final = KeySet((), {})
_MOST_KEYS: Final = 32
_SECRET: Final = "client_secret"


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """A client's document, and its keys or the address that they are at."""

    document: ClientDocument
    keys: KeySet
    jwks_uri: str | None


def read_client_metadata(body: bytes, url: str) -> ClientMetadata:
    """
    What the document fetched from ``url`` says, as far as it matters here; nothing else is looked at.

    A document that names no method of authentication is a public client's: that of RFC 7591 2 would be a
    shared secret, which a document cannot hold. Raises ``TokenRejected`` (``cimd_id_mismatch``,
    ``cimd_forbidden_auth``, ``cimd_invalid``).
    """
    members = _members(body)
    if members.get("client_id") != url:
        raise TokenRejected(Reason.CIMD_ID_MISMATCH)
    document = ClientDocument(
        auth_method=_auth_method(members),
        grants=_grants(members),
        algorithm=_text(members, "token_endpoint_auth_signing_alg"),
        is_bound=_flag(members, "dpop_bound_access_tokens"),
    )
    jwks_uri = _text(members, "jwks_uri")
    if "jwks" in members and jwks_uri is not None:
        raise TokenRejected(Reason.CIMD_INVALID, "jwks and jwks_uri")
    keys = read_client_keys(members["jwks"]) if "jwks" in members else NO_KEYS
    if document.auth_method == AUTH_NONE:
        return ClientMetadata(document, NO_KEYS, None)
    if "jwks" not in members and jwks_uri is None:
        raise TokenRejected(Reason.CIMD_INVALID, "no keys")
    if jwks_uri is not None and not jwks_uri.startswith("https://"):
        raise TokenRejected(Reason.CIMD_INVALID, "jwks_uri")
    return ClientMetadata(document, keys, jwks_uri)


def read_client_keys(jwks: Any) -> KeySet:
    """
    The keys of a client's JWK set.

    A set with a private or symmetric key in it is published by mistake or to deceive, so none of its
    keys is used. Raises ``TokenRejected`` (``cimd_invalid``).
    """
    try:
        keys = read_key_set(jwks, max_keys=_MOST_KEYS)
    except SourceRefused as refused:
        raise TokenRejected(Reason.CIMD_INVALID, refused.code) from None
    if any(isinstance(one, Mapping) and is_secret(one) for one in jwks["keys"]):
        raise TokenRejected(Reason.CIMD_INVALID, "a key is not public")
    return keys


def read_client_key_document(body: bytes) -> KeySet:
    """The same for a set that was fetched."""
    try:
        return read_client_keys(loads_strict(body))
    except StrictJsonError as error:
        raise TokenRejected(Reason.CIMD_INVALID, error.reason.code) from None


def _members(body: bytes) -> Mapping[str, Any]:
    try:
        members = loads_strict(body)
    except StrictJsonError as error:
        # A document that names its client twice names nobody.
        is_named_twice = error.reason is Reason.DUPLICATE_MEMBER and body.count(b'"client_id"') > 1
        reason = Reason.CIMD_ID_MISMATCH if is_named_twice else Reason.CIMD_INVALID
        raise TokenRejected(reason, error.reason.code) from None
    if not isinstance(members, Mapping):
        raise TokenRejected(Reason.CIMD_INVALID, "not an object")
    return members


def _auth_method(members: Mapping[str, Any]) -> str:
    method = _text(members, "token_endpoint_auth_method") or AUTH_NONE
    if method not in (AUTH_PRIVATE_KEY_JWT, AUTH_NONE):
        raise TokenRejected(Reason.CIMD_FORBIDDEN_AUTH, "the method")
    if any(name.startswith(_SECRET) for name in members):
        raise TokenRejected(Reason.CIMD_FORBIDDEN_AUTH, "a secret")
    return method


def _grants(members: Mapping[str, Any]) -> frozenset[str] | None:
    if "grant_types" not in members:
        return None
    listed = members["grant_types"]
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise TokenRejected(Reason.CIMD_INVALID, "grant_types")
    return frozenset(listed)


def _text(members: Mapping[str, Any], name: str) -> str | None:
    """A member that is text, or absent; ``null`` and nothing are neither."""
    value = members.get(name, "absent")
    if not isinstance(value, str) or not value:
        raise TokenRejected(Reason.CIMD_INVALID, name)
    return value if name in members else None


def _flag(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise TokenRejected(Reason.CIMD_INVALID, name)
    return value
