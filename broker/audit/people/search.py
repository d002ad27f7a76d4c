"""How people are found who are in the record under pseudonyms."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from broker.audit.facts import bounded_id, bounded_text
from broker.audit.people.keys import PeopleKeys
from broker.audit.people.pseudonym import PeriodKey

_FRESH_SECONDS: Final = 5.0


class People:
    """
    Makes the pseudonyms that somebody has in the record, in all periods whose key is still there.

    The keys are held for ``fresh`` seconds and then dropped, so that who is forgotten is not found any more,
    nor left in memory. Both methods raise as ``PeopleKeys`` does.
    """

    def __init__(
        self,
        keys: PeopleKeys,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        fresh: float = _FRESH_SECONDS,
    ) -> None:
        self._keys = keys
        self._fresh = fresh
        self._monotonic = monotonic
        self._held: tuple[float, Sequence[PeriodKey]] | None = None

    def pseudonyms_of(self, name: str) -> Sequence[str]:
        """
        The pseudonyms of a name, as a token has it, the latest period first; none of an empty one.

        A long name is one of two in the record, by the place where it stands.
        """
        if not name:
            return ()
        texts = dict.fromkeys((bounded_text(name), bounded_id(name)))
        return tuple(key.of(text) for key in self._all() for text in texts)

    def periods(self) -> Sequence[str]:
        """The periods whose key is still there, the latest first."""
        return tuple(key.period for key in self._all())

    def _all(self) -> Sequence[PeriodKey]:
        held, now = self._held, self._monotonic()
        if held is None or now - held[0] >= self._fresh:
            keys = sorted(self._keys.held().items(), reverse=True)
            held = self._held = now, [PeriodKey(period, key) for period, key in keys]
            self._drop_later(held)
        return held[1]

    def _drop_later(self, held: tuple[float, Sequence[PeriodKey]]) -> None:
        def drop() -> None:
            if self._held is held:
                self._held = None

        dropping = threading.Timer(self._fresh, drop)
        dropping.daemon = True
        dropping.start()
