"""A closed loop of callers against one face, in a process of its own on its own core."""

import itertools
import json
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import grpc

from bench.setting import API, GRPC_PORT, HTTP_PORT, Keys, assertions, subject_token
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
)
from broker.v1 import token_pb2, token_service_pb2, token_service_pb2_grpc

Call = Callable[[], bool]


def http_calls(token: str, proofs: Iterator[str]) -> Call:
    """One connection's calls to the token endpoint: raw bytes, so that the caller costs little."""
    fixed = {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": token,
        "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "resource": API,
        "scope": "crm.contacts.read",
        "client_assertion_type": CLIENT_ASSERTION_JWT_BEARER,
    }
    prefix = urlencode(fixed).encode() + b"&client_assertion="
    sock = socket.create_connection(("127.0.0.1", HTTP_PORT))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = (
        f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{HTTP_PORT}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "
    ).encode()

    def call() -> bool:
        body = prefix + next(proofs).encode()
        sock.sendall(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        raw = sock.recv(65_536)
        while b"\r\n\r\n" not in raw or not raw.endswith(b"}"):
            more = sock.recv(65_536)
            if not more:
                return False
            raw += more
        return raw.startswith(b"HTTP/1.1 200") and b'"access_token"' in raw

    return call


def grpc_calls(token: str, proofs: Iterator[str]) -> Call:
    """One channel's calls to ExchangeToken."""
    channel = grpc.insecure_channel(
        f"127.0.0.1:{GRPC_PORT}", options=[("grpc.use_local_subchannel_pool", 1)]
    )
    stub = token_service_pb2_grpc.TokenServiceStub(channel)

    def call() -> bool:
        request = token_service_pb2.ExchangeTokenRequest(
            subject_token=token,
            subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
            resources=[API],
            scopes=["crm.contacts.read"],
            client_authentication=token_pb2.ClientAuthentication(
                client_assertion=next(proofs), client_assertion_type=CLIENT_ASSERTION_JWT_BEARER
            ),
        )
        return bool(stub.ExchangeToken(request, timeout=10).issued_token.access_token)

    return call


def run(face: str, callers: int, seconds: float, keys: Keys, name: str) -> dict[str, float]:
    """Call for so many seconds and count; a failed call ends the run."""
    count = int(seconds * 6000) + 2000
    made = iter(assertions(keys, count, name))
    lock = threading.Lock()
    proofs = iter(lambda: _next(made, lock), "")
    token = subject_token(keys)
    connect = http_calls if face == "http" else grpc_calls
    calls = [connect(token, proofs) for _ in range(callers)]
    for call in calls:
        assert call()
    times: list[float] = []
    failures = itertools.count()
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + seconds

    def loop(call: Call) -> None:
        mine = []
        while (begun := time.perf_counter()) < end:
            if not call():
                next(failures)
                return
            mine.append(time.perf_counter() - begun)
        times.extend(mine)

    threads = [threading.Thread(target=loop, args=(call,)) for call in calls]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    times.sort()
    return {
        "calls": len(times),
        "failures": next(failures),
        "per_second": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
    }


def _next(made: Iterator[str], lock: threading.Lock) -> str:
    with lock:
        return next(made)


if __name__ == "__main__":
    face, callers, seconds, key_file, name, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    with open(key_file, "rb") as file:  # noqa: PTH123 - a private file of this run.
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pems = pickle.load(file)  # noqa: S301 - written by the parent process a moment ago.
        loaded = Keys(*(load_pem_private_key(pem, None) for pem in pems))
    print(json.dumps(run(face, int(callers), float(seconds), loaded, name)), flush=True)
