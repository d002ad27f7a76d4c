"""What a policy must not say, although Cedar would let it."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from cedarpy import pst

from broker.model import Action, Relation
from broker.policy.cedar_text import cedar_text
from broker.policy.syntax import descend

_ACTIONS = frozenset(action.value for action in Action)
_ACTION = pst.EntityType("Action")
_URL_FACTS = frozenset({"uri", "subject_audience", "subject_issuer", "issuer"})
_BEYOND_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/]+/")
_KINDS = frozenset({"user", "client"})
_CLOSED: Mapping[str, frozenset[str]] = {
    "relation": frozenset(relation.value for relation in Relation),
    "subject_kind": _KINDS,
    "kind": _KINDS,
}


def lint(policy: pst.Template) -> Iterator[str]:
    """What is wrong with a policy, a sentence each."""
    if policy.effect == "permit" and isinstance(policy.action, pst.ScopeAny):
        # Such a permit would allow impersonation without saying so.
        yield 'A permit must name its action, such as action == Action::"exchange".'
    for node in descend(policy):
        match node:
            case pst.EntityUid(type=kind, id=name) if kind == _ACTION and name not in _ACTIONS:
                yield f'The broker never asks about Action::"{name}".'
            case pst.Like():
                yield from _loose_pattern(node)
            case pst.BinaryOp():
                yield from _binary(node)
            case pst.GetAttr(base=pst.EntityLit()) | pst.HasAttr(base=pst.EntityLit()):
                yield "An entity that a policy names can be compared with, not looked into."


def _binary(node: pst.BinaryOp) -> Iterator[str]:
    match node:
        case pst.BinaryOp(op="get_tag" | "has_tag"):
            yield "Entities carry no tags here."
        case pst.BinaryOp(op="in", left=pst.EntityLit()):
            yield "An entity that a policy names can be compared with, not looked into."
        case (
            pst.BinaryOp(op="eq" | "not_eq", left=pst.GetAttr(attr=name), right=value)
            | pst.BinaryOp(op="eq" | "not_eq", left=value, right=pst.GetAttr(attr=name))
            | pst.BinaryOp(op="contains", left=value, right=pst.GetAttr(attr=name))
        ) if name in _CLOSED:
            yield from _unknown_value(name, value)


def _unknown_value(name: str, value: pst.Expr) -> Iterator[str]:
    known = _CLOSED[name]
    for node in descend(value):
        if isinstance(node, pst.StringLit) and node.value not in known:
            near = get_close_matches(node.value, known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"it is one of {sorted(known)}."
            yield f'"{node.value}" is never the value of {name}; {hint}'


def _loose_pattern(like: pst.Like) -> Iterator[str]:
    """A pattern must fix where its value begins, and for a URL the whole host with it."""
    if pst.Wildcard() not in like.pattern:
        return
    prefix = _fixed_beginning(like.pattern)
    text = cedar_text(like).rpartition(" like ")[2]
    if not prefix:
        yield f"The pattern {text} is not anchored: anything may stand before what it names."
        return
    is_url = isinstance(like.base, pst.GetAttr) and like.base.attr in _URL_FACTS
    if (is_url or "://" in text) and not _BEYOND_HOST.match(prefix):
        yield f"The pattern {text} leaves the host open: the first * must come after its slash."


def _fixed_beginning(pattern: tuple[pst.PatternElem, ...]) -> str:
    prefix = ""
    for element in pattern:
        if isinstance(element, pst.Wildcard):
            break
        prefix += element.value
    return prefix
