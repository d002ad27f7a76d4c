"""The plots of the performance page, from what the last measurement left."""

from collections.abc import Mapping
from pathlib import Path

from bench.results import FOLDER
from docs.bars import Bar, chart
from docs.performance_tables import FACES, Result, median, result


def plots() -> Mapping[Path, str]:
    """The plots beside the results, as they should be."""
    makers = {
        "faces": _faces_plot,
        "peers": _peers_plot,
        "growth": _growth_plot,
        "vault": _vault_plot,
    }
    return {
        FOLDER / f"{part}.svg": make(found)
        for part, make in makers.items()
        if (found := result(part)) is not None
    }


def _faces_plot(found: Result) -> str:
    bars = (
        _bar(
            f"{FACES[line['face']]}: {line['kind']}",
            line["at_capacity"]["ratio"],
            line["face"] == "grpc",
        )
        for line in found["lines"]
    )
    axis = "Server CPU of a request / CPU of 2 verifications and 1 signature (dashed)"
    return chart("What a request costs the broker", axis, list(bars), mark=1.0)


def _peers_plot(found: Result) -> str:
    ordered = sorted(found["lines"], key=lambda line: (line["kind"], median(line, "ratio")))
    bars = (
        _bar(
            f"{line['kind']}: {line['peer']}",
            line["at_capacity"]["ratio"],
            line["peer"] != "broker",
        )
        for line in ordered
    )
    axis = "Server CPU of a request / CPU of 2 verifications and 1 signature (dashed)"
    return chart("The same requests to other servers", axis, list(bars), mark=1.0)


def _growth_plot(found: Result) -> str:
    few = median(found["lines"][0], "ratio")
    bars = (
        _bar(
            f"{line['dimension']}: {line['size']:,}",
            {name: value / few for name, value in line["at_capacity"]["ratio"].items()},
            False,
        )
        for line in found["lines"]
    )
    axis = "Server CPU of an exchange / the same with few of each"
    return chart("When much has come together", axis, list(bars), mark=1.0)


def _vault_plot(found: Result) -> str:
    local = {line["face"]: line for line in found["lines"] if line["store"] == "local"}
    bars = (
        _bar(
            f"{FACES[line['face']]}, {line['store']}",
            {
                name: value / median(local[line["face"]], "per_second")
                for name, value in line["at_capacity"]["per_second"].items()
            },
            line["store"] != "local",
        )
        for line in found["lines"]
    )
    axis = "Requests in a second / the same with keys in the process, 32 in flight"
    return chart("Signing in Vault", axis, list(bars), mark=1.0)


def _bar(label: str, figures: Mapping[str, float], is_second: bool) -> Bar:  # noqa: FBT001 - a colour.
    return Bar(label, figures["median"], figures["least"], figures["most"], int(is_second))
