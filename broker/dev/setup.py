"""The throw-away configuration of development mode: demo clients, resources and a pretend issuer."""

import hashlib
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DESK: Final = "agent-desk"
TICKETS: Final = "mcp-tickets"
OPERATOR: Final = "operator"
NIGHTLY: Final = "agent-nightly"
DESK_AT_WIKI: Final = "agent-desk-at-wiki"
TICKETS_RESOURCE: Final = "https://tickets.mcp.example/mcp"
CRM_RESOURCE: Final = "https://api.crm.example/v2"
CALENDAR_RESOURCE: Final = "https://api.calendar.example/v1"
LEDGER_RESOURCE: Final = "https://ledger.example/v1"
WIKI_RESOURCE: Final = "https://wiki.mcp.example/mcp"
_CLIENTS: Final = (DESK, TICKETS, NIGHTLY, OPERATOR, DESK_AT_WIKI)
_USUAL_PORTS: Final = (8080, 50051, 9464, 8081, 8082, 50052, 9465)

_TEMPLATE: Final = """\
# Written anew by `broker dev` at each start. Everything here is for one machine and for trying out.
issuer: http://127.0.0.1:{http}
listen: {{http: 127.0.0.1:{http}, grpc: 127.0.0.1:{grpc}, admin: 127.0.0.1:{admin}}}
workers: {{pin: never}}
keys: {{store: dev, algorithm: ES256, also: [RS256], dev: {{directory: {directory}/keys}}}}
state: {{store: sqlite, directory: {directory}/state}}
audit:
  directory: {directory}/audit
  people: {{names: clear}}
  # Olga may read the record; Ann may not. `broker audit open` makes a link as well.
  review:
    oidc: {{issuer: "http://127.0.0.1:{idp}", client_id: audit-desk, claim: groups, values: [auditors]}}
{policies}log: {{format: console, level: info}}

clients:
  # The MCP client: the agent that a person works with.
  - id: {desk}
    profile: ai_agent
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{desk_hash}"}}]}}
    grants: [token_exchange]
  # The MCP server: it owns the resource that the agent's tokens are for.
  - id: {tickets}
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{tickets_hash}"}}]}}
    grants: [token_exchange]
  # An agent that works for nobody in particular, at night.
  - id: {nightly}
    profile: ai_agent
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{nightly_hash}"}}]}}
    grants: [client_credentials]
  # Whoever runs this: may ask why, and revoke what others were given; is given no tokens.
  - id: {operator}
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{operator_hash}"}}]}}
    grants: []
    explain: true
    administer: true

resources:
  - resource: {tickets_resource}
    owner: {tickets}
    audiences: [tickets]
    scopes: {{"tickets:read": {{}}, "tickets:comment": {{}}}}
  - resource: {crm_resource}
    audiences: [crm]
    scopes:
      crm.contacts.read: {{from: ["tickets:read"]}}
      crm.contacts.write: {{from: ["tickets:comment"]}}
  - resource: {calendar_resource}
    scopes: {{calendar.free.read: {{from: ["tickets:read"]}}}}
  # No policy permits anything here.
  - resource: {ledger_resource}
    scopes: {{ledger.read: {{from: ["tickets:read"]}}}}

issuers:
  - issuer: http://127.0.0.1:{idp}
    purposes: [user]
    algorithms: [ES256]
    discovery: true

# The wiki is somebody else's: its own authorization server takes our word for who Ann is.
authorization_servers:
  - issuer: http://127.0.0.1:{wiki_http}
    client_ids: {{{desk}: {desk_at_wiki}}}
    resources:
      - {{resource: "{wiki_resource}", scopes: [pages.read, pages.write]}}
"""

_WIKI_TEMPLATE: Final = """\
# Written anew by `broker dev` at each start: the broker of the wiki, which shares nothing with the first
# one but that one's published keys.
issuer: http://127.0.0.1:{http}
listen: {{http: 127.0.0.1:{http}, grpc: 127.0.0.1:{grpc}, admin: 127.0.0.1:{admin}}}
workers: {{pin: never}}
keys: {{store: dev, algorithm: ES256, dev: {{directory: {directory}/keys}}}}
state: {{store: sqlite, directory: {directory}/state}}
audit: {{directory: {directory}/audit, people: {{names: clear}}}}
{policies}log: {{format: console, level: warning}}

clients:
  # The desk agent, under the id that it has here.
  - id: {desk_at_wiki}
    profile: ai_agent
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{desk_hash}"}}]}}
    grants: [jwt_bearer]

resources:
  - resource: {wiki_resource}
    scopes: {{pages.read: {{}}, pages.write: {{}}}}

issuers:
  - issuer: http://127.0.0.1:{trusted}
    purposes: [id_jag]
    algorithms: [ES256]
    discovery: true
    subject_prefix: "desk|"
"""


