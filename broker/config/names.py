"""All names that a file declares, those of entries that could not be read included."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker.errors import InvalidTarget
from broker.tokens.resource_uri import normalise_resource


@dataclass(frozen=True, slots=True)
class Names:
    """
    The names that other settings may refer to.

    They are taken from the raw file, so that a mistake in an entry does not make every reference to
    it look wrong as well. ``resources`` are in normal form.
    """

    clients: frozenset[str]
    issuers: frozenset[str]
    resources: frozenset[str]
    scopes: frozenset[str]


def names_in(data: Mapping[str, Any]) -> Names:
    """The names in a raw file, whatever else is wrong with it."""
    return Names(
        clients=frozenset(_texts(data, "clients", "id")),
        issuers=frozenset(_texts(data, "issuers", "issuer")),
        resources=frozenset(map(_normal, _texts(data, "resources", "resource"))),
        scopes=frozenset(
            scope
            for entry in _entries(data, "resources")
            if isinstance(entry.get("scopes"), dict)
            for scope in entry["scopes"]
        ),
    )


def _entries(data: Mapping[str, Any], section: str) -> Iterator[dict[str, Any]]:
    listed = data.get(section)
    if isinstance(listed, list):
        yield from (entry for entry in listed if isinstance(entry, dict))


def _texts(data: Mapping[str, Any], section: str, name: str) -> Iterator[str]:
    for entry in _entries(data, section):
        if isinstance(entry.get(name), str):
            yield entry[name]


def _normal(resource: str) -> str:
    try:
        return normalise_resource(resource)
    except InvalidTarget:
        return resource
