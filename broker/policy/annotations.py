"""The annotations that a policy may carry, read into values."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

_PERMIT_ONLY = frozenset({"max_ttl"})
_FORBID_ONLY = frozenset({"cure", "acr_values", "max_age"})
VOCABULARY = frozenset({"id", "reason"}) | _PERMIT_ONLY | _FORBID_ONLY

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,98}[A-Za-z0-9])?")
_SECONDS = re.compile(r"[1-9][0-9]{0,7}")
_ACR = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")
_MAX_ACR_VALUES = 8
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Cure:
    """
    A login that lifts a forbid (RFC 9470).

    ``acr_values`` are acceptable context classes, best first; ``max_age`` is in seconds.
    """

    acr_values: tuple[str, ...]
    max_age: int | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What the annotations of one policy say. ``max_ttl`` is in seconds."""

    policy_id: str
    max_ttl: int | None = None
    cure: Cure | None = None
    reason: str = ""


def read_annotations(given: Mapping[str, str], *, is_permit: bool) -> Annotations | list[str]:
    """Read the annotations of a permit or a forbid, or say what is wrong with them."""
    faults = [*_unknown(given), *_misplaced(given, is_permit=is_permit), *_malformed(given)]
    if faults:
        return faults
    cure = None
    if "cure" in given:
        cure = Cure(tuple(given.get("acr_values", "").split()), _seconds(given, "max_age"))
    return Annotations(
        policy_id=given["id"],
        max_ttl=_seconds(given, "max_ttl"),
        cure=cure,
        reason=given.get("reason", ""),
    )


def _seconds(given: Mapping[str, str], name: str) -> int | None:
    return int(given[name]) if name in given else None


def _unknown(given: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(given.keys() - VOCABULARY):
        near = get_close_matches(name, VOCABULARY, n=1)
        hint = f" Did you mean @{near[0]}?" if near else ""
        yield f"The annotation @{name} is not known.{hint}"


def _misplaced(given: Mapping[str, str], *, is_permit: bool) -> Iterator[str]:
    wrong, kind = (_FORBID_ONLY, "forbid") if is_permit else (_PERMIT_ONLY, "permit")
    for name in sorted(given.keys() & wrong):
        yield f"The annotation @{name} belongs to a {kind} only."


def _malformed(given: Mapping[str, str]) -> Iterator[str]:
    if "id" not in given:
        yield "The policy has no @id."
    elif not _ID.fullmatch(given["id"]):
        yield "The @id must be 1 to 100 letters, digits and ._:/- between them."
    for name in ("max_ttl", "max_age"):
        if name in given and not _SECONDS.fullmatch(given[name]):
            yield f"The value of @{name} must be a whole number of seconds, from 1."
    reason = given.get("reason", "-")
    if not reason.isprintable() or not 0 < len(reason) <= _MAX_REASON:
        yield f"The @reason must be one line of at most {_MAX_REASON} characters."
    yield from _malformed_cure(given)


def _malformed_cure(given: Mapping[str, str]) -> Iterator[str]:
    demands = given.keys() & {"acr_values", "max_age"}
    if "cure" not in given:
        if demands:
            yield f'@{min(demands)} needs @cure("step_up").'
        return
    if given["cure"] != "step_up":
        yield 'The only cure known is @cure("step_up").'
    if not demands:
        yield '@cure("step_up") needs @acr_values, @max_age or both.'
    values = given.get("acr_values", "-").split(" ")
    if len(values) > _MAX_ACR_VALUES or not all(map(_ACR.fullmatch, values)):
        yield f"The value of @acr_values must be 1 to {_MAX_ACR_VALUES} names with one space between."
