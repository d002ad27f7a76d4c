"""What the brokers of these tests are told, and the tokens that their users hold."""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TYP_ACCESS_TOKEN,
)
from tests.idp import Signer, signer
from tests.ports import free_port
from tests.world import Parameters, without_none

ROOT: Final = Path(__file__).parents[2]
POLICIES: Final = ROOT / "policies"

IDP: Final = "https://idp.example"
DESK: Final = "agent-desk"
TICKETS: Final = "mcp-tickets"
TICKETS_SECRET: Final = "bks_" + "e2e" * 15
SERVER: Final = "https://tickets.mcp.example/mcp"
API: Final = "https://api.crm.example/v2"
READ: Final = "crm.contacts.read"

_serial = itertools.count(1)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three listeners of a broker are, on loopback."""

    http: int
    grpc: int
    admin: int


def free_ports() -> Ports:
    """Ports for a broker alone."""
    return Ports(free_port(), free_port(), free_port())


@dataclass(frozen=True, slots=True)
class Setting:
    """
    A broker to be: its folder, its ports, and the document that becomes its ``broker.yaml``.

    ``issuer_path`` is the path of its issuer.
    """

    directory: Path
    ports: Ports
    issuer_path: str = ""
    document: Document = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where its HTTP face is reached."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def issuer(self) -> str:
        """Its issuer."""
        return self.origin + self.issuer_path

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.directory / "broker.yaml"

    @property
    def audit_directory(self) -> Path:
        """Where its records are."""
        return Path(self.document["audit"]["directory"])

    def with_document(self, **sections: Any) -> "Setting":
        """The same with some sections of the document replaced."""
        return replace(self, document={**self.document, **sections})

    def write(self, document: Mapping[str, Any] | None = None) -> None:
        """Write the file anew, whole and at once; JSON is YAML too."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps(document or self.document, indent=1))
        draft.replace(self.file)


def new_setting(directory: Path, *, issuer_path: str = "", **sections: Any) -> Setting:
    """
    A broker with both faces, embedded keys and the delivered policies.

    The tokens of the server are signed with ES256, those of the API behind it with RS256.
    """
    ports = free_ports()
    setting = Setting(directory, ports, issuer_path)
    document: Document = {
        "issuer": setting.issuer,
        "listen": {
            "http": f"127.0.0.1:{ports.http}",
            "grpc": f"127.0.0.1:{ports.grpc}",
            "admin": f"127.0.0.1:{ports.admin}",
        },
        "grpc": {"reflection": True},
        "keys": {"store": "dev", "dev": {"directory": str(directory / "keys")}},
        "state": {"store": "sqlite", "directory": str(directory / "state")},
        "audit": audit_section(directory / "audit"),
        "policies": str(POLICIES),
        "clients": [_desk(), _tickets()],
        "resources": _resources(),
        "issuers": [_idp()],
    }
    return replace(setting, document={**document, **sections})


def audit_section(directory: Path, **more: Any) -> Document:
    """The section of the audit log: a disk that many use is waited for as long as may be."""
    return {"directory": str(directory), "write_timeout": "30s", **more}


def _desk() -> Document:
    return {"id": DESK, "auth": _by_key(DESK), "grants": ["token_exchange"], "profile": "ai_agent"}


def _tickets() -> Document:
    secret_hash = "sha256:" + hashlib.sha256(TICKETS_SECRET.encode()).hexdigest()
    methods = ["private_key_jwt", "client_secret_basic", "client_secret_post"]
    auth = {"methods": methods, "jwks": signer(TICKETS).jwks, "secrets": [{"hash": secret_hash}]}
    return {"id": TICKETS, "auth": auth, "grants": ["token_exchange"]}


def _by_key(client_id: str) -> Document:
    return {"method": "private_key_jwt", "jwks": signer(client_id).jwks}


def _resources() -> list[Document]:
    return [
        {
            "resource": SERVER,
            "owner": TICKETS,
            "scopes": {"tickets:read": {}, "tickets:comment": {}},
        },
        {
            "resource": API,
            "signing_algorithm": "RS256",
            "scopes": {READ: {"from": ["tickets:read"]}},
        },
    ]


def _idp() -> Document:
    return {
        "issuer": IDP,
        "purposes": ["user", "access_token"],
        "algorithms": ["ES256"],
        "jwks": idp_key().jwks,
    }


def idp_key() -> Signer:
    """The key of the identity provider."""
    return signer("idp-e2e")


def fresh_id() -> str:
    """An id that nothing else in this test run has."""
    return f"e2e-{os.getpid()}-{next(_serial)}"


def subject_token(**changes: Any) -> str:
    """Ann's access token for the tickets server, as the identity provider issues it."""
    now = int(time.time())
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": SERVER,
        "client_id": DESK,
        "scope": "tickets:read tickets:comment",
        "iat": now,
        "exp": now + 600,
        "jti": fresh_id(),
        **changes,
    }
    return idp_key().sign(without_none(claims), typ=TYP_ACCESS_TOKEN)


def id_token(**changes: Any) -> str:
    """Ann's ID token for the agent."""
    now = int(time.time())
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": DESK,
        "iat": now,
        "exp": now + 600,
        "auth_time": now,
        **changes,
    }
    return idp_key().sign(without_none(claims))


def assertion(setting: Setting, client_id: str = TICKETS, /, **changes: Any) -> str:
    """A client's assertion, good for once."""
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": setting.issuer,
        "iat": now,
        "exp": now + 290,
        "jti": fresh_id(),
        **changes,
    }
    return signer(client_id).sign(without_none(claims))


def by_assertion(proof: str) -> Parameters:
    """The parameters that authenticate a client by this assertion."""
    return {"client_assertion_type": CLIENT_ASSERTION_JWT_BEARER, "client_assertion": proof}


def exchange(setting: Setting) -> Parameters:
    """The tickets server exchanges what Ann's agent sent it for a token for the API."""
    return {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": subject_token(),
        "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "resource": API,
        "scope": READ,
        **by_assertion(assertion(setting)),
    }


def login(setting: Setting) -> Parameters:
    """The agent turns Ann's ID token into a token for the tickets server."""
    return {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "subject_token": id_token(),
        "subject_token_type": TOKEN_TYPE_ID_TOKEN,
        "resource": SERVER,
        **by_assertion(assertion(setting, DESK)),
    }
