"""What a caller may call this broker in the ``aud`` of what it signed."""

from collections.abc import Collection
from functools import lru_cache


@lru_cache(maxsize=16)
def names_of(issuer: str) -> frozenset[str]:
    """The issuer; without a path also with the slash that official SDKs' URL type puts after it."""
    return frozenset({issuer, issuer + "/"} if issuer.count("/") == 2 else {issuer})


def is_for_one_of(audience: object, names: Collection[str]) -> bool:
    """Whether an ``aud`` is one of the names and nothing besides: text, or a list of one."""
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    return isinstance(audience, str) and audience in names
