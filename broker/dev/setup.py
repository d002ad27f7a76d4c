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
TICKETS_RESOURCE: Final = "https://tickets.mcp.example/mcp"
CRM_RESOURCE: Final = "https://api.crm.example/v2"
LEDGER_RESOURCE: Final = "https://ledger.example/v1"
_USUAL_PORTS: Final = (8080, 50051, 9464, 8081)

_TEMPLATE: Final = """\
# Written anew by `broker dev` at each start. Everything here is for one machine and for trying out.
issuer: http://127.0.0.1:{http}
listen: {{http: 127.0.0.1:{http}, grpc: 127.0.0.1:{grpc}, admin: 127.0.0.1:{admin}}}
keys: {{store: dev, algorithm: ES256, also: [RS256], dev: {{directory: {directory}/keys}}}}
state: {{store: sqlite, directory: {directory}/state}}
audit: {{directory: {directory}/audit}}
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
  # Whoever writes the policies: may ask why, and is given no tokens.
  - id: {operator}
    auth: {{methods: [client_secret_basic, client_secret_post], secrets: [{{hash: "{operator_hash}"}}]}}
    grants: []
    explain: true

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
  - resource: {ledger_resource}
    scopes: {{ledger.read: {{from: ["tickets:read"]}}}}

issuers:
  - issuer: http://127.0.0.1:{idp}
    purposes: [user]
    algorithms: [ES256]
    discovery: true
"""


@dataclass(frozen=True, slots=True)
class DevSetup:
    """Where everything of development mode is; ``client_secrets`` are by client id."""

    directory: Path
    config_file: Path
    http_port: int
    grpc_port: int
    admin_port: int
    idp_port: int
    client_secrets: dict[str, str] = field(repr=False)

    @property
    def issuer(self) -> str:
        """The broker's issuer, which is also the base of its HTTP face."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def idp_issuer(self) -> str:
        """The pretend identity provider's issuer."""
        return f"http://127.0.0.1:{self.idp_port}"

    def secret_file(self, client_id: str) -> Path:
        """The file that holds a demo client's secret."""
        return self.directory / "secrets" / client_id


def prepare(directory: Path, *, policies: Path | None, has_usual_ports: bool = True) -> DevSetup:
    """
    Write the configuration and fresh secrets below ``directory``, which only its owner may read.

    ``policies`` is the folder to put in force; none means the delivered one.

    Raises ``OSError`` when the directory cannot be written.
    """
    directory = directory.resolve()
    for name in ("", "secrets", "keys", "state", "audit"):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / name).chmod(0o700)
    made = {client: "bks_" + secrets.token_hex(32) for client in (DESK, TICKETS, OPERATOR)}
    for client, secret in made.items():
        _write_private(directory / "secrets" / client, secret)
    http, grpc, admin, idp = _free_ports(_USUAL_PORTS if has_usual_ports else (0, 0, 0, 0))
    config_file = directory / "broker.yaml"
    _write_private(
        config_file,
        _TEMPLATE.format(
            http=http,
            grpc=grpc,
            admin=admin,
            idp=idp,
            directory=directory,
            policies="" if policies is None else f"policies: {policies.resolve()}\n",
            desk=DESK,
            tickets=TICKETS,
            operator=OPERATOR,
            desk_hash=_hash(made[DESK]),
            tickets_hash=_hash(made[TICKETS]),
            operator_hash=_hash(made[OPERATOR]),
            tickets_resource=TICKETS_RESOURCE,
            crm_resource=CRM_RESOURCE,
            ledger_resource=LEDGER_RESOURCE,
        ),
    )
    return DevSetup(directory, config_file, http, grpc, admin, idp, made)


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
