"""Becomes the command that it is given, in a process that ends when its parent does, however that ends."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - there is no shell in it, which is meant.
