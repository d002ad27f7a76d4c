"""The auditor's pages in the settings: off by default, at one origin, and open to whom a rule names."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import Settings
from broker.config.settings import ReviewOidcSettings, ReviewSettings

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\n"
OIDC = "issuer: https://login.example, client_id: audit"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, mode in (("secret", 0o600), ("open", 0o644)):
        (tmp_path / name).write_text("-")
        (tmp_path / name).chmod(mode)


def review(text: str) -> str:
    return f"{OWN}audit:\n  review: {{{text}}}\n"


def test_a_port_that_browsers_name_is_kept(load: Load) -> None:
    found = load(review("url: https://audit.example.com:8443")).audit.review
    assert found is not None
    assert found.url == "https://audit.example.com:8443"


def test_there_are_no_pages_by_default(load: Load) -> None:
    assert load(OWN).audit.review is None


def test_pages_without_more_are_where_the_operators_port_is(load: Load) -> None:
    assert load(review("")).audit.review == ReviewSettings(
        url="http://127.0.0.1:9443",
        session_lifetime=timedelta(hours=8),
        idle_timeout=timedelta(minutes=30),
    )


def test_everything_can_be_set(load: Load, tmp_path: Path) -> None:
    found = load(
        review(
            "url: https://audit.example.com/, session_lifetime: 1h, idle_timeout: 5m,"
            f" oidc: {{{OIDC}, client_secret_file: secret, algorithms: [RS256], scopes: [openid, email],"
            " hosts: [keys.example], subjects: [olga], claim: groups, values: [auditors],"
            " name_claim: email}"
        )
    ).audit.review
    assert found == ReviewSettings(
        url="https://audit.example.com",
        session_lifetime=timedelta(hours=1),
        idle_timeout=timedelta(minutes=5),
        oidc=ReviewOidcSettings(
            issuer="https://login.example",
            client_id="audit",
            client_secret_file=tmp_path / "secret",
            algorithms=("RS256",),
            scopes=("openid", "email"),
            hosts=frozenset({"keys.example"}),
            subjects=frozenset({"olga"}),
            claim="groups",
            values=frozenset({"auditors"}),
            name_claim="email",
        ),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("url: http://audit.example.com", "must be https"),
        ("url: https://audit.example.com/audit", "no path"),
        ("url: https://Audit.example.com", "lower case"),
        ("url: https://audit.example.com:443", "leave it out"),
        ('url: "http://127.0.0.1:80"', "leave it out"),
        ("idle_timeout: 2h, session_lifetime: 1h", "is longer than session_lifetime"),
        (f"oidc: {{{OIDC}}}", "lets nobody in"),
        (f"oidc: {{{OIDC}, claim: groups}}", "needs values"),
        (f"oidc: {{{OIDC}, subjects: [a], values: [b]}}", "has no effect without claim"),
        (f"oidc: {{{OIDC}, subjects: [a], scopes: [email]}}", "must contain openid"),
        (f"oidc: {{{OIDC}, subjects: [a], algorithms: [HS256]}}", "algorithms"),
        (f"oidc: {{{OIDC}, subjects: [a], client_secret_file: open}}", "open"),
        (f"oidc: {{{OIDC}, subjects: [a], client_secret_file: none}}", "cannot be read"),
        ("oidc: {client_id: a, subjects: [a]}", "issuer"),
    ],
)
def test_what_is_unsafe_or_impossible_is_refused(refuse: Refuse, text: str, sentence: str) -> None:
    found = refuse(review(text))
    assert len(found) == 1
    assert sentence in found[0]


def test_pages_on_any_free_port_need_a_url(refuse: Refuse) -> None:
    (found,) = refuse(review("") + "listen: {admin: '127.0.0.1:0'}\n")
    assert "needs url" in found


def test_a_provider_without_tls_is_for_development(refuse: Refuse) -> None:
    text = review("oidc: {issuer: 'http://127.0.0.1:1', client_id: a, subjects: [a]}")
    found = refuse(
        text.replace("issuer: http://127.0.0.1:8080\n", "issuer: https://broker.example\n", 1)
    )
    assert any("must be https where the broker's own issuer is" in one for one in found)
