"""What ``broker config check`` prints of the settings: a file that says the same, but for its secrets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from broker.config import Settings, load_settings
from broker.config.shown import shown
from tests.idp import signer

HASH: Final = "sha256:" + "ab" * 32
JWKS: Final = signer("agent").jwks
FILE: Final[dict[str, Any]] = {
    "issuer": "http://127.0.0.1:8080",
    "workers": {"http": 2, "pin": "never"},
    "grpc": {"reflection": True},
    "keys": {"also": [], "spare": False, "rotate_every": "30d"},
    "limits": {"per_client": {"rate": "10/m"}, "per_source": None},
    "client_documents": {"hosts": ["apps.example"], "grants": ["token_exchange"]},
    "clients": [
        {
            "id": "agent",
            "auth": {
                "methods": ["private_key_jwt", "client_secret_basic"],
                "jwks": JWKS,
                "secrets": [{"hash": HASH, "expires_at": "2031-01-31T12:00:00Z"}],
            },
            "grants": ["token_exchange", "client_credentials", "jwt_bearer"],
            "limit": {"rate": "7/h"},
            "administer": True,
            "explain": True,
            "read_audit": True,
            "introspect": ["https://mcp.example/mcp"],
            "dpop_bound_access_tokens": True,
            "disabled": True,
        },
        {
            "id": "https://apps.example/a",
            "auth": {"method": "private_key_jwt", "document": True},
        },
        {"id": "worker", "grants": ["jwt_bearer"]},
    ],
    "resources": [
        {
            "resource": "https://mcp.example/mcp",
            "owner": "agent",
            # Names that the settings have as well.
            "scopes": {"name": {}, "source": {"from": ["is_disabled"]}},
        }
    ],
    "issuers": [
        {
            "issuer": "https://idp.example",
            "purposes": ["user", "id_jag"],
            "algorithms": ["ES256"],
            "jwks_uri": "https://keys.example/jwks",
            "key_hosts": ["keys.example"],
            "subject_prefix": "x|",
            "accounts": {"ann": "anna"},
            "single_use": False,
        },
        {
            "issuer": "https://cluster.example",
            "purposes": ["workload"],
            "algorithms": ["ES256"],
            "workloads": [{"client": "worker", "claims": {"name": "source"}}],
        },
    ],
    "authorization_servers": [
        {
            "issuer": "https://as.example",
            "client_ids": {"agent": "name"},
            "subject": "mapped",
            "subjects": {"is_disabled": "name"},
            "email": True,
            "resources": [{"resource": "https://wiki.example/mcp", "scopes": ["read"]}],
        }
    ],
    "disabled_subjects": ["bob"],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(tmp_path, FILE)


def load(folder: Path, document: Mapping[str, Any]) -> Settings:
    file = folder / "broker.yaml"
    file.write_text(json.dumps(document))
    return load_settings(file, {})


def test_what_is_shown_says_the_same_as_the_file(settings: Settings, tmp_path: Path) -> None:
    text = json.dumps(shown(settings))

    assert HASH not in text
    assert load(tmp_path, json.loads(text.replace("sha256:\\u2026", HASH))) == settings


def test_no_name_that_is_shown_is_one_of_ours(settings: Settings) -> None:
    ours = {name for name in _names(shown(settings)) if name.startswith(("is_", "has_"))}

    assert ours == {"is_behind_proxy"}, "the one that the file calls so"


def _names(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _names(inner)
    elif isinstance(value, dict) and at not in {"subjects", "scopes", "client_ids", "jwks"}:
        for name, inner in value.items():
            yield name
            yield from _names(inner, name)
