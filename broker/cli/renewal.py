"""A token in a file, replaced before it dies, for a program that cannot ask for one itself."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import rich_click as click

from broker.cli.issued import Issued
from broker.cli.stop import Stop

_SHARE: Final = 0.7
_SHORTEST_PAUSE: Final = 1.0
_LONGEST_RETRY: Final = 30.0


@dataclass
class TokenFile:
    """
    The token as it stands in ``path``, for its owner alone; each new one takes the old one's place at once.

    ``fetch`` gets one from the broker, or ends as commands do (``Stop``, ``click.ClickException``).
    ``clock`` is monotonic, in seconds.
    """

    path: Path
    fetch: Callable[[], Issued]
    clock: Callable[[], float] = time.monotonic
    due: float = 0.0
    failures: int = field(default=0, init=False)

    def renew(self) -> Issued:
        """Fetch a token and put it in place; raises as ``fetch`` or ``OSError``, and the old one stays."""
        asked_at = self.clock()
        issued = self.fetch()
        draft = self.path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(issued.access_token)
        draft.replace(self.path)
        self.failures = 0
        self.due = asked_at + max(_SHORTEST_PAUSE, _SHARE * issued.expires_in)
        return issued

    def renew_if_due(self) -> str:
        """Renew when it is time to; what went wrong, as a sentence, or nothing."""
        if self.clock() < self.due:
            return ""
        try:
            self.renew()
        except (Stop, click.ClickException, OSError) as failure:
            # Files that are read for it may be just being replaced, and a full disk may be emptied.
            self.failures += 1
            pause = min(_LONGEST_RETRY, 2.0 ** min(self.failures, 5))
            jitter = 0.5 + random.random() / 2  # noqa: S311 - nothing secret depends on it.
            self.due = self.clock() + pause * jitter
            return str(failure)
        return ""
