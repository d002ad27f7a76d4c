"""Signing in Vault, in batches, beside the same with keys in the process: real OpenBao, 32 in flight."""

from contextlib import ExitStack
from typing import Any, Final

from bench.requests import EXCHANGE, FACES, stream
from bench.server import running_broker
from bench.setting import DURABILITY, Shape, new_setting
from bench.slices import Lane, Plan, Race, lines
from tests.e2e.vault import running_vault

_IN_FLIGHT: Final = 32


def measure(plan: Plan) -> dict[str, Any]:
    """The exchange over both faces; brokers, OpenBao and the callers share all cores."""
    with ExitStack() as stack:
        vault = stack.enter_context(running_vault(plan.folder / "vault"))
        lanes = []
        for store, keys in (("local", {}), ("vault-transit", vault.keys())):
            # The broker asks itself for its health now and then, which takes a thread as well.
            shape = Shape(keys=keys, threads=_IN_FLIGHT + 4)
            setting = new_setting(plan.folder / store, shape)
            server = stack.enter_context(running_broker(setting, plan.every_core))
            lanes += [
                Lane(
                    f"{face}, {store}",
                    server,
                    stream(setting, EXCHANGE, face),
                    {"face": face, "store": store},
                    connections=_IN_FLIGHT,
                    cores=plan.every_core,
                )
                for face in FACES
            ]
        at_capacity = Race(plan, lanes).at_capacity()
    return {"durability": DURABILITY, "in_flight": _IN_FLIGHT, "lines": lines(lanes, at_capacity)}
