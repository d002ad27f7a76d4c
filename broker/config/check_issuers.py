"""Trusted issuers whose registration is unsafe or impossible."""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from broker.config.check_clients import check_key_set
from broker.config.declarations import IssuerEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path
from broker.oauth import CLIENT_SUBJECT_PREFIX
from broker.tokens.spiffe_id import is_trust_domain

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
        is_bundle = is_trust_domain(entry.issuer)
        yield from check_key_set(scene, path, entry=entry, is_bundle=is_bundle)
        yield from _check_discovery(path, entry)
        yield from _check_tenants(scene, path, entry=entry)
        yield from _check_accounts(path, entry)
    if "issuers" not in scene.broken:
        yield from _check_prefixes(scene)


def _check_discovery(path: Path, entry: IssuerEntry) -> Iterator[Finding]:
    has_keys = any((entry.jwks is not None, entry.jwks_file, entry.jwks_uri))
    if entry.discovery is True and has_keys:
        yield Finding((*path, "discovery"), "is one source of keys too many", is_key=True)
    if entry.discovery is False and not has_keys:
        yield Finding((*path, "discovery"), "leaves no way to find the keys of this issuer")


def _check_tenants(scene: Scene, path: Path, *, entry: IssuerEntry) -> Iterator[Finding]:
    if not entry.multi_tenant:
        if entry.tenants is not None:
            yield Finding((*path, "tenants"), "has no effect without multi_tenant", is_key=True)
        return
    tenants = (
        *(client.tenant for _, client in scene.clients),
        *(resource.tenant for _, resource in scene.resources),
        *(issuer.tenant for _, issuer in scene.issuers if issuer is not entry),
    )
    if entry.tenants is None and any(tenant is not None for tenant in tenants):
        sentence = "must list its tenants: it could name one that is registered here for others"
        yield Finding((*path, "multi_tenant"), sentence, is_key=True)
    if _NAME_USERS.isdisjoint(entry.purposes):
        sentence = "has no effect: by its purposes this issuer names no users"
        yield Finding((*path, "multi_tenant"), sentence, is_key=True)
    elif entry.tenant is not None:
        sentence = "contradicts multi_tenant, by which each token names the tenant of its subject"
        yield Finding((*path, "tenant"), sentence, is_key=True)


def _check_accounts(path: Path, entry: IssuerEntry) -> Iterator[Finding]:
    """The subjects here of its assertions' subjects, by tenant exactly where it has tenants."""
    at: Path = (*path, "accounts")
    if entry.accounts is not None and "id_jag" not in entry.purposes:
        yield Finding(at, "has no effect: 'id_jag' is not among its purposes", is_key=True)
    for name, value in (entry.accounts or {}).items():
        if isinstance(value, str):
            if entry.multi_tenant:
                sentence = "must hold the accounts of a tenant, since multi_tenant is set"
                yield Finding((*at, name), sentence)
            yield from _check_account((*at, name), value)
            continue
        if not entry.multi_tenant:
            sentence = "must be one subject, since there are no tenants without multi_tenant"
            yield Finding((*at, name), sentence)
        for sub, subject in value.items():
            yield from _check_account((*at, name, sub), subject)


def _check_account(path: Path, subject: str) -> Iterator[Finding]:
    if subject.startswith(CLIENT_SUBJECT_PREFIX):
        sentence = "must not begin with 'client:', which marks the subjects of clients"
        yield Finding(path, sentence)


def _check_prefixes(scene: Scene) -> Iterator[Finding]:
    """Equal ``sub`` values of two issuers stay two people, whatever follows the prefixes."""
    naming = [(path, entry) for path, entry in scene.issuers if _names_users(entry)]
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


def _names_users(entry: IssuerEntry) -> bool:
    """Whether subjects get their names here from its tokens; those of ``accounts`` have them already."""
    purposes = _NAME_USERS.intersection(entry.purposes)
    return bool(purposes - {"id_jag"} if entry.accounts is not None else purposes)
