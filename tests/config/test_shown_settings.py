"""What ``broker config check`` prints of the settings: a file that says the same, but for its secrets."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from broker.config import Settings, load_settings
from broker.config.documents import settings_page
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
    "audit": {
        "review": {
            "url": "https://audit.example",
            "oidc": {
                "issuer": "https://idp.example",
                "client_id": "desk",
                "client_secret_file": "secret",
                "hosts": ["keys.example"],
                "subjects": ["olga"],
                "claim": "name",
                "values": ["source"],
            },
        },
        "sinks": [
            {"type": "stdout", "required": True},
            {
                "type": "syslog",
                "name": "far",
                "transport": "tcp",
                "server": "logs.example:601",
                "accept_clear_text": True,
            },
            {
                "type": "http",
                "url": "https://logs.example/a",
                "token_file": "secret",
                "ca_file": "pem",
            },
        ],
        "alerts": {"rules": {"depth": {"enabled": False, "threshold": 9, "within": "2d"}}},
        "seal": {"timestamp_url": "https://tsa.example", "timestamp_ca_file": "pem"},
        "people": {"names": "clear"},
    },
}
FILES: Final = ("secret", "pem")
"""What settings may name beside them."""

_TLS: Final = {"cert_file": "pem", "key_file": "secret"}
_AUTHORITY: Final = {**_TLS, "client_ca_file": "pem"}
_APP_ROLE: Final = {"method": "approle", "role_id_file": "pem", "secret_id_file": "secret"}
_KUBERNETES: Final = {"method": "kubernetes", "role": "broker", "jwt_file": "pem"}
_TOKEN: Final = {"method": "token_file", "token_file": "secret"}
_TRANSIT: Final = {
    "url": "https://vault.example",
    "namespace": "team",
    "ca_file": "pem",
    "keys": {"ES256": "broker-at", "RS256": "broker-rs"},
    "record": {},
}
OTHERS: Final[Mapping[str, dict[str, Any]]] = {
    "with TLS and a vault": {
        "issuer": "https://broker.example",
        "listen": {"http": "192.0.2.1:443", "grpc": "192.0.2.1:8443", "streams": "192.0.2.1:8444"},
        "http": {"tls": _TLS},
        "grpc": {"tls": _AUTHORITY},
        "keys": {
            "store": "vault-transit",
            "publish_ahead": "2h",
            "keep_published": "3h",
            "vault": {**_TRANSIT, "auth": _APP_ROLE, "rotator": _KUBERNETES},
        },
        "fetch": {"ca_file": "pem", "private_networks": ["10.0.0.0/8"]},
        "tokens": {"pairwise_key_file": "secret"},
        "policies": ".",
        "audit": {
            "verify": {"enabled": False},
            "sinks": [
                {
                    "type": "syslog",
                    "transport": "tls",
                    "server": "logs.example:6514",
                    "ca_file": "pem",
                    **_TLS,
                },
                {"type": "syslog", "name": "near"},
                {"type": "syslog", "name": "six", "transport": "udp", "server": "[::1]:514"},
            ],
        },
    },
    "with one face and time-stamps prepared": {
        "issuer": "https://broker.example",
        "listen": {"http": None, "grpc": "127.0.0.1:8443"},
        "keys": {
            "store": "vault-export",
            "also": [],
            "vault": {**_TRANSIT, "auth": _TOKEN},
        },
        "audit": {"seal": {"timestamp_every": "30m"}},
    },
    "behind a proxy with keys in memory": {
        "issuer": "https://broker.example",
        "http": {
            "is_behind_proxy": True,
            "trusted_proxies": ["192.0.2.0/24"],
            "caller_header": "CallerAddress",
        },
        "keys": {
            "store": "vault-ephemeral",
            "also": [],
            "vault": {
                **_TRANSIT,
                "auth": _KUBERNETES,
                "rotator": _TOKEN,
                "ephemeral": {"certifier": "broker-certifier"},
            },
        },
        "state": {
            "store": "valkey",
            "valkey": {
                "sentinel": {
                    "service": "primary",
                    "hosts": ["a.example:26379"],
                    "username": "guard",
                    "password_file": "secret",
                },
                "tls": {**_TLS, "ca_file": "pem"},
                "username": "broker",
                "password_file": "secret",
            },
        },
    },
    "with tenants": {
        "issuer": "https://broker.example",
        "http": {"is_behind_proxy": True, "trusted_proxies": ["192.0.2.0/24"]},
        "keys": {
            "store": "vault-export",
            "also": [],
            "vault": {**_TRANSIT, "auth": _TOKEN},
        },
        "state": {
            "store": "valkey",
            "valkey": {"host": "a.example:6379", "tls": {}, "password_file": "secret"},
        },
        "default_resource": "https://mcp.example/mcp",
        "clients": [
            {
                "id": "agent",
                "auth": {"method": "private_key_jwt", "jwks_uri": "https://agent.example/jwks"},
                "issuers": ["https://idp.example"],
                "tenant": "north",
            },
            {"id": "other", "auth": {"method": "private_key_jwt", "jwks_file": "keys"}},
        ],
        "resources": [
            {
                "resource": "https://mcp.example/mcp",
                "owner": "agent",
                "scopes": {"read": {}},
                "signing_algorithm": "ES256",
                "max_lifetime": "1m",
                "tenant": "north",
            }
        ],
        "issuers": [
            {
                "issuer": "https://idp.example",
                "purposes": ["user"],
                "algorithms": ["ES256"],
                "jwks_file": "keys",
                "subject_prefix": "x|",
                "tenant": "north",
            },
            {
                "issuer": "https://many.example",
                "purposes": ["id_jag"],
                "algorithms": ["ES256"],
                "jwks": JWKS,
                "subject_prefix": "y|",
                "multi_tenant": True,
                "tenants": ["south"],
                "accounts": {"south": {"ann": "anna"}},
            },
        ],
        "authorization_servers": [
            {
                "issuer": "https://as.example",
                "client_ids": {"agent": "a"},
                "tenant": "far",
                "resources": [{"resource": "https://wiki.example/mcp", "scopes": ["read"]}],
            }
        ],
    },
    "with keys out of a vault and a cluster": {
        "issuer": "https://broker.example",
        "http": {"is_behind_proxy": True, "trusted_proxies": ["192.0.2.0/24"]},
        "keys": {
            "store": "vault-export",
            "vault": {**_TRANSIT, "auth": _TOKEN, "rotator": _APP_ROLE},
        },
        "state": {
            "store": "valkey",
            "valkey": {"cluster": ["a.example:6379"], "tls": {}, "password_file": "secret"},
        },
    },
}
"""Files that say what the first cannot say at the same time."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(tmp_path, FILE)


