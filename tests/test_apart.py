"""Work in a process of its own: what it says, and what becomes of it when it says nothing."""

import os
import subprocess
import sys
import threading

import pytest

from broker.apart import WorkFailed, word_of

# Forked from a process with one thread, as it has to be.
PROGRAM = """
import os, socket, sys, threading, time
from broker.apart import WorkFailed, word_of

def lingering():
    threading.Thread(target=time.sleep, args=(600,)).start()
    return str(os.getpid())

def dawdling():
    time.sleep(600)
    return "late"

def failing():
    raise ValueError("out of order")

said = word_of(lingering, within=60)
assert said.isdigit() and int(said) != os.getpid(), said
assert threading.active_count() == 1
began = time.monotonic()
assert word_of(dawdling, within=0.2) is None
assert time.monotonic() - began < 30
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("killed")
try:
    word_of(failing, within=60)
except WorkFailed:
    print("failed")
"""


def test_work_ends_with_its_threads_and_in_time_and_what_failed_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=300
    )

    assert (done.returncode, done.stdout) == (0, "killed\nfailed\n"), done.stderr
    assert "ValueError: out of order" in done.stderr


@pytest.mark.parametrize("word", ["", "x", "ä\ne", "x" * 4095])
def test_every_word_is_told_as_it_was_said(word: str) -> None:
    assert word_of(lambda: word, within=60) == word


def test_work_that_ends_without_a_word_has_failed() -> None:
    with pytest.raises(WorkFailed):
        word_of(lambda: os._exit(0), within=60)
    assert threading.current_thread() is threading.main_thread()
