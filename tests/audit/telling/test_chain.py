"""A record's delegation: who acts for whom, with scopes that narrow and lifetimes that shrink."""

import pytest

from broker.audit.record import REQUEST_EVENTS
from broker.audit.telling.chain import Chain, StepKind, chain_of
from tests.audit.telling import records
from tests.audit.telling.records import CRM, IDP, TICKETS


def test_an_exchange_leads_from_the_person_to_the_resource() -> None:
    chain = chain_of(records.exchange())

    assert [(step.kind, step.name, step.note) for step in chain.steps] == [
        (StepKind.PERSON, "ann", f"known to {IDP}"),
        (StepKind.CLIENT, "agent-desk", ""),
        (StepKind.MCP_SERVER, "mcp-tickets", TICKETS),
        (StepKind.RESOURCE, CRM, ""),
    ]
    assert chain.is_granted


def test_lifetimes_shrink_and_scopes_narrow_on_the_way_that_ancestors_tell_of() -> None:
    chain = chain_of(records.exchange(), {"token-1": records.login()})

    (login,), (first,), (second,) = (step.handed for step in chain.steps[1:])
    assert (login.jti, login.lifetime, login.scopes) == (None, 3600, None)
    assert (first.jti, first.lifetime, first.limit) == ("token-1", 240, "configuration")
    assert first.scopes == ("tickets:read", "tickets:write")
    assert first.dropped == ("tickets:delete",)
    assert (second.jti, second.lifetime, second.limit) == ("token-2", 120, "policy")
    assert second.scopes == ("contacts.read",)
    assert (first.event_id, second.event_id) == ("01a2-login", "01a2-exchange")


def test_without_ancestors_no_scopes_are_guessed() -> None:
    (first,) = chain_of(records.exchange()).steps[2].handed

    assert (first.jti, first.lifetime, first.scopes, first.event_id) == ("token-1", 240, None, "")


def test_what_was_asked_for_in_vain_is_no_token() -> None:
    chain = chain_of(records.denied())

    (wanted,) = chain.steps[-1].handed
    assert not chain.is_granted
    assert wanted.is_refused
    assert (wanted.jti, wanted.scopes, wanted.asked) == (None, None, ("contacts.write",))


def test_a_client_that_acts_for_itself_begins_the_chain() -> None:
    one = records.record(
        client_id="agent-desk",
        subject="client:agent-desk",
        subject_kind="client",
        relation="self",
        resource=TICKETS,
        jti="token-3",
        lifetime=300,
        scopes_granted=["tickets:read"],
    )

    assert [(step.kind, step.name) for step in chain_of(one).steps] == [
        (StepKind.CLIENT, "agent-desk"),
        (StepKind.RESOURCE, TICKETS),
    ]


def test_a_token_that_its_holder_narrowed_stays_on_one_way() -> None:
    narrowed = records.login()
    narrowed.relation, narrowed.jti, narrowed.event_id = "issued_to", "token-9", "01a2-narrowed"
    narrowed.inputs = records.exchange().inputs

    chain = chain_of(narrowed, {"token-1": records.login()})

    assert [len(step.handed) for step in chain.steps] == [0, 1, 2]
    assert [one.jti for one in chain.steps[-1].handed] == ["token-1", "token-9"]


def test_a_client_of_another_issuer_stands_before_the_actors() -> None:
    one = records.exchange(mcp_client=f"{IDP}#agent-far", actors=[{"sub": "mcp-tickets"}])

    assert [step.name for step in chain_of(one).steps] == [
        "ann",
        f"{IDP}#agent-far",
        "mcp-tickets",
        CRM,
    ]


def test_whoever_is_in_between_is_an_actor() -> None:
    actors = [{"sub": "mcp-tickets"}, {"sub": "mcp-between"}, {"sub": "agent-desk"}]

    kinds = [step.kind for step in chain_of(records.exchange(actors=actors)).steps]

    assert kinds[1:4] == [StepKind.CLIENT, StepKind.ACTOR, StepKind.MCP_SERVER]


def test_a_token_that_is_asked_about_has_the_chain_of_its_issue() -> None:
    asked = records.of_event("token.introspect")

    assert len(chain_of(asked).steps) == 2
    assert len(chain_of(asked, {"token-2": records.exchange()}).steps) == 4


@pytest.mark.parametrize("event", [one for one in records.EVENTS if one not in REQUEST_EVENTS])
def test_what_the_service_tells_of_itself_is_no_delegation(event: str) -> None:
    assert chain_of(records.of_event(event, "info")) == Chain()


def test_ancestors_that_lead_back_to_themselves_end_somewhere() -> None:
    looping = records.exchange(jti="token-1")

    assert len(chain_of(looping, {"token-1": looping}).steps) == 4


def test_hostile_values_make_a_chain_like_any_others() -> None:
    for text in records.HOSTILE:
        hostile = records.poisoned(records.exchange(), text)

        assert chain_of(hostile, {text: hostile}).steps[-1].name == text


def test_actors_without_end_are_cut_off() -> None:
    actors = [{"sub": f"actor-{number}"} for number in range(64)]

    assert len(chain_of(records.exchange(actors=actors)).steps) < 24
