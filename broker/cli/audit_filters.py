"""The filters of the commands that ask about the audit record."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, get_args

import rich_click as click
from pydantic_core import PydanticCustomError

from broker.audit.query import Query, QueryRefused
from broker.audit.record import Event
from broker.config.values import read_duration

_AGO: Final = re.compile(r"(?:[0-9]+(?:d|h|ms|m|s))+", re.ASCII)
_DECISIONS: Final = ("permit", "deny", "info")
_Function = TypeVar("_Function", bound=Callable[..., Any])

_MANY: Final = (
    ("--event", "events", "An event, such as token.issue.", click.Choice(get_args(Event))),
    ("--decision", "decisions", "What was decided.", click.Choice(_DECISIONS)),
    ("--reason", "reasons", "A reason of refusals, such as policy_forbidden.", click.STRING),
    ("--grant-type", "grant_types", "A grant type.", click.STRING),
    ("--person", "people", "Somebody whom tokens are about.", click.STRING),
    (
        "--client",
        "clients",
        "The client of the request or the MCP client of the token.",
        click.STRING,
    ),
    ("--mcp-server", "mcp_servers", "The MCP server that came between.", click.STRING),
    ("--resource", "resources", "The resource that was asked for.", click.STRING),
    ("--policy", "policies", "The id of a policy that decided.", click.STRING),
    ("--token", "tokens", "The jti of a token that was issued or presented.", click.STRING),
)


def filter_options(command: _Function) -> _Function:
    """The options by which records are chosen; ``query_from`` takes them."""
    for option, name, summary, kind in reversed(_MANY):
        told = f"{summary} Repeatable."
        command = click.option(option, name, multiple=True, type=kind, help=told)(command)
    ends = (
        ("--max-depth", "No more actors in the chain.", click.IntRange(0)),
        ("--min-depth", "No fewer actors in the chain.", click.IntRange(0)),
        ("--until", "Before this moment: RFC 3339, or how long ago, such as 1h.", click.STRING),
        ("--since", "From this moment on: RFC 3339, or how long ago, such as 7d.", click.STRING),
    )
    for option, summary, kind in ends:
        command = click.option(option, type=kind, help=summary)(command)
    return command


def query_from(*, since: str | None, until: str | None, **filters: Any) -> Query:
    """The query that the options make; ends the command where they make none."""
    try:
        return Query(
            since=_moment("--since", since),
            until=_moment("--until", until),
            **filters,
        )
    except QueryRefused as refused:
        raise click.UsageError(f"{refused}.") from None


def _moment(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        if _AGO.fullmatch(text):
            return time.time() - read_duration(text).total_seconds()
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, PydanticCustomError):
        told = "is neither RFC 3339, such as 2026-11-22T08:00:00Z, nor how long ago, such as 7d"
        raise click.UsageError(f"{option}: {text!r} {told}.") from None
