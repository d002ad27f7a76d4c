"""What a protected resource says about itself: its metadata (RFC 9728) and its challenges (RFC 6750 3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_RESOURCE: Final = re.compile(
    r"(?P<origin>https?://(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
    r"(?P<path>/[!$-;=@-Z_a-z~%]*)?(?P<query>\?[!$-;=?-Z_a-z~%]*)?"
)
# What a quoted-string may hold without an escape (RFC 9110 5.6.4); nothing else is ever sent.
_QUOTABLE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")


def origin_of(resource: str) -> str:
    """Scheme, host and port of a resource, as written; raises ``ValueError`` for what is no http URL."""
    return _parts(resource)["origin"]


def metadata_path(resource: str) -> str:
    """
    The path, with the query if there is one, where the metadata of a resource stands (RFC 9728 3.1).

    The well-known name goes between host and path: that of ``https://api.example/v2`` is at
    ``/.well-known/oauth-protected-resource/v2``.
    """
    parts = _parts(resource)
    path = parts["path"] or ""
    return f"{_WELL_KNOWN}{'' if path == '/' else path}{parts['query'] or ''}"


def metadata_url(resource: str) -> str:
    """The whole address of the metadata of a resource."""
    return origin_of(resource) + metadata_path(resource)


@dataclass(frozen=True, slots=True)
class ResourceMetadata:
    """
    What a resource tells of itself, so that clients find out where tokens for it come from.

    ``scopes`` are those that clients may ask for; ``proof_algorithms`` those of DPoP proofs it
    takes, none if it takes no proofs.
    """

    resource: str
    authorization_servers: Sequence[str]
    scopes: Sequence[str] = ()
    proof_algorithms: Sequence[str] = ()
    name: str | None = None
    documentation: str | None = None

    def document(self) -> dict[str, Any]:
        """The JSON document (RFC 9728 2); what there is nothing to say about is left out."""
        told: dict[str, Any] = {
            "resource": self.resource,
            "authorization_servers": list(self.authorization_servers),
            "scopes_supported": list(self.scopes),
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(self.proof_algorithms),
            "resource_name": self.name,
            "resource_documentation": self.documentation,
        }
        return {name: value for name, value in told.items() if value}


def challenge(scheme: str, **parameters: str | None) -> str:
    """
    A ``WWW-Authenticate`` value: the scheme and those parameters that have a value.

    Raises ``ValueError`` for a value that would need an escape, since not every client undoes those.
    """
    told = {name: value for name, value in parameters.items() if value}
    for name, value in told.items():
        if not _QUOTABLE.fullmatch(value):
            raise ValueError(f"{name} cannot be quoted")
    return " ".join(
        [scheme, ", ".join(f'{name}="{value}"' for name, value in told.items())]
    ).strip()


def _parts(resource: str) -> re.Match[str]:
    parts = _RESOURCE.fullmatch(resource)
    if parts is None:
        raise ValueError("The resource is not an http or https URL without user or fragment.")
    return parts
