"""A server that no honest verifier asks anything: whoever does has followed what a token told it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from broker.verify_server.keys import Key, fresh_key
from broker.verify_server.loopback import serving


@dataclass(eq=False)
class Canary:
    """Publishes ``key`` below every path, as an attacker would, and remembers who was lured by which case."""

    key: Key
    origin: str = ""
    cases: frozenset[str] = frozenset()
    lured: set[str] = field(default_factory=set)

    def place(self, case: str) -> str:
        """An address that stands for a case."""
        return f"{self.origin}/{case}"

    def answer(self, target: str, _body: bytes) -> Any:
        """Keys, or metadata that leads to them."""
        named = [part for part in target.split("?", maxsplit=1)[0].split("/") if part]
        # The well-known name of metadata may stand before the path or after it.
        case = next((part for part in named if part in self.cases), "")
        self.lured.add(case)
        if ".well-known" in named and "jwks.json" not in named:
            return {"issuer": self.place(case), "jwks_uri": f"{self.place(case)}/jwks"}
        return {"keys": [self.key.public_jwk]}


@contextmanager
def running_canary(cases: frozenset[str], *, algorithm: str) -> Iterator[Canary]:
    """A canary until the end of the block; ``cases`` are the names that it knows."""
    canary = Canary(fresh_key(algorithm), cases=cases)
    with serving(canary.answer) as origin:
        canary.origin = origin
        yield canary
