"""Operational logs: what they show, and above all what they never show."""

import base64
import io
import json
import logging
import logging.config
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import structlog
from granian.log import LOGGING_CONFIG
from hypothesis import given
from hypothesis import strategies as st

from broker.logs import GRANIAN_LOGGING, configure_logs, name_process, neutralise, redact

CANARY = "CANARYcanary0123456789abcdefghijklmnop"
JWS = ".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"ES256"}', b'{"sub":"' + CANARY.encode() + b'"}', b"s" * 64)
)
JWS_WITH_WHITE_SPACE = ".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{\r\n "alg":"ES256"}', b'{ "sub":"' + CANARY.encode() + b'"}', b"s" * 64)
)
SECRETS = {
    "a token": (JWS, JWS[60:90]),
    "a token whose header begins with white space": (
        JWS_WITH_WHITE_SPACE,
        JWS_WITH_WHITE_SPACE[60:90],
    ),
    "a token that was cut": (JWS[:70], JWS[20:60]),
    "basic credentials": (
        "Basic " + base64.b64encode(b"client:" + CANARY.encode()).decode(),
        "Y2xpZW50",
    ),
    "a bearer token": (f"bearer {CANARY}", CANARY),
    "a client secret of ours": (f"bks_{CANARY}", CANARY),
    "a Vault service token": (f"hvs.{CANARY}", CANARY),
    "a Vault batch token": (f"hvb.{CANARY}", CANARY),
    "an OpenBao token": (f"s.{CANARY}", CANARY),
    "an OpenBao batch token in a namespace": (f"b.{CANARY}.ns1", CANARY),
    "a form": (f"grant_type=x&client_secret={CANARY}&scope=a", CANARY),
    "a form as JSON": (f'{{"client_secret": "{CANARY}", "scope": "a"}}', CANARY),
    "a form as Python shows it": (f"{{'subject_token': '{CANARY}'}}", CANARY),
    "a password in a URL": (f"redis://:{CANARY}@cache.example:6379/0", CANARY),
    "a private key": (
        f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
        CANARY,
    ),
    "a private key that was cut": (f"-----BEGIN PRIVATE KEY-----\\n{CANARY}", CANARY),
    "a secret's hash": (f"$argon2id$v=19$m=65536,t=3,p=4${CANARY}${CANARY}", CANARY),
}

Style = Literal["json", "console"]


@pytest.fixture
def stream() -> Iterator[Callable[[Style, str], io.StringIO]]:
    """Configure logging into a buffer; everything is put back afterwards."""
    root, granian = logging.getLogger(), logging.getLogger("_granian")
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    buffer = io.StringIO()

    def configure(style: Style = "json", level: str = "info") -> io.StringIO:
        configure_logs(level=level, style=style, stream=buffer)
        return buffer

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    granian.handlers.clear()
    logging.getLogger("broker").setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()


def test_an_entry_is_one_line_of_json_with_time_level_and_logger(
    stream: Callable[..., io.StringIO],
) -> None:
    out = stream()

    structlog.get_logger("broker.test").warning("worker_died", worker="grpc", restart_in=0.1)

    entry = json.loads(out.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "worker_died",
        "level": "warning",
        "logger": "broker.test",
        "restart_in": 0.1,
        "worker": "grpc",
    }


@pytest.mark.requirement("LOG-01")
@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_passes(stream: Callable[..., io.StringIO], style: Style, what: str) -> None:
    """However it gets into an entry, and at the finest level."""
    secret, canary = SECRETS[what]
    out = stream(style, "debug")
    log = structlog.get_logger("broker.test")

    message = f"message with {secret} inside"

    log.info(message)
    log.debug("value", text=secret, nested={"deep": [secret, {"deeper": (secret,)}]})
    log.info("object", thing=_Thing(secret), raw=secret.encode(), deep=_nest(secret))
    log.info("key", **{f"{secret}": 1})
    logging.getLogger("some.library").warning("calling with %s failed", secret)
    try:
        _fail(f"cannot read {secret}")
    except ValueError:
        log.exception("failed", hint=secret)
        logging.getLogger("some.library").exception("it failed")

    assert out.getvalue().count("\n") >= 7
    assert canary not in out.getvalue()


def _fail(message: str) -> None:
    raise ValueError(message)


@dataclass(frozen=True)
class _Thing:
    secret: str


def _nest(value: Any) -> Any:
    for _ in range(8):
        value = {"in": value}
    return value


