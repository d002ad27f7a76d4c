"""What a request asks for: one registered resource, and the scopes that may be considered at all."""

from functools import lru_cache
from typing import Final

import msgspec

from broker.errors import InvalidScope, InvalidTarget, Reason
from broker.interfaces import Registry
from broker.model import Delegation, IdJag, Relation, Resource, Scope, TokenRequest
from broker.tokens.claims import is_scope_token
from broker.tokens.resource_uri import normalise_resource

_MOST_TARGETS: Final = 16
_MOST_SCOPES: Final = 100
_LONGEST_AUDIENCE: Final = 2048

NO_SUCH_RESOURCE: Final = Resource("urn:broker:no-such-resource", scopes={})


class Target(msgspec.Struct, frozen=True):
    """
    The one target of a request.

    ``refused`` is set when there is no such resource or it is switched off; the request then goes the
    way of a forbidden one, so that both look and last alike.
    """

    resource: Resource
    refused: Reason | None = None


def read_target(
    request: TokenRequest, delegation: Delegation, *, registry: Registry, default: str | None
) -> Target:
    """
    The resource that ``resource`` and ``audience`` name together (RFC 8693 2.1, RFC 8707 2).

    An assertion may say which resources a token can be for; it then needs no other to be named. Raises
    ``InvalidTarget`` when the names are malformed, are several, or are none and there is no ``default``.
    """
    if delegation.id_jag is not None:
        return _target_elsewhere(request, delegation.id_jag)
    names = _distinct_names(request) or delegation.resources or ()
    if not names:
        if default is None:
            raise InvalidTarget(Reason.TARGET_MISSING, parameter="resource")
        names = (default,)
    if len(names) == 1:
        return _known_target(registry.resource(names[0]), delegation)
    found = {name: registry.resource(name) for name in names}
    targets = {name if one is None else one.resource for name, one in found.items()}
    if len(targets) > 1:
        # Whether two resources differ, anybody can see; what an audience stands for is ours to know.
        reason = Reason.TARGET_CONFLICT if request.audiences else Reason.SINGLE_TARGET_ONLY
        raise InvalidTarget(reason, parameter="resource")
    return _known_target(found[names[0]], delegation)


def _known_target(resource: Resource | None, delegation: Delegation) -> Target:
    if resource is None:
        return Target(NO_SUCH_RESOURCE, Reason.TARGET_UNKNOWN)
    is_beyond = delegation.resources is not None and resource.resource not in delegation.resources
    if resource.is_disabled or is_beyond:
        return Target(NO_SUCH_RESOURCE, Reason.TARGET_REFUSED)
    return Target(resource)


def _target_elsewhere(request: TokenRequest, id_jag: IdJag) -> Target:
    """
    The resource behind another authorization server; it need not be named where there is but one.

    The audience names the server, so it says nothing about the resource.
    """
    names = {*map(_normal, request.resources)}
    if len(names) > 1:
        raise InvalidTarget(Reason.SINGLE_TARGET_ONLY, parameter="resource")
    behind = {one.resource: one for one in id_jag.server.resources}
    if not names and len(behind) != 1:
        raise InvalidTarget(Reason.PARAM_MISSING, parameter="resource")
    resource = behind.get(min(names or behind))
    if resource is None:
        return Target(NO_SUCH_RESOURCE, Reason.TARGET_CONFLICT)
    return (
        Target(NO_SUCH_RESOURCE, Reason.TARGET_REFUSED)
        if resource.is_disabled
        else Target(resource)
    )


def _distinct_names(request: TokenRequest) -> tuple[str, ...]:
    if len(request.resources) + len(request.audiences) > _MOST_TARGETS:
        raise InvalidTarget(Reason.SINGLE_TARGET_ONLY, parameter="resource")
    for audience in request.audiences:
        if not 0 < len(audience) <= _LONGEST_AUDIENCE:
            raise InvalidTarget(Reason.TARGET_MALFORMED, parameter="audience")
    return tuple(dict.fromkeys((*map(_normal, request.resources), *request.audiences)))


@lru_cache(maxsize=1024)
def _normal(resource: str) -> str:
    """The same few resources are asked for all the time; what has no normal form is not remembered."""
    return normalise_resource(resource)


def read_scopes(request: TokenRequest) -> tuple[str, ...] | None:
    """The scopes asked for, or ``None``; raises ``InvalidScope`` when malformed (RFC 6749 3.3)."""
    if request.scopes is not None:
        _check_scopes(request.scopes)
    return request.scopes


@lru_cache(maxsize=256)
def _check_scopes(scopes: tuple[str, ...]) -> None:
    """The same few are asked for all the time; what is malformed is not remembered."""
    is_sound = len(scopes) <= _MOST_SCOPES and len(set(scopes)) == len(scopes)
    if not is_sound or not all(map(is_scope_token, scopes)):
        raise InvalidScope(Reason.SCOPE_MALFORMED, parameter="scope")


class Candidates(msgspec.Struct, frozen=True):
    """
    The scopes that policy will be asked about.

    ``refusal`` says why the request must fail if these are none: a scope unknown, or none derivable.
    """

    scopes: tuple[Scope, ...]
    refusal: Reason | None = None


def candidate_scopes(
    asked: tuple[str, ...] | None, resource: Resource, delegation: Delegation
) -> Candidates:
    """
    The scopes of ``resource`` that were asked for and may derive from what the subject token has.

    Nobody asked for means all that can be derived. A scope derives from the inbound scopes that the
    registry names for it, and at its own resource from itself, as it does from an assertion.
    """
    known = resource.scopes
    if asked is not None and not known.keys() >= set(asked):
        return Candidates((), Reason.SCOPE_UNKNOWN)
    wanted = known.values() if asked is None else [known[name] for name in asked]
    derivable = tuple([one for one in wanted if _is_derivable(one, resource, delegation)])
    return Candidates(derivable, None if derivable else Reason.SCOPE_EXCEEDS_SUBJECT)


def _is_derivable(scope: Scope, resource: Resource, delegation: Delegation) -> bool:
    if delegation.scopes is None:
        return True
    is_assertion = delegation.relation is Relation.ASSERTED
    if is_assertion or delegation.subject_audience == resource.resource:
        return scope.name in delegation.scopes
    return not scope.derives_from.isdisjoint(delegation.scopes)
