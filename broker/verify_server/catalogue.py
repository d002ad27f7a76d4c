"""All cases, in the order in which they are played: a good token comes first and last."""

from typing import Final

from broker.verify_server.cases import Case, Failed, Stage
from broker.verify_server.challenge_cases import CHALLENGE_CASES
from broker.verify_server.claim_cases import CLAIM_CASES
from broker.verify_server.proof_cases import PROOF_CASES
from broker.verify_server.signature_cases import SIGNATURE_CASES
from broker.verify_server.use_cases import USE_CASES


def _play_good_token(stage: Stage) -> str:
    """Open the server for all others; whoever plays them does this before."""
    answer = stage.server.open(stage.mint.token())
    if not answer.is_success:
        error = (answer.challenge or {}).get("error", "")
        raise Failed(" ".join(f"{answer.status} {error}".split()))
    return str(answer.status)


def _play_good_token_again(stage: Stage) -> str:
    token = stage.mint.token()
    for _ in range(2):
        answer = stage.server.ask(token)
        if not answer.is_success:
            raise Failed(f"{answer.status} after the other cases")
    return str(answer.status)


GOOD_TOKEN: Final = Case(
    "good-token",
    "a good token",
    "accepted",
    mend="Trust the issuer that broker-verify names, for tokens whose aud is the server's URL.",
    play=_play_good_token,
    needs_good_token=False,
)

_GOOD_TOKEN_AGAIN: Final = Case(
    "good-token-again",
    "a good token, twice",
    "accepted",
    mend="Do not let bad tokens spoil the server for good ones.",
    play=_play_good_token_again,
)

CASES: Final = (
    GOOD_TOKEN,
    *CHALLENGE_CASES,
    *CLAIM_CASES,
    *SIGNATURE_CASES,
    *USE_CASES,
    *PROOF_CASES,
    _GOOD_TOKEN_AGAIN,
)

CASES_BY_NAME: Final = {case.name: case for case in CASES}
