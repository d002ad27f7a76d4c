"""Cases that send a bad token, which must be refused."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from broker.verify_server.cases import Case, Failed, Stage
from broker.verify_server.server import AS_BEARER, Answer, Presentation

Shot = tuple[str, str]
"""A token, after the words that tell it from the others of its case."""

Forge = Callable[[Stage], Iterable[Shot]]
"""Makes the tokens of a case; raises ``NotShown`` where there can be none."""

_MUST = "401"
_MALFORMED = frozenset({400})


def refused(
    name: str,
    sent: str,
    forge: Forge,
    *,
    mend: str,
    presentation: Presentation = AS_BEARER,
    is_malformed: bool = False,
) -> Case:
    """
    A case of tokens all of which must be refused.

    The canary must not hear of it. What ``is_malformed`` may be answered by 400 as well (RFC 6750 3.1).
    """
    also = _MALFORMED if is_malformed else frozenset[int]()

    def play(stage: Stage) -> str:
        statuses = set()
        for label, token in forge(stage):
            answer = stage.server.ask(token, presentation)
            if name in stage.canary.lured:
                raise Failed(f"the server asked the address that the token names ({label})")
            check_refused(answer, label, also=also)
            statuses.add(str(answer.status))
        return ", ".join(sorted(statuses))

    must = f"{_MUST} or 400" if is_malformed else _MUST
    return Case(name, sent, must, mend=mend, play=play)


def advised(case: Case) -> Case:
    """The same case where no specification demands it."""
    return replace(case, is_advice=True)


def check_refused(answer: Answer, label: str, *, also: frozenset[int] = frozenset()) -> None:
    """Raise ``Failed`` unless an answer sends its client for another token (RFC 6750 3.1)."""
    if answer.is_success:
        raise Failed(f"accepted with {answer.status} ({label})")
    if answer.status not in {401, *also}:
        raise Failed(f"{answer.status} ({label})")
