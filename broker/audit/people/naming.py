"""How a record names people: as they are called, by pseudonyms, or not at all."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec import structs

from broker.audit.people.keys import KeysInUse
from broker.audit.record import ScopeFact
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import PartyKind
from broker.oauth import CLIENT_SUBJECT_PREFIX

Name = Callable[[str], str]
"""The name of somebody, as a record is to have it."""

_ACTORS_OWN_MEMBERS: Final = frozenset({"iss", "client_id", "sub_profile"})
_PROFILES_OF_PROGRAMS: Final = frozenset({"ai_agent", "client_instance", "service"})
# Cedar quotes what a policy failed on: the name of a subject, or what its token says.
_CEDAR_ERROR: Final = re.compile(r"error while evaluating policy `[^`]{1,256}`")
_WITHHELD: Final = "what went wrong may name a person; `broker policy explain` tells it"
_LEAST_TELLING_NAME: Final = 3
_PSEUDONYM: Final = re.compile(r"~[0-9A-Za-z-]{4,16}~[A-Za-z0-9_-]{22}")
ACCOUNT_METHOD: Final = "link"
"""How an auditor logged in who is an account of the system."""


class Naming(Protocol):
    """
    Brings the people in the settled facts of one record into the form in which it names them.

    ``settle`` changes the facts, of a record of this moment in unix seconds; it raises
    ``TemporarilyUnavailable`` (``audit_unavailable``) when it cannot, and never for facts without people.
    ``check`` raises that while it could not.
    """

    def settle(self, facts: dict[str, Any], at: float, /) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...


class InClear:
    """People are named as they are called."""

    def settle(self, _facts: dict[str, Any], _at: float) -> None:
        return

    def check(self) -> None:
        return

    def close(self) -> None:
        return


class NoPeople:
    """Nobody can be named: for chains of records in which there are no people. ``issuer`` is ours."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def settle(self, facts: dict[str, Any], _at: float) -> None:
        rename_people(facts, _refused, issuer=self._issuer)

    def check(self) -> None:
        return

    def close(self) -> None:
        return


class Pseudonymous:
    """People have a pseudonym in each period. ``issuer`` is ours, whose actors are clients."""

    def __init__(self, keys: KeysInUse, *, issuer: str) -> None:
        self._keys = keys
        self._issuer = issuer

    def settle(self, facts: dict[str, Any], at: float) -> None:
        rename_people(facts, lambda name: self._keys.at(at).of(name), issuer=self._issuer)

    def check(self) -> None:
        self._keys.check()

    def close(self) -> None:
        self._keys.close()


def rename_people(facts: dict[str, Any], name: Name, *, issuer: str) -> None:
    """
    Give everybody in the facts of one record the name that ``name`` makes of theirs.

    A subject is a person unless it lies in the namespace of our clients, and whatever another issuer says
    of an actor is personal unless it says that the actor is a program. What names nobody is left as it is.
    """
    renamed: dict[str, str] = {}
    subject = facts.get("subject")
    if subject is not None and not subject.startswith(CLIENT_SUBJECT_PREFIX):
        facts["subject"] = renamed[subject] = name(subject)
    party = facts.get("party")
    if party is not None and _is_person(party, facts.get("party_kind")):
        facts["party"] = renamed[party] = name(party)
    _rename_reading(facts, name, renamed)
    actors = facts.get("actors")
    if actors:
        facts["actors"] = _actors(actors, name, issuer=issuer, renamed=renamed)
    if renamed:
        _clean_texts(facts, renamed)


def _rename_reading(facts: dict[str, Any], name: Name, renamed: dict[str, str]) -> None:
    """
    The same for who read the record, and about whom.

    An account of the system is none of a person in particular, and is kept as an operator's is. Who is asked
    about by a pseudonym has one already.
    """
    auditor = facts.get("auditor")
    if auditor is not None and facts.get("auth_method") != ACCOUNT_METHOD:
        facts["auditor"] = renamed[auditor] = name(auditor)
    people = facts.get("people_asked")
    if people:
        facts["people_asked"] = [
            one if _PSEUDONYM.fullmatch(one) or one.startswith(CLIENT_SUBJECT_PREFIX) else name(one)
            for one in people
        ]


def _is_person(party: str, kind: str | None) -> bool:
    """Who orders a withdrawal without telling of what sort of party may have meant a person."""
    return kind in (None, PartyKind.SUBJECT.value) and not party.startswith(CLIENT_SUBJECT_PREFIX)


def _actors(
    actors: Iterable[Mapping[str, Any]], name: Name, *, issuer: str, renamed: dict[str, str]
) -> list[Mapping[str, Any]]:
    # Other records of the same request may have the same objects.
    return [
        actor if _is_program(actor, issuer) else _renamed_actor(actor, name, renamed)
        for actor in actors
    ]


def _is_program(actor: Mapping[str, Any], issuer: str) -> bool:
    """Whether it is a client of ours, or a program by what its issuer says; a mark of a cut is no actor."""
    profile = actor.get("sub_profile")
    return (
        actor.get("iss") == issuer
        or (isinstance(profile, str) and profile in _PROFILES_OF_PROGRAMS)
        or actor.keys() == {"cut"}
    )


def _renamed_actor(
    actor: Mapping[str, Any], name: Name, renamed: dict[str, str]
) -> Mapping[str, Any]:
    held = dict(actor)
    for member, value in actor.items():
        if member in _ACTORS_OWN_MEMBERS and isinstance(value, str):
            continue
        if isinstance(value, str):
            held[member] = renamed[value] = name(value)
        else:
            held[member] = "[withheld]"
    return held


def _clean_texts(facts: dict[str, Any], renamed: Mapping[str, str]) -> None:
    """The same names in texts about the request, of which none should have any."""
    detail = facts.get("detail")
    if detail:
        for name, pseudonym in renamed.items():
            if len(name) >= _LEAST_TELLING_NAME:
                detail = detail.replace(name, pseudonym)
        facts["detail"] = detail
    decisions = facts.get("scope_decisions")
    if decisions and any(one.errors for one in decisions):
        facts["scope_decisions"] = [_without_causes(one) for one in decisions]


def _without_causes(decision: ScopeFact) -> ScopeFact:
    return structs.replace(decision, errors=[_without_cause(error) for error in decision.errors])


def _without_cause(error: str) -> str:
    """Which policy failed; why, Cedar alone knows the form of."""
    policy = _CEDAR_ERROR.match(error)
    return _WITHHELD if policy is None else f"{policy[0]}: {_WITHHELD}"


def _refused(_name: str) -> str:
    raise TemporarilyUnavailable(
        Reason.AUDIT_UNAVAILABLE, detail="audit log: nobody can be named in this chain"
    )