def load(folder: Path, document: Mapping[str, Any]) -> Settings:
    for name in FILES:
        (folder / name).write_text("of use to nobody, and long enough for a secret")
        (folder / name).chmod(0o600)
    (folder / "keys").write_text(json.dumps(JWKS))
    file = folder / "broker.yaml"
    file.write_text(json.dumps(document))
    return load_settings(file, {})


def test_what_is_shown_says_the_same_as_the_file(settings: Settings, tmp_path: Path) -> None:
    text = json.dumps(shown(settings))

    assert HASH not in text
    assert load(tmp_path, json.loads(text.replace("sha256:\\u2026", HASH))) == settings


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_shown_of_other_files_says_the_same_as_they(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, OTHERS[name])

    assert load(tmp_path, json.loads(json.dumps(shown(settings)))) == settings


def test_what_is_off_is_shown_to_be_off(tmp_path: Path) -> None:
    told = shown(load(tmp_path, OTHERS["with one face and time-stamps prepared"]))

    assert told["listen"]["http"] is told["listen"]["streams"] is None
    assert told["audit"]["review"] is None
    assert told["audit"]["seal"] == {
        "every": "5s",
        "timestamp_every": "30m",
        "timestamp_url": None,
    }
    limited = shown(load(tmp_path, FILE))
    assert limited["limits"]["per_source"] is None
    assert limited["audit"]["seal"]["timestamp_every"] == "1h"


NEVER_SHOWN: Final = {
    # The directories that follow from it are.
    "data_dir",
    # What is shown has a list, however many there are.
    "clients[].auth.method",
    # The keys in it are shown: they were read when the settings were.
    "clients[].auth.jwks_file",
    "issuers[].jwks_file",
}


def test_every_setting_is_shown_under_the_name_that_it_has_in_the_file(tmp_path: Path) -> None:
    """Held against the reference page, so that no setting is forgotten and none is called otherwise."""
    documented = _documented()
    told = {
        path
        for document in (FILE, *OTHERS.values())
        for path in _paths(shown(load(tmp_path, document)), "", documented)
    }

    assert told - _names_of(documented) == set()
    assert _names_of(documented) - told == NEVER_SHOWN


def _documented() -> Mapping[str, set[str]]:
    """The names of each section, by where the section stands."""
    sections: dict[str, set[str]] = {"": set()}
    names = sections[""]
    for line in settings_page().splitlines():
        if heading := re.match(r"## `([^`]+)`", line):
            names = sections.setdefault(heading[1], set())
        elif row := re.match(r"\| `(\w+)` \|", line):
            names.add(row[1])
    return sections


def _names_of(sections: Mapping[str, set[str]]) -> set[str]:
    return {_under(at, name) for at, names in sections.items() for name in names}


def _under(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _paths(value: Any, at: str, sections: Mapping[str, set[str]]) -> Iterator[str]:
    """Where all stands that is shown; what has names that people chose counts as one."""
    if isinstance(value, list):
        for inner in value:
            yield from _paths(inner, f"{at}[]", sections)
    elif isinstance(value, dict) and at in sections:
        for name, inner in value.items():
            yield _under(at, name)
            yield from _paths(inner, _under(at, name), sections)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _paths(inner, f"{at}.<name>", sections)
