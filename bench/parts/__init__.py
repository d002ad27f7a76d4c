"""The parts of the measurement: each takes a plan and returns what becomes its JSON file."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.parts import audit, core, faces, growth, peers, vault
from bench.slices import Plan

PARTS: Final[Mapping[str, Callable[[Plan], dict[str, Any]]]] = {
    "core": core.measure,
    "faces": faces.measure,
    "peers": peers.measure,
    "growth": growth.measure,
    "vault": vault.measure,
    "audit": audit.measure,
}
