"""Work in a process of its own: what it says, and what becomes of it when it says nothing."""

import os
import subprocess
import sys
import threading
import time

import pytest

from broker.apart import WorkFailed, word_of

# Forked from a process with one thread, as it has to be.
PROGRAM = """
import os, socket, sys, threading, time
from broker.apart import WorkFailed, word_of

def lingering():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return str(os.getpid())

def failing():
    raise ValueError("out of order")

said = word_of(lingering, within=5)
assert said.isdigit() and int(said) != os.getpid(), said
assert threading.active_count() == 1
try:
    word_of(failing, within=5)
except WorkFailed:
    print("failed")
"""


def test_threads_of_the_work_end_with_it_and_what_failed_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=30
    )

    assert (done.returncode, done.stdout) == (0, "failed\n"), done.stderr
    assert "ValueError: out of order" in done.stderr


def test_work_that_says_nothing_in_time_is_killed() -> None:
    began = time.monotonic()

    def dawdle() -> str:
        time.sleep(60)
        return "late"

    assert word_of(dawdle, within=0.2) is None

    assert time.monotonic() - began < 5
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("word", ["", "x", "ä\ne", "x" * 4095])
def test_every_word_is_told_as_it_was_said(word: str) -> None:
    assert word_of(lambda: word, within=5) == word


def test_work_that_ends_without_a_word_has_failed() -> None:
    with pytest.raises(WorkFailed):
        word_of(lambda: os._exit(0), within=5)
    assert threading.current_thread() is threading.main_thread()
