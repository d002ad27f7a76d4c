"""Other servers that issue such tokens, beside the broker: the same requests, on the same core, in turns."""

import base64
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from bench.openbao_peer import openbao_facts, start_openbao
from bench.peer_install import Installed, installed
from bench.progress import tell
from bench.requests import EXCHANGE, Kind, Stream, stream
from bench.server import Server, grants, running, running_broker
from bench.setting import (
    API,
    DURABILITY,
    IDP,
    SCOPE,
    SECRET,
    SERVER_RESOURCE,
    free_ports,
    new_setting,
)
from bench.signing import Signer, times
from bench.slices import Lane, Plan, Race, lines
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
)

_FOLDER: Final = Path(__file__).parents[1] / "peers"
_SECRET_CLIENT: Final = "client-with-secret"
_KEY_CLIENT: Final = "client-with-key"
_BASIC: Final = base64.b64encode(f"{_SECRET_CLIENT}:{SECRET}".encode()).decode()
_FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")
_WARM_UP: Final = 4.0
_serial = itertools.count(1)

_BY_SECRET: Final = Kind("exchange", "client_secret")
_OWN_BY_KEY: Final = Kind("client_credentials", "private_key_jwt", "none")
_OWN_BY_SECRET: Final = Kind("client_credentials", "client_secret", "none")
_EXCHANGES: Final = (EXCHANGE.name, _BY_SECRET.name)
_ALL: Final = (EXCHANGE, _BY_SECRET, _OWN_BY_KEY, _OWN_BY_SECRET)


@dataclass(frozen=True, slots=True)
class Peer:
    """
    Another server: what it is asked, and what is said of it for fairness.

    ``command`` makes its command of what is installed and of its port.
    """

    name: str
    package: str
    kinds: tuple[Kind, ...]
    durability: str
    differs: str
    command: Callable[[Installed, int], list[str]]


def _node(program: str) -> Callable[[Installed, int], list[str]]:
    return lambda installed_, _port: [str(installed_.node), str(installed_.programs / program)]


def _gunicorn(installed_: Installed, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--threads", "16", "--keep-alive", "60"),
        *("--chdir", str(installed_.programs), "authlib_app:app"),
    ]


PEERS: Final = (
    Peer(
        "oidc-provider",
        "oidc-provider",
        _ALL,
        "none: its adapter in memory; no audit record",
        "It is a whole OpenID provider. Token exchange is a custom grant here: no policy, no record.",
        _node("oidc-provider.mjs"),
    ),
    Peer(
        "@jmondi/oauth2-server",
        "@jmondi/oauth2-server",
        (_BY_SECRET, _OWN_BY_SECRET),
        "none: maps in memory; no audit record",
        "A library on Node's own server. Its exchange has no policy, no chain of actors and no record.",
        _node("jmondi.mjs"),
    ),
    Peer(
        "@node-oauth/oauth2-server",
        "@node-oauth/oauth2-server",
        (_OWN_BY_SECRET,),
        "none: nothing is kept; no audit record",
        "A library on Node's own server. It has no token exchange.",
        _node("node-oauth.mjs"),
    ),
    Peer(
        "Authlib, Flask, gunicorn",
        "Authlib",
        (_OWN_BY_KEY, _OWN_BY_SECRET),
        "none: ids of assertions in memory; no audit record",
        "A library in a Flask application with 16 threads. It has no token exchange.",
        _gunicorn,
    ),
)


def measure(plan: Plan) -> dict[str, Any]:
    """Every peer and the broker, for each kind of request that the peer can answer."""
    installed_ = installed(_FOLDER)
    with ExitStack() as stack:
        setting = new_setting(plan.folder / "broker")
        server = stack.enter_context(running_broker(setting, plan.server))
        lanes = [
            Lane(
                f"broker: {kind.name}",
                server,
                stream(setting, kind, "http"),
                _about("broker", kind),
            )
            for kind in _ALL
        ]
        servers = {"broker": server}
        for peer in PEERS:
            tell(f"starting {peer.name}")
            servers[peer.name], more = _start(plan, peer, installed_, stack)
            lanes += more
        servers["OpenBao"], more = start_openbao(plan, stack)
        lanes += more
        idle = {name: one.memory().pss_mb for name, one in servers.items()}
        race = Race(plan, lanes, warm_up=_WARM_UP)
        at_capacity = race.at_capacity()
        at_half = race.at_half([lane for lane in lanes if lane.about["kind"] in _EXCHANGES])
        return {
            "peers": [*_facts(installed_), openbao_facts()],
            "durability": DURABILITY,
            "memory_mb": {
                name: {"idle": round(idle[name]), "after_load": round(one.memory().pss_mb)}
                for name, one in servers.items()
            },
            "lines": lines(lanes, at_capacity, at_half),
        }


