"""Views that hold a stream of a broker, in an event loop and without one."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from broker.client.credentials import Credential, Presented, Secret
from broker.client.refusals import InvalidToken, Unverifiable
from broker.client.revocations import RevocationView, StaleView, SyncRevocationView
from broker.client.verify import SyncTokenVerifier, TokenVerifier
from broker.endpoints.watching import StreamLimits
from broker.errors import Reason
from broker.model import TlsFiles
from broker.rpc.streams import StreamListener
from tests.client.key_server import running_key_server
from tests.client.receiving import BROKER_KEY, RESOURCE, good_claims, good_token
from tests.client.receiving import NOW as VERIFIER_NOW
from tests.e2e.patience import is_swift
from tests.rpc.listening import PATIENCE, Streaming, until
from tests.world import NOW, WEB_SECRET, Cast

KINDS = ("async", "sync")
CREDENTIAL = Secret("web-s", WEB_SECRET)
END = NOW + 300


class Holder(Protocol):
    """A view that listens, whatever holds it."""

    view: RevocationView | SyncRevocationView

    def caught_up(self, within: float = PATIENCE) -> None: ...
    def close(self) -> None: ...


class InThreads:
    """The view of code that blocks."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.view: SyncRevocationView = make(SyncRevocationView)
        self.view.start()

    def caught_up(self, within: float = PATIENCE) -> None:
        self.view.caught_up(within)

    def close(self) -> None:
        self.view.close()


class InAnEventLoop:
    """The view of an event loop, which runs on a thread of the test's."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.view: RevocationView = make(RevocationView)
        self._run(self._start())

    async def _start(self) -> None:
        self.view.start()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)

    def caught_up(self, within: float = PATIENCE) -> None:
        self._run(self.view.caught_up(within))

    def close(self) -> None:
        self._run(self.view.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


Holding = Callable[..., Holder]


@pytest.fixture(params=KINDS)
def holding(request: pytest.FixtureRequest) -> Iterator[Holding]:
    """Holds views of a server of streams, each way in turn."""
    with ExitStack() as closing:

        def hold(streaming: Streaming, credential: Credential = CREDENTIAL, **options: Any) -> Any:
            target = f"127.0.0.1:{streaming.port}"

            def make(kind: Any) -> Any:
                return kind("https://sts.test", credential, target, **options)

            holder = InThreads(make) if request.param == "sync" else InAnEventLoop(make)
            closing.callback(holder.close)
            return holder

        yield hold


@pytest.fixture
def streaming() -> Iterator[Streaming]:
    with Streaming().running() as running:
        yield running


def claims(jti: str = "T-1", **changes: Any) -> dict[str, Any]:
    return good_claims("https://sts.test", jti=jti, **changes)


def is_refused(holder: Holder, jti: str = "T-1") -> bool:
    return holder.view.refuses(claims(jti))


def is_stale(holder: Holder) -> bool:
    try:
        holder.view.refuses(claims())
    except StaleView:
        return True
    return False


@pytest.mark.requirement("RPL-07")
def test_a_view_refuses_what_is_withdrawn_within_a_second(
    streaming: Streaming, holding: Holding
) -> None:
    streaming.state.revoke("before", END)
    holder = holding(streaming)
    holder.caught_up()
    # What was known at first may be a quarter of a second old.
    until(lambda: is_refused(holder, "before"))
    names = (f"T-{number}" for number in count())

    def seconds_until_refused() -> float:
        name = next(names)
        assert not is_refused(holder, name)
        streaming.state.revoke(name, END)
        began = time.monotonic()
        until(lambda: is_refused(holder, name))
        return time.monotonic() - began

    assert is_swift(seconds_until_refused, seconds=1.0)


def test_a_view_is_never_much_older_than_a_second(streaming: Streaming, holding: Holding) -> None:
    holder = holding(streaming)
    holder.caught_up()

    def oldest() -> float:
        ages = []
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            ages.append(holder.view.age)
            time.sleep(0.05)
        return max(ages)

    assert is_swift(oldest, seconds=2.0)


def test_a_view_that_is_not_listening_yet_refuses_everything() -> None:
    for view in (
        RevocationView("https://sts.test", CREDENTIAL, "127.0.0.1:1"),
        SyncRevocationView("https://sts.test", CREDENTIAL, "127.0.0.1:1"),
    ):
        with pytest.raises(StaleView):
            view.refuses(claims())


def test_without_a_broker_it_does_not_catch_up(holding: Holding) -> None:
    holder = holding(Streaming(port=1))

    with pytest.raises(StaleView):
        holder.caught_up(0.3)


@pytest.mark.requirement("RPL-03")
def test_when_the_broker_is_gone_the_view_grows_stale_and_when_it_is_back_it_heals(
    holding: Holding,
) -> None:
    with Streaming().running() as first:
        first.state.revoke("T-9", END)
        holder = holding(first, max_age=3.0)
        holder.caught_up()
        address = f"127.0.0.1:{first.port}"

    def has_grown_stale() -> bool:
        age_before = holder.view.age
        if is_stale(holder):
            assert holder.view.age > 3.0, "it was refused too early"
            return True
        assert age_before <= 3.0, "it counted for too long"
        return False

    until(has_grown_stale)

    with Streaming(listener=StreamListener(address)).running() as second:
        second.state.revoke("T-1", END)
        until(lambda: not is_stale(holder) and is_refused(holder, "T-1"))
        assert not is_refused(holder, "T-9"), "what another broker told is not kept"


def test_a_stream_that_falls_silent_is_opened_anew(streaming: Streaming, holding: Holding) -> None:
    holder = holding(streaming, max_age=3.0)
    holder.caught_up()
    streaming.journal.failure = RuntimeError("canary")
    until(lambda: is_stale(holder))
    until(lambda: len(streaming.audit.records) > 2)
    streaming.journal.failure = None

    until(lambda: not is_stale(holder))

    assert "silent" in holder.view.failure or "unavailable" in holder.view.failure


def test_a_client_that_is_refused_knows_why_and_accepts_nothing(
    streaming: Streaming, holding: Holding
) -> None:
    holder = holding(streaming, Secret("web-s", "bks_wrong"))
    until(lambda: "invalid_client" in holder.view.failure)

    with pytest.raises(StaleView) as stale:
        holder.view.refuses(claims())

    assert stale.value.detail.startswith("invalid_client: Client authentication failed.")


@pytest.mark.requirement("CAU-15")
def test_the_view_of_a_client_that_is_disabled_goes_stale(
    streaming: Streaming, holding: Holding
) -> None:
    holder = holding(streaming, max_age=3.0)
    holder.caught_up()

    off = replace(Cast().client("web-s"), is_disabled=True)
    streaming.reload(Cast().with_client(off))

    until(lambda: is_stale(holder) and "invalid_client" in holder.view.failure)


def test_one_stream_too_many_is_not_held(holding: Holding) -> None:
    with Streaming(limits=StreamLimits(of_one=1)).running() as streaming:
        holding(streaming).caught_up()
        other = holding(streaming)
        until(lambda: "as many streams" in other.view.failure)

        with pytest.raises(StaleView) as stale:
            other.caught_up(0.1)

    assert "as many streams as it may" in stale.value.detail


class PodToken:
    """A token that is good for a token of the workload's own, and for nothing else."""

    def present(self, issuer: str) -> Presented:
        return Presented(grant=f"a token for {issuer}")


