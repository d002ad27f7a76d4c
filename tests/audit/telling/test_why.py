"""Why a record was decided as it was: files and lines, and what came nearest where the records tell."""

from dataclasses import replace

import msgspec
import pytest

from broker.audit.record import Record
from broker.audit.telling.why import Grounds, Present, why
from broker.model import Client, Resource, Scope
from broker.policy.cedar import CedarPolicyEngine
from broker.registry import FileRegistry
from tests.audit.telling import records
from tests.audit.telling.records import CRM, TICKETS
from tests.policy.queries import SHIPPED

READ, WRITE = "crm.contacts.read", "crm.contacts.write"


def scope(name: str, *derives_from: str) -> Scope:
    """A scope of a resource."""
    return Scope(name, frozenset(derives_from))


REGISTRY = FileRegistry(
    [Client(name, frozenset(), frozenset()) for name in ("agent-desk", "mcp-tickets")],
    [
        Resource(CRM, {READ: scope(READ, "tickets:read"), WRITE: scope(WRITE, "tickets:comment")}),
        Resource(TICKETS, {"tickets:read": scope("tickets:read")}, owner="mcp-tickets"),
    ],
    [],
)


@pytest.fixture(scope="module")
def present() -> Present:
    """The policies that are shipped, and what they speak of."""
    return Present(CedarPolicyEngine.load(SHIPPED), REGISTRY)


def decided(present: Present, record: Record) -> Record:
    """The record as one that the policies of now have decided."""
    assert present.policies is not None
    return msgspec.structs.replace(record, policy_digest=present.policies.digest)


def no_permit(**facts: object) -> Record:
    """Nothing permits the MCP server to read, since the token it got was not for reading."""
    told = {
        "reason": "policy_no_permit",
        "policy_ids": [],
        "scopes_asked": [READ],
        "scope_decisions": [{"scope": READ, "verdict": "no_permit"}],
    }
    return records.denied(**{**told, **facts})


def parent(*scopes: str) -> dict[str, Record]:
    """The record of the issue of the token that was presented, for these scopes."""
    return {"token-1": msgspec.structs.replace(records.login(), scopes_granted=[*scopes])}


def test_the_deciding_policies_have_their_file_and_line(present: Present) -> None:
    one = decided(present, records.exchange())

    grounds = why(one, present)

    ((policy,),) = (found.policies for found in grounds.scopes)
    assert (policy.policy_id, policy.file) == ("tickets-reads-contacts", "exchange.cedar")
    line = (SHIPPED / policy.file).read_text().splitlines()[policy.line - 1]
    assert "tickets-reads-contacts" in line
    assert grounds.is_in_force is True
    assert grounds.reason == ""
    assert grounds.lifetime == "it lives 2 minutes, limited by policy"


def test_what_came_nearest_is_told_where_the_parent_tells_the_scopes(present: Present) -> None:
    one = decided(present, no_permit())

    grounds = why(one, present, parent("tickets:list"))

    nearest = grounds.scopes[0].nearest[0]
    assert nearest.policy.policy_id == "tickets-reads-contacts"
    assert nearest.change == "Would be permitted if the subject token carried tickets:read."
    assert grounds.reason == "no policy permits it (parameter resource)"
    assert grounds.remarks == ()


def test_what_depends_on_what_is_not_recorded_is_not_told(present: Present) -> None:
    one = decided(present, no_permit())

    grounds = why(one, present)

    assert grounds.scopes[0].nearest == ()
    (remark,) = grounds.remarks
    assert "not recorded" in remark


def test_nothing_is_told_of_a_login_that_nobody_recorded(present: Present) -> None:
    forbidden = records.denied(
        reason="step_up_required",
        policy_ids=["contacts-written-after-strong-login"],
        scopes_asked=[WRITE],
        scope_decisions=[
            {
                "scope": WRITE,
                "verdict": "forbidden",
                "policy_ids": ["contacts-written-after-strong-login"],
            }
        ],
    )

    grounds = why(decided(present, forbidden), present, parent("tickets:comment"))

    assert grounds.scopes[0].policies[0].file == "exchange.cedar"
    assert grounds.scopes[0].nearest == ()
    assert "login" in grounds.remarks[0]


def test_a_record_that_does_not_lead_to_its_decision_again_has_no_nearest_miss(
    present: Present,
) -> None:
    one = decided(present, no_permit())

    grounds = why(one, present, parent("tickets:read"))

    assert grounds.scopes[0].nearest == ()
    assert "same decision again" in grounds.remarks[0]


def test_another_policy_set_is_told_and_not_asked(present: Present) -> None:
    grounds = why(no_permit(), present, parent("tickets:list"))

    assert grounds.is_in_force is False
    assert grounds.scopes[0].nearest == ()
    assert "Another policy set" in grounds.remarks[0]


def test_a_policy_that_is_no_more_has_no_place(present: Present) -> None:
    ((policy,),) = (found.policies for found in why(records.denied(), present).scopes)

    assert (policy.policy_id, policy.file, policy.line) == ("contacts-are-read-only", "", 0)


def test_without_anything_of_now_the_record_speaks_for_itself() -> None:
    grounds = why(records.denied())

    assert grounds.is_in_force is None
    assert grounds.scopes[0].in_words == "forbidden"
    assert grounds.remarks == ()


@pytest.mark.parametrize(
    "facts",
    [
        {"client_id": "gone"},
        {"resource": "https://gone.example"},
        {"relation": "strange"},
        {"scope_decisions": [{"scope": "gone", "verdict": "no_permit"}]},
        {"scope_decisions": [{"scope": READ, "verdict": "strange"}]},
    ],
)
def test_what_is_registered_no_more_is_not_guessed(
    facts: dict[str, object], present: Present
) -> None:
    one = decided(present, no_permit(**facts))

    assert why(one, present, parent("tickets:list")).scopes[0].nearest == ()


def test_a_pseudonym_is_not_taken_for_the_person(present: Present) -> None:
    one = decided(present, no_permit(subject="~2026-11~abcdefghijklmnopqrstuv"))

    grounds = why(one, present, parent("tickets:list"))

    # No condition of this policy is about who the subject is, so it is told all the same.
    assert grounds.scopes[0].nearest[0].policy.policy_id == "tickets-reads-contacts"


def test_what_decided_nothing_has_no_grounds(present: Present) -> None:
    assert why(records.of_event("chain.opened", "info"), present) == Grounds()


def test_hostile_values_have_grounds_like_any_others(present: Present) -> None:
    for text in records.HOSTILE:
        hostile = records.poisoned(records.denied(), text)

        assert why(decided(present, hostile), present).scopes[0].scope == text
        assert why(hostile, replace(present, registry=None)).is_in_force is False
