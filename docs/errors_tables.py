"""The tables of everything that the broker answers instead of a token."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from broker import errors
from broker.errors import OAuthError, Reason
from broker.rpc import status
from broker.web import requests
from docs.tables import table

DATA = Path(__file__).parent / "data" / "remedies.toml"
BY_SLOT = "slot"
"""Says that the place in which a token was presented chooses the code."""
INACTIVE = "inactive"
"""Says that the caller is told no code, but that the token is not active (RFC 7662 2.2)."""

ON_A_PAGE = "page"
"""Says that an auditor is told on a page, without a code."""


@cache
def remedies() -> tuple[Mapping[str, Any], ...]:
    """The groups of reasons, each with its answers and its remedy."""
    return tuple(tomllib.loads(DATA.read_text(encoding="utf-8"))["group"])


def error_classes() -> list[type[OAuthError]]:
    """Every answer there is: those of the core, and what the two faces make of them."""
    return [one for module in (errors, requests, status) for one in _defined_in(module)]


def classes_table() -> str:
    """The error classes with the registered code and the status of each face."""
    return table(
        ("Class", "`error`", "HTTP", "gRPC", "It means"),
        (
            (
                f"`{one.__name__}`",
                f"`{one.error}`",
                str(one.http_status),
                f"`{one.grpc_status}`",
                _summary(one),
            )
            for one in error_classes()
        ),
    )


def reasons_tables() -> str:
    """A table of reasons for each group, under a heading."""
    return "\n".join(f"### {group['title']}\n\n{_reasons_table(group)}" for group in remedies())


def _reasons_table(group: Mapping[str, Any]) -> str:
    return table(
        ("Reason", "Answered with", "What the caller reads", "What to do"),
        (
            (
                f"`{code}`",
                _answers(entry["answers"]),
                Reason[code.upper()].sentence,
                entry["remedy"],
            )
            for code, entry in group["reasons"].items()
        ),
    )


def _answers(answers: list[str] | str) -> str:
    if answers == BY_SLOT:
        return "by its place"
    if answers == INACTIVE:
        return "`active: false`"
    if answers == ON_A_PAGE:
        return "on a page"
    return ", ".join(f"`{answer}`" for answer in answers) or "nothing yet"


def _defined_in(module: ModuleType) -> Iterator[type[OAuthError]]:
    for one in vars(module).values():
        is_error = isinstance(one, type) and issubclass(one, OAuthError) and one is not OAuthError
        if is_error and one.__module__ == module.__name__:
            yield one


def _summary(one: type[OAuthError]) -> str:
    paragraph, _, _ = (one.__doc__ or "").strip().partition("\n\n")
    return " ".join(paragraph.split()).replace("``", "`")
