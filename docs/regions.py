"""The parts of a page that are generated, between two comments that a reader does not see."""

import re
from collections.abc import Callable, Mapping

_REGION = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of generated -->)",
    re.DOTALL,
)


def names_in(page: str) -> list[str]:
    """The names of the regions of a page, in their order."""
    return [found["name"] for found in _REGION.finditer(page)]


def fill(page: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """The page with each of its regions made anew; raises ``KeyError`` for one that nobody makes."""

    def made(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{makers[found['name']]()}\n{found['end']}"

    return _REGION.sub(made, page)
