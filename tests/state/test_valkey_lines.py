"""Bad lines to a Valkey: every call ends in time, and whoever listens or poses as the server is refused."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trustme

from broker.errors import Reason, TemporarilyUnavailable
from broker.model import OneTimeId, Pedigree, Quota
from broker.state.entries import spent_key
from broker.state.valkey import ValkeyState
from broker.state.valkey_allowances import ValkeyAllowances
from broker.state.valkey_keeper import StoreTerms
from broker.state.valkey_link import Link
from broker.state.valkey_opening import Servers, primary_of
from tests.e2e.patience import until
from tests.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.valkey import ValkeyServer, new_prefix, open_state, servers_at, settled_state

NOW = 1_800_000_000
DEADLINE = 0.3
# A busy machine may notice later that the time is over; who waited for the line would wait for longer.
SLACK = 15.0
LONG = 40.0
CALLERS = 16


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def proxy(valkey_server: ValkeyServer) -> Iterator[FaultProxy]:
    with fault_proxy(valkey_server.port) as proxy:
        yield proxy


@pytest.fixture
def terms(valkey_server: ValkeyServer) -> StoreTerms:
    """Those of a store that has been in use for a while."""
    terms = StoreTerms(new_prefix())
    settled_state(valkey_server, Clock(), prefix=terms.prefix).close()
    return terms


@pytest.fixture
def state(terms: StoreTerms, proxy: FaultProxy) -> Iterator[ValkeyState]:
    """The store behind the proxy, for somebody who waits for next to no time."""
    state = open_state(
        servers_at(proxy.port), now=Clock(), terms=terms, deadline=DEADLINE, connections=CALLERS
    )
    yield state
    state.close()


@pytest.fixture
def patient(terms: StoreTerms, valkey_server: ValkeyServer) -> Iterator[ValkeyState]:
    """The same store without the proxy, for somebody who has time."""
    state = open_state(servers_at(valkey_server.port), now=Clock(), terms=terms)
    yield state
    state.close()


def one_time_id(number: int = 0) -> OneTimeId:
    return OneTimeId("client_assertion", "agent-x", f"jti-{number}", NOW + 330, NOW - 30)


def seconds(call: Callable[[], object]) -> float:
    """How long it took to be refused."""
    started = time.monotonic()
    with pytest.raises(TemporarilyUnavailable):
        call()
    return time.monotonic() - started


def is_well(state: ValkeyState) -> bool:
    try:
        state.check()
    except TemporarilyUnavailable:
        return False
    return True


def spends_anew(state: ValkeyState, numbers: Iterator[int]) -> bool:
    """Whether an id can be spent that nobody has spent; an answer may be late once, on a busy machine."""
    try:
        return state.spend((one_time_id(next(numbers)),)) is None
    except TemporarilyUnavailable:
        return False


def refuses_again(state: ValkeyState, number: int) -> bool:
    """Whether an id is known to be spent; ``False`` when there is no answer, which may be late."""
    try:
        assert state.spend((one_time_id(number),)) == one_time_id(number)
    except TemporarilyUnavailable:
        return False
    return True


def hang(proxy: FaultProxy) -> None:
    proxy.fault = Fault.BLACKHOLE


def drip(proxy: FaultProxy) -> None:
    proxy.fault = Fault.DRIP


def slow_down(proxy: FaultProxy) -> None:
    proxy.delay = LONG


def cut(proxy: FaultProxy) -> None:
    proxy.cut()


def lose_answers(proxy: FaultProxy) -> None:
    proxy.fault = Fault.LOST_ANSWERS


@pytest.mark.requirement("R-13", "R-09", "RPL-03")
@pytest.mark.parametrize("harm", [hang, drip, slow_down, cut, lose_answers])
@pytest.mark.parametrize("is_new", [False, True])
def test_every_call_ends_in_time_and_works_again_when_the_line_does(
    state: ValkeyState,
    patient: ValkeyState,
    proxy: FaultProxy,
    harm: Callable[[FaultProxy], None],
    *,
    is_new: bool,
) -> None:
    assert patient.spend((one_time_id(),)) is None
    until(lambda: spends_anew(state, count(10)), seconds=30, what="the store is reached")
    harm(proxy)
    if is_new:
        proxy.end_connections()

    assert seconds(lambda: state.spend((one_time_id(1),))) < DEADLINE + SLACK
    assert seconds(lambda: state.reason_against(Pedigree("jti", NOW, frozenset()))) < SLACK
    assert seconds(lambda: state.revoke("jti", NOW)) < DEADLINE + SLACK
    assert seconds(state.check) < 2 * DEADLINE + SLACK

    proxy.mend()
    until(lambda: is_well(state), seconds=LONG / 2, what="the store is well again")
    until(lambda: refuses_again(state, 0), seconds=30, what="what was spent is known")


@pytest.mark.requirement("R-13")
def test_while_a_server_hangs_callers_are_refused_at_once(
    state: ValkeyState, proxy: FaultProxy
) -> None:
    """One pays for finding out, and now and then another, each with a connection."""
    hang(proxy)
    before = proxy.accepted
    took: list[float] = []

    def call_again_and_again(until_at: float) -> None:
        while time.monotonic() < until_at:
            took.append(seconds(lambda: state.spend((one_time_id(),))))
            time.sleep(0.002)

    at_once(call_again_and_again, time.monotonic() + 2.0)

    # At first each of them may be about to connect.
    tried = proxy.accepted - before
    assert tried <= CALLERS + 12
    assert len(took) > 2 * tried
    # Whoever does not try does not wait either.
    assert 2 * sum(one > DEADLINE / 2 for one in took) < len(took)
    assert max(took) < DEADLINE + SLACK


@pytest.mark.requirement("R-13")
def test_a_flapping_line_is_not_stormed(state: ValkeyState, proxy: FaultProxy) -> None:
    """It is cut five times a second, and sixteen threads ask as fast as they can."""
    before = proxy.accepted
    stop_at = time.monotonic() + 3.0

    def call_again_and_again(until_at: float) -> None:
        number = 0
        while time.monotonic() < until_at:
            number += 1
            with suppress(TemporarilyUnavailable):
                state.spend((one_time_id(number),))
            time.sleep(0.002)

    def flap() -> None:
        while time.monotonic() < stop_at:
            proxy.cut()
            time.sleep(0.1)
            proxy.mend()
            time.sleep(0.1)

    flapping = threading.Thread(target=flap)
    flapping.start()
    at_once(call_again_and_again, stop_at)
    flapping.join()

    # After each cut one try and one connection for each thread, or two where the first is cut while it is
    # being opened; without a breaker there are as many as there are questions, some twenty thousand.
    assert proxy.accepted - before < 2 * 15 * (CALLERS + 4)


@pytest.mark.requirement("R-13", "R-34")
def test_a_line_that_stays_cut_is_tried_once_a_second_in_the_end(
    state: ValkeyState, proxy: FaultProxy
) -> None:
    proxy.cut()
    before = proxy.accepted

    def call_again_and_again(until_at: float) -> None:
        while time.monotonic() < until_at:
            seconds(lambda: state.spend((one_time_id(),)))
            time.sleep(0.002)

    at_once(call_again_and_again, time.monotonic() + 3.0)

    # When it is cut, each of them may be about to connect.
    assert proxy.accepted - before <= CALLERS + 12


def at_once(call: Callable[[float], None], until_at: float) -> None:
    threads = [threading.Thread(target=call, args=(until_at,)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.requirement("P-B")
def test_an_id_whose_answer_was_lost_is_spent(
    state: ValkeyState, proxy: FaultProxy, terms: StoreTerms, valkey_server: ValkeyServer
) -> None:
    """It was asked for once, and nobody may have it twice."""
    # A server that does not know the script yet answers that first.
    until(lambda: spends_anew(state, count(10)), seconds=30, what="the store is reached")
    lose_answers(proxy)
    seconds(lambda: state.spend((one_time_id(),)))

    # Whoever has waited in vain may be gone before the question is read.
    name = f"{{{terms.prefix}}}:spent"
    until(
        lambda: valkey_server.ask("ZSCORE", name, spent_key(one_time_id())) is not None,
        seconds=30,
        what="what was asked for has come about",
    )
    proxy.mend()
    until(lambda: refuses_again(state, 0), seconds=30, what="the store is well again")


@pytest.mark.requirement("RPL-03")
def test_who_finds_every_connection_taken_is_refused(
    valkey_server: ValkeyServer, proxy: FaultProxy
) -> None:
    terms = StoreTerms(new_prefix())
    settled_state(valkey_server, Clock(), prefix=terms.prefix).close()
    state = open_state(
        servers_at(proxy.port), now=Clock(), terms=terms, deadline=DEADLINE, connections=1
    )
    with state._primary.conversation():
        assert seconds(lambda: state.spend((one_time_id(),))) < DEADLINE + SLACK
    state.close()


def test_an_idle_connection_that_was_closed_harms_nobody(
    terms: StoreTerms, proxy: FaultProxy
) -> None:
    """As firewalls and servers do; were it used, an id might be spent for nothing."""
    state = open_state(servers_at(proxy.port), now=Clock(), terms=terms, deadline=30)
    for number in range(5):
        proxy.end_connections()
        idle = state._primary._idle
        until(partial(all_are_stale, idle), seconds=30, what="the ends have arrived")
        assert state.spend((one_time_id(number),)) is None
        assert state._primary._idle
    state.close()


def all_are_stale(idle: Sequence[Link]) -> bool:
    return all(link.is_stale() for link in idle)


@contextmanager
def answering(answer: bytes, *, is_endless: bool = False) -> Iterator[int]:
    """The port of somebody who answers everything alike, and again and again without being asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    while client.recv(65_536):
                        client.sendall(answer)
                        while is_endless:
                            client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.requirement("RPL-03")
