"""Pseudonyms: the names that a user has for one other authorization server and for no other."""

import base64
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """
    Makes pairwise subjects (OpenID Connect Core 8.1).

    ``key`` is secret and must stay the same, since the pseudonyms would change with it. Two servers
    cannot tell from theirs that they have the same user.
    """

    key: bytes = field(repr=False)

    def of(self, sub: str, *, at: str) -> str:
        """The name of the subject, as minted here, at the server with this issuer."""
        about = f"{len(at)}:{at}{sub}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self.key, about, "sha256")).decode().rstrip("=")
