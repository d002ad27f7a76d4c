"""The broker under measurement: a real configuration, with everything on."""

import hashlib
import json
import random
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.signing import Signer
from broker.config.documents import json_schema

ROOT: Final = Path(__file__).parents[1]
IDP: Final = "https://idp.bench.example"
SERVER_RESOURCE: Final = "https://tickets.mcp.example/mcp"
API: Final = "https://api.crm.example/v2"
SCOPE: Final = "crm.contacts.read"
CLIENT: Final = "mcp-tickets"
SECRET: Final = "bks_" + "bench" * 9
_KEY_FILE: Final = "k"
DURABILITY: Final = (
    "on disk before the answer: one audit record by group commit and `fdatasync`, and each one-time "
    "id in SQLite with `synchronous=FULL`"
)
"""What an answer of the broker has waited for, as the results say it."""

_FURTHER_POLICY: Final = """
@id("bench-{number}")
permit (
  principal == Client::"client-{number}",
  action == Action::"exchange",
  resource == Scope::"{api}#{scope}"
)
when {{ context.subject_scopes.contains("tickets:read") }};
"""
_OWN_TOKENS: Final = f"""
@id("bench-own-tokens")
permit (
  principal == Client::"{CLIENT}",
  action == Action::"issue",
  resource == Scope::"{API}#{SCOPE}"
);
"""
# The age of a login changes with every second, so nothing can be remembered that depends on it.
_LOOKS_AT_THE_CLOCK: Final = f"""
@id("bench-looks-at-the-clock")
forbid (
  principal == Client::"{CLIENT}",
  action == Action::"exchange",
  resource
)
when {{ context.auth has age && context.auth.age + 1 > 1000000 }};
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three listeners are, on loopback."""

    http: int
    grpc: int
    admin: int


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How large a broker is.

    ``clients`` and ``policies`` count those that it has at least. ``is_deciding_anew``: some policy looks
    at the clock, so that no decision can be remembered. ``keys`` replaces the section of that name,
    ``audit`` what is set of the audit record besides its place.
    """

    clients: int = 1
    policies: int = 0
    workers: int = 1
    faces: tuple[str, ...] = ("http", "grpc")
    threads: int = 16
    is_deciding_anew: bool = False
    keys: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """A broker to be: its folder, its ports and the keys of those who call it."""

    directory: Path
    ports: Ports
    idp: Signer
    client: Signer

    @property
    def issuer(self) -> str:
        """The broker's issuer."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.directory / "broker.yaml"

    @property
    def audit_directory(self) -> Path:
        """Where its audit records are."""
        return self.directory / "audit"

    @property
    def state_file(self) -> Path:
        """Where what must be remembered is."""
        return self.directory / "state" / "state.sqlite"


def new_setting(directory: Path, shape: Shape = Shape()) -> Setting:
    """Write the configuration of a broker of this shape; JSON is YAML too."""
    directory.mkdir(parents=True)
    http, grpc, admin = free_ports(3)
    setting = Setting(directory, Ports(http, grpc, admin), Signer("i"), Signer("c"))
    _write_policies(directory / "policies", shape)
    (directory / _KEY_FILE).write_text(json.dumps({"keys": [setting.client.jwk]}))
    setting.file.write_text(json.dumps(_document(setting, shape), separators=(",", ":")))
    return setting


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, from below those that the kernel gives to whoever asks for any."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - two runs at once should differ.
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _document(setting: Setting, shape: Shape) -> dict[str, Any]:
    directory = setting.directory
    faces = {
        face: f"127.0.0.1:{getattr(setting.ports, face)}" if face in shape.faces else None
        for face in ("http", "grpc")
    }
    return {
        "issuer": setting.issuer,
        "listen": {**faces, "admin": f"127.0.0.1:{setting.ports.admin}"},
        "http": {"threads": shape.threads},
        "grpc": {"threads": shape.threads},
        "workers": {"http": shape.workers, "grpc": shape.workers},
        "keys": shape.keys or {"store": "dev", "dev": {"directory": str(directory / "keys")}},
        "state": {"store": "sqlite", "directory": str(directory / "state")},
        "audit": {"directory": str(directory / "audit"), **shape.audit},
        "policies": str(directory / "policies"),
        "log": {"level": "warning"},
        **_limits(),
        "clients": [_client(setting), *map(_further_client, range(shape.clients - 1))],
        "resources": _resources(),
        "issuers": [
            {
                "issuer": IDP,
                "purposes": ["user", "access_token"],
                "algorithms": ["ES256"],
                "jwks": {"keys": [setting.idp.jwk]},
            }
        ],
    }


@cache
def _limits() -> dict[str, Any]:
    """Limits that are counted and never reached, where the broker has any: all load is one client's."""
    if "limits" not in json_schema()["properties"]:
        return {}
    return {"limits": {name: {"rate": "1000000/s"} for name in ("per_client", "per_source")}}


def _client(setting: Setting) -> dict[str, Any]:
    auth = {
        "methods": ["private_key_jwt", "client_secret_basic", "client_secret_post"],
        "jwks": {"keys": [setting.client.jwk]},
        "secrets": [{"hash": _secret_hash(SECRET)}],
    }
    return {"id": CLIENT, "auth": auth, "grants": ["token_exchange", "client_credentials"]}


def _further_client(number: int) -> dict[str, Any]:
    # Ten thousand fit into the megabyte that a configuration may have, but only with keys in files.
    auth = {"method": "private_key_jwt", "jwks_file": _KEY_FILE}
    return {"id": f"client-{number}", "auth": auth}


def _secret_hash(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def _resources() -> list[dict[str, Any]]:
    return [
        {
            "resource": SERVER_RESOURCE,
            "owner": CLIENT,
            "scopes": {"tickets:read": {}, "tickets:comment": {}},
        },
        {"resource": API, "scopes": {SCOPE: {"from": ["tickets:read"]}}},
    ]


def _write_policies(directory: Path, shape: Shape) -> None:
    """The delivered policies without their decision tables, and what the measurement needs besides."""
    delivered = ROOT / "policies"
    directory.mkdir()
    for path in (*delivered.glob("*.cedar"), *delivered.glob("*.cedarschema")):
        shutil.copy(path, directory)
    further = (
        _FURTHER_POLICY.format(number=number, api=API, scope=SCOPE)
        for number in range(shape.policies)
    )
    clock = _LOOKS_AT_THE_CLOCK if shape.is_deciding_anew else ""
    (directory / "bench.cedar").write_text("".join((_OWN_TOKENS, clock, *further)))
