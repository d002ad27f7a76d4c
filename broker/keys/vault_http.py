"""Where Vault is, and one call to it: no redirects, nothing ambient, and a fault for every failure."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import hvac.adapters
import hvac.exceptions
import urllib3.exceptions
from urllib3 import Timeout

from broker.keys.bounded_http import BoundedAnswer, BoundedSession

_MAY_BE_EMPTY: Final = frozenset({"post", "delete"})
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")


class Fault(StrEnum):
    """The classes of fault that an audit record or a log may name; none tells anything secret."""

    UNREACHABLE = "unreachable"
    UNTRUSTED = "certificate not trusted"
    TIMED_OUT = "timed out"
    SEALED = "sealed or not initialized"
    FORBIDDEN = "forbidden"
    MISSING = "not found"
    REFUSED = "request refused"
    FAILED = "server error"
    REDIRECTED = "redirected"
    MALFORMED = "malformed answer"
    NO_CREDENTIAL = "credential file unreadable"
    COOLING_DOWN = "waiting before the next login"


_FAULTS: Final[tuple[tuple[tuple[type[Exception], ...], Fault], ...]] = (
    ((hvac.exceptions.Forbidden,), Fault.FORBIDDEN),
    ((hvac.exceptions.VaultDown, hvac.exceptions.VaultNotInitialized), Fault.SEALED),
    ((hvac.exceptions.InternalServerError, hvac.exceptions.BadGateway), Fault.FAILED),
    ((hvac.exceptions.InvalidPath,), Fault.MISSING),
    ((hvac.exceptions.VaultError,), Fault.REFUSED),
    ((urllib3.exceptions.SSLError,), Fault.UNTRUSTED),
    ((urllib3.exceptions.NewConnectionError,), Fault.UNREACHABLE),
    ((urllib3.exceptions.TimeoutError, TimeoutError), Fault.TIMED_OUT),
    ((OSError, HTTPException, urllib3.exceptions.HTTPError), Fault.UNREACHABLE),
)
"""The first row that fits counts. ``ValueError`` and the like come from an answer that misleads."""


class VaultFault(Exception):
    """A call to Vault came to nothing. It has no cause, since that could quote what was sent."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class VaultServer:
    """
    Where Vault is and how long it may take.

    ``url`` is https, or http on loopback. ``ca_file`` holds the only authorities that are believed;
    without one they are those of the operating system. The timeouts are in seconds, and
    ``read_timeout`` bounds the whole answer and not the pause between two bytes.
    Raises ``ValueError`` for a URL or namespace that is not acceptable.
    """

    url: str
    namespace: str | None = None
    ca_file: Path | None = None
    connect_timeout: float = 0.5
    read_timeout: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username is not None or parts.query or parts.fragment or parts.path.strip("/"):
            raise ValueError("the Vault URL must be scheme, host and port only")
        if parts.scheme != "https" and not (
            parts.scheme == "http" and _is_loopback(parts.hostname or "")
        ):
            raise ValueError("the Vault URL must be https, or http on loopback")
        if self.namespace is not None:
            vault_path(self.namespace)


def vault_name(name: str) -> str:
    """
    A configured name, as one segment of a path.

    Raises ``ValueError`` for anything that could leave its place: slashes, ``..``, escapes, queries.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not acceptable as a name in Vault: {name[:64]!r}")
    return name


def vault_path(*names: str) -> str:
    """A path from configured names, each of which may be a path itself, as mounts often are."""
    return "/".join(vault_name(segment) for name in names for segment in name.split("/"))


class VaultHttp:
    """
    Calls Vault with the token it is given.

    It speaks through hvac's adapter, which unlike hvac's client reads no token, address or
    certificate from the environment. Redirects are not followed: hvac would send the token along.
    """

    def __init__(self, server: VaultServer) -> None:
        timeout = Timeout(connect=server.connect_timeout, read=server.read_timeout)
        self._adapter = hvac.adapters.JSONAdapter(
            base_uri=server.url,
            session=BoundedSession(server.url, ca_file=server.ca_file, timeout=timeout),
            namespace=server.namespace,
            allow_redirects=False,
        )

    def get(self, path: str, *, token: str) -> Mapping[str, Any]:
        """The answer to a read; raises ``VaultFault``."""
        return self._call("get", path, token=token, json=None)

    def post(self, path: str, body: Mapping[str, Any], *, token: str = "") -> Mapping[str, Any]:
        """The answer to a write, which may be empty; raises ``VaultFault``."""
        return self._call("post", path, token=token, json=body)

    def list(self, path: str, *, token: str) -> Mapping[str, Any]:
        """The answer that names what is in a folder; raises ``VaultFault``."""
        return self._call("list", path, token=token)

    def delete(self, path: str, *, token: str) -> Mapping[str, Any]:
        """The answer to a deletion, which is usually empty; raises ``VaultFault``."""
        return self._call("delete", path, token=token)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._adapter.close()

    def _call(self, method: str, path: str, *, token: str, **body: Any) -> Mapping[str, Any]:
        headers = {"X-Vault-Token": token} if token else {}
        try:
            answer = self._adapter.request(method, f"/v1/{path}", headers=headers, **body)
        except Exception as error:  # noqa: BLE001 -- whatever an answer provokes is Vault's fault.
            fault = _fault_of(error)
        else:
            if isinstance(answer, dict):
                return cast(dict[str, Any], answer)
            if method in _MAY_BE_EMPTY and _is_empty(answer):
                return {}
            fault = _fault_of_answer(answer)
        # It is raised outside the handler because the error in its context may quote what was sent.
        raise VaultFault(fault)


def _is_empty(answer: object) -> bool:
    return isinstance(answer, BoundedAnswer) and answer.status_code == 204


def _fault_of(error: Exception) -> Fault:
    fitting = (fault for kinds, fault in _FAULTS if isinstance(error, kinds))
    return next(fitting, Fault.MALFORMED)


def _fault_of_answer(answer: object) -> Fault:
    if isinstance(answer, BoundedAnswer) and 300 <= answer.status_code < 400:
        return Fault.REDIRECTED
    return Fault.MALFORMED


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
