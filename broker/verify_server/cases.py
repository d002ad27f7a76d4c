"""What a case is: something that is sent, what must happen then, and how to mend it when it does not."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any

from broker.verify_server.canary import Canary
from broker.verify_server.issuer import Issuer
from broker.verify_server.minting import Mint
from broker.verify_server.server import Server


class Failed(Exception):
    """What happened is not what must happen; the sentence says what did."""


class NotShown(Exception):
    """The case does not apply here; the sentence says why."""


class Verdict(StrEnum):
    """What came of a case; ``WARN`` is for what a specification only recommends."""

    PASS = "PASS"
    FAIL = "FAIL"
    WARN = "WARN"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Told:
    """
    What is told about the server under test.

    ``audience`` is what its tokens are for, ``scopes`` what a good one has, ``extra`` the claims
    that it wants besides the usual ones. ``longest_chain`` is how many actors it takes;
    ``introspects`` says that it asks the issuer about every token. With ``is_patient`` a token is waited
    for until it has expired.
    """

    url: str
    _: KW_ONLY
    audience: str = ""
    scopes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    longest_chain: int | None = None
    introspects: bool = False
    is_patient: bool = False
    left_out: frozenset[str] = frozenset()

    @property
    def resource(self) -> str:
        """What tokens for the server are for."""
        return self.audience or self.url


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a case has in its hands."""

    told: Told
    server: Server
    issuer: Issuer
    mint: Mint
    canary: Canary


@dataclass(frozen=True, slots=True)
class Case:
    """
    Something to send; ``play`` does so and says what happened.

    ``play`` raises ``Failed``, ``NotShown``, or ``NoAnswer``. A case with ``needs_good_token`` shows
    nothing about a server that does not take a good token. ``is_advice`` is for what is recommended only.
    """

    name: str
    sent: str
    must: str
    _: KW_ONLY
    mend: str
    play: Callable[[Stage], str]
    needs_good_token: bool = True
    is_advice: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case, and what happened."""

    case: Case
    verdict: Verdict
    happened: str
