"""The core in one process, with no face before it: what an exchange costs, decided from memory and anew."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from bench.floor import floor_microseconds, on_cores
from bench.progress import tell
from bench.requests import EXCHANGE, Kind, form, subject_token
from bench.setting import CLIENT, DURABILITY, SECRET, Setting, Shape, new_setting
from bench.slices import Plan, Spread
from broker.app import Process
from broker.config import load_settings
from broker.in_force import Configuration
from broker.metrics import Metrics, prepare_directory
from broker.model import ClientCredential, RequestContext, TokenRequest, new_request_id

_CALLS: Final = 1500
_SECRET: Final = Kind("exchange", "client_secret", "seen")


def measure(plan: Plan) -> dict[str, Any]:
    """Three lines: decided from memory, decided anew, and what a remembered token and a secret leave."""
    with on_cores(plan.server):
        remembering = _Core(new_setting(plan.folder / "remembering"))
        deciding = _Core(new_setting(plan.folder / "deciding", Shape(is_deciding_anew=True)))
        try:
            lines = _rounds(plan, remembering, deciding)
        finally:
            remembering.close()
            deciding.close()
    return {"durability": DURABILITY, "calls": _calls(plan), "lines": lines}


class _Core:
    """The endpoints of a broker, called without a face."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        settings = load_settings(setting.file, {})
        metrics = settings.state.directory / "metrics"
        metrics.mkdir(mode=0o700, parents=True)
        settings.state.directory.chmod(0o700)
        prepare_directory(metrics)
        self._process = Process(
            Configuration.load(settings), writer="core", metrics=Metrics(metrics, "core")
        )

    def issue(self, request: TokenRequest) -> None:
        """Issue a token, or raise."""
        context = RequestContext("http", new_request_id())
        self._process.endpoints.token.issue(context, lambda: request)

    def close(self) -> None:
        """End its threads."""
        self._process.close()


def _rounds(plan: Plan, remembering: _Core, deciding: _Core) -> list[dict[str, Any]]:
    lines = {
        "decision remembered": (remembering, EXCHANGE),
        "decision evaluated": (deciding, EXCHANGE),
        "decision and token remembered, secret": (remembering, _SECRET),
    }
    found: dict[str, list[_Figures]] = {name: [] for name in lines}
    for number in range(plan.rounds + 1):
        for name, (core, kind) in lines.items():
            tell(f"core, round {number} of {plan.rounds}: {name}")
            figures = _turn(plan, core, kind)
            if number:  # The first one warms up.
                found[name].append(figures)
    return [{"name": name, "spread": _spread(figures)} for name, figures in found.items()]


@dataclass(frozen=True, slots=True)
class _Figures:
    """CPU of one exchange in microseconds: of the calling thread, and with the threads that write."""

    caller_us: float
    process_us: float
    floor_us: float
    caller_ratio: float
    process_ratio: float


def _turn(plan: Plan, core: _Core, kind: Kind) -> _Figures:
    calls = _calls(plan)
    requests = [_request(core.setting, kind, token) for token in _tokens(core.setting, kind, calls)]
    before = floor_microseconds(plan.floor_milliseconds)
    caller, process = time.thread_time(), time.process_time()
    for request in requests:
        core.issue(request)
    caller, process = time.thread_time() - caller, time.process_time() - process
    floor = (before + floor_microseconds(plan.floor_milliseconds)) / 2
    caller_us, process_us = caller / calls * 1e6, process / calls * 1e6
    return _Figures(caller_us, process_us, floor, caller_us / floor, process_us / floor)


def _tokens(setting: Setting, kind: Kind, calls: int) -> Iterator[str]:
    if kind.subject == "fresh":
        return (subject_token(setting) for _ in range(calls))
    return itertools.repeat(subject_token(setting), calls)


def _request(setting: Setting, kind: Kind, token: str) -> TokenRequest:
    parameters = form(setting, kind, token)
    secret = (CLIENT, SECRET) if kind.method == "client_secret" else (None, None)
    return TokenRequest(
        grant_type=parameters["grant_type"],
        credential=ClientCredential(
            client_id=secret[0],
            client_secret=secret[1],
            client_assertion=parameters.get("client_assertion"),
            client_assertion_type=parameters.get("client_assertion_type"),
        ),
        subject_token=parameters["subject_token"],
        subject_token_type=parameters["subject_token_type"],
        resources=(parameters["resource"],),
        scopes=(parameters["scope"],),
        present=frozenset(parameters),
    )


def _calls(plan: Plan) -> int:
    return 20 if plan.is_quick else _CALLS


def _spread(figures: list[_Figures]) -> dict[str, dict[str, float]]:
    return {
        one.name: asdict(Spread.of(getattr(each, one.name) for each in figures))
        for one in fields(_Figures)
    }