def _about(name: str, kind: Kind) -> dict[str, Any]:
    return {"peer": name, "kind": kind.name}


def _facts(installed_: Installed) -> list[dict[str, str]]:
    return [
        {
            "name": peer.name,
            "version": installed_.versions[peer.package],
            "durability": peer.durability,
            "differs": peer.differs,
        }
        for peer in PEERS
    ]


def _start(
    plan: Plan, peer: Peer, installed_: Installed, stack: ExitStack
) -> tuple[Server, list[Lane]]:
    (port,) = free_ports(1)
    folder = plan.folder / peer.package.replace("/", "-")
    folder.mkdir()
    idp, client = Signer("i"), Signer("c")
    requests = [_stream(port, kind, idp, client) for kind in peer.kinds]
    given = folder / "given.json"
    given.write_text(json.dumps(_given(port, idp, client)))
    server = stack.enter_context(
        running(
            peer.command(installed_, port),
            log=folder / "log",
            is_ready=lambda: grants(requests[0]),
            cores=plan.server,
            environment={"GIVEN": str(given), **installed_.environment},
        )
    )
    return server, [
        Lane(f"{peer.name}: {kind.name}", server, request, _about(peer.name, kind))
        for kind, request in zip(peer.kinds, requests, strict=True)
    ]


def _given(port: int, idp: Signer, client: Signer) -> dict[str, Any]:
    return {
        "port": port,
        "signing_jwk": Signer("peer").private_jwk,
        "idp_jwk": idp.jwk,
        "client_jwk": client.jwk,
        "idp": IDP,
        "api": API,
        "scope": SCOPE,
        "server_resource": SERVER_RESOURCE,
        "secret_client": _SECRET_CLIENT,
        "key_client": _KEY_CLIENT,
        "secret": SECRET,
    }


def _stream(port: int, kind: Kind, idp: Signer, client: Signer) -> Stream:
    """Requests to a peer: the same parameters as to the broker."""

    def bodies() -> Iterator[bytes]:
        while True:
            yield urlencode(_form(port, kind, idp, client)).encode()

    is_secret = kind.method == "client_secret"
    basic = (("authorization", f"Basic {_BASIC}"),) if is_secret else ()
    return Stream(
        face="http",
        port=port,
        path="/token",
        make=bodies,
        headers=(_FORM, *basic),
        is_repeatable=is_secret and kind.grant == "client_credentials",
    )


def _form(port: int, kind: Kind, idp: Signer, client: Signer) -> dict[str, str]:
    if kind.grant == "exchange":
        parameters = {
            "grant_type": GRANT_TOKEN_EXCHANGE,
            "subject_token": _subject_token(idp),
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        }
    else:
        parameters = {"grant_type": GRANT_CLIENT_CREDENTIALS}
    parameters |= {"resource": API, "scope": SCOPE}
    if kind.method == "private_key_jwt":
        issuer = f"http://127.0.0.1:{port}"
        names = {"iss": _KEY_CLIENT, "sub": _KEY_CLIENT, "aud": issuer}
        parameters["client_id"] = _KEY_CLIENT
        parameters["client_assertion_type"] = CLIENT_ASSERTION_JWT_BEARER
        parameters["client_assertion"] = client.sign(
            {**names, **times(290), "jti": f"a-{next(_serial)}"}
        )
    return parameters


def _subject_token(idp: Signer) -> str:
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": SERVER_RESOURCE,
        "client_id": "agent-desk",
        "scope": "tickets:read tickets:comment",
        **times(3600),
        "jti": f"s-{next(_serial)}",
    }
    return idp.sign(claims, typ="at+jwt")
