"""Made-up queries that show every fact at least once present and once absent."""

from collections.abc import Iterator

from broker.model import (
    Authentication,
    Client,
    Delegation,
    PolicyQuery,
    Relation,
    Resource,
    Scope,
    Subject,
)

_SCOPE = Scope("things:read", frozenset({"inbound:read"}), frozenset({"reading"}))


def sample_queries() -> Iterator[PolicyQuery]:
    """A query with every optional fact, and one with none."""
    yield PolicyQuery(
        client=_client(groups=frozenset({"agents"}), tenant="acme"),
        delegation=Delegation(
            subject=Subject("alice", "https://idp.example", tenant="acme"),
            relation=Relation.AUDIENCE,
            scopes=frozenset({"inbound:read"}),
            not_after=None,
            actor={"sub": "agent"},
            subject_audience="https://server.example/mcp",
            mcp_client="agent",
            mcp_server="server",
            authentication=Authentication(auth_time=1_000, acr="phr", amr=("pwd", "hwk")),
        ),
        resource=Resource(
            "https://api.example",
            {},
            owner="server",
            tenant="acme",
            authorization_server="https://as.example",
        ),
        scopes=(_SCOPE,),
        now=1_060,
    )
    yield PolicyQuery(
        client=_client(groups=frozenset(), tenant=None),
        delegation=Delegation(
            subject=Subject("client:agent", "https://broker.example", kind="client"),
            relation=Relation.SELF,
            scopes=None,
            not_after=None,
        ),
        resource=Resource("https://api.example", {}),
        scopes=(Scope("things:read", frozenset()),),
        now=1_060,
    )


def _client(*, groups: frozenset[str], tenant: str | None) -> Client:
    return Client("agent", frozenset(), frozenset(), groups=groups, tenant=tenant)
