"""Auditors and those whom they ask about are people too, and are named in the record as people are."""

import pytest

from broker.audit.people.naming import rename_people


def renamed(**facts: object) -> dict[str, object]:
    told = dict(facts)
    rename_people(told, str.upper, issuer="https://broker.example")
    return told


@pytest.mark.requirement("LOG-07")
def test_an_auditor_of_a_provider_is_named_as_people_are() -> None:
    told = renamed(auditor="olga", auth_method="openid", detail="olga was refused")
    assert told["auditor"] == "OLGA"
    assert told["detail"] == "OLGA was refused"


def test_an_account_of_the_system_keeps_its_name() -> None:
    assert renamed(auditor="broker", auth_method="link")["auditor"] == "broker"


@pytest.mark.requirement("LOG-07")
def test_those_who_are_asked_about_are_named_as_people_are() -> None:
    pseudonym = "~2026-11~" + "a" * 22
    told = renamed(people_asked=["ann", pseudonym, "client:agent-x", pseudonym + "b"])
    assert told["people_asked"] == ["ANN", pseudonym, "client:agent-x", pseudonym.upper() + "B"]
