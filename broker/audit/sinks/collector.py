"""Records by HTTP, in batches, to a collector."""

import errno
import json
import os
import re
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from urllib3 import BaseHTTPResponse

from broker.audit.chain import line_hash
from broker.audit.sinks.destination import ConnectionTorn, SinkFailed, failures_as_sink_failures
from broker.audit.sinks.dialing import Dialer, is_ended
from broker.fetch import FetchReason, FetchRefused, read_url
from broker.fetch.deadline import Deadline
from broker.fetch.guarded import tls_context
from broker.fetch.wire import ask, read_body

_MOST_ANSWERED: Final = 64 * 1024
_LARGEST_TOKEN: Final = 4096
_LONGEST_PAUSE: Final = 300.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,4096}=*")
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_TOO_MUCH: Final = frozenset({400, 413, 422})
"""So a collector answers that takes all but one record, as long as that is among others or too large."""


class _Told(Struct, gc=False):
    event: str
    event_id: str
    seq: int
    time: str
    writer: str


_DECODER: Final = msgspec.json.Decoder(_Told)


class Collector:
    """
    Posts lines as NDJSON; they are taken once the answer is 2xx. Of a line that is refused by itself
    (400, 413 or 422) its place and hash are posted.

    Nothing is followed, and no proxy, cookie or other ambient setting takes part. ``token_file`` is read for
    every batch, so that a new token needs no restart. A batch may arrive twice, so each record has its id:
    ``writer`` and ``seq`` together, or ``event_id``. Raises ``FetchRefused`` for a URL that is none and
    ``OSError`` for authorities that cannot be read.
    """

    def __init__(
        self, url: str, *, token_file: Path | None = None, ca_file: Path | None = None
    ) -> None:
        self._target = read_url(url)
        tls = tls_context(ca_file) if self._target.scheme == "https" else None
        self._dialer = Dialer(self._target.host, self._target.port, tls)
        self._token_file = token_file
        self._sock: socket.socket | None = None

    def take(self, lines: Sequence[bytes], deadline: Deadline) -> None:
        try:
            self._give(lines, deadline)
        except SinkFailed as failed:
            if not failed.is_too_much or len(lines) > 1:
                raise
            # A record that it will never have must not keep all others back for ever.
            self._give([notice(lines[0])], deadline)

    def _give(self, lines: Sequence[bytes], deadline: Deadline) -> None:
        body = b"".join([line + b"\n" for line in lines])
        headers = self._headers()
        if self._sock is not None and is_ended(self._sock):
            self.close()
        is_old = self._sock is not None
        try:
            self._post(body, headers, deadline)
        except ConnectionTorn:
            # A server may end a connection that it has not heard of for a while just as it is used.
            if not is_old:
                raise
            self._post(body, headers, deadline)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _post(self, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> None:
        try:
            with failures_as_sink_failures():
                self._ask(body, headers, deadline)
        except SinkFailed:
            self.close()
            raise

    def _ask(self, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> None:
        if self._sock is None:
            self._sock = self._dialer.dial(deadline)
        answer = ask(
            self._target,
            self._sock,
            headers=headers,
            deadline=deadline,
            max_bytes=_MOST_ANSWERED,
            body=body,
        )
        is_read = _is_read(answer)
        if not 200 <= answer.status < 300:
            raise SinkFailed(
                f"status {answer.status}",
                retry_after=_pause(answer.headers.get("retry-after", "")),
                is_too_much=answer.status in _TOO_MUCH,
            )
        if (
            not is_read
            or answer.version < 11
            or "close" in answer.headers.get("connection", "").lower()
        ):
            self.close()

    def _headers(self) -> Mapping[str, str]:
        headers = {
            "Host": self._target.authority,
            "Content-Type": "application/x-ndjson",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "delegation-broker",
        }
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self._token_file)}"
        return headers


def _is_read(answer: BaseHTTPResponse) -> bool:
    """Whether an answer could be read to its end; else the rest would be taken for the next answer."""
    try:
        read_body(answer, max_bytes=_MOST_ANSWERED)
    except FetchRefused as refused:
        if refused.reason is not FetchReason.TOO_LARGE:
            raise
        return False
    return True


def notice(line: bytes) -> bytes:
    """What stands for a record that is not taken: its place and hash; the record is in the files."""
    told = _DECODER.decode(line)
    facts = {
        "cut_bytes": len(line),
        "event": told.event,
        "event_id": told.event_id,
        "hash": line_hash(line),
        "seq": told.seq,
        "time": told.time,
        "writer": told.writer,
    }
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


def _token(file: Path) -> str:
    try:
        token = _content(file).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SinkFailed("the token file cannot be read") from None
    if _TOKEN.fullmatch(token) is None:
        raise SinkFailed("the token file holds no token")
    return token


def _content(file: Path) -> bytes:
    # A pipe that nobody writes to would make everybody wait.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123 - of a descriptor.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return opened.read(_LARGEST_TOKEN + 2)


def _pause(told: str) -> float:
    """The seconds of a ``Retry-After``; dates are not looked at, since clocks differ."""
    return min(float(told), _LONGEST_PAUSE) if _SECONDS.fullmatch(told.strip()) else 0.0
