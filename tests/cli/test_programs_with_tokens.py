"""``broker run`` and what ``broker token get`` prints for shells, against a server of fixed answers."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.child import Child
from broker.cli.issued import Issued
from broker.cli.renewal import TokenFile
from broker.cli.stop import Negative
from tests.cli.conftest import Run, WebServer
from tests.e2e.patience import until
from tests.e2e.running import environment

API = "https://api.example/v2"
TOKEN = "e30.e30.c2ln"
ANSWER = {
    "access_token": TOKEN,
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "token_type": "Bearer",
    "expires_in": 300,
}
SHOW = (
    "import os; print(os.environ['BROKER_TOKEN'], open(os.environ['BROKER_TOKEN_FILE']).read(), "
    "'BROKER_CLIENT_SECRET' in os.environ)"
)


def started(
    web: WebServer, folder: Path, *command: str, options: tuple[str, ...] = ()
) -> "subprocess.Popen[str]":
    """``broker run`` with this command, as a shell would start it."""
    ours = ("--issuer", web.url, "--client", "agent", "--resource", API, *options)
    return subprocess.Popen(
        [sys.executable, "-m", "broker", "run", *ours, "--", *command],
        cwd=folder,
        env=environment() | {"BROKER_CLIENT_SECRET": "s3cret"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_program_finds_its_token_and_not_the_clients_secret(
    web: WebServer, tmp_path: Path
) -> None:
    web.answer("/token", ANSWER)

    said, errors = started(web, tmp_path, sys.executable, "-c", SHOW).communicate(timeout=120)

    assert said.split() == [TOKEN, TOKEN, "False"], errors


def test_standard_input_and_the_exit_status_are_the_programs_own(
    web: WebServer, tmp_path: Path
) -> None:
    web.answer("/token", ANSWER)
    echo = "import sys; print(sys.stdin.read().upper()); sys.exit(7)"

    process = started(web, tmp_path, sys.executable, "-c", echo)
    said, _ = process.communicate("hello", timeout=120)

    assert (said.strip(), process.returncode) == ("HELLO", 7)


def test_the_file_is_its_owners_alone_and_gone_at_the_end(web: WebServer, tmp_path: Path) -> None:
    web.answer("/token", ANSWER)
    look = (
        "import os; p = os.environ['BROKER_TOKEN_FILE']; "
        "print(p, os.stat(p).st_mode, os.stat(os.path.dirname(p)).st_mode)"
    )

    said, _ = started(web, tmp_path, sys.executable, "-c", look).communicate(timeout=120)

    path, mode, folder_mode = said.split()
    assert stat.S_IMODE(int(mode)) == 0o600
    assert stat.S_IMODE(int(folder_mode)) == 0o700
    assert not Path(path).exists()


def test_a_signal_reaches_the_program(web: WebServer, tmp_path: Path) -> None:
    web.answer("/token", ANSWER)
    ready = tmp_path / "ready"
    wait = f"import pathlib, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    process = started(web, tmp_path, sys.executable, "-c", wait)
    until(ready.exists, seconds=30, what="the program runs")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)

    assert process.returncode == 128 + signal.SIGTERM


def test_a_token_that_is_about_to_end_is_replaced_in_the_file(
    web: WebServer, tmp_path: Path
) -> None:
    web.answer("/token", ANSWER | {"expires_in": 2})
    follow = (
        "import os, sys, time\n"
        "end = time.monotonic() + 120\n"
        "path = os.environ['BROKER_TOKEN_FILE']\n"
        "first = os.stat(path).st_ino\n"
        "while os.stat(path).st_ino == first and time.monotonic() < end: time.sleep(0.05)\n"
        "sys.exit(0 if os.stat(path).st_ino != first else 1)\n"
    )

    process = started(web, tmp_path, sys.executable, "-c", follow)
    _, errors = process.communicate(timeout=200)

    assert process.returncode == 0, errors


def test_a_program_outlives_a_moment_without_a_subject_token(
    web: WebServer, tmp_path: Path
) -> None:
    """Whoever logs the user in may be just replacing the file."""
    web.answer("/token", ANSWER | {"expires_in": 2})
    subject_token = tmp_path / "subject-token"
    subject_token.write_text(TOKEN)
    ready, told_so = tmp_path / "ready", tmp_path / "told-so"
    follow = (
        "import os, pathlib, sys, time\n"
        "end = time.monotonic() + 120\n"
        "path = os.environ['BROKER_TOKEN_FILE']\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        f"told_so = pathlib.Path({str(told_so)!r})\n"
        "while not told_so.exists() and time.monotonic() < end: time.sleep(0.05)\n"
        "first = os.stat(path).st_ino\n"
        "while os.stat(path).st_ino == first and time.monotonic() < end: time.sleep(0.05)\n"
        "sys.exit(7 if os.stat(path).st_ino != first else 1)\n"
    )
    options = ("--subject-token", f"@{subject_token}")
    process = started(web, tmp_path, sys.executable, "-c", follow, options=options)
    until(lambda: ready.exists() or process.poll() is not None, seconds=30, what="it runs")

    subject_token.unlink()
    assert process.stderr is not None
    told = process.stderr.readline()
    # Only now does it begin to look: a renewal from before the moment is none that it outlived.
    told_so.touch()
    subject_token.write_text(TOKEN)
    _, errors = process.communicate(timeout=200)

    assert "could not be renewed" in told
    assert process.returncode == 7, errors


def test_no_program_is_left_behind(tmp_path: Path) -> None:
    """Whatever goes wrong, nothing lives on with a token that nobody renews."""
    pid = tmp_path / "pid"
    wait = f"import os, time, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"

    def fail() -> None:
        until(lambda: pid.exists() and pid.read_text() != "", seconds=30, what="it runs")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Child().run([sys.executable, "-c", f"{wait}; time.sleep(60)"], os.environ, fail)

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def waiting(ready: Path) -> tuple[str, ...]:
    """A program that tells its number and waits."""
    told = f"pathlib.Path({str(ready)!r}).write_text(str(os.getpid()))"
    return (sys.executable, "-c", f"import os, pathlib, time; {told}; time.sleep(60)")


def running(ready: Path) -> int:
    """The number of the program, once it runs."""
    until(lambda: ready.exists() and ready.read_text() != "", seconds=30, what="it runs")
    return int(ready.read_text())


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "signum",
    [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGKILL, signal.SIGALRM],
)
def test_no_signal_leaves_a_program_behind(
    web: WebServer, tmp_path: Path, signum: signal.Signals
) -> None:
    web.answer("/token", ANSWER)
    process = started(web, tmp_path, *waiting(tmp_path / "ready"))
    pid = running(tmp_path / "ready")

    process.send_signal(signum)
    process.communicate(timeout=120)

    until(lambda: is_gone(pid), seconds=30, what="the program has ended")


def test_what_somebody_who_was_killed_left_behind_is_removed_by_the_next(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "runtime"
    folders.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders))
    web.answer("/token", ANSWER)
    killed = started(web, tmp_path, *waiting(tmp_path / "ready"))
    running(tmp_path / "ready")
    killed.kill()
    killed.communicate(timeout=120)
    other = started(web, tmp_path, *waiting(tmp_path / "other"))
    running(tmp_path / "other")
    (theirs,) = folders.iterdir()

    said, errors = started(web, tmp_path, sys.executable, "-c", SHOW).communicate(timeout=120)

    assert said, errors
    assert list(folders.iterdir()) == [theirs]
    assert (theirs / "token").read_text() == TOKEN
    other.terminate()
    other.communicate(timeout=120)
    assert not list(folders.iterdir())


def test_a_signal_before_there_is_a_token_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "runtime"
    folders.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        web = WebServer(f"http://127.0.0.1:{mute.getsockname()[1]}")
        process = started(web, tmp_path, "true")
        connection, _ = mute.accept()
        with connection:
            process.terminate()
            process.communicate(timeout=120)

    assert process.returncode == 128 + signal.SIGTERM
    assert not list(folders.iterdir())


def test_a_program_outlives_that_nobody_reads_what_went_wrong(
    web: WebServer, tmp_path: Path
) -> None:
    web.answer("/token", ANSWER | {"expires_in": 2})
    process = started(web, tmp_path, *waiting(tmp_path / "ready"))
    pid = running(tmp_path / "ready")
    assert process.stderr is not None
    process.stderr.close()
    asked = len(web.requests)
    web.answer("/token", {"error": "temporarily_unavailable"}, status=503)

    until(lambda: len(web.requests) > asked + 1, seconds=30, what="it was tried again")

    assert process.poll() is None
    assert not is_gone(pid)
    process.stderr = None
    process.terminate()
    process.communicate(timeout=120)


def test_without_a_token_nothing_is_started(web: WebServer, tmp_path: Path) -> None:
    web.answer("/token", {"error": "invalid_client", "error_description": "No."}, status=401)
    touched = tmp_path / "touched"
    process = started(web, tmp_path, sys.executable, "-c", f"open({str(touched)!r}, 'w')")

    _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "invalid_client: No." in errors
    assert not touched.exists()


def test_a_program_that_is_not_there_is_no_traceback(web: WebServer, run: Run) -> None:
    web.answer("/token", ANSWER)

    result = run(
        *("run", "--issuer", web.url, "--client", "a", "--resource", API, "--", "no-such-program"),
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 1
    assert "no-such-program cannot be started" in result.stderr


def test_standard_input_is_not_read_for_a_token(web: WebServer, run: Run) -> None:
    result = run(
        *("run", "--issuer", web.url, "--client", "a", "--resource", API),
        *("--subject-token", "-", "--", "true"),
        BROKER_CLIENT_SECRET="s",
    )

    assert result.exit_code == 2
    assert web.requests == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("env", f"export BROKER_TOKEN={TOKEN}\n"),
        ("header", f"Authorization: Bearer {TOKEN}\n"),
        ("token", f"{TOKEN}\n"),
    ],
)
def test_a_token_is_printed_as_a_shell_wants_it(
    web: WebServer, run: Run, output: str, expected: str
) -> None:
    web.answer("/token", ANSWER)

    result = run(
        *("token", "get", "--issuer", web.url, "--client", "agent", "-o", output),
        BROKER_CLIENT_SECRET="s",
    )

    assert (result.exit_code, result.stdout) == (0, expected)


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": "x; touch pwned #"},
        {"access_token": "a\nb"},
        {"access_token": "\x1b[2J"},
        {"access_token": ""},
        {"token_type": "Bearer\nX-Evil: 1"},
        {"token_type": ""},
    ],
    ids=ascii,
)
@pytest.mark.parametrize("output", ["env", "header", "token", "json"])
def test_what_a_shell_would_obey_is_not_printed(
    web: WebServer, run: Run, answer: dict[str, str], output: str
) -> None:
    web.answer("/token", ANSWER | answer)

    result = run(
        *("token", "get", "--issuer", web.url, "--client", "agent", "-o", output),
        BROKER_CLIENT_SECRET="s",
    )

    assert (result.exit_code, result.stdout) == (1, "")
    assert "something that is no token" in result.stderr


def test_a_renewal_that_fails_keeps_the_old_token_and_is_tried_again(tmp_path: Path) -> None:
    moments = iter((0.0, 10.0, 10.0, 10.5, 100.0, 100.0))
    answers = iter((300, None, 300))

    def fetch() -> Issued:
        expires_in = next(answers)
        if expires_in is None:
            raise Negative("away")
        return Issued(f"token-{expires_in}", "", "Bearer", expires_in, "")

    held = TokenFile(tmp_path / "token", fetch, clock=lambda: next(moments))
    held.renew()
    held.due = 5.0

    assert held.renew_if_due() == "away"
    assert held.path.read_text() == "token-300"
    assert 11.0 <= held.due <= 12.5
    assert held.renew_if_due() == ""
    assert held.failures == 0


def test_what_lies_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "token.new").symlink_to(elsewhere)
    held = TokenFile(tmp_path / "token", lambda: Issued(TOKEN, "", "Bearer", 300, ""))

    with pytest.raises(OSError, match=os.strerror(40)):
        held.renew()

    assert elsewhere.read_text() == "mine"
