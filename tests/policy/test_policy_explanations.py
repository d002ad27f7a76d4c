import pytest

from broker.model import (
    Action,
    Client,
    PolicyQuery,
    Relation,
    Resource,
    Scope,
    ScopeExplanation,
    Subject,
    Verdict,
)
from broker.policy.cedar import CedarPolicyEngine
from tests.policy.queries import (
    PERMIT_ALL,
    READ,
    SHIPPED,
    TICKETS,
    WRITE,
    LoadSet,
    chain,
    client,
    login,
    query,
)


def explained(engine: CedarPolicyEngine, asked: PolicyQuery) -> ScopeExplanation:
    (one,) = engine.explain(asked)
    return one


def change(engine: CedarPolicyEngine, asked: PolicyQuery) -> str:
    return explained(engine, asked).nearest_misses[0].change


def line_of(file: str, text: str) -> int:
    lines = (SHIPPED / file).read_text().splitlines()
    return lines.index(text) + 1


def test_a_permit_is_explained_by_the_policy_and_its_place(shipped: CedarPolicyEngine) -> None:
    one = explained(shipped, query(READ))
    assert one.verdict is Verdict.PERMIT
    (policy,) = one.policies
    assert (policy.policy_id, policy.file) == ("tickets-reads-contacts", "exchange.cedar")
    assert policy.line == line_of("exchange.cedar", '@id("tickets-reads-contacts")')
    assert one.nearest_misses == ()


def test_a_missing_scope_is_named(shipped: CedarPolicyEngine) -> None:
    one = explained(shipped, query(READ, scopes=frozenset({"tickets:comment"})))
    assert one.verdict is Verdict.NO_PERMIT
    nearest = one.nearest_misses[0]
    assert nearest.policy.policy_id == "tickets-reads-contacts"
    assert nearest.failed_conditions == ('context.subject_scopes.contains("tickets:read")',)
    assert nearest.change == "Would be permitted if the subject token carried tickets:read."


def test_the_permit_that_lacks_least_comes_first(shipped: CedarPolicyEngine) -> None:
    one = explained(shipped, query(READ, scopes=frozenset()))
    assert [miss.policy.policy_id for miss in one.nearest_misses] == [
        "tickets-reads-contacts",
        "narrow-own-token",
    ]
    assert one.nearest_misses[1].change.endswith(
        "the subject token had been issued to the client, the subject token's audience was "
        "https://api.crm.example/v2 and the subject token carried crm.contacts.read."
    )


def test_permits_for_others_are_no_near_misses(shipped: CedarPolicyEngine) -> None:
    one = explained(shipped, query(who=client("newcomer"), to=Resource("https://x.example", {})))
    assert {miss.policy.policy_id for miss in one.nearest_misses} == {"narrow-own-token"}


NIGHTLY = client("agent-nightly", profile="ai_agent")
DESK = client("agent-desk", profile="ai_agent")
DESK_AT_WIKI = client("agent-desk-at-wiki", profile="ai_agent")
WIKI = Resource("https://wiki.mcp.example/mcp", {}, authorization_server="https://as.wiki.example")
PAGES_READ = Scope("pages.read", frozenset({"pages.read"}))
PAGES_WRITE = Scope("pages.write", frozenset({"pages.write"}))


@pytest.mark.parametrize(
    ("action", "who", "nearest"),
    [
        (Action.EXCHANGE, DESK, {"narrow-own-token"}),
        (Action.EXCHANGE, DESK_AT_WIKI, {"narrow-own-token"}),
        (Action.REDEEM, DESK_AT_WIKI, {"desk-redeems-assertions-for-the-wiki"}),
        (Action.REDEEM, DESK, set()),
        (Action.ISSUE, DESK, set()),
        (Action.ISSUE, NIGHTLY, set()),
        (Action.ISSUE_ID_JAG, DESK_AT_WIKI, set()),
    ],
)
def test_only_permits_of_the_action_asked_for_are_near_misses(
    shipped: CedarPolicyEngine, action: Action, who: Client, nearest: set[str]
) -> None:
    asked = query(PAGES_WRITE, who=who, to=WIKI, action=action, scopes=frozenset())
    one = explained(shipped, asked)
    assert one.verdict is Verdict.NO_PERMIT
    assert {miss.policy.policy_id for miss in one.nearest_misses} == nearest


