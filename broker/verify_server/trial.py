"""A trial: every case is played against one server, and each comes to a verdict."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from broker.verify_server.canary import running_canary
from broker.verify_server.cases import Case, Failed, NotShown, Result, Stage, Told, Verdict
from broker.verify_server.catalogue import CASES, CASES_BY_NAME, GOOD_TOKEN
from broker.verify_server.issuer import Issuer
from broker.verify_server.minting import Mint
from broker.verify_server.options import MCP
from broker.verify_server.server import NoAnswer, Server

_NOTHING_SHOWN = "nothing would be shown: the server does not take a good token"
_LURED = "the server asked the address that the token names, later"


@dataclass(eq=False)
class Trial:
    """Plays cases; the good token is tried once, before any case that needs it."""

    stage: Stage
    _control: Result | None = field(default=None, init=False)

    def play_all(self) -> Iterator[Result]:
        """All verdicts in their order; a server that falls for the canary late is found out by the last."""
        results = [self.play(case) for case in CASES]
        for result in results:
            is_lured = result.case.name in self.stage.canary.lured
            if result.verdict is Verdict.PASS and is_lured:
                yield replace(result, verdict=Verdict.FAIL, happened=_LURED)
            else:
                yield result

    def play(self, case: Case) -> Result:
        """The verdict on one case."""
        if case.name in self.stage.told.left_out:
            return Result(case, Verdict.SKIP, "left out")
        if case is GOOD_TOKEN:
            return self._good_token()
        if self._good_token().verdict is not Verdict.PASS and case.needs_good_token:
            return Result(case, Verdict.SKIP, _NOTHING_SHOWN)
        return self._judged(case)

    def _good_token(self) -> Result:
        if self._control is None:
            self._control = self._judged(GOOD_TOKEN)
        return self._control

    def _judged(self, case: Case) -> Result:
        bad = Verdict.WARN if case.is_advice else Verdict.FAIL
        try:
            return Result(case, Verdict.PASS, case.play(self.stage))
        except (Failed, NoAnswer) as failed:
            return Result(case, bad, str(failed))
        except NotShown as reason:
            return Result(case, Verdict.SKIP, str(reason))


@contextmanager
def trial_of(
    told: Told, issuer: Issuer, *, method: str = MCP, ca_file: str | None = None
) -> Iterator[Trial]:
    """
    A trial of a server that trusts the issuer, until the end of the block.

    Raises ``ValueError`` for a server that no token may be for.
    """
    names = frozenset(CASES_BY_NAME)
    mint = Mint(issuer.url, told.resource, issuer.key, scopes=told.scopes, extra=told.extra)
    with ExitStack() as ending:
        canary = ending.enter_context(running_canary(names, algorithm=issuer.key.algorithm))
        server = ending.enter_context(Server(told.url, method=method, ca_file=ca_file))
        yield Trial(Stage(told, server, issuer, mint, canary))
