"""Trusted issuers whose registration is unsafe or impossible."""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from broker.config.check_clients import check_key_set
from broker.config.declarations import IssuerEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path

_NAME_USERS: Final = frozenset({"user", "access_token", "id_jag"})


def check_issuers(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong among the trusted issuers."""
    seen: set[str] = set()
    for path, entry in scene.issuers:
        if entry.issuer in seen:
            yield Finding((*path, "issuer"), "is registered twice")
        seen.add(entry.issuer)
        if entry.issuer == scene.file.issuer and "issuer" not in scene.broken:
            yield Finding((*path, "issuer"), "is the broker itself, which needs no registration")
        yield from check_key_set(scene, path, entry=entry)
        yield from _check_discovery(path, entry)
    if "issuers" not in scene.broken:
        yield from _check_prefixes(scene)


def _check_discovery(path: Path, entry: IssuerEntry) -> Iterator[Finding]:
    has_keys = any((entry.jwks is not None, entry.jwks_file, entry.jwks_uri))
    if entry.discovery is True and has_keys:
        yield Finding((*path, "discovery"), "is one source of keys too many", is_key=True)
    if entry.discovery is False and not has_keys:
        yield Finding((*path, "discovery"), "leaves no way to find the keys of this issuer")


def _check_prefixes(scene: Scene) -> Iterator[Finding]:
    """Equal ``sub`` values of two issuers stay two people, whatever follows the prefixes."""
    naming = [
        (path, entry) for path, entry in scene.issuers if not _NAME_USERS.isdisjoint(entry.purposes)
    ]
    if len(naming) < 2:
        return
    for path, entry in naming:
        if not entry.subject_prefix:
            yield Finding(
                path,
                "needs a subject_prefix, since it is not the only issuer that names users",
            )
    for (_, one), (path, other) in combinations(naming, 2):
        short, long = sorted((one.subject_prefix, other.subject_prefix), key=len)
        if short and long.startswith(short):
            sentence = f"cannot be told from the prefix '{one.subject_prefix}' of {one.issuer}"
            yield Finding((*path, "subject_prefix"), sentence)