def test_an_assertion_that_says_too_little_is_explained(shipped: CedarPolicyEngine) -> None:
    asked = query(
        PAGES_READ,
        who=DESK_AT_WIKI,
        to=WIKI,
        action=Action.REDEEM,
        relation=Relation.ASSERTED,
        scopes=frozenset({"pages.write"}),
    )
    assert change(shipped, asked) == ("Would be permitted if the subject token carried pages.read.")


def test_an_identity_that_is_none_is_explained(shipped: CedarPolicyEngine) -> None:
    asked = query(PAGES_READ, who=DESK, to=WIKI, action=Action.ISSUE_ID_JAG)
    assert change(shipped, asked) == (
        "Would be permitted if the client presented an ID token that was issued to it."
    )


def test_a_relation_to_an_assertion_is_said_in_words(load_set: LoadSet) -> None:
    engine = load_set(
        '@id("a") permit (principal, action == Action::"redeem", resource)'
        ' when { context.relation == "asserted" };'
    )
    asked = query(PAGES_READ, to=WIKI, action=Action.REDEEM)
    assert change(engine, asked) == (
        "Would be permitted if an identity assertion named the client."
    )


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (
            "context.has_actor_token",
            "Would be permitted if the client proved itself as the actor with a token of its own.",
        ),
        (
            'resource has authorization_server && resource.authorization_server == "https://b"',
            "Would be permitted if the resource's authorization server was https://b.",
        ),
    ],
)
def test_new_facts_are_said_in_words(load_set: LoadSet, condition: str, sentence: str) -> None:
    engine = load_set(
        '@id("a") permit (principal, action == Action::"exchange", resource)'
        f" when {{ {condition} }};"
    )
    assert change(engine, query(PAGES_READ, to=WIKI)) == sentence


def test_a_guard_against_what_was_not_proved_says_what_proof_would_do(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL + '@id("guard") forbid (principal, action, resource)'
        " when { !context.has_actor_token };"
    )
    assert change(engine, query(PAGES_READ, to=WIKI)) == (
        "Would be permitted if the client proved itself as the actor with a token of its own."
    )
    asked = query(PAGES_READ, to=WIKI, has_actor_token=True)
    assert explained(engine, asked).verdict is Verdict.PERMIT


def test_several_missing_facts_are_one_change(shipped: CedarPolicyEngine) -> None:
    asked = query(READ, relation=Relation.ISSUED_TO, subject_audience=None)
    assert change(shipped, asked) == (
        "Would be permitted if the client owned the resource that the subject token is addressed "
        f"to and the subject token's audience was {TICKETS}."
    )


def test_a_forbid_is_explained_by_what_would_lift_it(shipped: CedarPolicyEngine) -> None:
    asked = query(READ, inherited_act=chain("a", "b", "c", "d", "e"))
    one = explained(shipped, asked)
    assert one.verdict is Verdict.FORBIDDEN
    assert [policy.policy_id for policy in one.policies] == ["guard-chain-depth"]
    assert one.policies[0].file == "guardrails.cedar"
    (miss,) = one.nearest_misses
    assert miss.policy == one.policies[0]
    assert miss.failed_conditions == ("!(context.chain_depth > 5)",)
    assert miss.change == (
        "A token passes through at most five actors. "
        "Would be permitted if the number of actors was at most 5."
    )


