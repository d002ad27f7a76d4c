"""A broker that runs as an operator runs it, and what the programs that ask it hold."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from broker.oauth import TYP_ID_JAG
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    API,
    DESK,
    POLICIES,
    READ,
    SERVER,
    Document,
    Setting,
    fresh_id,
    idp_key,
    new_setting,
)
from tests.idp import Signer, signer
from tests.world import without_none

WRITE: Final = "crm.contacts.write"
ALL_READ: Final = "tickets:read"
CALENDAR: Final = "https://api.calendar.example/v1"
FREE: Final = "calendar.free.read"
WIKI: Final = "https://wiki.mcp.example/mcp"
WIKI_SERVER: Final = "https://wiki.example"
NIGHTLY: Final = "agent-nightly"
AUDITOR: Final = "auditor"
IDP: Final = "https://idp.example"
TRUST_DOMAIN: Final = "spiffe://td.example"
CLUSTER: Final = "https://cluster.example"
WORKLOAD: Final = "svid-agent"
POD: Final = "pod-agent"

_FURTHER_POLICIES: Final = f"""
@id("desk-redeems-assertions")
permit (
  principal == Client::"{DESK}",
  action == Action::"redeem",
  resource in Resource::"{SERVER}"
)
when {{ context.relation == "asserted" && context.subject_scopes.contains(resource.name) }};

@id("workloads-read-tickets")
permit (
  principal in ClientGroup::"workloads",
  action == Action::"issue",
  resource == Scope::"{SERVER}#{ALL_READ}"
);
"""


def new_broker(
    directory: Path, *, nightly_keys: Document | None = None, **sections: Any
) -> RunningBroker:
    """
    A broker with everything that the library can ask for; it may not be ready yet.

    ``nightly_keys`` are what the nightly agent authenticates by, if not the key of its name.
    """
    policies = directory / "policies"
    shutil.copytree(POLICIES, policies)
    (policies / "further.cedar").write_text(_FURTHER_POLICIES)
    setting = new_setting(directory, **sections)
    document = setting.document
    document |= {
        "policies": str(policies),
        "clients": _clients(document["clients"], nightly_keys or signer(NIGHTLY).jwks),
        "resources": _resources(),
        "issuers": _issuers(),
        "authorization_servers": [
            {
                "issuer": WIKI_SERVER,
                "client_ids": {DESK: "desk-at-wiki"},
                "resources": [{"resource": WIKI, "scopes": ["pages.read"]}],
            }
        ],
    }
    return RunningBroker(setting)


@contextmanager
def whole_broker(
    directory: Path, *, nightly_keys: Document | None = None, **sections: Any
) -> Iterator[RunningBroker]:
    """The same, ready until the end of the block."""
    broker = new_broker(directory, nightly_keys=nightly_keys, **sections)
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


def _clients(usual: list[Document], nightly_keys: Document) -> list[Document]:
    desk, tickets = usual
    desk_keys = {"keys": [signer(DESK).jwk, signer("desk-next").jwk]}
    workload = {"grants": ["client_credentials", "jwt_bearer"], "groups": ["workloads"]}
    return [
        {**desk, "auth": _by_key(desk_keys), "grants": ["token_exchange", "jwt_bearer"]},
        tickets,
        {"id": NIGHTLY, "auth": _by_key(nightly_keys), "grants": ["client_credentials"]},
        {"id": AUDITOR, "auth": _by_key(signer(AUDITOR).jwks), "grants": [], "explain": True},
        {"id": WORKLOAD, **workload},
        {"id": POD, **workload},
    ]


def _by_key(keys: Document) -> Document:
    return {"method": "private_key_jwt", "jwks": keys}


def _resources() -> list[Document]:
    return [
        {
            "resource": SERVER,
            "owner": "mcp-tickets",
            "scopes": {ALL_READ: {}, "tickets:comment": {}},
        },
        {
            "resource": API,
            "signing_algorithm": "RS256",
            "scopes": {READ: {"from": [ALL_READ]}, WRITE: {"from": ["tickets:comment"]}},
        },
        {"resource": CALENDAR, "scopes": {FREE: {"from": [ALL_READ]}}},
    ]


def _issuers() -> list[Document]:
    svid_key = {**signer("svid").jwk, "use": "jwt-svid"}
    return [
        {
            "issuer": IDP,
            "purposes": ["user", "access_token", "id_jag"],
            "algorithms": ["ES256"],
            "jwks": idp_key().jwks,
        },
        {
            "issuer": TRUST_DOMAIN,
            "purposes": ["workload"],
            "algorithms": ["ES256"],
            "jwks": {"keys": [svid_key]},
            "workloads": [{"client": WORKLOAD, "claims": {"sub": f"{TRUST_DOMAIN}/agent"}}],
        },
        {
            "issuer": CLUSTER,
            "purposes": ["workload"],
            "algorithms": ["RS256"],
            "jwks": signer("cluster", "RS256").jwks,
            "workloads": [
                {"client": POD, "claims": {"sub": "system:serviceaccount:prod:pod-agent"}}
            ],
        },
    ]


def write_key(path: Path, key: Signer) -> Path:
    """Write a private key as PEM, whole and at once, as a rotation does."""
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return write_whole(path, pem.decode())


def write_jwk(path: Path, key: Signer) -> Path:
    """Write a private key as a JWK, with the id that it is known by."""
    private = json.loads(ECAlgorithm.to_jwk(key.private_key))
    return write_whole(path, json.dumps({**private, "kid": key.kid}))


def write_whole(path: Path, text: str) -> Path:
    """Put a text in the place of another."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    return draft.replace(path)


def id_jag(setting: Setting, **changes: Any) -> str:
    """What the identity provider asserts of Ann to the agent, for the tickets server."""
    now = int(time.time())
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": setting.issuer,
        "client_id": DESK,
        "resource": SERVER,
        "scope": ALL_READ,
        "iat": now,
        "exp": now + 200,
        "jti": fresh_id(),
        **changes,
    }
    return idp_key().sign(without_none(claims), typ=TYP_ID_JAG)


def svid(setting: Setting, **changes: Any) -> str:
    """The JWT-SVID of a workload in the trust domain."""
    now = int(time.time())
    claims = {
        "sub": f"{TRUST_DOMAIN}/agent",
        "aud": [setting.issuer],
        "iat": now,
        "exp": now + 200,
        **changes,
    }
    return signer("svid").sign(without_none(claims))


def pod_token(setting: Setting, **changes: Any) -> str:
    """The token that a cluster projects into a pod."""
    now = int(time.time())
    claims = {
        "iss": CLUSTER,
        "sub": "system:serviceaccount:prod:pod-agent",
        "aud": [setting.issuer],
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        "jti": fresh_id(),
        **changes,
    }
    return signer("cluster", "RS256").sign(without_none(claims), typ=None)
