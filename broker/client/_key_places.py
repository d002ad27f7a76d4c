"""Where the keys of an issuer are: at a place that is told, or at the one that its metadata names."""

import logging
import re
import time
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from broker.client._addresses import Origin
from broker.client._documents import Documents, NotFetched, check_place
from broker.client._key_set import KeySet, KeyUnusable, read_key_set
from broker.client._key_source import Load

_log = logging.getLogger("broker.client")
_MAX_AGE: Final = re.compile(r'(?:^|,)\s*max-age="?([0-9]{1,9})"?\s*(?:,|$)', re.IGNORECASE)


def load_from(
    documents: Documents, issuer: str, *, jwks_uri: str | None, algorithms: Collection[str]
) -> Load:
    """
    The loader of an issuer's keys: at ``jwks_uri``, or where the issuer's metadata says (RFC 8414 3).

    Raises ``ValueError`` for a place that must not be asked.
    """
    check_place(issuer if jwks_uri is None else jwks_uri)

    def load(within: float) -> tuple[KeySet, float | None]:
        end = time.monotonic() + within
        try:
            place = jwks_uri or _discover(documents, issuer, within=within)
            document, cache_control = documents.fetch(place, within=end - time.monotonic())
            keys = read_key_set(document, algorithms)
        except (KeyUnusable, NotFetched) as failure:
            # For whoever runs the server, at most once per cool-down; clients are told less.
            _log.warning("The keys of %s cannot be had: %s", issuer, failure)
            raise NotFetched(str(failure)) from None
        return keys, _max_age(cache_control)

    return load


def _discover(documents: Documents, issuer: str, *, within: float) -> str:
    """The ``jwks_uri`` of an issuer's metadata, which must be the issuer's own and on its origin."""
    parts = urlsplit(issuer)
    origin = f"{parts.scheme}://{parts.netloc}"
    path = parts.path.rstrip("/")
    document, _ = documents.fetch(
        f"{origin}/.well-known/oauth-authorization-server{path}", within=within
    )
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise NotFetched("The metadata is not of this issuer.")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not _is_at(jwks_uri, check_place(issuer)):
        raise NotFetched("The keys are not where the issuer is.")
    return jwks_uri


def _is_at(url: str, origin: Origin) -> bool:
    try:
        return check_place(url) == origin
    except ValueError:
        return False


def _max_age(cache_control: str) -> float | None:
    if re.search(r"\bno-(?:store|cache)\b", cache_control, re.IGNORECASE):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return None if found is None else float(found[1])
