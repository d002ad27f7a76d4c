"""The cryptography of one exchange and nothing else: two ES256 verifications and one signature."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def floor_microseconds(milliseconds: float = 150) -> float:
    """CPU time of the three operations on this core, averaged over so many milliseconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, scheme, message = key.public_key(), ec.ECDSA(hashes.SHA256()), b"x" * 420
    signature = key.sign(message, scheme)
    begun, done = time.process_time_ns(), 0
    while time.process_time_ns() - begun < milliseconds * 1e6:
        for _ in range(20):
            public.verify(signature, message, scheme)
            public.verify(signature, message, scheme)
            key.sign(message, scheme)
        done += 20
    return (time.process_time_ns() - begun) / done / 1000


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, and whatever it starts meanwhile, on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
