"""SPIFFE IDs: which workload of which trust domain (SPIFFE-ID 2)."""

import re
from typing import Final

TRUST_DOMAIN_SCHEME: Final = "spiffe://"
_LONGEST: Final = 2048
_TRUST_DOMAIN: Final = r"spiffe://[a-z0-9._-]{1,255}"
_ALONE: Final = re.compile(_TRUST_DOMAIN, re.ASCII)
_WORKLOAD: Final = re.compile(rf"({_TRUST_DOMAIN})(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._-]+)+", re.ASCII)


def is_trust_domain(name: str) -> bool:
    """Whether a name is that of a trust domain in the form that begins its SPIFFE IDs."""
    return _ALONE.fullmatch(name) is not None


def trust_domain_of(spiffe_id: object) -> str | None:
    """
    The trust domain of a workload's SPIFFE ID, as ``spiffe://<name>``; ``None`` for anything else.

    There is one spelling of each: what a URI library would bring to it is no SPIFFE ID.
    """
    if not isinstance(spiffe_id, str) or len(spiffe_id) > _LONGEST:
        return None
    match = _WORKLOAD.fullmatch(spiffe_id)
    return None if match is None else match[1]
