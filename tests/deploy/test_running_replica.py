"""A replica as the chart makes it: it logs in by its own token, signs, and keeps its records."""

import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest
import trustme
import urllib3
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.deploy.kubelet import modes
from tests.deploy.replica import AUDIENCE, ISSUER, SUBJECT, Replica, cluster_token
from tests.e2e.patience import until
from tests.e2e.running import run_broker
from tests.e2e.vault import KEYS
from tests.idp import signer
from tests.openbao import OpenBao

pytestmark = pytest.mark.openbao

Starting = Callable[..., Replica]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signed the certificates of the pod, and of whoever may read its measures."""
    return trustme.CA()


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """
    An OpenBao with the broker's keys that admits the broker's service account.

    There is no cluster to ask about a token, so its ``jwt`` method stands where ``kubernetes``
    would, and verifies the token by the cluster's key; the login is the same.
    """
    bao = OpenBao(tmp_path_factory.mktemp("vault"))
    try:
        bao.set_up()
        bao.create_key(KEYS["ES256"])
        bao.create_key(KEYS["RS256"], kind="rsa-2048")
        bao.allow("broker", may_sign=tuple(KEYS.values()))
        bao.allow_rotating("broker-rotator", may_rotate=tuple(KEYS.values()))
        key = signer("cluster", "RS256").private_key.public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        bao.call("POST", "sys/auth/kubernetes", type="jwt")
        bao.call("POST", "auth/kubernetes/config", jwt_validation_pubkeys=[pem])
        for role in ("broker", "broker-rotator"):
            bao.call(
                "POST",
                f"auth/kubernetes/role/{role}",
                role_type="jwt",
                user_claim="sub",
                bound_audiences=["vault"],
                bound_subject=SUBJECT,
                token_policies=[role],
                token_no_default_policy=True,
            )
        yield bao
    finally:
        bao.close()


@pytest.fixture
def starting(tmp_path: Path, vault: OpenBao, authority: trustme.CA) -> Iterator[Starting]:
    """Makes replicas, each on a machine of its own, and ends them."""
    with ExitStack() as closing:

        def make(name: str = "replica", *, token: str = "") -> Replica:
            root = tmp_path / name
            replica = Replica(root, vault, authority, token=token or cluster_token())
            closing.callback(replica.close)
            return replica

        yield make


def context(authority: trustme.CA, *, of: trustme.CA | None = None) -> ssl.SSLContext:
    """TLS as Prometheus speaks it, with a certificate of ``of``, if any."""
    made = ssl.create_default_context()
    authority.configure_trust(made)
    if of is not None:
        of.issue_cert("prometheus").configure_cert(made)
    return made


def test_a_replica_goes_on_where_the_one_before_it_ended(starting: Starting) -> None:
    """A pod is replaced: its volume is mounted again, and the chain of its records is one chain."""
    replica = starting()
    first = replica.start()
    replica.wait_until_ready()
    token = replica.token()
    key = jwt.PyJWKSet.from_dict(replica.key_set())[jwt.get_unverified_header(token)["kid"]]
    jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)

    # The second role did its part: a spare is ready, and what is on record is in Vault.
    states = [one["state"] for one in replica.keys()["keys"]]
    assert sorted(states) == ["active", "active", "pending", "pending"]
    assert replica.stop(first) == 0, first.text

    data = replica.pod.place("/var/lib/broker")
    assert [mode for _, mode in modes(data) if mode & stat.S_IRWXO] == []
    replica.pod.hand_over()
    second = replica.start()
    replica.wait_until_ready()
    replica.token()
    assert replica.stop(second) == 0, second.text

    verified = run_broker("audit", "verify", str(data / "audit"))
    assert verified.returncode == 0, verified.stdout
    chains = [line.split()[:2] for line in verified.stdout.splitlines() if "whole, closed" in line]
    assert chains == [["grpc-0", "2"], ["http-0", "2"], ["http-1", "2"], ["keys", "2"]]


@pytest.mark.requirement("CFG-04")
def test_a_volume_whose_files_were_opened_to_the_group_is_refused(starting: Starting) -> None:
    """What ``fsGroupChangePolicy: Always`` does at each mount, and ``OnRootMismatch`` does not."""
    replica = starting()
    first = replica.start()
    replica.wait_until_ready()
    replica.stop(first)

    replica.pod.hand_over(is_always=True)
    second = replica.start()

    assert second.end() == 1
    assert "can be written by others" in second.text


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: cluster_token(audience=ISSUER), id="for somebody else"),
        pytest.param(
            lambda: cluster_token(subject="system:serviceaccount:other:broker"),
            id="of another namespace",
        ),
    ],
)
def test_a_replica_that_vault_does_not_admit_lives_and_is_not_ready(
    starting: Starting, token: Callable[[], str]
) -> None:
    replica = starting(token=token())
    replica.start()
    until(
        lambda: "signer_unavailable" in replica.probe("readiness").stdout,
        seconds=120,
        what="it knows that it cannot sign",
    )

    assert replica.probe("readiness").returncode == 1
    assert replica.probe("liveness").returncode == 0
    assert replica.probe("startup").returncode == 0


@pytest.mark.requirement("CFG-03")
def test_the_measures_are_for_those_alone_who_present_a_certificate(
    starting: Starting, authority: trustme.CA
) -> None:
    replica = starting()
    replica.start()
    replica.wait_until_ready()
    proxy = replica.start_proxy()
    prometheus = context(authority, of=authority)
    until(lambda: learns(replica, prometheus), seconds=30, what="the proxy answers")

    page = replica.measures("/metrics", prometheus)
    assert page.status == 200, proxy.text
    assert b"broker_ready 1.0" in page.data
    for path in ("/readyz", "/livez", "/", "/metrics/", "/metrics/../readyz", "//readyz"):
        assert replica.measures(path, prometheus).status == 404, path
    assert replica.measures("/metrics", prometheus, "POST").status == 403
    assert not learns(replica, context(authority))
    assert not learns(replica, context(authority, of=trustme.CA()))


def learns(replica: Replica, caller: ssl.SSLContext) -> bool:
    """Whether somebody is told the measures; the refusal may come in the handshake already."""
    try:
        return b"broker_" in replica.measures("/metrics", caller).data
    except urllib3.exceptions.HTTPError:
        return False
