"""What there is to know about a query, fact by fact, and what certain policies get to see of it."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple, Self

from broker.model import Action, PolicyQuery

MAX_SCOPES: Final = 100
_MAX_AGE: Final = 2**53

# Each fact by the name that policies use, and where it stands in the query.
CLIENT: Final[Mapping[str, str]] = {
    "client_id": "client.client_id",
    "profile": "client.profile",
    "tenant": "client.tenant",
}
RESOURCE: Final[Mapping[str, str]] = {
    "uri": "resource.resource",
    "owner": "resource.owner",
    "authorization_server": "resource.authorization_server",
    "tenant": "resource.tenant",
}
SUBJECT: Final[Mapping[str, str]] = {
    "issuer": "delegation.subject.issuer",
    "kind": "delegation.subject.kind",
    "tenant": "delegation.subject.tenant",
}
CONTEXT: Final[Mapping[str, str]] = {
    # ``value`` would be a call in Python for each query.
    "relation": "delegation.relation._value_",
    "subject_issuer": "delegation.subject.issuer",
    "subject_kind": "delegation.subject.kind",
    "tenant": "delegation.subject.tenant",
    "subject_scopes": "delegation.scopes",
    "subject_audience": "delegation.subject_audience",
    "has_actor_token": "delegation.has_actor_token",
    "is_bound": "delegation.is_bound",
    "mcp_client": "delegation.qualified_mcp_client",
    "mcp_server": "delegation.mcp_server",
    # Of the chain only its length: what inner actors were must not decide (RFC 8693 4.1).
    "chain_depth": "delegation.chain_depth",
}
AUTH: Final[Mapping[str, str]] = {
    "acr": "delegation.authentication.acr",
    "age": "delegation.authentication.auth_time",
    "amr": "delegation.authentication.amr",
}
# The same within one of the query's scopes.
SCOPE: Final[Mapping[str, str]] = {"name": "name", "derives_from": "derives_from"}

NAMES: Final = frozenset({*CLIENT, *RESOURCE, *SUBJECT, *CONTEXT, *AUTH, *SCOPE, "subject", "auth"})


class Reader(NamedTuple):
    """Reads some facts at once, in the order of their names; those that are absent are ``None``."""

    names: tuple[str, ...]
    read: Callable[[Any], tuple[Any, ...]]


def _reader(table: Mapping[str, str], seen: frozenset[str]) -> Reader:
    paths = {name: path for name, path in table.items() if name in seen}
    return Reader(tuple(paths), _getter(*paths.values()))


def _getter(*paths: str) -> Callable[[Any], tuple[Any, ...]]:
    if not paths:
        return lambda _: ()
    if len(paths) == 1:
        get = attrgetter(*paths)
        return lambda source: (get(source),)
    return attrgetter(*paths)


class ScopeFacts(NamedTuple):
    """What policies see of one candidate scope."""

    name: str
    groups: frozenset[str]
    values: tuple[Any, ...]


class Facts(NamedTuple):
    """
    What policies see of a query, and all that is sent to them.

    It is a value: equal facts get equal decisions, so decisions are remembered by it. The values are
    in the order of the sight's names. ``is_user`` tells whether the subject can log in again.
    """

    sight: "Sight"
    client_id: str
    groups: frozenset[str]
    client: tuple[Any, ...]
    resource: str
    shared: tuple[Any, ...]
    scopes: tuple[ScopeFacts, ...]
    subject: tuple[str, tuple[Any, ...]] | None
    context: tuple[Any, ...]
    auth: tuple[Any, ...]
    is_user: bool
    action: Action

    @property
    def things(self) -> tuple[Any, ...]:
        """The part that the entities are made of; most requests of a client share it."""
        return self[: self._fields.index("context")]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """
    What certain policies see: the facts they mention, and how finely they tell a login's age apart.

    What is not seen is not sent, so a decision depends on the facts alone. ``age_steps`` are the
    ages, in seconds and ascending, that policies compare with; ``None`` means that they use the age
    in some other way and need it exactly.
    """

    client: Reader
    resource: Reader
    scope: Reader
    subject: Reader
    context: Reader
    auth: Reader
    has_subject: bool
    has_auth: bool
    age_steps: tuple[int, ...] | None

    @classmethod
    def of(cls, names: Iterable[str], *, age_steps: tuple[int, ...] | None) -> Self:
        """The sight of policies that mention attributes of these names."""
        seen = frozenset(names)
        has_auth = "auth" in seen
        return cls(
            client=_reader(CLIENT, seen),
            resource=_reader(RESOURCE, seen),
            scope=_reader(SCOPE, seen),
            subject=_reader(SUBJECT, seen),
            context=_reader(CONTEXT, seen),
            auth=_reader(AUTH if has_auth else {}, seen),
            has_subject="subject" in seen,
            has_auth=has_auth,
            age_steps=age_steps,
        )

    @property
    def is_changing(self) -> bool:
        """Whether equal requests look different from one second to the next."""
        return self.age_steps is None and "age" in self.auth.names

    def facts(self, query: PolicyQuery) -> Facts:
        """What these policies see of the query. Raises ``ValueError`` beyond ``MAX_SCOPES``."""
        if len(query.scopes) > MAX_SCOPES:
            raise ValueError("too many scopes")
        client, subject, read_scope = query.client, query.delegation.subject, self.scope.read
        return Facts(
            sight=self,
            client_id=client.client_id,
            groups=client.groups,
            client=self.client.read(query),
            resource=query.resource.resource,
            shared=self.resource.read(query),
            scopes=tuple(
                [ScopeFacts(one.name, one.groups, read_scope(one)) for one in query.scopes]
            ),
            subject=(subject.sub, self.subject.read(query)) if self.has_subject else None,
            context=self.context.read(query),
            auth=self._login(self.auth.read(query), now=query.now) if self.has_auth else (),
            is_user=subject.kind == "user",
            action=query.delegation.action,
        )

    def with_login(self, facts: Facts, *, acr: str | None, age: int) -> Facts:
        """The facts after another login; ``acr`` of ``None`` leaves the context class as it is."""
        login = dict(zip(self.auth.names, facts.auth, strict=True))
        if acr is not None and "acr" in login:
            login["acr"] = acr
        if "age" in login:
            login["age"] = self._rounded(age)
        return facts._replace(auth=tuple(login.values()))

    def _login(self, values: tuple[Any, ...], *, now: int) -> tuple[Any, ...]:
        """Turn the moment of the login into its age; a moment yet to come counts as now."""
        if "age" not in self.auth.names:
            return values
        index = self.auth.names.index("age")
        auth_time = values[index]
        age = None if auth_time is None else self._rounded(min(max(0, now - auth_time), _MAX_AGE))
        return (*values[:index], age, *values[index + 1 :])

    def _rounded(self, age: int) -> int:
        """The least age that compares with every step as this one does, so it may stand for it."""
        if self.age_steps is None:
            return age
        index = bisect_left(self.age_steps, age)
        if index < len(self.age_steps) and self.age_steps[index] == age:
            return age
        return max(0, self.age_steps[index - 1] + 1) if index else 0
