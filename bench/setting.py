"""The broker under measurement: a real configuration, with everything on."""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

HTTP_PORT = 18080
GRPC_PORT = 18443
ADMIN_PORT = 18464
ISSUER = f"http://127.0.0.1:{HTTP_PORT}"
IDP = "https://idp.bench.example"
SERVER_RESOURCE = "https://tickets.mcp.example/mcp"
API = "https://api.crm.example/v2"
CLIENT = "mcp-tickets"


@dataclass(frozen=True)
class Keys:
    """The key of the identity provider and that of the MCP server."""

    idp: ec.EllipticCurvePrivateKey
    client: ec.EllipticCurvePrivateKey


def jwk(key: ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    """The public key as a JWK."""
    members = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**members, "kid": kid, "alg": "ES256", "use": "sig"}


def write_config(directory: Path, policies: Path) -> tuple[Path, Keys]:
    """Write ``broker.yaml`` for the run; JSON is YAML too."""
    keys = Keys(ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))
    config = {
        "issuer": ISSUER,
        "listen": {
            "http": f"127.0.0.1:{HTTP_PORT}",
            "grpc": f"127.0.0.1:{GRPC_PORT}",
            "admin": f"127.0.0.1:{ADMIN_PORT}",
        },
        "keys": {"store": "dev", "dev": {"directory": str(directory / "keys")}},
        "state": {"store": "sqlite", "directory": str(directory / "state")},
        "audit": {"directory": str(directory / "audit")},
        "policies": str(policies),
        "log": {"level": "warning"},
        "clients": [
            {
                "id": CLIENT,
                "auth": {"method": "private_key_jwt", "jwks": {"keys": [jwk(keys.client, "c")]}},
                "grants": ["token_exchange"],
            }
        ],
        "resources": [
            {
                "resource": SERVER_RESOURCE,
                "owner": CLIENT,
                "scopes": {"tickets:read": {}, "tickets:comment": {}},
            },
            {"resource": API, "scopes": {"crm.contacts.read": {"from": ["tickets:read"]}}},
        ],
        "issuers": [
            {
                "issuer": IDP,
                "purposes": ["user", "access_token"],
                "algorithms": ["ES256"],
                "jwks": {"keys": [jwk(keys.idp, "i")]},
            }
        ],
    }
    path = directory / "broker.yaml"
    path.write_text(json.dumps(config))
    return path, keys


def subject_token(keys: Keys) -> str:
    """A user's token for the MCP server, good for the whole run."""
    now = int(time.time())
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": SERVER_RESOURCE,
        "client_id": "agent-desk",
        "scope": "tickets:read tickets:comment",
        "iat": now,
        "exp": now + 3600,
        "jti": "bench",
    }
    headers = {"kid": "i", "typ": "at+jwt"}
    return jwt.encode(claims, keys.idp, algorithm="ES256", headers=headers)


def assertions(keys: Keys, count: int, run: str) -> list[str]:
    """Client assertions, each to be used once."""
    now = int(time.time())
    signer = ECAlgorithm(ECAlgorithm.SHA256)
    header = _encode({"alg": "ES256", "typ": "JWT", "kid": "c"})
    made = []
    for number in range(count):
        claims = {
            "iss": CLIENT,
            "sub": CLIENT,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 290,
            "jti": f"{run}-{number}",
        }
        signing_input = header + b"." + _encode(claims)
        signature = base64.urlsafe_b64encode(signer.sign(signing_input, keys.client)).rstrip(b"=")
        made.append((signing_input + b"." + signature).decode())
    return made


def _encode(members: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=")
