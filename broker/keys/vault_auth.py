"""How the broker proves to Vault who it is; every secret is read from a file, at the moment of use."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from broker.keys.vault_http import Fault, VaultFault, vault_path

_LARGEST_FILE: Final = 16_384
_CREDENTIAL: Final = re.compile(r"[!-~]{1,16384}")
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")
_REREAD_SECONDS: Final = 45

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""A write to Vault without a token, such as a login; raises ``VaultFault``."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and the seconds it was granted for; 0 seconds means that it does not expire."""

    token: str = field(repr=False)
    seconds: int
    is_renewable: bool


class VaultAuth(Protocol):
    """
    A way to obtain a token.

    ``login`` raises ``VaultFault`` when Vault refuses or cannot be reached, or a file is missing.
    """

    def login(self, post: Post) -> Lease: ...


@dataclass(frozen=True, slots=True)
class AppRoleAuth:
    """A role id and a secret id, each in a file of its own, so that either can be replaced."""

    role_id_file: Path
    secret_id_file: Path
    mount: str = "approle"

    def __post_init__(self) -> None:
        vault_path(self.mount)

    def login(self, post: Post) -> Lease:
        body = {
            "role_id": _read_credential(self.role_id_file),
            "secret_id": _read_credential(self.secret_id_file),
        }
        return granted_lease(post(vault_path("auth", self.mount, "login"), body))


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """
    The service account token that Kubernetes keeps fresh in a file.

    Vault's ``jwt`` method takes the same login; name its mount to use that.
    """

    role: str
    token_file: Path
    mount: str = "kubernetes"

    def __post_init__(self) -> None:
        vault_path(self.mount)

    def login(self, post: Post) -> Lease:
        body = {"role": self.role, "jwt": _read_credential(self.token_file)}
        return granted_lease(post(vault_path("auth", self.mount, "login"), body))


@dataclass(frozen=True, slots=True)
class TokenFileAuth:
    """
    A token that somebody else, such as Vault's agent, keeps fresh in a file.

    The file is read anew before the token is a minute old. The broker does not renew the token,
    which is the business of whoever writes the file.
    """

    path: Path

    def login(self, post: Post) -> Lease:  # noqa: ARG002 -- there is nothing to ask Vault for.
        return Lease(_token(_read_credential(self.path)), _REREAD_SECONDS, is_renewable=False)


def granted_lease(answer: Mapping[str, Any]) -> Lease:
    """The lease that a login or a renewal was answered with; raises ``VaultFault`` if malformed."""
    auth = answer.get("auth")
    if not isinstance(auth, dict):
        raise VaultFault(Fault.MALFORMED)
    seconds, is_renewable = auth.get("lease_duration"), auth.get("renewable")
    if type(seconds) is not int or seconds < 0 or not isinstance(is_renewable, bool):
        raise VaultFault(Fault.MALFORMED)
    return Lease(_token(auth.get("client_token")), seconds, is_renewable)


def _token(value: object) -> str:
    # A token goes into a header: what could end the header line must not get there.
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise VaultFault(Fault.MALFORMED)
    return value


def _read_credential(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(_LARGEST_FILE + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if _CREDENTIAL.fullmatch(text) is None:
        raise VaultFault(Fault.NO_CREDENTIAL)
    return text
