"""What may be declared about fetching other people's keys."""

from pathlib import Path

import pytest

from broker.config import ConfigError, load_settings

_MINIMAL = "issuer: http://127.0.0.1:8080\n"


def _load(directory: Path, text: str) -> object:
    file = directory / "broker.yaml"
    file.write_text(_MINIMAL + text)
    return load_settings(file, {}).fetch


def test_nothing_private_is_reachable_unless_declared(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(_MINIMAL)
    fetch = load_settings(file, {}).fetch
    assert (fetch.ca_file, fetch.private_networks, fetch.key_hosts) == (None, (), {})


@pytest.mark.requirement("CFG-01", "NET-02")
@pytest.mark.parametrize("network", ["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/0", "8.8.8.0/24"])
def test_only_private_ranges_can_be_declared(tmp_path: Path, network: str) -> None:
    with pytest.raises(ConfigError, match=r"private_networks\.0"):
        _load(tmp_path, f"fetch: {{private_networks: ['{network}']}}\n")


@pytest.mark.requirement("KEY-10")
@pytest.mark.parametrize("host", ["https://keys.example", "keys.example/x", "KEYS", "", "a b"])
def test_a_key_host_is_a_host(tmp_path: Path, host: str) -> None:
    issuer = "issuer: 'https://i.example', purposes: [user], algorithms: [ES256]"
    issuer = f"issuers: [{{{issuer}, key_hosts: ['{host}']}}]\n"
    with pytest.raises(ConfigError, match="key_hosts"):
        _load(tmp_path, issuer)


def test_declared_networks_and_hosts_are_in_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(
        _MINIMAL
        + "fetch: {private_networks: [10.20.0.0/16]}\n"
        + "issuers: [{issuer: 'https://i.example', purposes: [user], algorithms: [ES256], "
        + "key_hosts: [keys.example, 'keys.example:8443']}]\n"
    )
    fetch = load_settings(file, {}).fetch
    assert fetch.private_networks == ("10.20.0.0/16",)
    assert fetch.key_hosts == {"https://i.example": {"keys.example", "keys.example:8443"}}