@pytest.mark.requirement("LOG-01")
@pytest.mark.parametrize(
    "key",
    [
        "client_secret",
        "authorization",
        "Authorization",
        "assertion",
        "subject_token",
        "password",
        "dpop",
    ],
)
def test_what_a_secret_is_called_is_enough_to_hide_it(
    stream: Callable[..., io.StringIO], key: str
) -> None:
    """Even if nothing in the value itself gives it away."""
    out = stream()

    structlog.get_logger("broker.test").info(
        "request", **{key: "plainword"}, more={key: "plainword"}
    )

    assert "plainword" not in out.getvalue()


@pytest.mark.requirement("LOG-01")
def test_what_nobody_caught_is_logged_without_its_secrets(
    stream: Callable[..., io.StringIO],
) -> None:
    out = stream()

    def fail() -> None:
        raise RuntimeError(f"token was {JWS}")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as failure:
        sys.excepthook(RuntimeError, failure, failure.__traceback__)

    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["event"] for entry in entries] == ["uncaught", "uncaught"]
    assert "token was [token]" in entries[0]["exception"]


@pytest.mark.requirement("LOG-01")
def test_a_record_that_cannot_be_formatted_does_not_show_its_arguments(
    stream: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    """The standard library would print them to standard error as they are."""
    out = stream()

    logging.getLogger("some.library").warning("%d items", JWS)

    assert json.loads(out.getvalue())["event"] == "log_failed"
    assert JWS not in "".join(capsys.readouterr())


@pytest.mark.requirement("LOG-07")
def test_an_address_of_a_person_does_not_pass(stream: Callable[..., io.StringIO]) -> None:
    out = stream()

    structlog.get_logger("broker.test").info("login", who="ann.o'neil+x@acme.example logged in")

    assert "acme.example" not in out.getvalue()


HOSTILE = {
    "line breaks": 'x\r\n{"level": "critical", "event": "forged"}',
    "terminal orders": "\x1b[2J\x1b]0;owned\x07",
    "unicode line breaks": "a\u2028b\u2029c\x85d",
    "text that turns around": "\u202eevil\u202c\u2066x\u2069",
    "text that hides": "a\u200bb\ufeff\U000e0041",
    "JSON": '","level":"critical","x":"',
    "half a character": "\ud800",
}


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_text_stays_within_its_line_of_json(
    stream: Callable[..., io.StringIO], what: str
) -> None:
    out = stream()

    structlog.get_logger("broker.test").info(HOSTILE[what], value=HOSTILE[what])

    lines = out.getvalue().split("\n")
    assert len(lines) == 2
    entry = json.loads(lines[0])
    assert entry["level"] == "info"
    assert entry["event"] == entry["value"] == HOSTILE[what]
    assert lines[0].isascii()


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("what", [what for what in HOSTILE if what != "JSON"])
def test_hostile_text_cannot_act_on_the_console(
    stream: Callable[..., io.StringIO], what: str
) -> None:
    out = stream("console")
    log = structlog.get_logger("broker.test")

    log.info(HOSTILE[what], value=HOSTILE[what], nested={"in": [HOSTILE[what]]})
    logging.getLogger("some.library").warning("%s", HOSTILE[what])

    assert out.getvalue().count("\n") == 2
    assert not any(
        sign in out.getvalue().replace("\n", "") for sign in HOSTILE[what] if not sign.isprintable()
    )


@pytest.mark.requirement("LOG-02")
def test_no_line_of_a_traceback_passes_for_an_entry_of_its_own(
    stream: Callable[..., io.StringIO],
) -> None:
    out = stream("console")

    try:
        _fail("x\n2026-01-01T00:00:00Z [critical ] forged")
    except ValueError:
        structlog.get_logger("broker.test").exception("failed")

    first, *rest = out.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


@pytest.mark.requirement("LOG-03")
def test_a_field_cannot_take_the_place_of_level_or_time(stream: Callable[..., io.StringIO]) -> None:
    out = stream()

    structlog.get_logger("broker.test").info(
        "real", level="critical", timestamp="never", logger="root"
    )

    entry = json.loads(out.getvalue())
    assert entry["level"] == "info"
    assert entry["timestamp"] != "never"
    assert entry["logger"] == "broker.test"


@pytest.mark.requirement("LOG-06")
def test_a_giant_field_is_cut_and_says_so(stream: Callable[..., io.StringIO]) -> None:
    out = stream()

    structlog.get_logger("broker.test").info(
        "big", sub="x" * 1_000_000, many=list(range(100_000)), number=10**10_000, nan=float("nan")
    )

    assert len(out.getvalue()) < 40_000
    entry = json.loads(out.getvalue(), parse_constant=pytest.fail)
    assert "characters cut" in entry["sub"]


@pytest.mark.parametrize(
    "attack",
    [
        "eyJ" * 90_000,
        "a." * 130_000,
        "Basic " * 40_000,
        "client_secret=" * 18_000,
        "a@" * 130_000,
        "-----BEGIN PRIVATE KEY-----" * 9_000,
        "://a:" * 50_000,
        ("A" * 17 + ".") * 14_000,
        " " * 260_000,
    ],
    ids=lambda attack: attack[:12],
)
def test_no_text_makes_redaction_slow(attack: str) -> None:
    """Measured in the time of the processor, against a plain text of the same length."""
    plain = "quite ordinary words " * (len(attack) // 21)

    assert _cpu_of(attack) < 20 * _cpu_of(plain) + 0.05


def _cpu_of(text: str) -> float:
    start = time.process_time()
    redact(text)
    return time.process_time() - start


@pytest.mark.parametrize(
    "text",
    [
        "Basic authentication is required.",
        "GET /.well-known/oauth-authorization-server 200",
        "broker.endpoints.token took 12.5 ms",
        "policy set 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https://broker.example/realms/a?x=1",
        "subject_token_type=urn:ietf:params:oauth:token-type:jwt",
        "[::1]:9443 listening",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_neutral_text_has_no_control_characters_whatever_it_was(text: str) -> None:
    assert neutralise(text).isprintable() or not any(sign < " " for sign in neutralise(text))
    assert neutralise(neutralise(text)) == neutralise(text)


@given(st.text(), st.text())
def test_a_token_is_redacted_whatever_stands_around_it(before: str, after: str) -> None:
    assert JWS[60:90] not in redact(before + JWS + after)


def test_libraries_take_the_same_way_and_never_debug(
    stream: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stream("json", "debug")

    names = ("urllib3.connectionpool", "uvicorn.error", "grpc._server", "hvac")
    for name in ("uvicorn", *names):
        # A server that another test ran in this process may have set up its logs in its own way.
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "level", logging.NOTSET)
        monkeypatch.setattr(logger, "disabled", False)
        logger.manager._clear_cache()  # type: ignore[attr-defined] # it remembers the level.

    for name in names:
        logging.getLogger(name).debug("secret things")
        logging.getLogger(name).info("started")
        logging.getLogger(name).error("failed")
    structlog.get_logger("broker.test").debug("ours")

    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert events == ["failed"] * 4 + ["ours"]


def test_every_entry_names_its_process_in_every_thread(
    stream: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.logs._PROCESS", {})
    out = stream()
    name_process(worker="grpc-1", valkey="127.0.0.1:6379")

    thread = threading.Thread(target=structlog.get_logger("broker.test").info, args=("ours",))
    thread.start()
    thread.join()
    logging.getLogger("some.library").warning("theirs")
    structlog.get_logger("broker.test").info("of another", worker="http-0")

    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["worker"] for entry in entries] == ["grpc-1", "grpc-1", "http-0"]
    assert {entry["valkey"] for entry in entries} == {"127.0.0.1:6379"}


def test_a_quiet_level_keeps_libraries_quiet_too(stream: Callable[..., io.StringIO]) -> None:
    out = stream("json", "error")

    logging.getLogger("uvicorn.error").warning("started")
    structlog.get_logger("broker.test").warning("ours")

    assert out.getvalue() == ""


def test_granian_takes_the_same_way_although_it_configures_logging_in_its_workers(
    stream: Callable[..., io.StringIO], capfd: pytest.CaptureFixture[str]
) -> None:
    out = stream()

    # What granian.log.configure_logging does with log_dictconfig.
    logging.config.dictConfig({**LOGGING_CONFIG, **GRANIAN_LOGGING})
    logging.getLogger("_granian").error("Spawning worker-1 with PID: 7")

    assert json.loads(out.getvalue())["event"] == "Spawning worker-1 with PID: 7"
    assert capfd.readouterr().out == ""


def test_warnings_become_entries(stream: Callable[..., io.StringIO]) -> None:
    out = stream()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Entering the block above put back what configuring had replaced.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"old way of passing {JWS}", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)

    assert "old way of passing [token]" in json.loads(out.getvalue())["event"]
