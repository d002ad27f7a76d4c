"""Time-stamps (RFC 3161): somebody outside states that a checkpoint was there at a time."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog
from cryptography.x509 import load_pem_x509_certificates
from msgspec import Struct

from broker.audit.checkpoints import Checkpoint
from broker.audit.seal.lines import append_line
from broker.audit.seal.listing import moment
from broker.audit.seal.store import FOLDER, Kept
from broker.fetch.refusals import FetchRefused

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest

LENIENCE_SECONDS: Final = 300.0
"""So far may the clock of an authority be behind the one that a checkpoint has its time from."""

FILE: Final = "time-stamps.jsonl"
"""Where they are, beside the checkpoints."""

_REQUEST: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"
_LARGEST: Final = 64 * 1024
_LARGEST_ROOTS: Final = 1024 * 1024
_TRY_AGAIN_SECONDS: Final = 60.0
_log = structlog.get_logger("broker.audit")


class Poster(Protocol):
    """Sends a body to a server and gives what it answers; raises ``FetchRefused``."""

    def post(
        self, url: str, body: bytes, *, content_type: str, max_bytes: int, answer_type: str
    ) -> bytes: ...


class TimeStampRefused(Exception):
    """What the authority answered is no time-stamp of what was asked for; the sentence says why."""


class StampLine(Struct, forbid_unknown_fields=True):
    """A line: the digest of a checkpoint, and the answer of the authority in base64."""

    digest: str
    token: str


@dataclass(frozen=True, slots=True)
class Stamped:
    """The digest of a checkpoint, and when it was there by the clock of the authority."""

    digest: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """Who time-stamps, how often in seconds, and the file with the roots that this has to lead to."""

    url: str
    every: float
    roots: Path


class TimeStamper:
    """
    Has checkpoints time-stamped, and keeps what verifies. For one thread. ``now`` is in unix seconds.

    What is stamped is the SHA-256 of the text of a checkpoint, which is its digest; nothing else is told.
    A line of ``checkpoints/time-stamps.jsonl`` is ``{"digest": "<hex>", "token": "<base64>"}``.
    """

    def __init__(
        self, directory: Path, poster: Poster, authority: Authority, *, now: Callable[[], float]
    ) -> None:
        self.last: Stamped | None = None
        self._path = directory / FOLDER / FILE
        self._poster = poster
        self._authority = authority
        self._now = now
        self._due_at = self._first_due()
        self._told = ""

    def step(self, last: Kept) -> Stamped | None:
        """
        Have the newest checkpoint stamped when it is time; ``None`` when it is not.

        What goes wrong is told in the log, once for each kind, and tried again a minute later. Raises
        ``OSError`` when a time-stamp could not be kept.
        """
        digest = last.checkpoint.digest
        now = self._now()
        # A clock that was ahead and is no more must not put off what is due.
        is_due = now >= self._due_at or self._due_at > now + max(
            self._authority.every, _TRY_AGAIN_SECONDS
        )
        if not is_due or (self.last is not None and self.last.digest == digest):
            return None
        self._due_at = self._now() + min(_TRY_AGAIN_SECONDS, self._authority.every)
        try:
            token, time = self._stamp(last.checkpoint)
        except (TimeStampRefused, FetchRefused) as refused:
            self._tell(str(refused))
            return None
        line = StampLine(digest, base64.b64encode(token).decode("ascii"))
        append_line(self._path, msgspec.json.encode(line) + b"\n")
        self._told = ""
        self._due_at = self._now() + self._authority.every
        self.last = Stamped(digest, time)
        return self.last

    def _first_due(self) -> float:
        try:
            return self._path.stat().st_mtime + self._authority.every
        except OSError:
            return 0.0

    def _tell(self, failure: str) -> None:
        if failure != self._told:
            _log.error("audit_time_stamp_failed", reason=failure)
        self._told = failure

    def _stamp(self, checkpoint: Checkpoint) -> tuple[bytes, datetime]:
        # What it takes is loaded where it is used: most do without.
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # noqa: PLC0415 - see above.

        text = checkpoint.text.encode()
        request = TimestampRequestBuilder().data(text).hash_algorithm(HashAlgorithm.SHA256).build()
        token = self._poster.post(
            self._authority.url,
            request.as_bytes(),
            content_type=_REQUEST,
            max_bytes=_LARGEST,
            answer_type=_REPLY,
        )
        time = stamped_time(token, text, roots=self._authority.roots, request=request)
        if time.timestamp() + LENIENCE_SECONDS < moment(checkpoint):
            # Whoever verifies it would take the checkpoint for one that was dated ahead.
            raise TimeStampRefused(
                f"the checkpoint is of {checkpoint.time}, and by the authority it is not yet: "
                "one of the two clocks is wrong"
            )
        return token, time


def stamped_time(
    token: bytes, text: bytes, *, roots: Path, request: "TimeStampRequest | None" = None
) -> datetime:
    """
    When the text of a checkpoint was there, by an authority that leads to one of the roots in a file.

    With its ``request`` the answer has to be one to that. Raises ``TimeStampRefused``.
    """
    from rfc3161_client import (  # noqa: PLC0415 - as above.
        VerificationError,
        VerifierBuilder,
        decode_timestamp_response,
    )

    builder = VerifierBuilder() if request is None else VerifierBuilder.from_request(request)
    try:
        with roots.open("rb") as file:
            certificates = load_pem_x509_certificates(file.read(_LARGEST_ROOTS))
        for certificate in certificates:
            builder = builder.add_root_certificate(certificate)
        response = decode_timestamp_response(token)
        builder.build().verify_message(response, text)
    except (VerificationError, ValueError, OSError) as error:
        raise TimeStampRefused(f"no time-stamp of this checkpoint: {error}") from None
    return response.tst_info.gen_time
