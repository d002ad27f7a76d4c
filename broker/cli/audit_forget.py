"""``broker audit forget``: destroy the key of a period, so that nobody finds its people any more."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rich_click as click

from broker.audit.people.keys import PeopleKeys
from broker.audit.people.periods import is_current, is_period
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option, plain, print_wrapped
from broker.cli.people_keys import people_keys, token_file_option, what_helps
from broker.cli.recording import FACE, account, operators_log
from broker.cli.stop import Negative
from broker.errors import OAuthError
from broker.interfaces import AuditLog
from broker.keys.key_files import KeyFileRefused
from broker.model import RequestContext, new_request_id

_LOGGER: Final = logging.getLogger(__name__)
_IN_CLEAR: Final = (
    "People have their names in the record (`audit.people.names: clear`): there is no key to destroy, and "
    "names cannot be taken out."
)


@click.command()
@click.argument("period")
@click.option("--yes", is_flag=True, help="Do not ask whether you are sure.")
@click.option("--force", is_flag=True, help="Forget a period that is not over yet as well.")
@token_file_option
@config_option()
@output_option("text", "json")
def forget(
    *, period: str, yes: bool, force: bool, token_file: Path | None, config: Path, output: str
) -> None:
    """
    Destroy the key of PERIOD, such as 2026-11, for ever: its records name nobody any more.

    The record stays as it is and can be verified. Nobody, with whatever they have, can find by name who is
    in it, unless somebody kept a copy of the key. That it was destroyed is recorded first.
    """
    if not is_period(period):
        raise click.UsageError("PERIOD is a month, quarter or year: 2026-11, 2026-q4 or 2026.")
    settings = settings_from(config)
    with people_keys(settings, token_file) as keys:
        is_there = _may_be_there(keys, period)
        if not is_there and settings.audit.people.names == "clear":
            raise Negative(_IN_CLEAR)
        if is_current(period, time.time()) and not force:
            raise Negative(f"{period} is not over: --force forgets those in it until now.")
        if not is_there:
            raise Negative(
                f"There is no key of {period}: it was forgotten before, or there never was one."
            )
        if not yes:
            click.confirm(
                f"Nobody will find the people of {period} again. Destroy its key?", abort=True
            )
        with operators_log(settings) as audit:
            failure = _destroy(keys, audit, period)
    if failure is not None:
        raise Negative(_told(failure, period, config))
    if output == "json":
        echo_json({"forgotten": period})
    else:
        told = f"Forgotten: the people of {period}. Destroy copies of its key in backups as well."
        print_wrapped(plain(told))


def _may_be_there(keys: PeopleKeys, period: str) -> bool:
    """Whether there is a key to destroy, or nobody can tell: then it is tried, on record."""
    try:
        return period in keys.held()
    except (KeyFileRefused, OAuthError, OSError):
        return True


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why no key was destroyed, what helps, and the record that says so, if it could be written."""

    reason: str
    help: str
    event_id: str


def _destroy(keys: PeopleKeys, audit: AuditLog, period: str) -> _Failure | None:
    """Destroy a key, on record before it is done; what was not done is recorded as well, and returned."""
    about = new_request_id()
    with audit.entry("people.forget", RequestContext(FACE, about)) as entry:
        entry.note(about=period, initiator=FACE, operator=account())
    try:
        was_there = keys.destroy(period)
    except (KeyFileRefused, OAuthError) as failure:
        detail = getattr(failure, "detail", "") or str(failure)
        reason = f"The key of {period} was not destroyed: {detail}."
        return _Failure(reason, what_helps(detail), _record_failure(audit, about, detail))
    if was_there:
        return None
    event_id = _record_failure(audit, about, "there was no key")
    return _Failure(f"There is no key of {period}: nobody is found by it.", "", event_id)


def _record_failure(audit: AuditLog, about: str, detail: str) -> str:
    """The id of the record, or nothing where it could not be written."""
    event_id = new_request_id()
    try:
        with audit.entry("people.failed", RequestContext(FACE, event_id)) as entry:
            entry.note(about=about, initiator=FACE, detail=detail)
    except OAuthError as error:
        _LOGGER.warning("not recorded that a key was not destroyed: %s", error.detail)
        return ""
    return event_id


def _told(failure: _Failure, period: str, config: Path) -> str:
    """The failure a sentence a line: what, what to do about it, and where that stands in the record."""
    lines = [failure.reason]
    if failure.help:
        lines += [failure.help, f"Then forget {period} again: nobody in it is forgotten yet."]
    if failure.event_id:
        lines += [
            "The record says so, in an event people.failed:",
            f"  broker audit show {failure.event_id} --config {config}",
        ]
    else:
        lines.append("That it failed could not be recorded; that it was tried is.")
    return "\n".join(lines)
