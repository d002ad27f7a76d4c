"""Logins on their way, kept by the browsers that were sent away with them."""

import base64
import binascii
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.web.review.openid import Begun

PENDING_SECONDS: Final = 600
"""For how long a login may be on its way."""

_NONCE_BYTES: Final = 12
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Pending:
    """A login that a browser was sent away with, and the page to show after it."""

    begun: Begun
    page: str


class PendingLogins:
    """
    Seals logins for the cookies of their browsers, and opens them again.

    Nothing of a login is kept here, so nobody's logins can push out those of others. The key is that of
    one process. ``monotonic`` is in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._cipher = AESGCM(AESGCM.generate_key(bit_length=256))

    def sealed(self, pending: Pending) -> str:
        """A login as the value of a cookie, which tells nothing and cannot be changed."""
        begun = pending.begun
        until = self._monotonic() + PENDING_SECONDS
        told = json.dumps([until, begun.state, begun.nonce, begun.verifier, pending.page])
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.urlsafe_b64encode(
            nonce + self._cipher.encrypt(nonce, told.encode(), None)
        ).decode()

    def opened(self, cookie: str, state: str) -> Pending | None:
        """The login in a cookie of ours, if an answer has its state and its time is not over."""
        try:
            sealed = base64.b64decode(cookie[:_LONGEST].encode(), altchars=b"-_", validate=True)
            told = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (binascii.Error, UnicodeError, ValueError, InvalidTag):
            return None
        until, own_state, nonce, verifier, page = json.loads(told)
        is_its_answer = compare_digest(own_state.encode(), state.encode("utf-8", "replace"))
        if not is_its_answer or self._monotonic() >= until:
            return None
        return Pending(Begun("", own_state, nonce, verifier), page)
