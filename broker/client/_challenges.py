"""What a resource misses in a token, as its challenge says (RFC 6750 3.1, RFC 9110 11.6.1)."""

import re
from collections.abc import Sequence
from typing import Final

_LONGEST: Final = 8192
_MOST_SCOPES: Final = 64

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A name alone begins the challenge of a scheme; one with a value is a parameter of the last begun.
_PART: Final = re.compile(
    rf'(?P<name>{_NAME})(?P<value>\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+)))?'
)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def scopes_missing(headers: Sequence[str]) -> frozenset[str]:
    """The scopes that a Bearer challenge asks for because they are missing; none if it does not."""
    found: set[str] = set()
    for parameters in challenges(headers, "Bearer"):
        if parameters.get("error") == "insufficient_scope":
            found.update(parameters.get("scope", "").split(" "))
    named = {scope for scope in found if _SCOPE.fullmatch(scope)}
    return frozenset(named) if len(named) <= _MOST_SCOPES else frozenset()


def challenges(headers: Sequence[str], scheme: str) -> list[dict[str, str]]:
    """The parameters of every challenge of a scheme, by name in lower case; the first of a name counts."""
    header = ", ".join(headers)[:_LONGEST]
    found: list[dict[str, str]] = []
    parameters: dict[str, str] = {}
    for part in _PART.finditer(header):
        if part["value"] is None:
            # What another scheme says goes to a dictionary that nobody reads.
            parameters = {}
            if part["name"].lower() == scheme.lower():
                found.append(parameters)
        else:
            quoted = part["quoted"]
            text = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(part["name"].lower(), text)
    return found
