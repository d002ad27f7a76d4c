"""Where the keys of pseudonyms are kept, and what holds those that are needed now."""

import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from broker.audit.people.periods import Length, Period, period_of
from broker.audit.people.pseudonym import PeriodKey
from broker.errors import Reason, TemporarilyUnavailable

AHEAD_SECONDS: Final = 86_400
"""How long before its period begins a key is there, so that nothing need be away at midnight."""

_LOOK_SECONDS: Final = 60.0
_FAULT_SECONDS: Final = 10.0
_KNOCK_SECONDS: Final = 0.5
_FIRST_LOOK_SECONDS: Final = 2.0
_JOIN_SECONDS: Final = 5.0

_log = structlog.get_logger("broker.audit.people")


class PeopleKeys(Protocol):
    """
    The keys of pseudonyms by the names of their periods, where all that write one record keep them.

    ``obtain`` gives the key of a period, which is made if there is none; all who ask for it at once get
    the same. ``held`` has those that there are. ``destroy`` makes sure that one is not there any more, and
    tells whether it was. What cannot be done raises.
    """

    def obtain(self, period: str) -> bytes: ...
    def held(self) -> Mapping[str, bytes]: ...
    def destroy(self, period: str) -> bool: ...


class KeysInUse:
    """
    The keys of this period and, a day ahead, of the next, which are looked after by a thread.

    Construct it in the process that uses it, after any fork. A key that was destroyed is given up, and
    one that cannot be had is asked for until it can; those that there are stay in use meanwhile.
    ``length`` is how long a key is used, and ``now`` gives unix seconds.
    """

    def __init__(self, keys: PeopleKeys, *, length: Length, now: Callable[[], float]) -> None:
        self._keys = keys
        self._length = length
        self._now = now
        # Replaced as a whole by the thread, and never changed.
        self._held: Mapping[str, PeriodKey] = {}
        # What was found last, and in which keys: it counts as long as these are held.
        self._in_use: tuple[Mapping[str, PeriodKey], Period, PeriodKey] | None = None
        self._fault = ""
        self._closing = threading.Event()
        self._has_looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="people", daemon=True)
        self._thread.start()
        self._has_looked.wait(_FIRST_LOOK_SECONDS)

    def at(self, moment: float) -> PeriodKey:
        """The key for a moment; raises ``TemporarilyUnavailable`` (``audit_unavailable``) without one."""
        held, in_use = self._held, self._in_use
        if in_use is not None and in_use[0] is held and in_use[1].holds(moment):
            return in_use[2]
        period = period_of(moment, self._length)
        key = held.get(period.name)
        if key is None:
            fault = self._fault or "it was not asked for yet"
            raise _unavailable(f"no key for the names of people in {period.name}: {fault}")
        self._in_use = held, period, key
        return key

    def check(self) -> None:
        """Raise as ``at`` does for this moment."""
        self.at(self._now())

    def look(self) -> None:
        """Have the keys that are needed soon; raises what the place of the keys raises."""
        now = self._now()
        names = {period_of(at, self._length).name: None for at in (now, now + AHEAD_SECONDS)}
        # What is not needed any more is not kept in memory either, since it may be destroyed.
        self._held = {name: key for name, key in self._held.items() if name in names}
        for name in names:
            found = self._keys.obtain(name)
            if name not in self._held or not self._held[name].is_of(found):
                self._held = {**self._held, name: PeriodKey(name, found)}

    def close(self) -> None:
        """End the thread; what it is doing is waited for, within bounds."""
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            pause = _LOOK_SECONDS if self._look() else self._pause_after_fault()
            self._has_looked.set()
            self._closing.wait(pause)

    def _pause_after_fault(self) -> float:
        """Nothing can be recorded of people without the key of today; that of tomorrow has time."""
        is_there = period_of(self._now(), self._length).name in self._held
        return _FAULT_SECONDS if is_there else _KNOCK_SECONDS

    def _look(self) -> bool:
        try:
            self.look()
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever the place does.
            fault = getattr(error, "detail", "") or str(error) or type(error).__name__
            if fault != self._fault:
                _log.warning("people_keys_away", fault=fault)
            self._fault = fault
            return False
        if self._fault:
            _log.info("people_keys_there_again")
        self._fault = ""
        return True


def _unavailable(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail=f"audit log: {detail}")
