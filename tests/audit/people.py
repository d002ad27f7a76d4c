"""Keys of pseudonyms that are under a test's hand."""

from collections.abc import Mapping
from pathlib import Path

from broker.audit.log import FileAuditLog
from broker.audit.people.keys import KeysInUse, PeopleKeys
from broker.audit.people.naming import Pseudonymous
from broker.audit.people.periods import Length
from broker.keys.people_files import PeopleKeyFiles
from tests.audit.requests import NOW

ISSUER = "https://broker.example"


class Away:
    """A place of keys that can be cut off."""

    def __init__(self, directory: Path) -> None:
        self.files = PeopleKeyFiles(directory)
        self.is_away = False

    def obtain(self, period: str) -> bytes:
        self._reach()
        return self.files.obtain(period)

    def held(self) -> Mapping[str, bytes]:
        self._reach()
        return self.files.held()

    def destroy(self, period: str) -> bool:
        self._reach()
        return self.files.destroy(period)

    def _reach(self) -> None:
        if self.is_away:
            raise ConnectionError("the place of the keys is away")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def named_log(
    directory: Path, keys: PeopleKeys, *, clock: Clock | None = None, length: Length = "month"
) -> tuple[FileAuditLog, KeysInUse]:
    """A log in which people have pseudonyms, and the keys that it uses."""
    now = clock or Clock()
    in_use = KeysInUse(keys, length=length, now=now)
    log = FileAuditLog(directory, writer="w1", now=now, write_timeout=30.0)
    log.name_people(Pseudonymous(in_use, issuer=ISSUER))
    return log, in_use
