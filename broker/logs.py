"""Operational logs on standard error: one pipeline for us and our libraries, which no secret passes."""

import logging
import math
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

GRANIAN_LOGGING: Final[Mapping[str, Any]] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}},
}
"""For granian's ``log_dictconfig``: it sets up handlers of its own in every worker unless told so."""

_TEXT_LIMIT = 8 * 1024
_READ_LIMIT = 256 * 1024
_LONGEST_WORD = 64 * 1024
_DEPTH_LIMIT = 4
_ITEM_LIMIT = 64

# Their warnings are about themselves: that a connection more than is kept was open for a moment.
_NEEDLESS: Final = ("urllib3.connectionpool",)

# What every entry of this process tells, by its name.
_PROCESS: Final[dict[str, str]] = {}

_SECRET_KEYS = frozenset(
    {
        "access_token",
        "actor_token",
        "assertion",
        "authorization",
        "client_assertion",
        "client_secret",
        "cookie",
        "dpop",
        "password",
        "private_key",
        "refresh_token",
        "secret",
        "secret_id",
        "subject_token",
        "token",
        "vault_token",
    }
)

# Every pattern reads a text in one pass: none nests one repetition in another.
_SECRETS: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    (
        # With or without its end: a text may have been cut before it came here.
        re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,32}-----)?"),
        "[private key]",
    ),
    # What begins like a JSON object in base64url, dots and all; then any compact JWS, since the
    # header of one may begin with white space (RFC 7515 A.1 does).
    (re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}"), "[token]"),
    (
        re.compile(
            r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,4096}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{32,}"
        ),
        "[token]",
    ),
    # A capital, a digit or a sign tells a credential from prose such as "basic authentication".
    (
        re.compile(
            r"\b((?i:basic|bearer|dpop))\s+(?=\S{0,64}[A-Z0-9=+/._~-])[A-Za-z0-9._~+/=-]{4,}"
        ),
        r"\1 [credential]",
    ),
    (re.compile(r"bks_[A-Za-z0-9_-]{4,}"), "[client secret]"),
    (
        re.compile(r"(?<![A-Za-z0-9_.])(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9]+)?"),
        "[vault token]",
    ),
    (re.compile(r"\$argon2[a-z]{1,2}\$[^\s'\"]+"), "[secret hash]"),
    (re.compile(r"(?<=://)[^\s/@:]{0,256}:[^\s/@]{1,256}(?=@)"), "[credential]"),
    (
        re.compile(
            r"\b((?i:client_secret|client_assertion|subject_token|actor_token|assertion|password"
            r"|secret_id|refresh_token|access_token|code_verifier))"
            r"(['\"]?\s{0,8}[=:]\s{0,8}['\"]?)(?!\[)[^\s&'\",;}]+"
        ),
        r"\1\2[secret]",
    ),
    (
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}\.[A-Za-z]{2,}"
        ),
        "[email]",
    ),
)

# Control characters, what turns or hides text, and what no encoding can write.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def configure_logs(
    *, level: str = "info", style: Literal["json", "console"] = "json", stream: TextIO | None = None
) -> None:
    """
    Send all logging of this process and those it forks to ``stream``, by default standard error.

    ``level`` is ours; libraries never speak below ``warning``, since how they are doing is nothing that
    an operator asked for. What nobody caught, and warnings, take the same way as everything else.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(foreign_pre_chain=_ENRICH, processors=_processors(style, handler.stream))
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    ours = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(ours, logging.WARNING))
    logging.getLogger("broker").setLevel(ours)
    for name in _NEEDLESS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_ENRICH,
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def name_process(**facts: str) -> None:
    """
    Have every entry of this process, and of those it forks, tell these facts, whichever thread writes it.

    What an entry says itself goes before.
    """
    _PROCESS.update(facts)


def redact(text: str) -> str:
    """The text without whatever looks like a credential, and without its middle if it is very long."""
    if len(text) > _READ_LIMIT:
        # What a cut leaves of a credential might no longer be known as one, so the cut takes a word.
        word = max(text.rfind(" ", 0, _READ_LIMIT), text.rfind("\n", 0, _READ_LIMIT))
        text = text[: max(word, _READ_LIMIT - _LONGEST_WORD)]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    if len(text) > _TEXT_LIMIT:
        half = _TEXT_LIMIT // 2
        text = f"{text[:half]} [{len(text) - _TEXT_LIMIT} characters cut] {text[-half:]}"
    return text


def neutralise(text: str) -> str:
    """The text with control characters, and those that turn or hide text, written as escapes."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging named it.
        # The inherited report would print the message and its arguments as they are.
        try:
            self.stream.write(
                f'{{"level": "error", "event": "log_failed", "line": {record.lineno}}}\n'
            )
        except (OSError, ValueError):
            return


def _redact_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {_key(key): _clean(value, key=str(key)) for key, value in event.items()}


def _key(key: object) -> str:
    return neutralise(redact(str(key)))[:64]


def _clean(value: object, *, key: str = "", depth: int = 0) -> Any:
    """The value as JSON can hold it, redacted; what is no JSON value becomes its redacted ``repr``."""
    if key.lower() in _SECRET_KEYS and value is not None:
        return "[secret]"
    if isinstance(value, Mapping) and depth < _DEPTH_LIMIT:
        first = list(value.items())[:_ITEM_LIMIT]
        return {_key(name): _clean(one, key=str(name), depth=depth + 1) for name, one in first}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEPTH_LIMIT:
        return [_clean(one, depth=depth + 1) for one in list(value)[:_ITEM_LIMIT]]
    return _clean_scalar(value)


def _clean_scalar(value: object) -> str | int | float | bool | None:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool):
        return value
    # JSON knows no infinity, and Python refuses to print an integer of very many digits.
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else redact(hex(value))
    return redact(repr(value))


def _neutralise_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {
        key: _safe(value, has_lines=key in {"exception", "stack"}) for key, value in event.items()
    }


def _safe(value: Any, *, has_lines: bool = False) -> Any:
    if isinstance(value, str):
        if has_lines:
            # Set in, so that no line of a traceback can pass for an entry of its own.
            return "\n".join("    | " + neutralise(line) for line in value.split("\n"))
        return neutralise(value)
    if isinstance(value, dict):
        return {key: _safe(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_safe(one) for one in value]
    return value


def _name_process(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # Context variables would not do: threads of a library begin with none.
    for name, fact in _PROCESS.items():
        event.setdefault(name, fact)
    return event


_ENRICH: Final[tuple[Processor, ...]] = (
    _name_process,
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
)


def _processors(style: str, stream: TextIO) -> Sequence[Processor]:
    common = (ProcessorFormatter.remove_processors_meta, _redact_event)
    if style == "json":
        return (*common, structlog.processors.JSONRenderer())
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        # The default prints local variables as soon as rich is installed, and those hold secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return (*common, _neutralise_event, console)


def _log_uncaught(
    kind: type[BaseException], failure: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("broker").critical("uncaught", exc_info=(kind, failure, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
