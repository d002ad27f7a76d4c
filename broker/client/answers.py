"""What the broker answers, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Token:
    """
    A token that was issued.

    ``token_type`` is how it is presented (``Bearer``, ``DPoP``, or ``N_A`` where it is no access token).
    ``expires_in`` is in seconds from when it was asked for.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    scopes: frozenset[str]
    resource: str
    issued_token_type: str


@dataclass(frozen=True, slots=True)
class Introspection:
    """
    What the broker tells of a token (RFC 7662 2.2); of one that does not count, nothing.

    ``members`` is the whole answer, ``act`` and the object about client, server and resource included.
    """

    is_active: bool
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What would happen to an exchange, and why.

    ``error`` and ``reason`` are empty when it would be granted. ``grounds`` are sentences: the deciding
    policies with file and line, and for a refusal the least change that would allow it.
    """

    is_permitted: bool
    error: str
    reason: str
    scopes: Mapping[str, str]
    grounds: tuple[str, ...]
    claims: Mapping[str, Any] | None
    policy_digest: str
