"""What commands share that ask about the audit record: the filters, the index, the lines they print."""

import errno
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import rich_click as click

from broker.audit.index.asking import LISTS, query_from
from broker.audit.index.location import Busy
from broker.audit.index.questions import Pseudonyms
from broker.audit.index.reader import SqliteAuditReader, no_pseudonyms
from broker.audit.query import Query, QueryRefused, QueryTooExpensive, RecordChanged
from broker.audit.record import Event
from broker.cli.audit_rows import DECISIONS
from broker.cli.audit_sources import directory_of, settings_for
from broker.cli.output import plain
from broker.cli.page import tell
from broker.cli.recording import without_logs
from broker.cli.stop import Negative
from broker.config import Settings
from broker.config.problems import nearest
from broker.errors import Reason, TemporarilyUnavailable
from broker.people import open_people

_FILTERS: Final[Mapping[str, str]] = {
    "subject": "person",
    "auditor": "auditor",
    "client": "client",
    "mcp_server": "server",
    "resource": "resource",
    "decision": "decision",
    "reason": "reason",
    "policy": "policy",
    "token": "token",
    "event": "event",
    "grant": "grant",
    "since": "since",
    "until": "until",
    "min_depth": "min_depth",
    "max_depth": "max_depth",
}
_OPTIONS: Final[Mapping[str, str]] = {
    **{LISTS.get(name, name): f"--{option.replace('_', '-')}" for option, name in _FILTERS.items()},
    "limit": "--limit",
    "cursor": "--cursor",
}
"""By which options the parts of a question are given."""
_REASONS: Final = frozenset(reason.code for reason in Reason)
_LONGEST_SHOWN: Final = 40
_PATIENCE: Final = 600.0
_SILENT: Final = 2.0

_Function = TypeVar("_Function", bound=Callable[..., Any])


def directory_argument() -> Callable[[_Function], _Function]:
    """The directory of the record, where it is not that of the settings."""
    return click.argument("directory", type=click.Path(path_type=Path), required=False)


def filter_options() -> Callable[[_Function], _Function]:
    """The options that say which records are wanted."""
    options = (
        _several("--subject", help="Whom the token is about, as tokens name them."),
        _several("--auditor", help="Who read the record on the pages, or wanted to."),
        _several("--client", help="The client that asked, or that the token came from."),
        _several("--mcp-server", help="The MCP server that the request came through."),
        _several("--resource", help="What the token is for."),
        _several(
            "--decision", type=click.Choice(tuple(DECISIONS)), help="What came of the request."
        ),
        _several("--reason", help="Why it was denied, by the code."),
        _several("--policy", help="A policy that decided, by its id."),
        _several("--token", help="A token that was issued or presented, by its jti."),
        _several(
            "--event",
            type=click.Choice(get_args(Event)),
            metavar="EVENT",
            help="What happened, such as token.issue; docs/audit-records.md has all.",
        ),
        _several("--grant", help="The grant type; exchange, assertion or own for short."),
        click.option(
            "--since",
            help="From then on: 2026-11-22T14:05:00Z, 2026-11-22, or 24h for so long ago.",
        ),
        click.option("--until", help="Before then."),
        click.option("--min-depth", help="At least so many actors in the chain."),
        click.option("--max-depth", help="At most so many."),
    )

    def add(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _several(name: str, **told: Any) -> Callable[[_Function], _Function]:
    return click.option(name, multiple=True, **told)


def query_of(filters: Mapping[str, Any]) -> Query:
    """The query that the options say, or the end of the command."""
    pairs = []
    for name, value in filters.items():
        for text in (value,) if isinstance(value, str) else value or ():
            if name == "token" and text.count(".") >= 2:
                raise click.UsageError(
                    "--token takes the id of a token, its jti; a token itself is a secret and is not"
                    " to be written here."
                )
            if name == "reason" and text.strip() and text not in _REASONS:
                raise click.UsageError(_no_reason(text))
            pairs.append((_FILTERS[name], text))
    try:
        return query_from(pairs, now=time.time())
    except QueryRefused as refused:
        raise click.UsageError(_by_option(refused)) from None


def _no_reason(text: str) -> str:
    meant = nearest(text, _REASONS)
    hint = f"did you mean {meant!r}?" if meant else "docs/errors.md has all."
    return f"--reason: {plain(text[:_LONGEST_SHOWN]).plain!r} is none; {hint}"


def _by_option(refused: QueryRefused) -> str:
    """What is wrong with a question, under the name of the option that it was put by."""
    name, between, told = str(refused).partition(": ")
    return f"{_OPTIONS.get(name, name)}{between}{told}."


@contextmanager
def asked_reader(
    directory: Path | None, config: Path, *, is_anew: bool = False
) -> Iterator[SqliteAuditReader]:
    """
    Answers from all that is in the record by now; what keeps them from being given ends the command.

    The index is made or brought up to date first, with a word to a person who waits. ``is_anew`` throws
    it away before.
    """
    settings = settings_for(directory, config)
    place = directory_of(directory, settings)
    reader = SqliteAuditReader(place, pseudonyms_of=_people(settings))
    try:
        with without_logs():
            if is_anew:
                reader.throw_away(patience=_PATIENCE)
            _catch_up(reader)
            yield reader
    except QueryRefused as refused:
        raise click.UsageError(_by_option(refused)) from None
    except QueryTooExpensive as expensive:
        told = "name a shorter time or another filter"
        raise Negative(f"{expensive}; {told}.") from None
    except RecordChanged as changed:
        raise Negative(f"{changed}. `broker audit verify` tells more.") from None
    except TemporarilyUnavailable as error:
        raise Negative(f"The keys of pseudonyms cannot be reached: {error.detail}.") from None
    except OSError as error:
        # Nobody reads on at the other end of a pipe; the command ends as others do then.
        if error.errno == errno.EPIPE:
            raise
        raise Negative(f"{place} cannot be read: {error.strerror}.") from None
    finally:
        reader.close()


def _people(settings: Settings | None) -> Pseudonyms:
    """What finds people by name: nothing where there are no settings, and so no keys."""
    if settings is None or settings.audit.people.names == "clear":
        return no_pseudonyms
    return open_people(settings).pseudonyms_of


def _catch_up(reader: SqliteAuditReader) -> None:
    waiting = _Waiting()
    try:
        try:
            caught = reader.catch_up(progress=waiting.progress, patience=_SILENT)
        except Busy:
            waiting.say("Another process is reading the record")
            caught = reader.catch_up(progress=waiting.progress, patience=_PATIENCE)
    finally:
        waiting.end()
    if caught.rebuilt:
        tell(plain(f"The index was made anew: {caught.rebuilt}.").plain)


class _Waiting:
    """Tells a person at a terminal what takes so long."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._is_shown = False

    def progress(self, known: int, total: int) -> None:
        self.say(f"Reading the record: {known * 100 // max(total, 1):3d} %")

    def say(self, text: str) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._begin >= _SILENT:
            self._is_shown = True
            click.echo(f"\r{text}", nl=False, err=True)

    def end(self) -> None:
        if self._is_shown:
            click.echo("\r\033[K", nl=False, err=True)


def tell_faults(reader: SqliteAuditReader, changed: Sequence[str] = ()) -> None:
    """Say what keeps the answer from being whole, and end the command with exit code 1 if something does."""
    faults = list(dict.fromkeys([*reader.extent().faults.values(), *changed]))
    for fault in faults:
        tell(plain(fault).plain)
    if faults:
        raise Negative("The answer is not whole; `broker audit verify` tells what is wrong.")
