"""How commands that change something leave a record of it, and those that change nothing leave none."""

import logging
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import structlog

from broker.audit.log import FileAuditLog
from broker.audit.segments import AuditLogRefused, WriterBusy
from broker.config import Settings
from broker.errors import Reason, TemporarilyUnavailable
from broker.foundation import open_audit_log
from broker.interfaces import AuditEntry, AuditLog
from broker.keys.journal import KeyJournal
from broker.model import Admission, RequestContext
from broker.signing import open_journal

FACE: Final = "command"
"""The face of what is done by a command."""

_WRITER: Final = "operator"
_TURN_SECONDS: Final = 5.0


@contextmanager
def recording(settings: Settings, *, is_required: bool = True) -> Iterator[KeyJournal]:
    """
    What records a change of the keys, in the chain of the commands; they take turns to write it.

    The chain is opened when there is something to record. Where it cannot be, ``TemporarilyUnavailable``
    is raised: always, or, unless it ``is_required``, once, and all else is done without a record.
    """
    with operators_log(settings, is_required=is_required) as audit:
        yield open_journal(settings, audit, face=FACE, operator=account())


@contextmanager
def operators_log(settings: Settings, *, is_required: bool = True) -> Iterator[AuditLog]:
    """The chain of the commands itself, which is opened and refused as ``recording`` says."""
    audit = _AuditWhenNeeded(settings, is_required=is_required)
    with without_logs():
        try:
            yield audit
        finally:
            audit.close()


class _AuditWhenNeeded:
    """An audit log that begins with its first record, so that who changes nothing leaves no segment."""

    def __init__(self, settings: Settings, *, is_required: bool) -> None:
        self._settings = settings
        self._is_required = is_required
        self._log: FileAuditLog | None = None
        self._refusal = ""

    def entry(self, event: str, context: RequestContext) -> AbstractContextManager[AuditEntry]:
        if self._does_without:
            return nullcontext(_Unwritten())
        return self._opened().entry(event, context)

    def check(self) -> None:
        if not self._does_without:
            self._opened().check()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    @property
    def _does_without(self) -> bool:
        return bool(self._refusal) and not self._is_required

    def _opened(self) -> FileAuditLog:
        if self._log is None and not self._refusal:
            try:
                self._log = _open_audit(self._settings)
            except AuditLogRefused as refused:
                # Nobody waits twice for the same.
                self._refusal = str(refused)
        if self._log is None:
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail=self._refusal)
        return self._log


class _Unwritten:
    """An entry that nobody writes."""

    admitted: Admission | None = None
    receipt: str = ""

    def note(self, **_facts: Any) -> None:
        return

    def noted(self, _name: str) -> Any:
        return None

    def part(self) -> AbstractContextManager[AuditEntry]:
        return nullcontext(self)


@contextmanager
def without_logs() -> Iterator[None]:
    """What the audit log would tell in a log, which a command does not have, the command tells itself."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def _open_audit(settings: Settings) -> FileAuditLog:
    deadline = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            return open_audit_log(settings, writer=_WRITER, is_command=True)
        except WriterBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def account() -> str:
    """Whoever gives the command, as the system knows them."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
