"""One-time links: whoever may write into the broker's own directory may let somebody read the record."""

import hashlib
import json
import os
import pwd
import re
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from broker.errors import Reason, TokenRejected
from broker.strict_json import StrictJsonError, loads_strict

FOLDER: Final = "audit-links"
"""The name of their directory, in that of the state."""

LIFETIME: Final = 120
"""For how many seconds a link is good."""

_MOST: Final = 16
_LONGEST_FILE: Final = 1024
_LONGEST_ACCOUNT: Final = 128
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_LEADING: Final = """\
<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>Audit record</title>
<p><a href="{url}">Read the audit record</a></p>
"""

Clock = Callable[[], float]
"""Unix seconds."""


def opening(config: Path) -> str:
    """The command that makes a link to the pages of the broker with these settings."""
    return shlex.join(["broker", "audit", "open", "--config", str(config)])


class LinksRefused(Exception):
    """The directory of the links cannot be used as it is; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Links:
    """
    The links that are open, each as a file in a directory that only the broker's own account may enter.

    A file is named by the SHA-256 of its link's secret, so that reading the directory opens nothing. Whoever
    can write here can read the audit record itself: a link gives nothing that the file system does not.
    ``command`` makes another link.
    """

    directory: Path
    now: Clock = time.time
    command: str = "broker audit open"

    def prepare(self) -> None:
        """Make the directory if it is not there; raises as ``issue`` does."""
        if self.directory.parent.stat().st_uid != os.geteuid():
            raise LinksRefused(f"{self.directory.parent} belongs to another account; be that one")
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._check_directory()

    def issue(self) -> str:
        """
        Make a link and give its secret.

        Of more than 16 that are open the oldest are closed. Raises ``LinksRefused`` when the directory
        belongs to somebody else or is open to others, and ``OSError`` when it cannot be written.
        """
        self.prepare()
        self._close_old()
        secret = secrets.token_urlsafe(32)
        told = {"account": _account(), "expires_at": int(self.now()) + LIFETIME}
        path = self.directory / _name(secret)
        # It comes into its place whole: it may be looked at as soon as it is there.
        draft = path.with_suffix(".new")
        _write_new(draft, json.dumps(told))
        draft.rename(path)
        return secret

    @contextmanager
    def page_to(self, url: str) -> Iterator[Path]:
        """
        A file that leads a browser to a link while the block lasts; nobody else may read it.

        A command line, which every account can read, need not hold the link then.
        """
        path = self.directory / f"{secrets.token_hex(8)}.html"
        _write_new(path, _LEADING.format(url=escape(url)))
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def is_open(self, secret: str) -> bool:
        """Whether the file of this link is still there."""
        return (self.directory / _name(secret)).exists()

    def spend(self, secret: str) -> str:
        """
        Close the link of this secret, and tell the account of the system that made it.

        Of several who try at once one is told. Raises ``TokenRejected`` (``link_unknown``) when there is no
        such link, or its time is over.
        """
        if not _SECRET.fullmatch(secret):
            raise TokenRejected(Reason.LINK_UNKNOWN, "it has not the form of one")
        path = self.directory / _name(secret)
        taken = path.with_suffix(f".taken-{secrets.token_hex(8)}")
        try:
            self._check_directory()
            path.rename(taken)
        except (OSError, LinksRefused):
            raise TokenRejected(Reason.LINK_UNKNOWN, "there is no such link") from None
        try:
            return self._account_of(taken)
        finally:
            with suppress(OSError):
                taken.unlink()

    def _check_directory(self) -> None:
        found = self.directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise LinksRefused(f"{self.directory} is not a directory of this account")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise LinksRefused(f"{self.directory} is open to others; make its mode 0700")

    def _account_of(self, path: Path) -> str:
        told = _read(path)
        account, expires_at = told.get("account"), told.get("expires_at")
        if not isinstance(account, str) or not isinstance(expires_at, int):
            raise TokenRejected(Reason.LINK_UNKNOWN, "its file is damaged")
        # One that is good for longer than any is, was dated by another clock.
        if not 0 < expires_at - self.now() <= LIFETIME + 1:
            raise TokenRejected(Reason.LINK_UNKNOWN, "its time is over")
        return account[:_LONGEST_ACCOUNT]

    def _close_old(self) -> None:
        """Take away what is over, what was left behind, and the oldest of too many."""
        found = sorted(self._ages(), reverse=True)
        open_ones = [path for age, path in found if _NAME.fullmatch(path.name) and age <= LIFETIME]
        kept = set(open_ones[max(0, len(open_ones) - _MOST + 1) :])
        for age, path in found:
            is_being_used = not _NAME.fullmatch(path.name) and age <= LIFETIME
            if path not in kept and not is_being_used:
                with suppress(OSError):
                    path.unlink()

    def _ages(self) -> Iterator[tuple[float, Path]]:
        for path in self.directory.iterdir():
            with suppress(OSError):
                yield self.now() - path.lstat().st_mtime, path


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TokenRejected(Reason.LINK_UNKNOWN, "it is no file")
            told = loads_strict(file.read(_LONGEST_FILE))
    except (OSError, StrictJsonError):
        raise TokenRejected(Reason.LINK_UNKNOWN, "its file cannot be read") from None
    return told if isinstance(told, dict) else {}


def _name(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _account() -> str:
    """The account of the system that runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
