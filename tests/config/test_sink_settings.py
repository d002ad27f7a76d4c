"""Where records go besides the files, what alerts are raised, and what is refused there."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.alerts.table import RULE_NAMES
from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.audit.sinks.terms import SinkTerms
from broker.config import Settings

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\naudit:\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """What settings may name: all of it is this user's alone, but for the last."""
    for name in ("ca.pem", "cert.pem", "key.pem", "token", "open"):
        (tmp_path / name).write_text("-")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "open").chmod(0o644)


def sinks(*entries: str) -> str:
    """A file with these sinks."""
    return OWN + "  sinks:\n" + "".join(f"    - {{{entry}}}\n" for entry in entries)


def test_without_a_word_the_files_are_all_there_is(load: Load) -> None:
    found = load("issuer: http://127.0.0.1:8080\n").audit

    assert found.sinks == ()
    assert found.alerts == AlertTerms()


def test_each_kind_of_sink_can_be_set(load: Load, tmp_path: Path) -> None:
    found = load(
        sinks(
            "type: stdout, required: true",
            "type: syslog, name: siem, transport: tls, server: 'logs.test:6514', required: true,"
            " ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem",
            "type: http, url: 'https://collector.test/in', token_file: token, ca_file: ca.pem",
        )
    ).audit.sinks

    assert found == (
        SinkTerms("stdout", "stdout", is_required=True),
        SinkTerms(
            "siem",
            "tls",
            is_required=True,
            host="logs.test",
            port=6514,
            ca_file=tmp_path / "ca.pem",
            cert_file=tmp_path / "cert.pem",
            key_file=tmp_path / "key.pem",
        ),
        SinkTerms(
            "http",
            "http",
            is_required=False,
            url="https://collector.test/in",
            token_file=tmp_path / "token",
            ca_file=tmp_path / "ca.pem",
        ),
    )


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("type: syslog", "unix"),
        ("type: syslog, socket: /run/log, required: true", "unix"),
        ("type: syslog, transport: udp, server: '127.0.0.1:514'", "udp"),
        ("type: syslog, transport: tcp, server: 'localhost:514', required: true", "tcp"),
        ("type: syslog, transport: tcp, server: 'a.test:514', accept_clear_text: true", "tcp"),
        ("type: http, url: 'http://127.0.0.1:9/'", "http"),
    ],
)
def test_other_sinks_that_can_be_set(load: Load, entry: str, kind: str) -> None:
    (found,) = load(sinks(entry)).audit.sinks

    assert found.kind == kind


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("type: syslog, transport: udp, server: '127.0.0.1:514', required: true", "of a loss"),
        ("type: syslog, transport: udp, server: 'logs.test:514'", "must be tls"),
        ("type: syslog, transport: tcp, server: '10.0.0.1:514'", "must be tls"),
        ("type: syslog, transport: tls", "needs server"),
        ("type: syslog, server: 'logs.test:514'", "has no effect with transport: unix"),
        ("type: syslog, transport: tls, server: 'a.test:1', socket: /a", "has no effect without"),
        ("type: syslog, ca_file: ca.pem", "has no effect without transport: tls"),
        ("type: syslog, transport: tls, server: 'a.test:1', cert_file: cert.pem", "needs both"),
        ("type: syslog, transport: tls, server: 'a.test:1', ca_file: none", "cannot be read"),
        ("type: syslog, transport: relp, server: 'a.test:1'", "transport"),
        ("type: http", "url"),
        ("type: http, url: 'http://collector.test/'", "must be https"),
        ("type: http, url: 'https://u:p@collector.test/'", "plain https URL"),
        ("type: http, url: 'https://a.test/', token_file: open", "is open to others"),
        ("type: http, url: 'https://a.test/', token: abc", "token"),
        ("type: stdout, url: 'https://a.test/'", "url"),
        ("type: kafka", "type"),
        ("required: true", "type"),
        ("type: stdout, name: 'A/B'", "name"),
        ("type: stdout, required: maybe", "required"),
    ],
)
def test_what_cannot_be_or_is_not_safe_is_refused(
    refuse: Refuse, entry: str, complaint: str
) -> None:
    problems = refuse(sinks(entry))

    assert any(complaint in one for one in problems), problems
    assert all("broker.yaml:4:" in one for one in problems), problems


