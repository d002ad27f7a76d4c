"""The targets of performance, and where in the results each of them is found."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Line = Mapping[str, Any]
Results = Mapping[str, Mapping[str, Any]]

_EXCHANGE: Final = "exchange, private_key_jwt"
_BY_SECRET: Final = "exchange, client_secret"


@dataclass(frozen=True, slots=True)
class Target:
    """
    A goal in two steps: ``enough``, and ``good``.

    ``find`` reads the figure out of the results, and raises ``LookupError`` while it is not there.
    ``is_floor``: the figure should be at least so much, otherwise at most.
    """

    measure: str
    enough: float
    good: float
    find: Callable[[Results], float]
    is_floor: bool = False
    unit: str = ""

    def value(self, results: Results) -> float | None:
        """The figure, or ``None`` where nothing was measured."""
        try:
            return self.find(results)
        except LookupError:
            return None

    def verdict(self, value: float) -> str:
        """Which of the goals a figure reaches."""
        if self._reaches(value, self.good):
            return "good"
        return "enough" if self._reaches(value, self.enough) else "**missed**"

    def written(self, goal: float) -> str:
        """A goal as the page says it."""
        return f"at {'least' if self.is_floor else 'most'} {goal:g} {self.unit}".strip()

    def _reaches(self, value: float, goal: float) -> bool:
        return value >= goal if self.is_floor else value <= goal


def _one(lines: Iterable[Line], **about: Any) -> Line:
    for line in lines:
        if all(line.get(name) == wanted for name, wanted in about.items()):
            return line
    raise LookupError(str(about))


def _figure(line: Line, figure: str, at: str = "at_capacity") -> float:
    return float(line[at][figure]["median"])


def _core(name: str) -> Callable[[Results], float]:
    def find(results: Results) -> float:
        line = _one(results["core"]["lines"], name=name)
        return float(line["spread"]["process_ratio"]["median"])

    return find


def _face(face: str, kind: str) -> Callable[[Results], float]:
    return lambda results: _figure(_one(results["faces"]["lines"], face=face, kind=kind), "ratio")


def _refused(face: str) -> Callable[[Results], float]:
    return lambda results: (
        _face(face, f"{_EXCHANGE}, refused")(results) / _face(face, _EXCHANGE)(results)
    )


def _at_half(face: str) -> Callable[[Results], float]:
    return lambda results: _figure(
        _one(results["faces"]["lines"], face=face, kind=_EXCHANGE), "p99_ms", "at_half"
    )


def _beside(peer: str, kind: str) -> Callable[[Results], float]:
    def find(results: Results) -> float:
        lines = results["peers"]["lines"]
        theirs, ours = (_one(lines, peer=one, kind=kind) for one in (peer, "broker"))
        return _figure(theirs, "ratio") / _figure(ours, "ratio")

    return find


def _workers(face: str) -> Callable[[Results], float]:
    def find(results: Results) -> float:
        lines = results["faces"]["workers"]
        two, one = (_one(lines, face=face, workers=count) for count in (2, 1))
        return _figure(two, "per_second") / _figure(one, "per_second")

    return find


def _vault(face: str) -> Callable[[Results], float]:
    def find(results: Results) -> float:
        lines = results["vault"]["lines"]
        there, here = (_one(lines, face=face, store=one) for one in ("vault-transit", "local"))
        return _figure(there, "per_second") / _figure(here, "per_second")

    return find


def _idle(face: str) -> Callable[[Results], float]:
    return lambda results: float(
        _one(results["faces"]["memory"], face=face)["worker_idle"]["rss_mb"]
    )


def _further(face: str) -> Callable[[Results], float]:
    return lambda results: float(
        _one(results["faces"]["memory"], face=face)["each_further_worker_pss_mb"]
    )


def _grown(dimension: str, size: int) -> Callable[[Results], float]:
    """So many of a dimension against few."""

    def find(results: Results) -> float:
        lines = results["growth"]["lines"]
        many = _one(lines, dimension=dimension, size=size)
        few = _one(lines, dimension=dimension, size=1) if dimension == "actors" else lines[0]
        return _figure(many, "ratio") / _figure(few, "ratio")

    return find


def _start(name: str) -> Callable[[Results], float]:
    return lambda results: float(_one(results["faces"]["starts"], name=name)["seconds"]["median"])


def _behind_memory(face: str) -> Callable[[Results], float]:
    """How much later half of the exchanges are answered, with a sealed record on disk, in ms."""

    def find(results: Results) -> float:
        line = _one(results["audit"]["lines"], face=face, record="on disk and sealed")
        return float(line["against_memory_ms"]["median"])

    return find


def _verified(place: int) -> Callable[[Results], float]:
    """How many records are verified in a second: the long ones come first, then the short ones."""

    def find(results: Results) -> float:
        lines = results["audit"]["verification"][place]["lines"]
        return max(float(line["per_second"]["median"]) for line in lines)

    return find


def _slowest_answer(results: Results) -> float:
    return max(float(one["p50_ms"]) for one in results["audit"]["index"]["questions"])


TARGETS: Final = (
    Target("Core, decision remembered, against the floor", 1.7, 1.4, _core("decision remembered")),
    Target("Core, decision evaluated, against the floor", 3.2, 2.5, _core("decision evaluated")),
    Target("Exchange by key over gRPC, against the floor", 3.5, 3.0, _face("grpc", _EXCHANGE)),
    Target("Exchange by key over HTTP, against the floor", 2.5, 1.9, _face("http", _EXCHANGE)),
    Target(
        "Exchange by secret over HTTP, token seen before, against the floor",
        1.3,
        0.9,
        _face("http", f"{_BY_SECRET}, token seen before"),
    ),
    Target(
        "oidc-provider's CPU / the broker's, exchange by key",
        1.5,
        2.0,
        _beside("oidc-provider", _EXCHANGE),
        is_floor=True,
    ),
    Target(
        "@jmondi/oauth2-server's CPU / the broker's, exchange by secret",
        0.9,
        1.2,
        _beside("@jmondi/oauth2-server", _BY_SECRET),
        is_floor=True,
    ),
    Target("p99 at half of capacity, HTTP", 8, 5, _at_half("http"), unit="ms"),
    Target("p99 at half of capacity, gRPC", 10, 6, _at_half("grpc"), unit="ms"),
    Target("Two workers / one, HTTP", 1.4, 1.6, _workers("http"), is_floor=True),
    Target("Two workers / one, gRPC", 1.4, 1.6, _workers("grpc"), is_floor=True),
    Target("Signing in Vault / local keys, HTTP", 0.7, 0.9, _vault("http"), is_floor=True),
    Target("Signing in Vault / local keys, gRPC", 0.7, 0.9, _vault("grpc"), is_floor=True),
    Target("HTTP worker, idle", 100, 80, _idle("http"), unit="MB"),
    Target("gRPC worker, idle", 100, 80, _idle("grpc"), unit="MB"),
    Target("Each further HTTP worker", 40, 25, _further("http"), unit="MB"),
    Target("Each further gRPC worker", 40, 25, _further("grpc"), unit="MB"),
    Target("10,000 clients / 10, CPU", 1.10, 1.05, _grown("clients", 10_000)),
    Target("5,000 policies / 10, CPU", 1.10, 1.05, _grown("policies", 5_000)),
    Target("5 actors / 1, CPU", 1.10, 1.05, _grown("actors", 5)),
    Target("1,000,000 audit records / few, CPU", 1.10, 1.05, _grown("audit records", 1_000_000)),
    Target("1,000,000 spent ids / few, CPU", 1.10, 1.05, _grown("spent ids", 1_000_000)),
    Target("Start to first exchange, empty", 1.0, 0.6, _start("empty"), unit="s"),
    Target(
        "The same with 10,000 clients and 1,000 policies",
        3.0,
        1.5,
        _start("10,000 clients and 1,000 policies"),
        unit="s",
    ),
    Target(
        "Evidence on disk and sealed, later than in memory, HTTP",
        1.0,
        0.5,
        _behind_memory("http"),
        unit="ms",
    ),
    Target(
        "Evidence on disk and sealed, later than in memory, gRPC",
        1.0,
        0.5,
        _behind_memory("grpc"),
        unit="ms",
    ),
    Target(
        "Verification, a million records of 1.2 kB",
        500_000,
        1_000_000,
        _verified(0),
        is_floor=True,
        unit="records/s",
    ),
    Target(
        "Verification, a million records of 0.65 kB",
        500_000,
        1_000_000,
        _verified(1),
        is_floor=True,
        unit="records/s",
    ),
    Target("Slowest answer over a million records, p50", 100, 50, _slowest_answer, unit="ms"),
    Target("Refused (wrong signature) / granted, HTTP", 1.0, 0.6, _refused("http")),
    Target("Refused (wrong signature) / granted, gRPC", 1.0, 0.6, _refused("grpc")),
)
"""All of them, in the order of the page."""
