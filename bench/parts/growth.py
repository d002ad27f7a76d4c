"""What an exchange costs when much has come together: clients, policies, actors, records, spent ids."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from bench.progress import tell
from bench.requests import EXCHANGE, Kind, stream
from bench.server import grants, running_broker
from bench.setting import CLIENT, DURABILITY, Setting, Shape, new_setting
from bench.slices import Lane, Plan, Race, lines
from broker.audit.disk import DiskChain
from broker.audit.record import Record
from broker.audit.segments import segment_name
from broker.model import OneTimeId
from broker.state.entries import spent_key
from broker.state.sqlite import SqliteState

_WRITER: Final = "http-0"
_BATCH: Final = 5_000
_HOUR: Final = 3_600
_FEW: Final = 10
_DEPTHS: Final = (1, 3, 5)

_Sizes = Mapping[str, tuple[int, ...]]
_SIZES: Final[_Sizes] = {
    "clients": (1_000, 10_000),
    "policies": (500, 5_000),
    "audit records": (1_000_000,),
    "spent ids": (1_000_000,),
}
_QUICK_SIZES: Final[_Sizes] = {
    "clients": (20,),
    "policies": (20,),
    "audit records": (3_000,),
    "spent ids": (3_000,),
}


def measure(plan: Plan) -> dict[str, Any]:
    """A line for each size, all in one race, with the seconds that each broker took to start."""
    with ExitStack() as stack:
        lanes: list[Lane] = []
        for dimension, size, setting in _settings(plan):
            tell(f"starting with {size} {dimension}")
            server = stack.enter_context(running_broker(setting, plan.server))
            about = {"dimension": dimension, "size": size, "started_s": round(server.started, 3)}
            request = stream(setting, EXCHANGE, "http")
            lanes.append(Lane(f"{dimension}: {size}", server, request, about))
            if dimension == "few of each":
                lanes += _depths(lanes[0], setting)
        at_capacity = Race(plan, lanes).at_capacity()
    return {"durability": DURABILITY, "face": "http", "lines": lines(lanes, at_capacity)}


def _depths(few: Lane, setting: Setting) -> list[Lane]:
    """The same broker, asked for tokens with longer chains of actors."""
    return [
        Lane(
            f"actors: {depth}",
            few.server,
            stream(setting, Kind("exchange", "private_key_jwt", depth=depth), "http"),
            {**few.about, "dimension": "actors", "size": depth},
        )
        for depth in _DEPTHS
    ]


def _settings(plan: Plan) -> Iterator[tuple[str, int, Setting]]:
    """What to compare; the first has few of each, and the others many of one."""
    yield "few of each", _FEW, new_setting(plan.folder / "few", Shape(_FEW, _FEW))
    sizes = _QUICK_SIZES if plan.is_quick else _SIZES
    for dimension, size in ((name, one) for name, listed in sizes.items() for one in listed):
        shape = Shape(
            clients=size if dimension == "clients" else _FEW,
            policies=size if dimension == "policies" else _FEW,
        )
        setting = new_setting(plan.folder / f"{dimension.replace(' ', '-')}-{size}", shape)
        if dimension == "audit records":
            _write_records(plan, setting, size)
        elif dimension == "spent ids":
            _spend(setting, size)
        yield dimension, size, setting


def _write_records(plan: Plan, setting: Setting, count: int) -> None:
    """Continue the worker's chain with so many records like its own first one."""
    with running_broker(setting, plan.every_core):
        assert grants(stream(setting, EXCHANGE, "http"))
    directory = setting.audit_directory
    written = (directory / segment_name(_WRITER, 1)).read_bytes().splitlines()
    (sample,) = (line for line in written if b'"token.issue"' in line)
    record = msgspec.json.decode(sample, type=Record)
    chain = DiskChain(directory, writer=_WRITER, now=time.time)
    for begun in range(0, count, _BATCH):
        tell(f"writing audit records: {begun} of {count}")
        if not chain.is_open:
            chain.open("rotation")
        numbers = range(begun, min(begun + _BATCH, count))
        chain.append([msgspec.structs.replace(record, event_id=f"r-{one}") for one in numbers])
    chain.close()


def _spend(setting: Setting, count: int) -> None:
    """Spend so many ids, none of which expires during the run."""
    state = SqliteState(setting.state_file, now=lambda: int(time.time()), busy_timeout=10)
    until = int(time.time()) + _HOUR
    ids = [OneTimeId("client_assertion", CLIENT, f"spent-{one}", until) for one in range(count)]
    # In the order of the table, so that its pages are written once and not over and over.
    ids.sort(key=spent_key)
    for begun in range(0, count, _BATCH):
        tell(f"spending ids: {begun} of {count}")
        assert state.spend(ids[begun : begun + _BATCH]) is None
    state.close()
