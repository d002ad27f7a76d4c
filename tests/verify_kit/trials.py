"""Trials of servers, and what came of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from broker.verify_server.cases import Result, Told, Verdict
from broker.verify_server.issuer import Issuer, pretend_issuer
from broker.verify_server.trial import trial_of
from tests.verify_kit.servers import NO_FAULT, SCOPE, Fault, Plain, serving_plainly

Serving = Callable[[Issuer], AbstractContextManager[str]]


def results_of(serving: Serving, /, *, algorithm: str = "ES256", **told: Any) -> list[Result]:
    """All verdicts on a server that is started for an issuer; it is told to need the usual scope."""
    settings: dict[str, Any] = {"scopes": (SCOPE,), **told}
    with (
        pretend_issuer(algorithm=algorithm) as issuer,
        serving(issuer) as url,
        trial_of(Told(url, **settings), issuer) as trial,
    ):
        return list(trial.play_all())


def plainly(fault: Fault = NO_FAULT) -> Serving:
    """How to serve a plain server with a fault, or without."""
    return lambda issuer: serving_plainly(lambda url: Plain(issuer.url, url, fault))


def named(results: list[Result], verdict: Verdict) -> set[str]:
    """The cases with this verdict."""
    return {result.case.name for result in results if result.verdict is verdict}


def happened(results: list[Result]) -> Mapping[str, str]:
    """What happened, by case."""
    return {result.case.name: result.happened for result in results}