@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"$-1\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\r\n$4\r\nwell\r\n",
        b"*1\r\n:1\r\n",
        b"$99999999999\r\nabc",
        b"$x\r\n",
        b"*99999999\r\n",
        b"*1\r\n" * 100_000,
        b"-\r\n",
        b"-ERR \xff\xfe\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff" * 100,
        b"$24\r\nmaxmemory_policy:nonsense\r\n",
        b"$28\r\nmaxmemory_policy:noeviction\r\n\r\n",
    ],
    ids=range(17),
)
def test_whatever_else_answers_there_is_not_believed(answer: bytes) -> None:
    with answering(answer) as port:
        state = open_state(servers_at(port), now=Clock(), deadline=DEADLINE)

        assert seconds(lambda: state.spend((one_time_id(),))) < DEADLINE + SLACK
        assert seconds(lambda: state.reason_against(Pedigree("jti", NOW, frozenset()))) < SLACK
        assert seconds(state.check) < 2 * DEADLINE + SLACK
        state.close()


@pytest.mark.requirement("RPL-03")
@pytest.mark.parametrize("answer", [b"x" * 65_536, b"*1\r\n", b"$1\r\nx\r\n"])
def test_an_answer_without_end_is_not_waited_for(answer: bytes) -> None:
    with answering(answer, is_endless=True) as port:
        state = open_state(servers_at(port), now=Clock(), deadline=DEADLINE)

        assert seconds(state.check) < 2 * DEADLINE + SLACK
        state.close()


AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


@contextmanager
def secured(
    server: ValkeyServer, certificate: trustme.LeafCert, *, asks: trustme.CA | None = None
) -> Iterator[FaultProxy]:
    """The server behind TLS; with an authority it asks for a certificate of that one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if asks is not None:
        asks.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    with fault_proxy(server.port, tls=context) as proxy:
        yield proxy


def authorities(folder: Path, authority: trustme.CA = AUTHORITY) -> Path:
    file = folder / "authorities.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


def own_certificate(folder: Path, authority: trustme.CA) -> tuple[Path, Path]:
    certificate = authority.issue_cert("broker.test")
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key_file))
    return cert_file, key_file


def open_over(
    proxy: FaultProxy,
    host: str,
    tls: tuple[Path | None, Path | None, Path | None],
    *,
    deadline: float = 30.0,
) -> str:
    """What becomes of a store there: why it is refused, or that it was reached."""
    servers = Servers([(host, proxy.port)], tls=tls)
    state = open_state(servers, now=Clock(), deadline=deadline)
    found = reason_of(state)
    state.close()
    return found


def reason_of(state: ValkeyState) -> str:
    """Why a store is not ready, as one is not that has just begun."""
    with pytest.raises(TemporarilyUnavailable) as caught:
        state.check()
    assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
    return caught.value.detail.removeprefix("state: ").partition(", and is ready in")[0]


REACHED = "it began anew just now"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_proves_its_name_is_talked_to(
    valkey_server: ValkeyServer, tmp_path: Path, host: str
) -> None:
    with secured(valkey_server, AUTHORITY.issue_cert("127.0.0.1", "localhost")) as proxy:
        assert open_over(proxy, host, (authorities(tmp_path), None, None)) == REACHED


@pytest.mark.parametrize(
    ("certificate", "trusted"),
    [
        (STRANGER.issue_cert("127.0.0.1"), AUTHORITY),
        (AUTHORITY.issue_cert("valkey.example"), AUTHORITY),
        (AUTHORITY.issue_cert("127.0.0.1"), None),
    ],
    ids=["of a stranger", "of another name", "not known to the system"],
)
def test_a_server_that_does_not_is_told_nothing(
    valkey_server: ValkeyServer,
    tmp_path: Path,
    certificate: trustme.LeafCert,
    trusted: trustme.CA | None,
) -> None:
    with secured(valkey_server, certificate) as proxy:
        file = None if trusted is None else authorities(tmp_path, trusted)

        assert open_over(proxy, "127.0.0.1", (file, None, None)) == "certificate not trusted"


def test_a_server_without_tls_is_told_nothing(valkey_server: ValkeyServer, tmp_path: Path) -> None:
    with fault_proxy(valkey_server.port) as proxy:
        tls = (authorities(tmp_path), None, None)
        found = open_over(proxy, "127.0.0.1", tls, deadline=DEADLINE)

    assert found in {"no TLS", "timed out", "unreachable"}


def test_a_server_that_wants_tls_is_not_talked_to_without(valkey_server: ValkeyServer) -> None:
    with secured(valkey_server, AUTHORITY.issue_cert("127.0.0.1")) as proxy:
        state = open_state(servers_at(proxy.port), now=Clock())

        with pytest.raises(TemporarilyUnavailable):
            state.check()
        state.close()


def test_the_broker_shows_its_certificate_where_one_is_asked_for(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    certificate = AUTHORITY.issue_cert("127.0.0.1")
    trusted = authorities(tmp_path)
    with secured(valkey_server, certificate, asks=AUTHORITY) as proxy:
        own = own_certificate(tmp_path, AUTHORITY)
        assert open_over(proxy, "127.0.0.1", (trusted, *own)) == REACHED

        strange = own_certificate(tmp_path, STRANGER)
        assert open_over(proxy, "127.0.0.1", (trusted, *strange)) != REACHED
        assert open_over(proxy, "127.0.0.1", (trusted, None, None)) != REACHED


def test_the_authorities_may_be_replaced_while_the_broker_runs(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    with secured(valkey_server, AUTHORITY.issue_cert("127.0.0.1")) as proxy:
        servers = servers_at(proxy.port, tls=(authorities(tmp_path, STRANGER), None, None))
        state = open_state(servers, now=Clock(), deadline=30)
        assert reason_of(state) == "certificate not trusted"

        authorities(tmp_path, AUTHORITY)

        until(lambda: reason_of(state) == REACHED, seconds=30, what="it is believed")
        state.close()


def test_a_handshake_that_is_never_finished_ends_in_time(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    with fault_proxy(valkey_server.port) as proxy:
        hang(proxy)
        servers = servers_at(proxy.port, tls=(authorities(tmp_path), None, None))
        started = time.monotonic()
        state = open_state(servers, now=Clock(), deadline=DEADLINE)

        assert time.monotonic() - started < DEADLINE + SLACK
        state.close()


def test_a_name_that_does_not_resolve_is_said_to_be_one() -> None:
    state = open_state(Servers([("no-such-host.invalid", 6379)]), now=Clock(), deadline=2)

    with pytest.raises(TemporarilyUnavailable) as caught:
        state.check()

    assert caught.value.detail in {"state: the name does not resolve", "state: timed out"}
    state.close()


def test_limits_are_shared_over_a_line_that_is_too_long_to_connect_within_their_own_time(
    proxy: FaultProxy,
) -> None:
    proxy.delay = 0.6
    # The number of a database takes a round trip of its own, as TLS and a password do.
    primary = primary_of(
        Servers([("127.0.0.1", proxy.port)], database=1),
        prefix=new_prefix(),
        connections=1,
        deadline=1.0,
        opening=LONG,
    )
    allowances, quota = ValkeyAllowances(primary, new_prefix()), Quota(1, 100)

    assert allowances.draw("client a", quota, 1).number == 1
    proxy.mend()
    assert [allowances.draw("client a", quota, 1).number for _ in range(2)] == [1, 1]
    assert proxy.accepted == 1
    # Once it is open, nobody waits any longer for an answer than before.
    proxy.fault = Fault.BLACKHOLE
    assert seconds(lambda: allowances.draw("client a", quota, 1)) < 1.0 + SLACK
    allowances.close()