def test_a_credential_that_opens_no_stream_says_so(streaming: Streaming, holding: Holding) -> None:
    holder = holding(streaming, PodToken())
    until(lambda: "credential_unusable" in holder.view.failure)

    assert streaming.audit.records == []


def test_a_closed_view_leaves_its_place_and_no_threads(
    streaming: Streaming, holding: Holding
) -> None:
    holder = holding(streaming)
    holder.caught_up()
    until(lambda: streaming.places_taken() == 1)

    if isinstance(holder.view, SyncRevocationView):
        holder.view.close()
    else:
        holder._run(holder.view.aclose())  # type: ignore[attr-defined]

    until(lambda: streaming.places_taken() == 0)
    until(lambda: not [one for one in threading.enumerate() if one.name == "revocations"])


def test_as_a_context_a_view_listens_until_its_end(streaming: Streaming) -> None:
    target = f"127.0.0.1:{streaming.port}"
    with SyncRevocationView("https://sts.test", CREDENTIAL, target) as view:
        view.caught_up(PATIENCE)

    async def hold() -> None:
        async with RevocationView("https://sts.test", CREDENTIAL, target) as view:
            await view.caught_up(PATIENCE)

    asyncio.run(hold())
    until(lambda: streaming.places_taken() == 0)


@pytest.mark.requirement("GRP-11")
@pytest.mark.parametrize("is_believed", [True, False])
def test_over_tls_only_a_broker_that_is_believed_is_heard(
    holding: Holding, tmp_path: Path, *, is_believed: bool
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(files.cert_file)
    certificate.private_key_pem.write_to_path(files.key_file)
    believed = tmp_path / "ca.pem"
    (authority if is_believed else other).cert_pem.write_to_path(believed)
    with Streaming(listener=StreamListener("127.0.0.1:0", tls=files)).running() as streaming:
        holder = holding(streaming, ca_file=str(believed))

        if is_believed:
            holder.caught_up()
            assert not is_stale(holder)
        else:
            with pytest.raises(StaleView):
                holder.caught_up(1.0)
            assert streaming.audit.records == []


# ---- in the hand of a verifier


@pytest.mark.requirement("RPL-07")
@pytest.mark.parametrize("kind", KINDS)
def test_a_verifier_with_a_view_refuses_a_withdrawn_token_and_everything_when_it_is_stale(
    kind: str,
) -> None:
    with running_key_server() as server, Streaming().running() as streaming:
        server.publish(BROKER_KEY.jwk)
        target = f"127.0.0.1:{streaming.port}"
        view = SyncRevocationView(server.issuer, CREDENTIAL, target, max_age=3.0)
        options: dict[str, Any] = {"revocations": view, "clock": lambda: VERIFIER_NOW}
        if kind == "sync":
            verify: Callable[[str], Any] = SyncTokenVerifier(
                server.issuer, RESOURCE, **options
            ).verify
        else:
            verifier = TokenVerifier(server.issuer, RESOURCE, **options)

            def verify(token: str) -> Any:
                return asyncio.run(verifier.verify(token))

        with pytest.raises(Unverifiable):
            verify(good_token(server.issuer))

        with view:
            view.caught_up(PATIENCE)
            assert verify(good_token(server.issuer)).subject == "ann"
            streaming.state.revoke("T-1", END)
            until(lambda: view.refuses(good_claims(server.issuer)))
            with pytest.raises(InvalidToken) as refused:
                verify(good_token(server.issuer))
            assert refused.value.reason is Reason.REVOKED
            assert verify(good_token(server.issuer, jti="T-2")).subject == "ann"

        until(lambda: view.age > 3.0)
        with pytest.raises(Unverifiable):
            verify(good_token(server.issuer, jti="T-2"))
