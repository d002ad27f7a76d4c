"""Random policy sets and random queries that have something to say to each other."""

from hypothesis import strategies as st
from msgspec.structs import replace

from broker.model import Authentication, Client, PolicyQuery, Relation, Resource, Scope, Subject
from tests.policy.queries import NOW, chain, delegation

_CLIENTS = ("c0", "c1", "https://c2.example/client.json")
_GROUPS = ("g0", "g1")
_RESOURCES = ("https://r0.example", "https://r1.example/mcp")
_SCOPES = ("s:0", "s:1", "s:2")
_WORDS = ("acme", "globex")
_ACRS = ("pwd", "phr")
_AGES = (0, 59, 60, 61, 899, 900, 901, 5_000)

ATOMS = (
    'context.relation == "audience"',
    'context.relation == "identity"',
    'context.subject_kind == "user"',
    'context.subject == Subject::"alice"',
    'context.subject.issuer == "https://idp.example"',
    'context.subject_issuer like "https://idp.example/*"',
    'context.subject_scopes.contains("s:0")',
    "context.subject_scopes.containsAny(resource.derives_from)",
    "context.subject_scopes.contains(resource.name)",
    '(context has tenant && context.tenant == "acme")',
    "(context has tenant && resource has tenant && context.tenant == resource.tenant)",
    "(context has subject_audience && context.subject_audience == resource.uri)",
    '(context has mcp_client && context.mcp_client == "c0")',
    "context has mcp_server",
    "principal has tenant",
    "context.subject has tenant",
    "context.subject_scopes.isEmpty()",
    'resource.uri == "https://r0.example"',
    "context.chain_depth > 2",
    "(resource has owner && resource.owner == principal.client_id)",
    'principal.profile == "ai_agent"',
    'principal in ClientGroup::"g0"',
    'resource in ScopeGroup::"g1"',
    '(context.auth has acr && context.auth.acr == "phr")',
    "(context.auth has age && context.auth.age <= 900)",
    "(context.auth has age && context.auth.age > 60)",
    "(context.auth has age && context.auth.age + 1 < 61)",
    'context.auth.amr.contains("hwk")',
    "context.chain_depth * 9223372036854775807 > 0",
)

_HEADS = (
    "principal",
    "principal",
    *(f'principal == Client::"{one}"' for one in _CLIENTS),
    *(f'principal in ClientGroup::"{one}"' for one in _GROUPS),
    'principal is Client in ClientGroup::"g1"',
    'principal in Client::"c1"',
)
_TARGETS = (
    *("resource",) * 3,
    *(f'resource in Resource::"{one}"' for one in _RESOURCES),
    'resource == Scope::"https://r0.example#s:0"',
    'resource in ScopeGroup::"g0"',
)
_EXCHANGE = 'action == Action::"exchange"'
_ACTIONS = (_EXCHANGE, _EXCHANGE, 'action in [Action::"exchange", Action::"impersonate"]')


def _some(values: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values))


conditions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]} && {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} || {two[1]})"),
        inner.map(lambda one: f"!({one})"),
    ),
    max_leaves=4,
)

_permits = st.builds(
    lambda head, action, target, ttl, condition: (
        f"{ttl} permit ({head}, {action}, {target}) {condition};"
    ),
    st.sampled_from(_HEADS),
    st.sampled_from(_ACTIONS),
    st.sampled_from(_TARGETS),
    st.sampled_from(("", '@max_ttl("60")', '@max_ttl("120")')),
    st.one_of(st.just(""), conditions.map(lambda one: f"when {{ {one} }}")),
)
_forbids = st.builds(
    lambda head, cure, target, word, condition: (
        f"{cure} forbid ({head}, action, {target}) {word} {{ {condition} }};"
    ),
    st.sampled_from(_HEADS),
    st.sampled_from(("", '@cure("step_up") @acr_values("phr") @max_age("900")')),
    st.sampled_from(_TARGETS),
    st.sampled_from(("when", "unless")),
    conditions,
)

policy_texts = st.lists(st.one_of(_permits, _permits, _forbids), min_size=1, max_size=8).map(
    lambda policies: "\n".join(f'@id("p{number}") {text}' for number, text in enumerate(policies))
)

clients = st.builds(
    lambda client_id, groups, profile, tenant: Client(
        client_id, frozenset(), frozenset(), groups=groups, profile=profile, tenant=tenant
    ),
    st.sampled_from((*_CLIENTS, "c3")),
    _some((*_GROUPS, "g2")),
    st.sampled_from(("service", "ai_agent")),
    st.sampled_from((None, *_WORDS)),
)
scopes = st.builds(Scope, st.sampled_from(_SCOPES), _some(_SCOPES), _some(_GROUPS))
resources = st.builds(
    lambda uri, owner, tenant: Resource(uri, {}, owner=owner, tenant=tenant),
    st.sampled_from(_RESOURCES),
    st.sampled_from((None, "c0", "c1")),
    st.sampled_from((None, *_WORDS)),
)
logins = st.builds(
    lambda acr, age, amr: Authentication(None if age is None else NOW - age, acr, amr),
    st.sampled_from((None, *_ACRS)),
    st.sampled_from((None, *_AGES)),
    st.sampled_from(((), ("hwk",), ("pwd", "otp"))),
)
subjects = st.builds(
    Subject,
    st.sampled_from(("alice", "bob")),
    st.sampled_from(("https://idp.example", "https://idp.example/tenant")),
    st.sampled_from(("user", "client")),
    st.sampled_from((None, *_WORDS)),
)
actors = st.lists(st.sampled_from(("agent-desk", "c0", "c1", "root")), max_size=4)
delegations = st.builds(
    lambda subject, relation, carried, actor_subs, audience, mcp, login: delegation(
        subject=subject,
        relation=relation,
        scopes=carried,
        inherited_act=chain(*actor_subs),
        subject_audience=audience,
        mcp_client=mcp[0],
        mcp_server=mcp[1],
        authentication=login,
    ),
    subjects,
    st.sampled_from(list(Relation)),
    st.one_of(st.none(), _some(_SCOPES)),
    actors,
    st.sampled_from((None, *_RESOURCES)),
    st.tuples(st.sampled_from((None, "c0")), st.sampled_from((None, "c1"))),
    logins,
)
queries = st.builds(
    lambda client, proved, resource, asked, later: PolicyQuery(
        client, proved, resource, tuple(asked), NOW + later
    ),
    clients,
    delegations,
    resources,
    st.lists(scopes, min_size=1, max_size=3, unique_by=lambda scope: scope.name),
    st.integers(0, 2),
)


def with_history(query: PolicyQuery, *subs: str) -> PolicyQuery:
    """The query with these inner actors in place of its own."""
    return replace(query, delegation=replace(query.delegation, inherited_act=chain(*subs)))
