"""A request that nobody has made, put together from what is registered and what is supposed."""

from collections.abc import Iterable
from dataclasses import dataclass

import rich_click as click

from broker.config import Settings
from broker.config.problems import nearest
from broker.errors import InvalidTarget
from broker.model import (
    Authentication,
    Client,
    Delegation,
    JsonObject,
    PolicyQuery,
    Relation,
    Resource,
    Subject,
)
from broker.oauth import CLIENT_SUBJECT_PREFIX
from broker.registry import FileRegistry
from broker.tokens.resource_uri import normalise_resource


@dataclass(frozen=True, slots=True)
class Supposition:
    """What is supposed of the request, by the names of the options."""

    client: str
    resource: str
    subject: str
    issuer: str | None
    scopes: tuple[str, ...]
    subject_scopes: tuple[str, ...]
    subject_audience: str | None
    relation: str
    chain_depth: int
    acr: str | None
    auth_age: int | None


def suppose(settings: Settings, supposed: Supposition, *, now: int) -> PolicyQuery:
    """The question to policy; ends the command when it speaks of what is not registered."""
    registry = FileRegistry(
        settings.clients,
        settings.resources,
        settings.issuers,
        client_documents=settings.client_documents,
    )
    client = registry.client(supposed.client)
    if client is None:
        known = (one.client_id for one in settings.clients)
        raise _unknown("--client", supposed.client, known=known)
    resource = registry.resource(_normal(supposed.resource))
    if resource is None:
        known = (one.resource for one in settings.resources)
        raise _unknown("--resource", supposed.resource, known=known)
    names = supposed.scopes or tuple(resource.scopes)
    for name in names:
        if name not in resource.scopes:
            raise _unknown("--scope", name, known=resource.scopes)
    delegation = _delegation(settings, supposed, client=client, now=now)
    scopes = tuple(resource.scopes[name] for name in names)
    return PolicyQuery(client, delegation, resource, scopes, now)


def _delegation(
    settings: Settings, supposed: Supposition, *, client: Client, now: int
) -> Delegation:
    relation = Relation(supposed.relation)
    audience = supposed.subject_audience or _audience(settings.resources, client, relation)
    age = supposed.auth_age
    return Delegation(
        subject=_subject(settings, supposed),
        relation=relation,
        # An ID token has no scopes of its own, and policy alone bounds what it can lead to.
        scopes=None if relation is Relation.IDENTITY else frozenset(supposed.subject_scopes),
        not_after=None,
        actor={"iss": settings.issuer, "sub": client.client_id},
        inherited_act=_earlier_actors(supposed.chain_depth - 1),
        subject_audience=audience,
        mcp_client=None if relation is Relation.AUDIENCE else client.client_id,
        mcp_server=audience if relation is Relation.AUDIENCE else None,
        authentication=Authentication(None if age is None else now - age, supposed.acr),
    )


def _subject(settings: Settings, supposed: Supposition) -> Subject:
    issuer = supposed.issuer
    if issuer is None and len(settings.issuers) == 1:
        issuer = settings.issuers[0].issuer
    kind = "client" if supposed.subject.startswith(CLIENT_SUBJECT_PREFIX) else "user"
    trusted = next((one for one in settings.issuers if one.issuer == issuer), None)
    tenant = None if trusted is None else trusted.tenant
    return Subject(supposed.subject, issuer or settings.issuer, kind, tenant)


def _audience(resources: Iterable[Resource], client: Client, relation: Relation) -> str | None:
    if relation is Relation.IDENTITY:
        return client.client_id
    owned = [one.resource for one in resources if one.owner == client.client_id]
    return owned[0] if relation is Relation.AUDIENCE and owned else None


def _earlier_actors(count: int) -> JsonObject | None:
    act: JsonObject | None = None
    for number in range(count):
        act = {"sub": f"actor-{number}", **({} if act is None else {"act": act})}
    return act


def _normal(resource: str) -> str:
    try:
        return normalise_resource(resource)
    except InvalidTarget:
        return resource


def _unknown(option: str, name: str, *, known: Iterable[str]) -> click.UsageError:
    hint = nearest(name, known)
    return click.UsageError(
        f"{option}: '{name}' is not registered" + (f"; did you mean '{hint}'?" if hint else ".")
    )
