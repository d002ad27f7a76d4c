"""Every fault is found, and by the cases alone that are about it."""

import logging
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest

from broker.errors import Reason
from broker.verify_server import use_cases
from broker.verify_server.cases import Verdict
from broker.verify_server.issuer import Issuer
from broker.verify_server.proof_cases import PROOF_CASES
from tests.verify_kit.faults import (
    FAULTS,
    NO_CHALLENGE,
    ignoring,
    last_token,
    remembering_for_ever,
    respelling,
)
from tests.verify_kit.servers import (
    NO_FAULT,
    Asked,
    Fault,
    Plain,
    fetched,
    part_of,
    serving_plainly,
)
from tests.verify_kit.trials import happened, named, plainly, results_of

_OWN_REASONS = {
    "wrong-audience": "aud_mismatch",
    "two-audiences": "aud_mismatch",
    "look-alike-audience": "aud_mismatch",
    "expired": "token_expired",
    "not-yet-valid": "not_yet_valid",
    "wrong-issuer": "iss_unknown",
    "id-jag": "wrong_token_type",
    "no-jti": "claim_malformed jti",
    "duplicate-members": "duplicate_member",
    "unsigned": "alg_not_allowed",
    "public-key-as-secret": "alg_not_allowed",
    "other-key": "sig_invalid",
    "unknown-kid": "unknown_key",
    "critical-header": "crit_unsupported",
    "bound-as-bearer": "pop_required",
    "proof-as-bearer": "pop_required",
    "two-proofs": "pop_malformed",
    "proof-of-other-key": "pop_signature",
    "proof-of-other-token": "pop_mismatch",
    "proof-of-other-time": "pop_stale",
    "replayed": "replay",
}


@pytest.mark.requirement("MCPRS-01", "MCPRS-03", "MCPRS-04", "MCPRS-05")
@pytest.mark.parametrize(("fault", "cases"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_found_by_the_cases_that_are_about_it(fault: Fault, cases: str) -> None:
    results = results_of(plainly(fault))

    assert named(results, Verdict.FAIL) == set(cases.split())


def test_a_server_without_fault_fails_nothing() -> None:
    results = results_of(plainly(), longest_chain=15)

    assert named(results, Verdict.FAIL) == set()
    assert named(results, Verdict.WARN) == set()
    assert named(results, Verdict.SKIP) == {"withdrawn", "outlived", "session-of-another"}


def test_what_is_recommended_is_only_warned_about() -> None:
    results = results_of(plainly(NO_CHALLENGE))

    assert named(results, Verdict.WARN) == {
        "challenge-scope",
        "challenge-error",
        "insufficient-scope-named",
        "proof-challenge",
    }


def test_a_proof_that_is_taken_twice_is_only_warned_about() -> None:
    """Remembering proofs is allowed and not demanded (RFC 9449 11.1)."""
    results = results_of(plainly(ignoring(Reason.REPLAY)))

    assert named(results, Verdict.FAIL) == set()
    assert named(results, Verdict.WARN) == {"replayed"}
    assert happened(results)["replayed"] == "accepted with 200 (the same proof again)"


def test_what_no_specification_demands_is_only_warned_about() -> None:
    spelling = results_of(plainly(Fault(takes=respelling)))
    ahead = results_of(
        plainly(
            Fault(
                takes=lambda asked, reason: (
                    reason is Reason.NOT_YET_VALID and "nbf" not in asked.claims
                )
            )
        )
    )

    last_counts = results_of(plainly(Fault(hears=last_token)))

    assert named(spelling, Verdict.FAIL) == named(ahead, Verdict.FAIL) == set()
    assert named(last_counts, Verdict.FAIL) == set()
    assert named(last_counts, Verdict.WARN) == {"two-tokens"}
    assert named(spelling, Verdict.WARN) == {"respelt-audience"}
    assert named(ahead, Verdict.WARN) == {"issued-ahead"}


@pytest.mark.parametrize(
    ("fault", "failed"), [(NO_FAULT, set()), (remembering_for_ever(), {"outlived"})]
)
def test_a_token_is_waited_for_until_it_has_expired(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, failed: set[str]
) -> None:
    monkeypatch.setattr(use_cases, "_SHORT_LIFE", 2)
    monkeypatch.setattr(use_cases, "_LONGEST_LEEWAY", 1)

    def serve(issuer: Issuer) -> AbstractContextManager[str]:
        return serving_plainly(lambda url: Plain(issuer.url, url, fault, leeway=timedelta()))

    results = results_of(serve, is_patient=True)

    assert named(results, Verdict.FAIL) == failed
    assert "outlived" in named(results, Verdict.FAIL if failed else Verdict.PASS)


def test_of_a_server_that_takes_no_proofs_nothing_is_asked_about_them() -> None:
    silent = Fault(tells=lambda told: told | {"dpop_signing_alg_values_supported": []})

    results = results_of(plainly(silent))

    assert named(results, Verdict.FAIL) == set()
    assert named(results, Verdict.SKIP) >= {case.name for case in PROOF_CASES}


def test_of_a_server_that_takes_no_good_proof_nothing_is_shown_about_bad_ones() -> None:
    results = results_of(plainly(Fault(serves=lambda asked: not asked.proofs)))

    assert named(results, Verdict.FAIL) == {"good-proof"}
    assert named(results, Verdict.SKIP) >= {
        case.name for case in PROOF_CASES if case.name not in {"good-proof", "proof-challenge"}
    }


def test_the_report_says_which_of_the_tokens_was_taken() -> None:
    told = happened(results_of(plainly(FAULTS["takes alg NONE"][0])))

    assert told["unsigned"] == "accepted with 200 (alg NONE)"


def test_every_bad_token_is_bad_in_its_own_way(caplog: pytest.LogCaptureFixture) -> None:
    """Of two tokens that are refused for one mistake, the second would show nothing."""
    caplog.set_level(logging.INFO, "broker.client")
    results_of(plainly())

    refused = [line.partition(": ")[2].strip() for line in caplog.messages]
    for case, reason in _OWN_REASONS.items():
        assert any(told.startswith(reason) for told in refused), case


def test_a_server_that_asks_a_named_address_later_is_found_out() -> None:
    places: list[str] = []

    def takes(asked: Asked, _reason: Reason) -> bool:
        while places:
            fetched(places.pop())
        header = part_of(asked.token, 0)
        # Only the last of the case's tokens is asked about, by when the next case is on.
        if "jku" in header and "kid" not in header:
            places.append(header["jku"])
        return False

    results = results_of(plainly(Fault(takes=takes)))

    assert named(results, Verdict.FAIL) == {"key-set-url"}
