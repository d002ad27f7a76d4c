"""What is done to the keys, on record in the audit log before it is done."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import TemporarilyUnavailable
from broker.interfaces import AuditLog
from broker.keys.record import RecordFull
from broker.model import KeyChange, KeyExposure, RequestContext, new_request_id

if TYPE_CHECKING:
    from broker.keys.rotator import Revoked

_LOGGER: Final = logging.getLogger(__name__)
_NOT_DONE: Final = "nothing was changed: others changed the record of the keys first"
_FULL: Final = "nothing was changed: the record of the keys would be too long to be read"
_UNKNOWN: Final = "it is not known whether the record of the keys was changed"


@dataclass(slots=True)
class Announcement:
    """A change that was announced: whether that is on record, and whether the change was made."""

    is_recorded: bool = True
    is_made: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """
    Something done to the keys: the audit event, and who began it.

    ``initiator`` is ``command``, ``age`` where a key had come of it, or ``upkeep`` for what the broker
    puts in order. ``revoked`` is set for a revocation, which does not wait for its record.
    """

    event: str
    initiator: str
    revoked: "Revoked | None" = None


class KeyJournal:
    """
    Announces changes of the keys in an audit log, and takes back what did not come about.

    Without an ``audit`` nothing is announced. ``face`` and ``operator`` tell who acts. ``exposure`` says
    what a revocation cannot undo.
    """

    def __init__(
        self,
        audit: AuditLog | None = None,
        *,
        face: str = "",
        operator: str = "",
        exposure: "Callable[[Revoked], KeyExposure] | None" = None,
    ) -> None:
        self._audit = audit
        self._face = face
        self._operator = operator
        self._exposure = exposure

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` while nothing can be recorded."""
        if self._audit is not None:
            self._audit.check()

    @contextmanager
    def announced(self, act: Act, changes: Sequence[KeyChange]) -> Iterator[Announcement]:
        """
        Record what the block is about to do; the block says whether it was done.

        Raises ``TemporarilyUnavailable`` when that cannot be recorded, unless it is a revocation: it is
        more dangerous not to revoke a key than to have no record of it. What was announced and not
        done is recorded as well, as far as possible; after a crash in between, nothing tells.
        """
        announcement = Announcement()
        about = new_request_id()
        try:
            self._announce(about, act, changes)
        except TemporarilyUnavailable:
            if act.revoked is None:
                raise
            announcement.is_recorded = False
        try:
            yield announcement
        except RecordFull:
            self._take_back(about, act, _FULL)
            raise
        except BaseException:
            self._take_back(about, act, _UNKNOWN)
            raise
        if not announcement.is_made:
            self._take_back(about, act, _NOT_DONE)

    def _announce(self, about: str, act: Act, changes: Sequence[KeyChange]) -> None:
        if self._audit is None:
            return
        exposure = None
        if act.revoked is not None and self._exposure is not None:
            exposure = self._exposure(act.revoked)
        with self._audit.entry(act.event, RequestContext(self._face, about)) as entry:
            entry.note(
                initiator=act.initiator,
                operator=self._operator or None,
                key_changes=changes,
                exposure=exposure,
                kid=None if act.revoked is None else act.revoked.kid,
            )

    def _take_back(self, about: str, act: Act, detail: str) -> None:
        if self._audit is None:
            return
        context = RequestContext(self._face, new_request_id())
        try:
            with self._audit.entry("key.failed", context) as entry:
                entry.note(about=about, initiator=act.initiator, detail=detail)
        except TemporarilyUnavailable as error:
            _LOGGER.warning("not recorded that a change of the keys failed: %s", error.detail)
