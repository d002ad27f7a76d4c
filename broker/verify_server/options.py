"""What is asked about the server under test, by the command and by the pytest plugin alike."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from broker.oauth import VERIFICATION_ALGORITHMS

MCP: Final = "MCP"
"""The ``method`` of a server that speaks MCP; any other is an HTTP method for a plain API."""

ALGORITHMS: Final = tuple(one for one in VERIFICATION_ALGORITHMS if one != "Ed25519")
"""What good tokens may be signed with; Ed25519 is tried under its older name, EdDSA."""

_MOST_ACTORS: Final = 64


def add_options(add: Callable[..., Any], *, prefix: str = "--") -> None:
    """Add all options but the URL; ``add`` is that of an argument parser, or of a group of pytest's."""
    for name, settings in _OPTIONS.items():
        add(f"{prefix}{name}", **settings)


def values_of(found: Any, *, prefix: str = "") -> dict[str, Any]:
    """The values of all options, by the names that they have without a prefix."""
    names = [name.replace("-", "_") for name in _OPTIONS]
    return {name: getattr(found, prefix + name) for name in names}


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("A port is a number up to 65535.")
    return port


def _actors(text: str) -> int:
    actors = int(text)
    if not 0 <= actors <= _MOST_ACTORS:
        raise argparse.ArgumentTypeError(f"Say a number up to {_MOST_ACTORS}.")
    return actors


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("Say NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "audience": {
        "default": "",
        "help": "what its tokens are for, if not the URL",
        "metavar": "URI",
    },
    "scope": {
        "default": "",
        "metavar": "SCOPES",
        "help": "the scopes that a good token must have, with spaces between them",
    },
    "claim": {
        "action": "append",
        "default": [],
        "type": _claim,
        "metavar": "NAME=VALUE",
        "help": "a claim that a good token must have besides the usual ones; the value is JSON or text",
    },
    "issuer-port": {
        "type": _port,
        "default": 0,
        "metavar": "PORT",
        "help": "where the pretend issuer listens on 127.0.0.1; 0 takes a free port",
    },
    "issuer": {"metavar": "URL", "help": "sign as this issuer, with --key, and pretend nothing"},
    "key": {"type": Path, "metavar": "FILE", "help": "its private key, as JWK or PEM"},
    "kid": {"metavar": "ID", "help": "what its key is published under, if the file does not say"},
    "algorithm": {
        "choices": ALGORITHMS,
        "default": "ES256",
        "help": "what the issuer signs with (ES256)",
    },
    "method": {
        "default": MCP,
        "choices": (MCP, "GET", "POST", "PUT", "PATCH", "DELETE"),
        "help": "MCP, or the HTTP method for a plain API",
    },
    "longest-chain": {
        "type": _actors,
        "metavar": "N",
        "help": "how many actors it takes in act; one more must be refused",
    },
    "revoked-with-introspection": {
        "action": "store_true",
        "help": "it asks the issuer about every token (RFC 7662)",
    },
    "patient": {
        "action": "store_true",
        "help": "wait for a token to expire that it took before; takes a minute and a half",
    },
    "except": {
        "default": "",
        "metavar": "CASES",
        "help": "cases to leave out, with commas between them",
    },
    "wait": {
        "type": float,
        "default": 60.0,
        "metavar": "SECONDS",
        "help": "for how long to wait until it answers (60)",
    },
    "ca-file": {"metavar": "FILE", "help": "the certification authorities to believe"},
}
