"""Both faces of a running broker: what requests cost, how long they take, memory and starts."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Final

from bench.progress import tell
from bench.requests import EXCHANGE, FACES, Face, Kind, stream
from bench.server import Server, memory_of, running_broker, tree
from bench.setting import DURABILITY, Setting, Shape, new_setting
from bench.slices import Lane, Plan, Race, Spread, lines

_KINDS: Final = (
    EXCHANGE,
    Kind("exchange", "private_key_jwt", "seen"),
    Kind("exchange", "client_secret"),
    Kind("exchange", "client_secret", "seen"),
    Kind("client_credentials", "private_key_jwt", "none"),
    Kind("client_credentials", "client_secret", "none"),
    Kind("exchange", "private_key_jwt", "forged"),
)
_LARGE: Final = Shape(clients=10_000, policies=1_000)
_STARTS: Final = 5


def measure(plan: Plan) -> dict[str, Any]:
    """All of it."""
    return {
        "durability": DURABILITY,
        "lines": _costs(plan),
        "workers": _two_workers(plan),
        "memory": [_memory(plan, face) for face in FACES],
        "starts": _starts(plan),
    }


def _costs(plan: Plan) -> list[dict[str, Any]]:
    """What each kind of request costs, and the latency of the exchange at half of its capacity."""
    setting = new_setting(plan.folder / "costs")
    with running_broker(setting, plan.server) as server:
        kinds = _KINDS[:1] if plan.is_quick else _KINDS
        lanes = [_lane(server, setting, kind, face) for kind in kinds for face in FACES]
        race = Race(plan, lanes)
        return lines(lanes, race.at_capacity(), race.at_half(lanes[: len(FACES)]))


def _lane(server: Server, setting: Setting, kind: Kind, face: Face, **more: Any) -> Lane:
    about = {"face": face, "kind": kind.name}
    return Lane(f"{face}: {kind.name}", server, stream(setting, kind, face), about, **more)


def _two_workers(plan: Plan) -> list[dict[str, Any]]:
    """The exchange with one worker and with two, which share all cores with their callers."""
    with ExitStack() as stack:
        lanes = []
        for workers in (1, 2):
            setting = new_setting(plan.folder / f"workers-{workers}", Shape(workers=workers))
            server = stack.enter_context(running_broker(setting, plan.every_core))
            lanes += [
                Lane(
                    f"{face}, workers {workers}",
                    server,
                    stream(setting, EXCHANGE, face),
                    {"face": face, "workers": workers},
                    connections=2 * plan.connections,
                    cores=plan.every_core,
                )
                for face in FACES
            ]
        return lines(lanes, Race(plan, lanes).at_capacity())


def _memory(plan: Plan, face: Face) -> dict[str, Any]:
    """Of a broker with one face: its worker, idle and after load, and what each further worker adds."""
    idle: dict[int, float] = {}
    for workers in (1, 3):
        setting = new_setting(
            plan.folder / f"memory-{face}-{workers}", Shape(workers=workers, faces=(face,))
        )
        with running_broker(setting, plan.server) as server:
            idle[workers] = server.memory().pss_mb
            if workers == 1:
                # The supervisor comes first, then the workers, then the process that speaks for them.
                worker = tree(server.processes()[1])
                before = memory_of(worker)
                lane = _lane(server, setting, EXCHANGE, face)
                Race(plan, [lane]).at_capacity()
                after = memory_of(worker)
    return {
        "face": face,
        "worker_idle": asdict(before),
        "worker_after_load": asdict(after),
        "broker_idle_pss_mb": idle[1],
        "each_further_worker_pss_mb": (idle[3] - idle[1]) / 2,
    }


def _starts(plan: Plan) -> list[dict[str, Any]]:
    """From the start of the command until the first exchange is answered."""
    shapes = {"empty": Shape(), "10,000 clients and 1,000 policies": _LARGE}
    if plan.is_quick:
        shapes = {"empty": Shape()}
    found: dict[str, list[float]] = {name: [] for name in shapes}
    for number in range(1 if plan.is_quick else _STARTS):
        for name, shape in shapes.items():
            tell(f"start {number + 1}: {name}")
            setting = new_setting(plan.folder / f"start-{number}-{shape.clients}", shape)
            found[name].append(start_seconds(plan, setting))
    return [{"name": name, "seconds": asdict(Spread.of(each))} for name, each in found.items()]


def start_seconds(plan: Plan, setting: Setting) -> float:
    """How long a broker takes from its command to its first answer over HTTP."""
    request = stream(setting, EXCHANGE, "http")
    with running_broker(setting, plan.every_core, first=request) as server:
        return server.started
