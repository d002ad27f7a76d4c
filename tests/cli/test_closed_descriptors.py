"""A broker that is started with closed descriptors prints into nothing else that it opens."""

import subprocess
import sys
from pathlib import Path

import pytest

TELL = """
import os, socket, sys
from broker.cli.descriptors import fill_standard_descriptors
missing = fill_standard_descriptors()
sock = socket.socket()
print("to standard output", flush=True)
print("to standard error", file=sys.stderr, flush=True)
devices = [os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in missing]
told = f"{sorted(missing)} {all(devices)} {sock.fileno() > 2} {[os.get_inheritable(n) for n in (0, 1, 2)]}"
open(sys.argv[1], "w").write(told)
"""


def run(*arguments: str, closing: str) -> subprocess.CompletedProcess[bytes]:
    command = f'exec "$0" "$@" {closing}'
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, *arguments],
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("closing", "missing"),
    [
        ("", []),
        ("0<&-", [0]),
        ("1>&-", [1]),
        ("2>&-", [2]),
        ("0<&- 2>&-", [0, 2]),
        ("0<&- 1>&- 2>&-", [0, 1, 2]),
    ],
)
def test_what_was_closed_is_the_null_device_and_nothing_else_gets_its_number(
    tmp_path: Path, closing: str, missing: list[int]
) -> None:
    file = tmp_path / "told"

    ended = run("-c", TELL, str(file), closing=closing)

    assert ended.returncode == 0, ended.stderr
    assert file.read_text() == f"{missing} True True [True, True, True]"
    assert ended.stdout == (b"" if 1 in missing else b"to standard output\n")


def test_records_for_a_standard_output_that_is_closed_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(
        "issuer: http://127.0.0.1:8080\naudit: {sinks: [{type: stdout, required: true}]}\n"
    )

    ended = run("-m", "broker", "serve", "--config", str(file), closing="1>&-")

    assert ended.returncode == 3
    assert b"standard output is closed" in ended.stderr
    assert b"Traceback" not in ended.stderr
