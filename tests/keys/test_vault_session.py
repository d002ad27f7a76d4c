"""The session with Vault: nothing ambient, no redirect, one login for many, and a fault for all else."""

import itertools
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from broker.errors import Reason, TemporarilyUnavailable
from broker.keys.vault_auth import AppRoleAuth, KubernetesAuth, TokenFileAuth, VaultAuth
from broker.keys.vault_http import VaultServer, vault_name, vault_path
from broker.keys.vault_session import VaultSession
from tests.keys.pretend_vault import (
    TOKEN,
    Answer,
    PretendVault,
    Seen,
    login,
    pretend_vault,
    refused,
)
from tests.openbao import Transit

SECRET_ID = "a-secret-id-that-nobody-else-may-see"
COOLDOWN = 3.0


class Clock:
    """A monotonic clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def vault() -> Iterator[PretendVault]:
    with pretend_vault() as vault:
        yield vault


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app_role(tmp_path: Path) -> AppRoleAuth:
    auth = AppRoleAuth(tmp_path / "role-id", tmp_path / "secret-id")
    auth.role_id_file.write_text("a-role-id\n")
    auth.secret_id_file.write_text(SECRET_ID + "\n")
    return auth


@pytest.fixture
def session(vault: PretendVault, clock: Clock, app_role: AppRoleAuth) -> Iterator[VaultSession]:
    session = VaultSession(VaultServer(vault.url), auth=app_role, monotonic=clock)
    yield session
    session.close()


def fault_of(call: Callable[[], object]) -> str:
    """The class of fault that a call comes to, having made sure that it tells nothing else."""
    with pytest.raises(TemporarilyUnavailable) as raised:
        call()
    assert raised.value.reason is Reason.SIGNER_UNAVAILABLE
    shown = "".join(traceback.format_exception(raised.value))
    assert TOKEN not in shown
    assert SECRET_ID not in shown
    return raised.value.detail.removeprefix("vault: ")


# Who is asked, and with what.


def test_a_login_happens_at_the_first_call_and_its_token_goes_with_every_other(
    vault: PretendVault, session: VaultSession
) -> None:
    assert vault.seen == []

    session.get("transit/keys/es")
    session.get("transit/keys/es")

    assert [seen.path for seen in vault.seen] == [
        "auth/approle/login",
        "transit/keys/es",
        "transit/keys/es",
    ]
    assert [seen.token for seen in vault.seen] == [None, TOKEN, TOKEN]
    assert vault.seen[0].body == {"role_id": "a-role-id", "secret_id": SECRET_ID}


@pytest.mark.requirement("SGN-04")
@pytest.mark.requirement("NET-15")
def test_nothing_of_the_environment_reaches_vault(
    vault: PretendVault,
    app_role: AppRoleAuth,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / ".vault-token").write_text("planted-token")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login planted password planted")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", "planted-token")
    monkeypatch.setenv("VAULT_NAMESPACE", "planted-namespace")
    with pretend_vault() as elsewhere:
        for name in ("VAULT_ADDR", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.url)
        session = VaultSession(VaultServer(vault.url), auth=app_role)
        session.get("transit/keys/es")
        session.close()
        assert elsewhere.seen == []

    for seen in vault.seen:
        assert "planted" not in str(seen.headers)
        assert "Authorization" not in seen.headers


def test_cookies_are_not_kept(vault: PretendVault, session: VaultSession) -> None:
    vault.scripts["a"] = lambda _: Answer(headers={"Set-Cookie": "spy=1; Path=/"})

    session.get("a")
    session.get("a")

    assert all("Cookie" not in seen.headers for seen in vault.seen)


def test_the_namespace_goes_with_every_request(vault: PretendVault, app_role: AppRoleAuth) -> None:
    session = VaultSession(VaultServer(vault.url, namespace="team/a"), auth=app_role)
    session.get("transit/keys/es")
    session.close()

    assert [seen.headers.get("X-Vault-Namespace") for seen in vault.seen] == ["team/a", "team/a"]


@pytest.mark.requirement("R-06")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_token_elsewhere(
    vault: PretendVault, session: VaultSession, status: int
) -> None:
    with pretend_vault() as elsewhere:
        location = {"Location": f"{elsewhere.url}/v1/transit/sign/es"}
        vault.scripts["transit/sign/es"] = lambda _: Answer(status=status, headers=location)

        assert fault_of(lambda: session.post("transit/sign/es", {})) == "redirected"
        assert elsewhere.seen == []


@pytest.mark.requirement("R-06")
def test_a_redirected_login_takes_no_secret_id_elsewhere(
    vault: PretendVault, session: VaultSession
) -> None:
    with pretend_vault() as elsewhere:
        location = {"Location": f"{elsewhere.url}/v1/auth/approle/login"}
        vault.scripts["auth/approle/login"] = lambda _: Answer(status=307, headers=location)

        assert fault_of(lambda: session.get("transit/keys/es")) == "redirected"
        assert elsewhere.seen == []


@pytest.mark.requirement("SGN-05")
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a/../b",
        "%2e%2e",
        "a?b",
        "a#b",
        "a b",
        "a\n",
        "é",
        "-a",
        "a-",
        "a" * 129,
    ],
)
def test_a_name_that_could_leave_its_place_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not acceptable"):
        vault_name(name)


@pytest.mark.requirement("SGN-05")
@pytest.mark.parametrize("mount", ["", "/transit", "transit/", "a//b", "a/../sys", "../sys"])
def test_a_mount_that_could_leave_its_place_is_refused(mount: str) -> None:
    with pytest.raises(ValueError, match="not acceptable"):
        vault_path(mount)
    with pytest.raises(ValueError, match="not acceptable"):
        AppRoleAuth(Path("a"), Path("b"), mount=mount)
    with pytest.raises(ValueError, match="not acceptable"):
        VaultServer("https://vault.example", namespace=mount)


def test_a_mount_may_be_a_path() -> None:
    assert vault_path("team-a/transit", "keys") == "team-a/transit/keys"


@pytest.mark.requirement("std:OPS-01")
@pytest.mark.parametrize(
    "url",
    [
        "http://vault.example:8200",
        "http://10.0.0.1:8200",
        "ftp://127.0.0.1",
        "https://user:secret@vault.example",
        "https://vault.example/v1",
        "https://vault.example?a=b",
        "vault.example:8200",
    ],
)
def test_a_url_that_is_not_https_or_more_than_an_origin_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        VaultServer(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:1"]
)
def test_plain_http_is_accepted_on_loopback(url: str) -> None:
    assert VaultServer(url).url == url


def test_a_server_is_believed_only_with_a_certificate_of_the_authority_named(
    app_role: AppRoleAuth, tmp_path: Path
) -> None:
    theirs, ours = trustme.CA(), trustme.CA()
    theirs.cert_pem.write_to_path(tmp_path / "theirs.pem")
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    with pretend_vault(_tls(theirs)) as vault:
        right = VaultServer(vault.url, ca_file=tmp_path / "theirs.pem", connect_timeout=30)
        wrong = VaultServer(vault.url, ca_file=tmp_path / "ours.pem", connect_timeout=30)
        default = VaultServer(vault.url, connect_timeout=30)
        for server in (wrong, default):
            distrustful = VaultSession(server, auth=app_role)
            assert fault_of(partial(distrustful.get, "keys/es")) == "certificate not trusted"
        assert vault.seen == []

        session = VaultSession(right, auth=app_role)
        assert session.get("transit/keys/es")["data"]["type"] == "ecdsa-p256"
        session.close()


def _tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


# What can be wrong with an answer.


ANSWERS = {
    "sealed": (Answer({"errors": ["Vault is sealed"]}, 503), "sealed or not initialized"),
    "not initialized": (Answer({"errors": []}, 501), "sealed or not initialized"),
    "an internal error": (Answer({"errors": ["internal error"]}, 500), "server error"),
    "a bad gateway": (Answer(b"<html>", 502, {"Content-Type": "text/html"}), "server error"),
    "a rate limit": (Answer({"errors": ["slow down"]}, 429), "request refused"),
    "a standby": (Answer({"errors": []}, 473), "request refused"),
    "a bad request": (Answer({"errors": ["signing key not found"]}, 400), "request refused"),
    "no such path": (Answer({"errors": []}, 404), "not found"),
    "errors of the wrong type": (Answer({"errors": [{"a": 1}]}, 400), "malformed answer"),
    "an error that is a list": (Answer([1], 400), "malformed answer"),
    "a page": (
        Answer(b"<html>log in</html>", 200, {"Content-Type": "text/html"}),
        "malformed answer",
    ),
    "nothing": (Answer(b""), "malformed answer"),
    "no content": (Answer(b"", 204), "malformed answer"),
    "a list": (Answer([1, 2]), "malformed answer"),
    "an abyss": (Answer(b"[" * 500_000), "malformed answer"),
    "not UTF-8": (Answer(b'{"a": "\xff"}'), "malformed answer"),
    "too much": (Answer(b" " * 2_000_000), "malformed answer"),
    "endless headers": (Answer(headers={"X": "a" * 70_000}), "unreachable"),
    "compressed": (Answer(b"\x1f\x8b", 200, {"Content-Encoding": "gzip"}), "malformed answer"),
    "shorter than it says": (Answer(b"{}", 200, {"Content-Length": "9"}), "timed out"),
}


@pytest.mark.requirement("R-04", "R-06")
@pytest.mark.parametrize(("answer", "fault"), ANSWERS.values(), ids=ANSWERS)
def test_a_bad_answer_is_a_fault_of_its_class(
    vault: PretendVault, app_role: AppRoleAuth, answer: Answer, fault: str
) -> None:
    vault.scripts["transit/keys/es"] = lambda _: answer
    patience = 0.3 if fault == "timed out" else 30.0
    session = VaultSession(VaultServer(vault.url, read_timeout=patience), auth=app_role)

    assert fault_of(lambda: session.get("transit/keys/es")) == fault
    session.close()


@pytest.mark.requirement("R-03")
@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_is_cut_off_at_the_deadline(
    vault: PretendVault, app_role: AppRoleAuth, part: Any
) -> None:
    vault.scripts["transit/keys/es"] = lambda _: Answer(
        {"data": "x" * 10_000}, headers={"X-More": "x" * 1_000}, drip=part
    )
    session = VaultSession(VaultServer(vault.url, read_timeout=0.3), auth=app_role)

    began = time.monotonic()
    assert fault_of(lambda: session.get("transit/keys/es")) == "timed out"
    assert time.monotonic() - began < 20
    session.close()


@pytest.mark.requirement("R-04")
def test_a_port_where_nobody_listens_is_a_fault(app_role: AppRoleAuth) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        session = VaultSession(VaultServer(url), auth=app_role)
        assert fault_of(lambda: session.get("transit/keys/es")) == "unreachable"


@pytest.mark.requirement("R-04")
def test_a_name_that_does_not_resolve_is_a_fault(app_role: AppRoleAuth) -> None:
    session = VaultSession(VaultServer("https://vault.invalid:8200"), auth=app_role)

    assert fault_of(lambda: session.get("transit/keys/es")) == "unreachable"


@pytest.mark.requirement("R-04")
def test_a_port_that_accepts_and_says_nothing_is_a_fault(app_role: AppRoleAuth) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        session = VaultSession(VaultServer(url, read_timeout=0.2), auth=app_role)
        assert fault_of(lambda: session.get("transit/keys/es")) == "timed out"


def test_a_connection_that_was_closed_meanwhile_is_opened_again(
    vault: PretendVault, session: VaultSession
) -> None:
    vault.scripts["a"] = lambda _: Answer({"data": 1}, headers={"Connection": "close"})

    session.get("a")

    assert session.get("a") == {"data": 1}


# The token.


def test_a_refused_token_is_replaced_by_one_login_and_the_call_repeated(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    session.get("a-key/keys/es")
    answers = iter([refused(), Answer({"data": "after"})])
    vault.scripts["a"] = lambda _: next(answers)
    vault.scripts["auth/approle/login"] = lambda _: login("hvs.another")

    clock.seconds += COOLDOWN
    assert session.get("a") == {"data": "after"}
    assert [seen.token for seen in vault.paths("a")] == [TOKEN, "hvs.another"]


@pytest.mark.requirement("R-05")
def test_many_callers_who_are_refused_at_once_cause_one_login(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    session.get("transit/keys/es")
    clock.seconds += COOLDOWN
    everybody = threading.Barrier(8)

    def script(seen: Seen) -> Answer:
        if seen.token == TOKEN:
            everybody.wait(60)
            return refused()
        return Answer({"data": "after"})

    vault.scripts["a"] = script
    vault.scripts["auth/approle/login"] = lambda _: login("hvs.another")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: session.get("a"), range(8)))

    assert answers == [{"data": "after"}] * 8
    assert len(vault.paths("login")) == 2


@pytest.mark.requirement("R-05")
def test_a_policy_that_refuses_causes_one_login_in_a_cool_down(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    tokens = (f"hvs.{number}" for number in itertools.count())
    vault.scripts["auth/approle/login"] = lambda _: login(next(tokens))
    vault.scripts["a"] = lambda _: refused("1 error occurred:\n\t* permission denied")

    faults = [fault_of(lambda: session.get("a")) for _ in range(5)]
    assert faults == ["forbidden (needs read on a)"] * 5
    assert len(vault.paths("login")) == 1

    clock.seconds += COOLDOWN
    assert fault_of(lambda: session.get("a")) == "forbidden (needs read on a)"
    assert fault_of(lambda: session.get("a")) == "forbidden (needs read on a)"
    assert len(vault.paths("login")) == 2


def test_a_token_is_tried_again_once_the_policy_allows_it(
    vault: PretendVault, session: VaultSession
) -> None:
    vault.scripts["a"] = lambda _: refused()
    fault_of(lambda: session.get("a"))
    vault.scripts["a"] = lambda _: Answer({"data": "allowed"})

    assert session.get("a") == {"data": "allowed"}
    assert len(vault.paths("login")) == 1


def test_a_refused_login_is_not_repeated_before_the_cool_down(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: refused("invalid role or secret ID", status=400)

    assert fault_of(lambda: session.get("a")) == "request refused"
    assert fault_of(lambda: session.get("a")) == "request refused"
    assert len(vault.paths("login")) == 1
    clock.seconds += COOLDOWN
    assert fault_of(lambda: session.get("a")) == "request refused"
    assert len(vault.paths("login")) == 2


@pytest.mark.requirement("R-01")
def test_a_login_that_found_vault_sealed_is_soon_repeated(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: refused("Vault is sealed", status=503)

    assert fault_of(lambda: session.get("a")) == "sealed or not initialized"
    assert fault_of(lambda: session.get("a")) == "sealed or not initialized"
    assert len(vault.paths("login")) == 1

    del vault.scripts["auth/approle/login"]
    clock.seconds += 0.3
    assert session.get("transit/keys/es")["data"]


def test_a_token_is_renewed_after_two_thirds_of_its_lease(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    vault.scripts["auth/token/renew-self"] = lambda _: login(seconds=60)
    session.get("transit/keys/es")

    clock.seconds += 39
    session.get("transit/keys/es")
    assert vault.paths("renew-self") == []

    for seconds in (1, 40, 40):
        clock.seconds += seconds
        session.get("transit/keys/es")
    assert [seen.body for seen in vault.paths("renew-self")] == [{"increment": "60s"}] * 3
    assert len(vault.paths("login")) == 1


def test_a_token_that_is_renewed_for_little_is_replaced(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    """Near its greatest lifetime a token is renewed for less than was asked."""
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    vault.scripts["auth/token/renew-self"] = lambda _: login(seconds=29)
    session.get("transit/keys/es")
    clock.seconds += 41

    vault.scripts["auth/approle/login"] = lambda _: login("hvs.another", seconds=60)
    session.get("transit/keys/es")

    assert vault.seen[-1].token == "hvs.another"


def test_a_token_that_may_not_renew_itself_is_replaced(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    vault.scripts["auth/token/renew-self"] = lambda _: refused()
    session.get("transit/keys/es")
    clock.seconds += 41

    session.get("transit/keys/es")

    assert len(vault.paths("login")) == 2


def test_a_token_that_is_not_renewable_is_replaced_in_time(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60, renewable=False)
    session.get("transit/keys/es")
    clock.seconds += 41

    session.get("transit/keys/es")

    assert vault.paths("renew-self") == []
    assert len(vault.paths("login")) == 2


def test_a_renewal_that_fails_is_not_the_callers_fault_and_is_tried_again_later(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    vault.scripts["auth/token/renew-self"] = lambda _: refused(status=500)
    session.get("transit/keys/es")
    clock.seconds += 41

    session.get("transit/keys/es")
    session.get("transit/keys/es")
    assert len(vault.paths("renew-self")) == 1

    clock.seconds += COOLDOWN
    session.get("transit/keys/es")
    assert len(vault.paths("renew-self")) == 2


def test_nobody_waits_for_a_renewal_that_somebody_else_makes(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    session.get("transit/keys/es")
    clock.seconds += 41
    others_are_done = threading.Event()

    def renew(_: Seen) -> Answer:
        others_are_done.wait(60)
        return login(seconds=60)

    vault.scripts["auth/token/renew-self"] = renew
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(session.get, "transit/keys/es")
        while not vault.paths("renew-self"):
            time.sleep(0.001)
        session.get("transit/keys/es")
        others_are_done.set()
        renewing.result()

    assert len(vault.paths("renew-self")) == 1


def test_an_expired_token_is_not_used(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=60)
    session.get("transit/keys/es")
    clock.seconds += 60

    vault.scripts["auth/approle/login"] = lambda _: refused(status=400)
    assert fault_of(lambda: session.get("transit/keys/es")) == "request refused"
    assert len(vault.paths("keys/es")) == 1


def test_a_token_without_an_end_is_never_renewed(
    vault: PretendVault, session: VaultSession, clock: Clock
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: login(seconds=0)
    session.get("transit/keys/es")
    clock.seconds += 1e9

    session.get("transit/keys/es")

    assert len(vault.seen) == 3


def test_a_closed_session_has_forgotten_its_token(session: VaultSession) -> None:
    session.get("transit/keys/es")
    session.close()

    assert session._held is None


@pytest.mark.parametrize(
    "auth",
    [
        None,
        [],
        {},
        {"client_token": TOKEN, "lease_duration": 60},
        {"client_token": TOKEN, "lease_duration": "60", "renewable": True},
        {"client_token": TOKEN, "lease_duration": True, "renewable": True},
        {"client_token": TOKEN, "lease_duration": -1, "renewable": True},
        {"client_token": TOKEN, "lease_duration": 60, "renewable": "yes"},
        {"client_token": None, "lease_duration": 60, "renewable": True},
        {"client_token": "", "lease_duration": 60, "renewable": True},
        {"client_token": "a\r\nX-Evil: 1", "lease_duration": 60, "renewable": True},
    ],
)
def test_a_login_without_a_proper_lease_is_malformed(
    vault: PretendVault, session: VaultSession, auth: object
) -> None:
    vault.scripts["auth/approle/login"] = lambda _: Answer({"auth": auth})

    assert fault_of(lambda: session.get("transit/keys/es")) == "malformed answer"


# The ways to log in.


def test_kubernetes_sends_the_service_account_token_that_is_in_the_file_now(
    vault: PretendVault, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a.service.account")
    auth = KubernetesAuth("broker", tmp_path / "token", mount="clusters/one")
    session = VaultSession(VaultServer(vault.url), auth=auth)
    session.get("transit/keys/es")
    session.close()

    assert vault.seen[0].path == "auth/clusters/one/login"
    assert vault.seen[0].body == {"role": "broker", "jwt": "a.service.account"}


def test_a_token_file_is_read_again_within_a_minute_and_when_its_token_is_refused(
    vault: PretendVault, clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("hvs.one\n")
    session = VaultSession(VaultServer(vault.url), auth=TokenFileAuth(path), monotonic=clock)
    session.get("transit/keys/es")

    path.write_text("hvs.two\n")
    clock.seconds += 31
    session.get("transit/keys/es")
    path.write_text("hvs.three\n")
    clock.seconds += COOLDOWN
    vault.scripts["transit/keys/es"] = lambda seen: (
        Answer() if seen.token == "hvs.three" else refused()
    )
    session.get("transit/keys/es")
    session.close()

    tokens = [seen.token for seen in vault.seen]
    assert tokens == ["hvs.one", "hvs.two", "hvs.two", "hvs.three"]


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"two words", b"a\nb", b"\xc3\xa9", b"x" * 20_000]
)
@pytest.mark.parametrize(
    "make",
    [TokenFileAuth, lambda path: KubernetesAuth("broker", path)],
    ids=["token", "kubernetes"],
)
def test_a_credential_file_that_holds_no_credential_is_a_fault(
    vault: PretendVault, tmp_path: Path, make: Callable[[Path], VaultAuth], content: bytes | None
) -> None:
    path = tmp_path / "credential"
    if content is not None:
        path.write_bytes(content)
    session = VaultSession(VaultServer(vault.url), auth=make(path))

    assert fault_of(lambda: session.get("transit/keys/es")) == "credential file unreadable"
    assert vault.seen == []


def test_a_named_pipe_instead_of_a_credential_file_stops_nobody(
    vault: PretendVault, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    session = VaultSession(VaultServer(vault.url), auth=TokenFileAuth(tmp_path / "pipe"))

    assert fault_of(lambda: session.get("transit/keys/es")) == "credential file unreadable"


def test_the_text_of_a_lease_does_not_show_its_token(session: VaultSession) -> None:
    session.get("transit/keys/es")

    assert TOKEN not in repr(session._held)


# The same against a real server.


@pytest.mark.openbao
@pytest.mark.requirement("R-05")
def test_a_revoked_token_is_replaced_without_anybody_noticing(own_transit: Transit) -> None:
    session = own_transit.session(login_cooldown=0.0)
    session.get("transit/keys/own-es256")
    own_transit.bao.revoke_tokens()

    assert session.get("transit/keys/own-es256")["data"]["type"] == "ecdsa-p256"
    session.close()


@pytest.mark.openbao
@pytest.mark.requirement("R-05")
def test_a_used_up_secret_id_is_a_fault_until_there_is_a_new_one(own_transit: Transit) -> None:
    role = own_transit.bao.app_role("once", may_sign=("own-es256",), secret_id_num_uses=1)
    session = VaultSession(VaultServer(own_transit.bao.url), auth=role.auth, login_cooldown=0.0)
    session.get("transit/keys/own-es256")
    own_transit.bao.revoke_tokens()

    assert fault_of(lambda: session.get("transit/keys/own-es256")) == "request refused"
    own_transit.bao.renew_secret_id(role)
    assert session.get("transit/keys/own-es256")["data"]["type"] == "ecdsa-p256"
    session.close()


@pytest.mark.openbao
def test_a_real_token_is_renewed_and_then_replaced_at_the_end_of_its_greatest_lifetime(
    own_transit: Transit, clock: Clock
) -> None:
    role = own_transit.bao.app_role(
        "short", may_sign=("own-es256",), token_ttl="60s", token_max_ttl="61s"
    )
    session = VaultSession(VaultServer(own_transit.bao.url), auth=role.auth, monotonic=clock)
    session.get("transit/keys/own-es256")
    assert session._held is not None
    first = session._held.lease

    clock.seconds += 41
    session.get("transit/keys/own-es256")

    assert first.seconds == 60
    assert first.is_renewable
    assert session._held.renew_at == clock.seconds + session._held.lease.seconds * 2 / 3
    session.close()


@pytest.mark.openbao
def test_what_the_policy_does_not_allow_is_forbidden(own_transit: Transit) -> None:
    session, path = own_transit.session(login_cooldown=0.0), "transit/keys/own-es256/rotate"

    assert (
        fault_of(lambda: session.post(path, {})) == f"forbidden (needs create or update on {path})"
    )
    session.close()
