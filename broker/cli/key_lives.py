"""What the commands about our own keys share: reaching the keys, and showing their lives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import rich_click as click
from rich.text import Text

from broker.cli.output import plain, print_columns
from broker.cli.stop import Negative
from broker.config import Settings
from broker.config.durations import write_duration
from broker.config.files import UnusableFile, check_secret
from broker.errors import Reason, TemporarilyUnavailable
from broker.keys.ephemeral import StatedKey
from broker.keys.journal import KeyJournal
from broker.keys.key_files import KeyFileRefused
from broker.keys.life import KeyLife, KeyState
from broker.keys.outlook import Change, Event, next_of, upcoming
from broker.keys.record import KeyRecord, RecordFull
from broker.keys.rotator import NotRotated, Rotator
from broker.keys.vault_auth import TokenFileAuth
from broker.signing import open_rotator

_Function = TypeVar("_Function", bound=Callable[..., Any])
_UNRECORDED: Final = "Nothing was changed, because it cannot be recorded in `audit.directory`"
_STYLES: Final[Mapping[KeyState, str]] = {KeyState.ACTIVE: "green", KeyState.REVOKED: "red"}


def token_file_option(function: _Function) -> _Function:
    """The option by which an operator uses rights in Vault that the broker does not have."""
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        help="A file with a Vault token to do it with; else it is done as `keys.vault.rotator`.",
    )(function)


@contextmanager
def rotating(
    settings: Settings,
    token_file: Path | None,
    *,
    is_changing: bool = True,
    journal: KeyJournal | None = None,
) -> Iterator[Rotator]:
    """
    What rotates the keys of these settings; what is in its way ends the command.

    ``is_changing`` says that something shall be put on record. ``journal`` is told of it before.
    """
    vault = settings.keys.vault
    if is_changing and vault is not None and vault.record is None:
        raise Negative("Nothing is on record: set keys.vault.record, or rotate in Vault by hand.")
    if token_file is not None:
        _check_token(token_file)
    auth = TokenFileAuth(token_file) if token_file is not None else None
    try:
        rotator = open_rotator(settings, auth=auth)
        rotator.journal = journal or KeyJournal()
        yield rotator
    except (NotRotated, RecordFull, KeyFileRefused) as refused:
        raise Negative(str(refused)) from None
    except TemporarilyUnavailable as error:
        if error.reason == Reason.AUDIT_UNAVAILABLE:
            raise Negative(f"{_UNRECORDED}: {error.detail}.") from None
        raise Negative(f"The keys cannot be reached: {error.detail}.") from None


def _check_token(file: Path) -> None:
    try:
        check_secret(file)
    except UnusableFile as unusable:
        raise click.UsageError(f"--token-file: {file} {unusable}.") from None


def facts_of(rotator: Rotator, record: KeyRecord) -> list[dict[str, Any]]:
    """The lives of all keys for programs; moments are unix seconds."""
    facts = []
    for life, event in _lives(rotator, record):
        entry = life.entry
        found: dict[str, Any] = {
            "algorithm": entry.algorithm,
            "number": entry.number,
            "kid": entry.kid,
            "state": life.state.value,
            "published_at": entry.published_at,
            "activates_at": entry.activates_at,
            "leaves_at": life.leaves_at,
            "revoked_at": entry.revoked_at,
            "next": None if event is None else event_facts(event),
        }
        facts.append(found)
    return facts


def facts_in_memory(rotator: Rotator, record: KeyRecord) -> list[dict[str, Any]]:
    """The lives of the keys in the memory of replicas for programs; moments are unix seconds."""
    keep = int(rotator.schedule.keep_published.total_seconds())
    return [
        {
            "algorithm": one.statement.algorithm,
            "kid": one.statement.kid,
            "state": _state(one, rotator, record).value,
            "replica": one.statement.replica,
            "published_at": one.statement.made_at,
            "activates_at": one.statement.begins_at,
            "ends_at": one.ended_at,
            "leaves_at": one.ended_at + keep,
        }
        for one in rotator.stated()
    ]


def _state(key: StatedKey, rotator: Rotator, record: KeyRecord) -> KeyState:
    is_revoked = key.statement.kid in record.revoked_ids
    keep = rotator.schedule.keep_published
    return key.state(rotator.now(), keep_published=keep, is_revoked=is_revoked)


def event_facts(event: Event) -> dict[str, Any]:
    """Something that will happen, for programs."""
    return {
        "at": event.at,
        "change": event.change.name.lower(),
        "algorithm": event.algorithm,
        "kid": event.kid,
    }


def print_lives(rotator: Rotator, record: KeyRecord) -> None:
    """Print the lives of all keys, a line each."""
    rows = [[plain(name, "dim") for name in ("alg", "state", "kid", "age", "next")]]
    for life, event in _lives(rotator, record):
        entry = life.entry
        rows.append(
            [
                plain(entry.algorithm),
                plain(life.state.value, _STYLES.get(life.state, "")),
                plain(entry.kid),
                plain(age(rotator.now() - entry.published_at)),
                plain(_next(life, event, now=rotator.now())),
            ]
        )
    rows.extend(_rows_in_memory(rotator, record))
    print_columns(rows)


def _rows_in_memory(rotator: Rotator, record: KeyRecord) -> Iterator[list[Text]]:
    for one in rotator.stated():
        state = _state(one, rotator, record)
        event = next(_events_in_memory(one, rotator, record), None)
        comes = "" if event is None else f"{_said(event, now=rotator.now())}, "
        yield [
            plain(one.statement.algorithm),
            plain(state.value, _STYLES.get(state, "")),
            plain(one.statement.kid),
            plain(age(rotator.now() - one.statement.made_at)),
            plain(f"{comes}in the memory of {one.statement.replica}"),
        ]


def print_events(events: Sequence[Event], *, now: int) -> None:
    """Print what will happen, a line each."""
    print_columns(
        [
            [
                plain(moment(event.at)),
                plain(f"in {age(event.at - now)}" if event.at > now else "now", "dim"),
                plain(event.algorithm),
                plain(event.kid),
                plain(event.change.value),
            ]
            for event in events
        ]
    )


def events_of(rotator: Rotator, record: KeyRecord) -> list[Event]:
    """What will happen to all keys, in its order."""
    found = [
        *(upcoming(rotator.editor(one), record) for one in rotator.algorithms),
        *(_events_in_memory(one, rotator, record) for one in rotator.stated()),
    ]
    return sorted((event for events in found for event in events), key=lambda one: one.at)


def _events_in_memory(key: StatedKey, rotator: Rotator, record: KeyRecord) -> Iterator[Event]:
    """What will happen to a key in the memory of a replica, in its order."""
    statement, now = key.statement, rotator.now()
    if statement.kid in record.revoked_ids:
        return
    leaves_at = key.ended_at + int(rotator.schedule.keep_published.total_seconds())
    for at, change in (
        (statement.begins_at, Change.BEGINS),
        (key.ended_at, Change.SUCCEEDED),
        (leaves_at, Change.LEAVES),
    ):
        if at > now:
            yield Event(at, statement.algorithm, statement.kid, change)


def moment(seconds: int) -> str:
    """A moment in unix seconds as a person reads it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def age(seconds: int) -> str:
    """A time in seconds as a person would say it: its two largest units."""
    known = timedelta(seconds=max(0, seconds))
    for coarse in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
        if known >= 10 * coarse:
            return write_duration(known // coarse * coarse)
    return write_duration(known)


def _lives(rotator: Rotator, record: KeyRecord) -> Iterator[tuple[KeyLife, Event | None]]:
    for algorithm in rotator.algorithms:
        editor = rotator.editor(algorithm)
        events = upcoming(editor, record)
        for life in editor.lives(record):
            yield life, next_of(life, events)


def _next(life: KeyLife, event: Event | None, *, now: int) -> str:
    if event is None:
        is_spare = life.state is KeyState.PENDING and life.entry.activates_at is None
        return "signs when it is needed" if is_spare else ""
    return _said(event, now=now)


def _said(event: Event, *, now: int) -> str:
    when = f"in {age(event.at - now)}" if event.at > now else "now"
    if event.change is Change.KNOWN:
        return f"could sign {when}"
    return f"{event.change.value.partition(':')[0]} {when}"