@pytest.mark.requirement("TEX-18")
def test_a_forbid_with_a_cure_names_the_login(shipped: CedarPolicyEngine) -> None:
    one = explained(shipped, query(WRITE, authentication=login("pwd", age=5_000)))
    (miss,) = one.nearest_misses
    assert miss.failed_conditions == ('context.auth.acr == "phr"', "context.auth.age <= 3600")
    assert miss.change == (
        "Changing a contact wants a login that phishing cannot steal, within the hour. "
        "Would be permitted if the login's acr was phr and the login's age in seconds was at most "
        "3600. A new login of the user cures it: acr_values phr, max_age 3600."
    )


def test_a_cure_that_would_not_help_is_not_promised(shipped: CedarPolicyEngine) -> None:
    asked = query(WRITE, authentication=login(None, age=None), scopes=frozenset())
    one = explained(shipped, asked)
    assert one.verdict is Verdict.FORBIDDEN
    forbid, permit = one.nearest_misses[:2]
    assert "but others would still refuse" not in permit.change
    assert forbid.change.endswith(
        "Would not forbid if the login's acr was phr and the login's age in seconds was at most "
        "3600, but it would still be refused."
    )
    assert permit.change == (
        "Would match if the subject token carried tickets:comment, but would be forbidden by "
        "contacts-written-after-strong-login."
    )


def test_a_forbid_without_conditions_says_so(load_set: LoadSet) -> None:
    engine = load_set(PERMIT_ALL + '@id("never") forbid (principal, action, resource);')
    one = explained(engine, query())
    assert one.nearest_misses[0].failed_conditions == ()
    assert one.nearest_misses[0].change == "Forbids all that its head names."


def test_two_forbids_are_both_explained(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL
        + """
        @id("deep") forbid (principal, action, resource) when { context.chain_depth > 1 };
        @id("old") forbid (principal, action, resource)
        unless { context.auth has age && context.auth.age < 10 };
        """
    )
    one = explained(engine, query())
    assert [miss.policy.policy_id for miss in one.nearest_misses] == ["deep", "old"]
    assert [miss.change for miss in one.nearest_misses] == [
        "Would not forbid if the number of actors was at most 1, but it would still be refused.",
        "Would not forbid if the login's age in seconds was at most 9, but it would still be refused.",
    ]


def test_an_error_is_explained_by_cedars_words(load_set: LoadSet) -> None:
    overflow = "context.chain_depth * 9223372036854775807 > 0"
    engine = load_set(
        PERMIT_ALL + f'@id("f") forbid (principal, action, resource) when {{ {overflow} }};'
    )
    one = explained(engine, query())
    assert one.verdict is Verdict.ERROR
    assert "integer overflow" in one.errors[0]
    assert one.nearest_misses == ()


