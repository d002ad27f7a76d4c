"""How often anybody may ask, as an operator writes it."""

from collections.abc import Callable

import pytest

from broker.config import Settings
from broker.model import Quota

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\n"
CLIENT = """
clients:
  - id: nightly
    auth:
      method: client_secret_basic
      secrets: [{hash: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}]
"""


def test_there_are_limits_unless_they_are_turned_off(load: Load) -> None:
    limits = load(OWN).limits

    assert limits.per_client == Quota(1000, 2000)
    assert limits.per_source == Quota(50, 500)
    off = load(OWN + "limits: {per_client: null, per_source: null}\n").limits
    assert (off.per_client, off.per_source) == (None, None)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("{rate: 20/s, burst: 7}", Quota(20, 7)),
        ("{rate: 20/s}", Quota(20, 40)),
        ("{rate: 30/m}", Quota(0.5, 10)),
        ("{rate: 36/h, burst: 1}", Quota(0.01, 1)),
    ],
)
def test_a_rate_is_by_the_second_the_minute_or_the_hour(
    load: Load, text: str, quota: Quota
) -> None:
    assert load(OWN + f"limits: {{per_client: {text}}}\n").limits.per_client == quota


def test_a_client_may_have_a_limit_of_its_own(load: Load) -> None:
    (plain,) = load(OWN + CLIENT).clients
    (own,) = load(OWN + CLIENT + "    limit: {rate: 10/m, burst: 20}\n").clients

    assert plain.quota is None
    assert own.quota == Quota(10 / 60, 20)


@pytest.mark.parametrize(
    "rate", ["20", "0/s", "-1/s", "20/d", "1000001/s", "1.5/s", "5 /s", "null"]
)
def test_what_is_no_rate_is_refused(refuse: Refuse, rate: str) -> None:
    (problem,) = refuse(OWN + f"limits: {{per_source: {{rate: {rate}}}}}\n")

    assert "limits.per_source.rate" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: {per_client: {rate: 1/s, burst: 0}}", "must be between 1 and 1000000"),
        ("limits: {per_client: {burst: 5}}", "rate"),
        ("limits: {per_clients: {rate: 1/s}}", "per_clients"),
        ("limits: {per_client: {rate: 1/s, bursts: 3}}", "bursts"),
    ],
)
def test_what_cannot_be_meant_is_refused(refuse: Refuse, text: str, problem: str) -> None:
    assert problem in " ".join(refuse(OWN + text + "\n"))