def test_two_sinks_have_two_names_and_there_are_three_at_most(refuse: Refuse) -> None:
    (problem,) = refuse(sinks("type: stdout", "type: syslog, name: stdout"))
    assert "second sink named stdout" in problem

    (problem,) = refuse(sinks(*(f"type: syslog, name: s{number}" for number in range(4))))
    assert "0 to 3 entries" in problem


def test_rules_can_be_set_and_switched_off(load: Load) -> None:
    found = load(
        OWN + "  alerts:\n    cool_down: 5m\n    rules:\n      depth: {threshold: 5, within: 2d}\n"
        "      changes: {enabled: false}\n"
    ).audit.alerts

    assert found == AlertTerms(
        timedelta(minutes=5),
        {
            "depth": RuleTerms(threshold=5, within=timedelta(days=2)),
            "changes": RuleTerms(is_on=False),
        },
    )


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("dept: {}", "must be the name of a rule: first_use, client_denials, denials"),
        ("dept: {}", "— did you mean 'depth'?"),
        ("first_uses: {enabled: false}", "— did you mean 'first_use'?"),
        ("depth: {thresholds: 3}", "— did you mean 'threshold'?"),
        ("depth: {threshold: 0}", "must be between 1 and"),
        ("depth: {threshold: many}", "threshold"),
        ("depth: {within: 0s}", "must be between 1s and 30d"),
        ("depth: {limit: 3}", "limit"),
    ],
)
def test_a_rule_that_is_none_or_makes_no_sense_is_refused(
    refuse: Refuse, rule: str, complaint: str
) -> None:
    problems = refuse(OWN + f"  alerts:\n    rules:\n      {rule}\n")

    assert any(complaint in one for one in problems), problems
    assert len(RULE_NAMES) == 10


def test_a_rule_that_resembles_none_is_refused_without_a_guess(refuse: Refuse) -> None:
    (problem,) = refuse(OWN + "  alerts:\n    rules:\n      zzz: {}\n")

    assert "audit.alerts.rules.zzz: must be the name of a rule" in problem
    assert "did you mean" not in problem


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("sinks: [{type: stdout, require: true}]", "required"),
        ("sinks: [{type: sys-log}]", "syslog"),
        ("alerts: {cooldown: 1h}", "cool_down"),
        ("seal: {ever: 5s}", "every"),
        ("people: {name: clear}", "names"),
        ("people: {names: cleer}", "clear"),
        ("review: {idle_timout: 5m}", "idle_timeout"),
        ("review: {oidc: {issuer: https://a.example, client_id: a, subject: [b]}}", "subjects"),
    ],
)
def test_a_name_of_the_audit_settings_that_is_nearly_right_is_told(
    refuse: Refuse, line: str, guess: str
) -> None:
    problems = refuse(OWN + f"  {line}\n")

    assert any(f"— did you mean '{guess}'?" in one for one in problems), problems


def test_what_belongs_to_another_sort_of_sink_is_not_guessed_by_its_own_name(
    refuse: Refuse,
) -> None:
    (problem,) = refuse(sinks("type: stdout, url: 'https://logs.example/a'"))

    assert "audit.sinks.0.url: there is no such setting" in problem
    assert "'url'" not in problem


def test_the_problem_of_a_login_names_its_setting_and_not_the_one_called_as_the_method(
    refuse: Refuse,
) -> None:
    problems = refuse(
        "issuer: https://broker.example\nhttp: {is_behind_proxy: true, trusted_proxies: [192.0.2.1]}\n"
        "keys:\n  store: vault-transit\n  vault:\n    url: https://vault.example\n    keys: {ES256: at}\n"
        "    auth: {method: token_file, token_file: /nowhere, mount: m}\n"
    )

    assert any("keys.vault.auth.mount: there is no such setting" in one for one in problems)
