"""The tables of the performance page, from what the last measurement left."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from textwrap import fill
from typing import Any, Final

from bench.results import PARTS, read
from docs.performance_targets import TARGETS, Results
from docs.tables import table

_NOT_YET: Final = "Not measured yet.\n"
_TRIAL: Final = (
    "**These figures are of a short trial on a busy machine and mean nothing. They stand here until the\n"
    "measurement is made.**\n\n"
)
_WIDTH: Final = 110
FACES: Final = {"http": "HTTP", "grpc": "gRPC"}

Result = Mapping[str, Any]


@cache
def result(part: str) -> Result | None:
    """What a part of the measurement left, if it was made."""
    try:
        return read(part)
    except FileNotFoundError:
        return None


def is_trial(found: Result) -> bool:
    """Whether a run was too short to tell anything but that it works."""
    about = found["conditions"]
    return bool(about["is_quick"] or about["rounds"] < 3 or about["seconds"] < 1)


def _page(part: str, make: Callable[[Result], str]) -> Callable[[], str]:
    def made() -> str:
        found = result(part)
        if found is None:
            return _NOT_YET
        return (_TRIAL if is_trial(found) else "") + make(found)

    return made


def conditions_table() -> str:
    """Under what each part was measured."""
    rows = []
    for part in PARTS:
        found = result(part)
        if found is not None:
            about = found["conditions"]
            rows.append(
                (
                    part,
                    about["date"],
                    f"`{about['revision']}`",
                    f"{about['rounds']} of {about['seconds']:g} s",
                    str(about["connections"]),
                    f"{about['load_before']:g}",
                )
            )
    return table(
        ("Part", "Date", "Revision", "Turns", "Connections", "Load before"), rows
    ) + _machines(one for one in map(result, PARTS) if one is not None)


def targets_table() -> str:
    """What was aimed at, what was measured, and which of the two goals that reaches."""
    found: Results = {part: one for part in PARTS if (one := result(part)) is not None}
    rows = (
        (
            target.measure,
            target.written(target.enough),
            target.written(target.good),
            "" if value is None else f"{value:.3g} {target.unit}".strip(),
            "not measured" if value is None else target.verdict(value),
        )
        for target in TARGETS
        for value in [target.value(found)]
    )
    trial = _TRIAL if any(map(is_trial, found.values())) else ""
    return trial + table(("Measure", "Enough", "Good", "Measured", "So"), rows)


def _machines(results: Iterable[Result]) -> str:
    machines = {
        f"{about['cores']} cores ({about['processor']}), {about['memory_gb']} GB, Linux "
        f"{about['kernel']}, CPython {about['python']}, "
        + ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
        for about in (one["conditions"] for one in results)
    }
    return "".join(_paragraph(f"Machine and versions: {one}.") for one in sorted(machines))


def _spread(figures: Mapping[str, float], digits: int = 2) -> str:
    """A median, and the least and the most of the turns."""
    median, least, most = (f"{figures[one]:,.{digits}f}" for one in ("median", "least", "most"))
    return f"{median} ({least}-{most})"


def _core(found: Result) -> str:
    rows = (
        (
            line["name"],
            _spread(line["spread"]["caller_us"], 0),
            _spread(line["spread"]["caller_ratio"]),
            _spread(line["spread"]["process_ratio"]),
        )
        for line in found["lines"]
    )
    heading = ("One exchange", "CPU, us", "Against the floor", "With the threads that write")
    return table(heading, rows) + _durable(found)


def _faces(found: Result) -> str:
    rows = ((FACES[line["face"]], line["kind"], *_costs(line)) for line in found["lines"])
    heading = ("Face", "Request", *_COSTS)
    spent = [line["at_capacity"]["caller_us"]["median"] for line in found["lines"]]
    callers = (
        f"The callers spent {min(spent):.0f} to {max(spent):.0f} us of their core on a request."
    )
    return table(heading, rows) + _paragraph(callers) + _durable(found)


_COSTS: Final = ("CPU, us", "Against the floor", "Requests/s", "p50, ms", "p99, ms")


def _costs(line: Mapping[str, Any]) -> tuple[str, ...]:
    figures = line["at_capacity"]
    return (
        _spread(figures["cpu_us"], 0),
        _spread(figures["ratio"]),
        _spread(figures["per_second"], 0),
        _spread(figures["p50_ms"]),
        _spread(figures["p99_ms"]),
    )


def _durable(found: Result) -> str:
    return _paragraph(f"Each answer has waited for this: {found['durability']}.")


def _paragraph(text: str) -> str:
    return f"\n{fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)}\n"


def _half(found: Result) -> str:
    """Latency below saturation, of the lines where it was measured."""
    rows = (
        (
            FACES[line["face"]] if "face" in line else line["peer"],
            line["kind"],
            _spread(line["at_half"]["rate"], 0),
            _spread(line["at_half"]["p50_ms"]),
            _spread(line["at_half"]["p99_ms"]),
        )
        for line in found["lines"]
        if "at_half" in line
    )
    return table(("Where", "Request", "Requests/s", "p50, ms", "p99, ms"), rows)


def _workers(found: Result) -> str:
    rows = (
        (
            FACES[line["face"]],
            str(line["workers"]),
            _spread(line["at_capacity"]["per_second"], 0),
            _spread(line["at_capacity"]["p99_ms"]),
        )
        for line in found["workers"]
    )
    return table(("Face", "Workers", "Requests/s", "p99, ms"), rows)


def _memory(found: Result) -> str:
    rows = (
        (
            FACES[line["face"]],
            f"{line['worker_idle']['rss_mb']:.0f} / {line['worker_idle']['pss_mb']:.0f}",
            f"{line['worker_after_load']['rss_mb']:.0f} / {line['worker_after_load']['pss_mb']:.0f}",
            f"{line['each_further_worker_pss_mb']:.0f}",
            f"{line['broker_idle_pss_mb']:.0f}",
        )
        for line in found["memory"]
    )
    heading = (
        "Face",
        "Worker, idle: RSS / PSS, MB",
        "After load: RSS / PSS",
        "Each further worker, PSS",
        "All processes, idle, PSS",
    )
    starts = ((line["name"], _spread(line["seconds"])) for line in found["starts"])
    return table(heading, rows) + "\n" + table(("Start with", "Seconds"), starts)


def _peers(found: Result) -> str:
    ours = {
        line["kind"]: line["at_capacity"] for line in found["lines"] if line["peer"] == "broker"
    }
    rows = (
        (line["peer"], line["kind"], *_costs(line), _beside(line, ours)) for line in found["lines"]
    )
    heading = ("Server", "Request", *_COSTS, "CPU / the broker's")
    return table(heading, rows) + _both_of_openbao(found, ours) + "\n" + _facts(found)


def _both_of_openbao(found: Result, ours: Mapping[str, Any]) -> str:
    """An exchange of OpenBao is two requests, so neither line can be compared alone."""
    both = sum(median(line, "ratio") for line in found["lines"] if line["peer"] == "OpenBao")
    exchange = ours["exchange, private_key_jwt"]["ratio"]["median"]
    return _paragraph(
        f"An exchange with OpenBao takes both of its requests: {both:.2f} times the floor together, "
        f"{both / exchange:.2f} times what the broker's exchange with `private_key_jwt` takes."
    )


def _beside(line: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if line["peer"] == "broker" or line["kind"] not in ours:
        return ""
    return f"{median(line, 'ratio') / ours[line['kind']]['ratio']['median']:.2f}"


def _facts(found: Result) -> str:
    memory = found["memory_mb"]
    about = {one["name"]: one for one in found["peers"]}
    rows = (
        (
            f"{name} {about[name]['version']}" if name in about else name,
            about[name]["durability"] if name in about else found["durability"],
            about[name]["differs"] if name in about else "",
            f"{one['idle']} / {one['after_load']}",
        )
        for name, one in memory.items()
    )
    heading = ("Server", "On disk before the answer", "More or less than the broker", "PSS, MB")
    return table(heading, rows) + "\nPSS is that of all its processes, idle and after the load.\n"


def _growth(found: Result) -> str:
    few = median(found["lines"][0], "ratio")
    rows = (
        (
            line["dimension"],
            f"{line['size']:,}",
            _spread(line["at_capacity"]["ratio"]),
            f"{median(line, 'ratio') / few:.2f}",
            f"{line['started_s']:.2f}",
        )
        for line in found["lines"]
    )
    heading = ("Many", "How many", "CPU against the floor", "Against few of each", "Start, s")
    return table(heading, rows) + _durable(found)


def _vault(found: Result) -> str:
    local = {line["face"]: line for line in found["lines"] if line["store"] == "local"}
    rows = (
        (
            FACES[line["face"]],
            line["store"],
            _spread(line["at_capacity"]["per_second"], 0),
            f"{median(line, 'per_second') / median(local[line['face']], 'per_second'):.2f}",
            _spread(line["at_capacity"]["p50_ms"]),
            _spread(line["at_capacity"]["p99_ms"]),
        )
        for line in found["lines"]
    )
    heading = ("Face", "Keys", "Requests/s", "Against local", "p50, ms", "p99, ms")
    return table(heading, rows) + _durable(found)


def _audit(found: Result) -> str:
    lines = found["lines"]
    rows = (
        (
            FACES[line["face"]],
            line["record"],
            _spread(line["at_capacity"]["cpu_us"], 0),
            _spread(line["at_capacity"]["per_second"], 0),
            _spread(line["at_half"]["p50_ms"]),
            _difference(line["against_memory_ms"]),
            _spread(line["at_half"]["p99_ms"]),
        )
        for line in lines
    )
    rate = lines[0]["at_half"]["rate"]["median"]
    heading = ("Face", "Record", "CPU, us", "Requests/s", "p50, ms", "against memory", "p99, ms")
    told = (
        f"CPU and requests/s at capacity; latencies in an open loop of {rate:.0f} requests/s for all. "
        "Against memory: the median of the differences of p50, turn by turn, and their quartiles."
    )
    return table(heading, rows) + _paragraph(told)


def _verification(found: Result) -> str:
    rows = (
        (
            line["hashing"],
            str(line["cores"]),
            f"{about['record_bytes']:,}",
            _spread(line["per_second"], 0),
            _spread(line["cpu_us"]),
        )
        for about in found["verification"]
        for line in about["lines"]
    )
    first = found["verification"][0]
    told = (
        f"{first['records']:,} records each; sealed at first with {first['sealed_per_second']:,} a second. "
        "The long ones are a site with exchanges, the short ones one where everybody is refused."
    )
    heading = ("Hashed", "Cores", "Bytes of each", "Records/s", "CPU of each, us")
    return table(heading, rows) + _paragraph(told)


def _questions(found: Result) -> str:
    about = found["index"]
    rows = (
        (one["name"], f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}") for one in about["questions"]
    )
    told = (
        f"{about['records']:,} records; the index has {about['index_mb']} MB and was built in "
        f"{about['build_s']:.0f} s."
    )
    return table(("Question", "p50, ms", "p99, ms"), rows) + _paragraph(told)


def _difference(found: Mapping[str, float]) -> str:
    if not any(found.values()):
        return ""
    return f"{found['median']:+.2f} ({found['lower']:+.2f} to {found['upper']:+.2f})"


def median(line: Mapping[str, Any], figure: str) -> float:
    """The median of a figure of a line at capacity."""
    return float(line["at_capacity"][figure]["median"])


REGIONS: Final[Mapping[str, Callable[[], str]]] = {
    "bench-conditions": conditions_table,
    "bench-core": _page("core", _core),
    "bench-faces": _page("faces", _faces),
    "bench-half": _page("faces", _half),
    "bench-workers": _page("faces", _workers),
    "bench-memory": _page("faces", _memory),
    "bench-peers": _page("peers", _peers),
    "bench-peers-half": _page("peers", _half),
    "bench-growth": _page("growth", _growth),
    "bench-vault": _page("vault", _vault),
    "bench-audit": _page("audit", _audit),
    "bench-verification": _page("audit", _verification),
    "bench-questions": _page("audit", _questions),
    "bench-targets": targets_table,
}
"""The regions of the page that say what was measured."""
