"""Where a set of keys is fetched from: a fixed address, or the one that an issuer's metadata names."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.fetch import Fetched, Fetcher, FetchReason, FetchRefused, Target, read_url
from broker.issuers.key_set import KeySet, SourceFault, SourceRefused, read_key_set
from broker.strict_json import StrictJsonError, loads_strict

MAX_DOCUMENT_BYTES: Final = 256 * 1024
_MEDIA_TYPES: Final = frozenset({"application/json", "application/jwk-set+json"})

# An answer of these kinds means that the document lives elsewhere; any other failure is a failure.
_NOT_HERE: Final = frozenset({FetchReason.STATUS, FetchReason.MEDIA_TYPE})


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """A set of keys just fetched, and for how many seconds its server calls it fresh."""

    keys: KeySet
    max_age: int | None


class LoadKeys(Protocol):
    """Fetches a set of keys within so many seconds, or raises ``SourceRefused``."""

    def __call__(self, *, within: float) -> LoadedKeys: ...


@dataclass(frozen=True, slots=True)
class JwksAddress:
    """A JWK set at a fixed address."""

    fetcher: Fetcher
    jwks_uri: str
    max_keys: int
    is_bundle: bool = False

    def __call__(self, *, within: float) -> LoadedKeys:
        fetched = _fetch(self.fetcher, self.jwks_uri, within=within)
        document = _json(fetched, SourceFault.JWKS_INVALID)
        keys = read_key_set(document, max_keys=self.max_keys, is_bundle=self.is_bundle)
        return LoadedKeys(keys, fetched.max_age)


class DiscoveredJwks:
    """
    The JWK set that an issuer's metadata names (OpenID Connect Discovery 4, RFC 8414 3).

    The metadata must name the issuer itself, byte for byte, and a ``jwks_uri`` at the issuer's own
    origin or at one of ``key_hosts``. The address found is used again for ``rediscover_after``
    seconds, unless it fails before. Not for two threads at once.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        issuer: str,
        *,
        key_hosts: frozenset[str],
        max_keys: int,
        rediscover_after: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._fetcher = fetcher
        self._issuer = issuer
        self._key_hosts = key_hosts
        self._max_keys = max_keys
        self._rediscover_after = rediscover_after
        self._monotonic = monotonic
        self._jwks: JwksAddress | None = None
        self._discovered_at = 0.0

    def __call__(self, *, within: float) -> LoadedKeys:
        end = time.monotonic() + within
        jwks, self._jwks = self._known(), None
        if jwks is None:
            jwks = JwksAddress(self._fetcher, self._discover(end), self._max_keys)
            self._discovered_at = self._monotonic()
        loaded = jwks(within=end - time.monotonic())
        self._jwks = jwks
        return loaded

    def _known(self) -> JwksAddress | None:
        is_old = self._monotonic() - self._discovered_at >= self._rediscover_after
        return None if is_old else self._jwks

    def _discover(self, end: float) -> str:
        """The ``jwks_uri`` of the issuer's metadata, checked; nothing else of it is used."""
        issuer = _issuer_target(self._issuer)
        document = _json(self._metadata(issuer, end), SourceFault.DISCOVERY_INVALID)
        if not isinstance(document, dict):
            raise SourceRefused(SourceFault.DISCOVERY_INVALID)
        if document.get("issuer") != self._issuer:
            raise SourceRefused(SourceFault.ISSUER_MISMATCH)
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not self._is_trusted(jwks_uri, issuer):
            raise SourceRefused(SourceFault.JWKS_URI_REFUSED)
        return jwks_uri

    def _metadata(self, issuer: Target, end: float) -> Fetched:
        openid, oauth = _well_known_urls(issuer)
        try:
            return _fetch(self._fetcher, openid, within=end - time.monotonic())
        except SourceRefused as refused:
            if refused.code not in _NOT_HERE:
                raise
        return _fetch(self._fetcher, oauth, within=end - time.monotonic())

    def _is_trusted(self, jwks_uri: str, issuer: Target) -> bool:
        try:
            target = read_url(jwks_uri)
        except FetchRefused:
            return False
        is_declared = target.scheme == "https" and target.authority in self._key_hosts
        return is_declared or target.origin == issuer.origin


def _issuer_target(issuer: str) -> Target:
    try:
        target = read_url(issuer)
    except FetchRefused as refused:
        raise SourceRefused(refused.reason) from None
    if "?" in target.path:
        raise SourceRefused(FetchReason.URL)
    return target


def _well_known_urls(issuer: Target) -> tuple[str, str]:
    """Where the metadata of OpenID Connect stands, and that of RFC 8414 3.1."""
    origin, path = f"{issuer.scheme}://{issuer.authority}", issuer.path.removesuffix("/")
    return (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    )


def _fetch(fetcher: Fetcher, url: str, *, within: float) -> Fetched:
    try:
        return fetcher.get(
            url, max_bytes=MAX_DOCUMENT_BYTES, media_types=_MEDIA_TYPES, within=within
        )
    except FetchRefused as refused:
        raise SourceRefused(refused.reason, refused.detail) from None


def _json(fetched: Fetched, fault: SourceFault) -> Any:
    try:
        return loads_strict(fetched.body)
    except StrictJsonError as error:
        raise SourceRefused(fault, error.reason.code) from None
