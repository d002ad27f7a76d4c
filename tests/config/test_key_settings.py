"""Settings of the keys' lives: what would leave a gap is refused, at its place in the file."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import load_settings
from broker.config.settings import KeyTimes

Refuse = Callable[..., list[str]]

ISSUER = "issuer: http://127.0.0.1:8080\n"
LOGIN = "{method: kubernetes, role: broker, jwt_file: FILE}".replace("FILE", __file__)
VAULT = (
    "issuer: https://broker.example\n"
    "keys:\n"
    "  store: vault-transit\n"
    "  also: []\n"
    "  vault:\n"
    "    url: https://vault.example\n"
    "    keys: {ES256: broker-at}\n"
    f"    auth: {LOGIN}\n"
)


def times(tmp_path: Path, text: str) -> KeyTimes:
    """The settings that a text gives."""
    file = tmp_path / "broker.yaml"
    file.write_text(text)
    return load_settings(file, {}).keys.times


def test_what_is_not_set_fits_the_other_settings(tmp_path: Path) -> None:
    assert times(tmp_path, ISSUER) == KeyTimes(
        publish_ahead=timedelta(minutes=5, seconds=45),
        keep_published=timedelta(minutes=20),
        rotate_every=None,
        poll=timedelta(seconds=5),
        clock_difference=timedelta(seconds=30),
        has_spare=True,
    )
    found = times(
        tmp_path,
        ISSUER
        + "tokens: {jwks_max_age: 1h, machine_lifetime: 15m}\n"
        + "keys: {poll: 1m, clock_difference: 5m}\n",
    )
    assert found.publish_ahead == timedelta(hours=1, minutes=8)
    assert found.keep_published == timedelta(minutes=23, seconds=30)


@pytest.mark.requirement("CFG-01", "ITR-06")
@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "keys: {publish_ahead: 5m44s}",
            "2:23: keys.publish_ahead: must be at least 5m45s: verifiers keep the key set for",
        ),
        (
            "keys: {publish_ahead: 10m}\ntokens: {jwks_max_age: 10m}",
            "2:23: keys.publish_ahead: must be at least 10m45s",
        ),
        (
            "keys: {publish_ahead: 5m45s, poll: 6s}",
            "2:23: keys.publish_ahead: must be at least 5m48s",
        ),
        (
            "keys: {keep_published: 6m14s}",
            "2:24: keys.keep_published: must be at least 6m15s: that is how long a token may live",
        ),
        (
            "keys: {keep_published: 15m}\ntokens: {machine_lifetime: 15m}",
            "2:24: keys.keep_published: must be at least 16m15s",
        ),
        (
            "keys: {keep_published: 5m}\ntokens: {lifetime: 1m, machine_lifetime: 1m}",
            "2:24: keys.keep_published: must be at least 6m15s",
        ),
        (
            "keys: {rotate_every: 6m}",
            "2:22: keys.rotate_every: must be at least 6m30s: a key takes that long to begin",
        ),
        ("keys: {rotate_every: 0s}", "2:22: keys.rotate_every: must be between 1s and 3650d"),
        ("keys: {rotate_every: never}", "2:22: keys.rotate_every: must be a duration"),
        ("keys: {poll: 2m}", "2:14: keys.poll: must be between 1s and 1m"),
        ("keys: {clock_difference: 1h}", "2:26: keys.clock_difference: must be between 0s and 5m"),
        ("keys: {spare: 1}", "2:15: keys.spare: must be true or false"),
    ],
)
def test_a_setting_that_would_leave_a_gap_is_refused(
    refuse: Refuse, lines: str, problem: str
) -> None:
    (found,) = refuse(ISSUER + lines + "\n")

    assert found.startswith(f"broker.yaml:{problem}")


def test_the_least_that_leaves_no_gap_is_accepted(tmp_path: Path) -> None:
    found = times(
        tmp_path,
        ISSUER
        + "keys: {publish_ahead: 345s, keep_published: 375s, rotate_every: 390s, spare: false}\n",
    )

    assert found.publish_ahead == timedelta(seconds=345)
    assert not found.has_spare


def test_a_gap_is_not_looked_for_among_settings_that_cannot_be_read(refuse: Refuse) -> None:
    """The defaults that stand in for them would be blamed."""
    (found,) = refuse(ISSUER + "keys: {publish_ahead: 1m}\ntokens: {lifetime: 5}\n")

    assert "tokens.lifetime" in found


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "  rotate_every: 30d\n",
            "9:17: keys.rotate_every: needs keys.vault.record and keys.vault.rotator",
        ),
        (
            "  rotate_every: 30d\n".replace("  ", "    record: {}\n  ", 1),
            "10:17: keys.rotate_every: needs keys.vault.record and keys.vault.rotator",
        ),
        (
            f"    rotator: {LOGIN}\n",
            "9:14: keys.vault.rotator: has no effect without keys.vault.record",
        ),
        ("    record: {mount: a//b}\n", "9:21: keys.vault.record.mount: must be plain words"),
        ("    record: {path: ../x}\n", "9:20: keys.vault.record.path: must be plain words"),
        (
            "    record: {}\n    rotator: {method: token_file, token_file: nowhere}\n",
            "10:47: keys.vault.rotator.token_file: cannot be read",
        ),
    ],
)
def test_rotation_in_vault_that_cannot_be_is_refused(
    refuse: Refuse, lines: str, problem: str
) -> None:
    (found,) = refuse(VAULT + lines)

    assert found.startswith(f"broker.yaml:{problem}")


def test_the_record_and_who_rotates_are_where_the_settings_say(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(
        VAULT + f"    record: {{mount: secret, path: b/k}}\n    rotator: {LOGIN}\n"
        "  rotate_every: 30d\n"
    )

    vault = load_settings(file, {}).keys.vault

    assert vault is not None
    assert vault.record is not None
    assert (vault.record.mount, vault.record.path) == ("secret", "b/k")
    assert vault.rotator == vault.auth


# Keys in memory.

EPHEMERAL = VAULT.replace("vault-transit", "vault-ephemeral")
CERTIFIED = EPHEMERAL + "    record: {}\n    ephemeral: {certifier: broker-certifier}\n"


def test_keys_in_memory_are_certified_as_the_settings_say(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(CERTIFIED)

    keys = load_settings(file, {}).keys

    assert keys.store == "vault-ephemeral"
    assert keys.vault is not None
    assert keys.vault.ephemeral is not None
    assert keys.vault.ephemeral.certifier == "broker-certifier"
    assert keys.vault.ephemeral.lifetime == timedelta(hours=12)
    assert keys.times.outage == timedelta(minutes=10)
    # Who signs through an outage may use an old key for that long.
    assert keys.times.keep_published == timedelta(minutes=20)


def test_a_key_is_kept_for_longer_where_an_outage_may_be_longer(tmp_path: Path) -> None:
    text = CERTIFIED.replace("    record", "    outage: 30m\n    record")

    assert times(tmp_path, text).keep_published == timedelta(minutes=36)
    assert times(
        tmp_path,
        text.replace("ephemeral", "export").replace(
            "    export: {certifier: broker-certifier}\n", ""
        ),
    ).outage == timedelta(minutes=30)
    assert times(tmp_path, VAULT).outage == timedelta(0)


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            EPHEMERAL + "    record: {}\n",
            "6:5: keys.vault.ephemeral: is required by keys.store: vault-ephemeral",
        ),
        (
            CERTIFIED.replace("    record: {}\n", ""),
            "6:5: keys.vault.record: is required by keys.store: vault-ephemeral",
        ),
        (
            CERTIFIED.replace("broker-certifier", "broker-at"),
            "10:28: keys.vault.ephemeral.certifier: must be a key that signs no tokens",
        ),
        (
            CERTIFIED.replace("certifier}", "certifier, lifetime: 11m29s}"),
            "10:56: keys.vault.ephemeral.lifetime: must be at least 11m30s: the next key is",
        ),
        (
            CERTIFIED.replace("certifier}", "certifier, lifetime: 25h}"),
            "10:56: keys.vault.ephemeral.lifetime: must be between 10s and 24h: a key in memory",
        ),
        (
            CERTIFIED.replace("vault-ephemeral", "vault-transit"),
            "10:5: keys.vault.ephemeral: has no effect without keys.store: vault-ephemeral",
        ),
        (
            CERTIFIED.replace("    record", "    outage: 2h\n    record"),
            "9:13: keys.vault.outage: must be between 0s and 1h: a key that was revoked",
        ),
        (
            CERTIFIED + "  keep_published: 15m59s\n",
            "11:19: keys.keep_published: must be at least 16m",
        ),
    ],
)
def test_keys_in_memory_that_could_not_work_are_refused(
    refuse: Refuse, text: str, problem: str
) -> None:
    found = refuse(text)

    assert any(one.startswith(f"broker.yaml:{problem}") for one in found), found


@pytest.mark.parametrize("store", ["vault-ephemeral", "vault-export"])
def test_a_store_in_vault_needs_to_know_where_vault_is(refuse: Refuse, store: str) -> None:
    (found,) = refuse(f"issuer: https://broker.example\nkeys: {{store: {store}}}\n")

    assert found.startswith(f"broker.yaml:2:7: keys.vault: is required by keys.store: {store}")