@dataclass(frozen=True, slots=True)
class DevBroker:
    """One broker of development mode: its folder, its configuration, its ports."""

    directory: Path
    config_file: Path
    http_port: int
    grpc_port: int
    admin_port: int

    @property
    def issuer(self) -> str:
        """Its issuer, which is also the base of its HTTP face."""
        return f"http://127.0.0.1:{self.http_port}"


@dataclass(frozen=True, slots=True)
class DevSetup:
    """
    Where everything of development mode is; ``client_secrets`` are by client id.

    ``main`` is the broker that the story is about, ``wiki`` somebody else's.
    """

    main: DevBroker
    wiki: DevBroker
    idp_port: int
    client_secrets: dict[str, str] = field(repr=False)

    @property
    def idp_issuer(self) -> str:
        """The pretend identity provider's issuer."""
        return f"http://127.0.0.1:{self.idp_port}"

    def secret_file(self, client_id: str) -> Path:
        """The file that holds a demo client's secret."""
        return self.main.directory / "secrets" / client_id


def prepare(directory: Path, *, policies: Path | None, has_usual_ports: bool = True) -> DevSetup:
    """
    Write the configurations and fresh secrets below ``directory``, which only its owner may read.

    ``policies`` is the folder to put in force; none means the delivered one. Raises ``OSError`` when the
    directory cannot be written.
    """
    directory = directory.resolve()
    made = {client: "bks_" + secrets.token_hex(32) for client in _CLIENTS}
    ports = _free_ports(_USUAL_PORTS if has_usual_ports else (0,) * len(_USUAL_PORTS))
    main = _broker_in(directory, ports[:3])
    wiki = _broker_in(directory / "wiki", ports[4:])
    _make_private(directory / "secrets")
    for client, secret in made.items():
        _write_private(directory / "secrets" / client, secret)
    chosen = "" if policies is None else f"policies: {policies.resolve()}\n"
    facts = {
        "idp": ports[3],
        "policies": chosen,
        "wiki_http": wiki.http_port,
        "desk": DESK,
        "tickets": TICKETS,
        "nightly": NIGHTLY,
        "operator": OPERATOR,
        "desk_at_wiki": DESK_AT_WIKI,
        "desk_hash": _hash(made[DESK]),
        "tickets_hash": _hash(made[TICKETS]),
        "nightly_hash": _hash(made[NIGHTLY]),
        "operator_hash": _hash(made[OPERATOR]),
        "tickets_resource": TICKETS_RESOURCE,
        "crm_resource": CRM_RESOURCE,
        "calendar_resource": CALENDAR_RESOURCE,
        "ledger_resource": LEDGER_RESOURCE,
        "wiki_resource": WIKI_RESOURCE,
    }
    _write_private(main.config_file, _TEMPLATE.format(**facts, **_places(main)))
    facts |= {"desk_hash": _hash(made[DESK_AT_WIKI]), "trusted": main.http_port}
    _write_private(wiki.config_file, _WIKI_TEMPLATE.format(**facts, **_places(wiki)))
    return DevSetup(main, wiki, ports[3], made)


def _broker_in(directory: Path, ports: list[int]) -> DevBroker:
    for name in ("", "keys", "state", "audit"):
        _make_private(directory / name)
    http, grpc, admin = ports
    return DevBroker(directory, directory / "broker.yaml", http, grpc, admin)


def _places(broker: DevBroker) -> dict[str, object]:
    return {
        "http": broker.http_port,
        "grpc": broker.grpc_port,
        "admin": broker.admin_port,
        "directory": broker.directory,
    }


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def _hash(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _free_ports(wished: tuple[int, ...]) -> list[int]:
    """The ports wished for where they are free, and others where they are not."""
    ports = []
    sockets = []
    for wanted in wished:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", wanted))
        except OSError:
            one.bind(("127.0.0.1", 0))
        sockets.append(one)
        ports.append(one.getsockname()[1])
    for one in sockets:
        one.close()
    return ports
