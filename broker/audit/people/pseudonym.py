"""The pseudonym of a name: a keyed hash, made anew with another key in every period."""

import base64
import hmac
from functools import lru_cache
from typing import Final

KEY_BYTES: Final = 32
"""The length of a key."""

_HASH_BYTES: Final = 16
_REMEMBERED: Final = 1024


class PeriodKey:
    """
    The key of a period, which makes the pseudonyms ``~<period>~<22 characters of base64url>`` of it.

    They are the first 128 bits of HMAC-SHA256 over the kind of name and the name in UTF-8, each after its
    length. The issuer is not in it, so that somebody is found by name alone; who has the name at another
    issuer is told apart by what the record says of the issuer. The last names are remembered.
    """

    __slots__ = ("_key", "of", "period")

    def __init__(self, period: str, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of pseudonyms has {KEY_BYTES} bytes")
        self.period = period
        self._key = key
        self.of = lru_cache(maxsize=_REMEMBERED)(self._of)
        """The pseudonym of a name."""

    def is_of(self, key: bytes) -> bool:
        """Whether this is the key."""
        return hmac.compare_digest(self._key, key)

    def __repr__(self) -> str:
        return f"PeriodKey({self.period!r})"

    def _of(self, name: str) -> str:
        text = name.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, b"6:person%d:%b" % (len(text), text), "sha256")
        hashed = base64.urlsafe_b64encode(digest[:_HASH_BYTES]).decode().rstrip("=")
        return f"~{self.period}~{hashed}"
