"""What one stream has told of withdrawn tokens, up to when, and whether it ends a token."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from broker.client.failures import BadAnswer, Unavailable

_KINDS: Final = frozenset({"subject", "client", "mcp_server", "issuer"})
_MOST_NAMES: Final = 128
_KEY_BYTES: Final = 32
_AHEAD: Final = 1.0
_FORGET_EVERY: Final = 60.0

Claims = Mapping[str, Any]


def keys_of(claims: Claims, *, issuer: str, mcp_claim: str) -> Iterator[bytes]:
    """
    Everything by which an access token of ``issuer`` may have been withdrawn.

    Those are the token, all that it derives from, all who stand in it, and everybody. Raises ``KeyError``,
    ``TypeError`` or ``ValueError`` for claims that the broker cannot have written.
    """
    told = claims[mcp_claim]
    yield _key("withdrawn")
    yield _key("revoked", _text(claims["jti"]))
    for ancestor in _names(told.get("lineage", [])):
        yield _key("revoked", ancestor)
    for kind, name in _parties(claims, told, issuer):
        yield _key("withdrawn", kind, name)


def _parties(claims: Claims, told: Claims, issuer: str) -> Iterator[tuple[str, str]]:
    audience = claims["aud"]
    named = (
        ("subject", claims["sub"]),
        ("client", claims["client_id"]),
        # Other issuers' clients are nobody at the broker, whatever they are called.
        ("client", None if "client_issuer" in told else told.get("client")),
        ("issuer", told.get("subject_issuer")),
        ("mcp_server", told.get("server")),
        *(("mcp_server", one) for one in (audience if isinstance(audience, list) else [audience])),
    )
    yield from ((kind, _text(name)) for kind, name in named if name is not None)
    yield from (("client", name) for name in _own_actors(claims, issuer))
    for kind, names in told.get("heritage", {}).items():
        if kind not in _KINDS:
            raise ValueError("a sort of party that there is not")
        yield from ((kind, name) for name in _names(names))


def _own_actors(claims: Claims, issuer: str) -> Iterator[str]:
    holder = claims
    while "act" in holder:
        holder = holder["act"]
        if holder.get("iss") == issuer:
            yield _text(holder["sub"])


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > _MOST_NAMES:
        raise TypeError("not a list of names")
    return [_text(one) for one in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _key(*parts: str) -> bytes:
    """The digest that the broker knows them by; each part is told apart by its length."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    counted = b"".join(len(one).to_bytes(8, "big") + one for one in encoded)
    return hashlib.sha256(counted).digest()


class Stream:
    """
    What one stream has told so far.

    ``asked_at`` is when it was asked for, in seconds of a monotonic clock. A part that was more than
    ``longest_lag`` seconds on its way is refused with all that may come after it, and so is one that is
    ahead of its time: one of the two clocks has been standing still. At most ``capacity`` revocations are
    held, each until neither clock knows of a token that it could end.
    """

    def __init__(self, *, asked_at: float, longest_lag: float, capacity: int) -> None:
        self._asked_at = asked_at
        self._longest_lag = longest_lag
        self._capacity = capacity
        # By key: the seconds in which what is withdrawn was issued, and until when that matters.
        self._withdrawn: dict[bytes, tuple[int, int, int]] = {}
        self._forgotten = -1
        self._forget_at = 0.0

    def take(self, part: Any, *, now: float, wall: float) -> float | None:
        """
        Take the next part in; the moment from which on nothing is missing, or ``None`` if more is to come.

        It is in seconds of the monotonic clock, as ``now`` is, and never later than it was: however long a
        part was underway, it was made after the stream was asked for. ``wall`` is in unix seconds. Raises
        ``BadAnswer`` or ``Unavailable``.
        """
        for one in part.revocations:
            if len(one.key) != _KEY_BYTES:
                raise BadAnswer("What is withdrawn has no key.")
            self._withdrawn[one.key] = (one.issued_since, one.issued_until, one.kept_until)
        if len(self._withdrawn) > self._capacity:
            raise BadAnswer("More is withdrawn than there is room for.")
        if not part.HasField("as_of"):
            return None
        self._forget(now=now, horizon=min(part.as_of.seconds, wall))
        complete_at: float = self._asked_at + part.elapsed_ms / 1000
        if complete_at > now + _AHEAD:
            raise Unavailable("The stream is ahead of its time.")
        if now - complete_at > self._longest_lag:
            raise Unavailable("The stream lags behind.")
        return min(complete_at, now)

    def ends(self, keys: Iterable[bytes], *, issued_at: int) -> bool:
        """Whether any of the keys is withdrawn for what was issued at that second."""
        for key in keys:
            first, last, _ = self._withdrawn.get(key, (1, 0, 0))
            if first <= issued_at <= last:
                return True
        return False

    def _forget(self, *, now: float, horizon: float) -> None:
        """Let go, once a minute, of what nobody needs to know any more."""
        if horizon <= self._forgotten:
            raise Unavailable("A clock went back to a time of which something is forgotten.")
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY
        over = {key for key, (_, _, kept_until) in self._withdrawn.items() if kept_until < horizon}
        if over:
            self._forgotten = max(self._withdrawn[key][2] for key in over)
            self._withdrawn = {key: one for key, one in self._withdrawn.items() if key not in over}
