"""What is known of withdrawn tokens, how old that is, and when to ask for it anew."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from broker.client._revoked import Stream, keys_of
from broker.client.credentials import Credential
from broker.client.failures import BrokerError
from broker.client.refusals import Unverifiable
from broker.errors import Reason

_LEAST_AGE: Final = 3.0
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
# Who is refused will be refused again, until an operator changes something.
_PAUSE_WHEN_REFUSED: Final = 15.0


class StaleView(Unverifiable):
    """What is known of withdrawn tokens is older than the bound, so no token can be accepted now."""


@dataclass(frozen=True, slots=True)
class _Known:
    """
    What is known, complete up to a moment of the monotonic clock in seconds.

    ``told_at`` is the moment of the wall clock at which that was heard.
    """

    stream: Stream
    complete_at: float
    told_at: float


@dataclass(eq=False)
class View:
    """
    Everything withdrawn, as the broker pushes it.

    ``issuer`` is the broker's, ``streams`` is its ``host:port`` for streams, and ``credential`` any
    client's. ``ca_file`` names the authorities to believe, if not the system's; without TLS only a broker
    on this machine is spoken to. A stream that ends, lags or falls silent is opened anew. ``max_age`` is in
    seconds, and at least three. ``mcp_claim`` is as for the verifier. At most ``capacity`` revocations are
    held. ``monotonic`` and ``wall`` are clocks in seconds.
    """

    issuer: str
    credential: Credential
    streams: str
    _: KW_ONLY
    ca_file: str | None = None
    max_age: float = 10.0
    mcp_claim: str | None = None
    capacity: int = 1_000_000
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    failure: str = field(default="The stream was not opened yet.", init=False)
    """Why the last stream ended, for the operator."""
    _known: _Known | None = field(default=None, init=False, repr=False)
    _failures: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_age < _LEAST_AGE:
            raise ValueError(f"The broker is heard once a second: {_LEAST_AGE:g} s is the least.")

    @property
    def age(self) -> float:
        """
        How many seconds ago, at most, what is known was complete.

        It is told by whichever clock says more: the monotonic one may stand still while the machine sleeps,
        and the other may be set.
        """
        known = self._known
        return float("inf") if known is None else self._age_of(known)

    def refuses(self, claims: Mapping[str, Any]) -> bool:
        """
        Whether a token of the broker with these verified claims is withdrawn, or made of one that is.

        Raises ``StaleView`` when what is known is older than ``max_age``. It may be called from any thread.
        """
        known = self._known
        if known is None or self._age_of(known) > self.max_age:
            raise self._stale()
        mcp_claim = self.mcp_claim or f"{self.issuer}/claims/mcp"
        try:
            keys = keys_of(claims, issuer=self.issuer, mcp_claim=mcp_claim)
            return known.stream.ends(keys, issued_at=int(claims["iat"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            # Nobody can tell what it derives from.
            return True

    def _age_of(self, known: _Known) -> float:
        return max(self.monotonic() - known.complete_at, self.wall() - known.told_at)

    def _stale(self) -> StaleView:
        return StaleView(Reason.REVOCATION_UNAVAILABLE.sentence, detail=self.failure)

    @property
    def _patience(self) -> float:
        """How many seconds a stream may be silent, or lag, before there is not too little time left."""
        return self.max_age / 2

    def _begin(self) -> Stream:
        """A stream that is asked for now."""
        return Stream(asked_at=self.monotonic(), longest_lag=self._patience, capacity=self.capacity)

    def _take(self, stream: Stream, part: Any) -> None:
        """Take in what a stream tells; raises ``BrokerError`` for what cannot be relied on."""
        complete_at = stream.take(part, now=self.monotonic(), wall=self.wall())
        if complete_at is not None:
            self._known = _Known(stream, complete_at, self.wall())

    def _pause_after(self, failure: BrokerError, *, was_told: bool) -> float:
        """How many seconds to wait before the next attempt, since the last ended so."""
        self.failure = str(failure)
        self._failures = 0 if was_told else self._failures + 1
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE)
        if not failure.is_retryable:
            pause = _PAUSE_WHEN_REFUSED
        # Those who lost the broker together should not come back together.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret depends on it.
