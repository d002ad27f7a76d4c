"""The filters of the commands that ask about the audit record."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, get_args

import rich_click as click

from broker.audit.index.asking import DEPTHS, GRANTS, LISTS, MOMENTS, query_from
from broker.audit.query import Query, QueryRefused
from broker.audit.record import Event

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SUMMARIES: Final = {
    "event": "An event, such as token.issue.",
    "decision": "What was decided.",
    "reason": "A reason of refusals, such as policy_forbidden.",
    "grant": f"A grant type, or one of {', '.join(GRANTS)}.",
    "person": "Somebody whom tokens are about.",
    "client": "The client of the request, or the MCP client of the token.",
    "server": "The MCP server that came between.",
    "resource": "The resource that was asked for.",
    "policy": "The id of a policy that decided.",
    "token": "The jti of a token that was issued or presented.",
}
_ENDS: Final = {
    "since": "From this moment on, in RFC 3339, or so long ago, such as 7d.",
    "until": "Before this moment, or before so long ago.",
    "min_depth": "No fewer actors in the chain.",
    "max_depth": "No more actors in the chain.",
}
_CHOICES: Final[dict[str, click.ParamType[Any]]] = {
    "event": click.Choice(get_args(Event)),
    "decision": click.Choice(("permit", "deny", "info")),
    **{name: click.IntRange(0, 999) for name in DEPTHS},
}


def filter_options(command: _Function) -> _Function:
    """The options by which records are chosen; ``filtered_by`` takes them."""
    for name, summary in reversed(_ENDS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}", name, type=_CHOICES.get(name), help=summary
        )(command)
    for name in reversed([*LISTS]):
        command = click.option(
            f"--{name}",
            name,
            multiple=True,
            type=_CHOICES.get(name),
            help=f"{_SUMMARIES[name]} Repeatable.",
        )(command)
    return command


def filtered_by(**filters: Any) -> Query:
    """The query that the options make; ends the command where they make none."""
    try:
        return query_from(_pairs(filters), now=time.time())
    except QueryRefused as refused:
        raise click.UsageError(f"{refused}.") from None


def _pairs(filters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in LISTS:
        for value in filters[name]:
            yield name, value
    for name in (*MOMENTS, *DEPTHS):
        if filters[name] is not None:
            yield name, str(filters[name])