def test_each_scope_is_explained_in_the_order_asked(shipped: CedarPolicyEngine) -> None:
    told = shipped.explain(query(WRITE, READ, authentication=login("pwd")))
    assert [(one.scope, one.verdict) for one in told] == [
        ("crm.contacts.write", Verdict.FORBIDDEN),
        ("crm.contacts.read", Verdict.PERMIT),
    ]


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (
            'context.relation == "identity"',
            "the client presented an ID token that was issued to it",
        ),
        ('context.subject_kind == "client"', "the subject's kind was client"),
        ('context.subject == Subject::"bob"', "the subject was bob"),
        (
            'context.subject_issuer != "https://idp.example"',
            "the subject's issuer was not https://idp.example",
        ),
        ('context has tenant && context.tenant == "acme"', "the subject's tenant was acme"),
        (
            'context.subject_scopes.containsAll(["a", "tickets:read", "b"])',
            "the subject token carried a and b",
        ),
        ('context.subject_scopes.containsAny(["a", "b"])', "the subject token carried a or b"),
        (
            '!context.subject_scopes.contains("tickets:read")',
            "the subject token lacked tickets:read",
        ),
        (
            "context.subject_scopes.containsAny(resource.derives_from)",
            "the subject token carried inbound",
        ),
        (
            '["acme", "globex"].contains(principal.profile)',
            "the client's profile was acme or globex",
        ),
        ('!["service"].contains(principal.profile)', "the client's profile was not service"),
        ("context.chain_depth < 2", "the number of actors was at most 1"),
        ("1 >= context.chain_depth", "the number of actors was at most 1"),
        ("context.chain_depth > 2", "the number of actors was at least 3"),
        ("!(context.chain_depth == 2)", "the number of actors was not 2"),
        ('context.subject != Subject::"alice"', "the subject was not alice"),
        (
            '![Subject::"alice", Subject::"bob"].contains(context.subject)',
            "the subject was not alice or bob",
        ),
        ('context.auth.amr.contains("otp")', "the user logged in with otp"),
        ("!(context has mcp_client)", "there was nothing known of the MCP client"),
        ('context has mcp_client && !(context.mcp_client like "agent-*")', None),
        (
            'context.chain_depth > 5 || context.relation == "self"',
            "the number of actors was at least 6",
        ),
        (
            '!(context.relation == "audience" || context.chain_depth > 1)',
            "context.relation was not audience and the number of actors was at most 1",
        ),
        ('principal in ClientGroup::"crm"', "the client was in ClientGroup crm"),
        ('resource in ScopeGroup::"open"', "the scope was in ScopeGroup open"),
        (
            "resource has owner && resource.owner == principal.client_id",
            "the resource's owner was mcp-tickets",
        ),
    ],
)
def test_the_change_that_is_told_has_been_tried(
    load_set: LoadSet, condition: str, sentence: str | None
) -> None:
    engine = load_set(PERMIT_ALL.replace(";", f" when {{ {condition} }};"))
    scope = Scope("outbound", frozenset({"inbound"}))
    told = change(engine, query(scope))
    if sentence is None:
        assert told.startswith("Would match if ")
    else:
        assert told == f"Would be permitted if {sentence}."


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ('resource.name == "other"', "the scope asked for was other"),
        ('resource.uri == "https://x.example"', "the resource asked for was https://x.example"),
        (
            'resource in Resource::"https://x.example"',
            "the resource asked for was https://x.example",
        ),
        ('principal.client_id == "agent"', "the client was agent"),
        ("principal has tenant", "the client's tenant was known"),
        ('context.subject_issuer like "https://other.example/*"', None),
        ("context.chain_depth + 1 == 7", "context.chain_depth + 1 == 7 was true"),
    ],
)
def test_a_change_that_cannot_be_tried_is_not_called_a_permit(
    load_set: LoadSet, condition: str, sentence: str | None
) -> None:
    engine = load_set(PERMIT_ALL.replace(";", f" when {{ {condition} }};"))
    told = change(engine, query())
    assert told.startswith("Would match if ")
    if sentence is not None:
        assert told == f"Would match if {sentence}."


def test_a_change_that_runs_into_a_forbid_says_so(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL.replace(";", ' when { context.subject_scopes.contains("admin") };')
        + """
        @id("no-admin") forbid (principal, action, resource)
        when { context.subject_scopes.contains("admin") };
        """
    )
    assert change(engine, query()) == (
        "Would match if the subject token carried admin, but would be forbidden by no-admin."
    )


def test_conditions_that_contradict_each_other_promise_nothing(load_set: LoadSet) -> None:
    engine = load_set(
        PERMIT_ALL.replace(";", " when { context.chain_depth > 5 && context.chain_depth < 2 };")
    )
    assert change(engine, query()).endswith("but would still be refused.")


def test_an_explanation_stays_short(load_set: LoadSet) -> None:
    engine = load_set(
        "\n".join(
            f'@id("p{number}") permit (principal, action == Action::"exchange", resource) '
            f'when {{ context.subject_scopes.contains("s{number}") }};'
            for number in range(300)
        )
    )
    assert len(explained(engine, query()).nearest_misses) == 5


def test_the_query_is_left_as_it_was(shipped: CedarPolicyEngine) -> None:
    asked = query(READ, scopes=frozenset(), subject=Subject("alice", "https://idp.example"))
    first = shipped.explain(asked)
    assert shipped.explain(asked) == first
    assert asked.delegation.scopes == frozenset()
