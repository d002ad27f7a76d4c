import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import ConfigError, Settings, load_settings
from broker.model import KeySource, Purpose
from broker.oauth import GRANT_TOKEN_EXCHANGE
from tests.idp import signer

Load = Callable[..., Settings]

MINIMAL = "issuer: http://127.0.0.1:8080\n"
HASH = "sha256:" + "0" * 64
FULL = f"""\
issuer: http://127.0.0.1:18930
data_dir: data
listen: {{http: "127.0.0.1:18930", grpc: localhost:18933, admin: "[::1]:18934"}}
workers: {{http: 2, grpc: 3}}
tokens: {{lifetime: 2m, leeway: 10s, mcp_claim: "https://claims.example/mcp"}}
default_resource: HTTPS://API.example/
clients:
  - id: mcp-tickets
    auth:
      methods: [client_secret_basic, client_secret_post]
      secrets:
        - {{hash: "{HASH}", expires_at: 2027-01-01T00:00:00Z}}
    issuers: [https://idp.example]
    issuer_client_ids: {{https://idp.example: tickets-at-idp}}
    groups: [support]
    profile: mcp_server
    tenant: acme
    explain: true
resources:
  - resource: https://TICKETS.example/mcp
    owner: mcp-tickets
    scopes: {{"tickets:read": {{}}}}
  - resource: https://API.example/
    audiences: [the-api]
    scopes:
      api.read: {{from: ["tickets:read"], groups: [readers]}}
    signing_algorithm: RS256
    max_lifetime: 90s
    disabled: true
issuers:
  - issuer: https://idp.example
    purposes: [user, id_jag]
    algorithms: [ES256]
    foreign_actors: refuse
    max_token_lifetime: 8h
disabled_subjects: [mallory]
"""


def test_an_issuer_alone_is_a_whole_configuration(load: Load, tmp_path: Path) -> None:
    settings = load(MINIMAL)

    assert settings.issuer == "http://127.0.0.1:8080"
    assert settings.listen.admin.is_loopback
    assert settings.keys.algorithms == ("ES256", "RS256")
    assert settings.tokens.lifetime == timedelta(minutes=5)
    assert settings.tokens.mcp_claim == "http://127.0.0.1:8080/claims/mcp"
    assert settings.state.store == "sqlite"
    assert settings.audit.directory == tmp_path / ".broker" / "audit"
    assert settings.keys.directory == tmp_path / ".broker" / "keys"
    assert settings.policies.name in ("policies", "default_policies")


def test_every_setting_arrives_where_it_belongs(load: Load, tmp_path: Path) -> None:
    settings = load(FULL)

    assert str(settings.listen.grpc) == "127.0.0.1:18933"
    assert str(settings.listen.admin) == "[::1]:18934"
    assert (settings.workers.http, settings.workers.grpc) == (2, 3)
    assert settings.tokens.mcp_claim == "https://claims.example/mcp"
    assert settings.default_resource == "https://api.example"
    assert settings.state.directory == tmp_path / "data" / "state"
    assert settings.disabled_subjects == {"mallory"}
    (client,) = settings.clients
    assert client.auth_methods == {"client_secret_basic", "client_secret_post"}
    assert client.grants == {GRANT_TOKEN_EXCHANGE}
    assert client.secrets[0].not_after == 1_798_761_600
    assert client.issuers == frozenset({"https://idp.example"})
    assert client.keys is None
    assert client.is_explainer
    tickets, api = settings.resources
    assert tickets.resource == "https://tickets.example/mcp"
    assert tickets.scopes["tickets:read"].derives_from == {"tickets:read"}
    assert api.scopes["api.read"].derives_from == {"tickets:read"}
    assert api.max_lifetime == timedelta(seconds=90)
    assert api.is_disabled
    (issuer,) = settings.issuers
    assert issuer.purposes == {Purpose.USER, Purpose.ID_JAG}
    assert issuer.keys == KeySource(discovery="https://idp.example")
    assert issuer.foreign_actors == "refuse"


def test_the_environment_overrides_the_file(load: Load) -> None:
    settings = load(FULL, {"BROKER_TOKENS__LIFETIME": "30s", "BROKER_LOG__LEVEL": "debug"})

    assert settings.tokens.lifetime == timedelta(seconds=30)
    assert settings.tokens.leeway == timedelta(seconds=10)
    assert settings.log.level == "debug"


def test_a_list_can_be_given_in_the_environment(load: Load) -> None:
    settings = load(FULL, {"BROKER_DISABLED_SUBJECTS": "[eve, 'client:old']"})

    assert settings.disabled_subjects == {"eve", "client:old"}


def test_variables_of_others_are_left_alone(load: Load) -> None:
    """Kubernetes sets some beside a Service named broker; the commands have theirs."""
    environ = {
        "BROKER_SERVICE_HOST": "10.0.0.1",
        "BROKER_PORT_8080_TCP_ADDR": "10.0.0.1",
        "BROKER_SERVICE_PORT_HTTPS": "443",
        "BROKER_HTTP": "http://127.0.0.1:8080",
        "BROKER_CLIENT_SECRET_FILE": "/run/secret",
        "OTHER": "x",
    }

    assert load(MINIMAL, environ) == load(MINIMAL)


def test_data_dir_moves_keys_state_and_audit_together(load: Load, tmp_path: Path) -> None:
    settings = load(MINIMAL, {"BROKER_DATA_DIR": str(tmp_path / "elsewhere")})

    assert settings.keys.directory == tmp_path / "elsewhere" / "keys"
    assert settings.state.directory == tmp_path / "elsewhere" / "state"
    assert settings.audit.directory == tmp_path / "elsewhere" / "audit"


def test_paths_start_at_the_file_and_those_of_variables_where_the_command_runs(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working_directory = tmp_path / "work"
    working_directory.mkdir()
    monkeypatch.chdir(working_directory)

    settings = load(MINIMAL + "state: {directory: beside}\n", {"BROKER_AUDIT__DIRECTORY": "here"})

    assert settings.state.directory == tmp_path / "beside"
    assert settings.audit.directory == working_directory / "here"


def test_keys_can_stand_in_the_file_or_beside_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(signer("one").jwks))
    text = MINIMAL + (
        "clients:\n"
        "  - id: one\n"
        "    auth: {method: private_key_jwt, jwks_file: keys.json}\n"
        "  - id: two\n"
        f"    auth: {{method: private_key_jwt, jwks: {json.dumps(signer('two').jwks)}}}\n"
        "  - id: three\n"
        "    auth: {method: private_key_jwt, jwks_uri: https://three.example/jwks}\n"
    )

    one, two, three = load(text).clients

    assert one.keys is not None
    assert one.keys.jwks is not None
    assert one.keys.jwks["keys"][0]["kid"] == "one"
    assert two.keys is not None
    assert two.keys.jwks is not None
    assert two.keys.jwks["keys"][0]["kid"] == "two"
    assert three.keys == KeySource(jwks_uri="https://three.example/jwks")


def test_memory_state_serves_one_process_that_runs_all_faces(tmp_path: Path) -> None:
    path = tmp_path / "broker.yaml"
    path.write_text(MINIMAL + "state: {store: memory}\n")

    settings = load_settings(path, {}, is_single_process=True)

    assert settings.state.store == "memory"
    with pytest.raises(ConfigError, match=r"state\.store: memory is not shared by the 2 worker"):
        load_settings(path, {})


def test_vault_settings_arrive_whole(load: Load, tmp_path: Path) -> None:
    for name in ("role", "secret"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o640)
    text = """\
issuer: https://broker.example
keys:
  store: vault-transit
  also: []
  vault:
    url: https://vault.example:8200
    mount: eu/transit
    namespace: team/broker
    keys: {ES256: broker-at}
    auth: {method: approle, role_id_file: role, secret_id_file: secret}
"""

    vault = load(text).keys.vault

    assert vault is not None
    assert vault.keys == {"ES256": "broker-at"}
    assert vault.mount == "eu/transit"
    assert vault.auth.method == "approle"
    assert vault.auth.secret_id_file == tmp_path / "secret"
    assert vault.auth.token_file is None


def test_masked_settings_hold_nothing_that_authenticates(load: Load) -> None:
    settings = load(FULL)

    shown = str(settings.masked())

    assert json.loads(json.dumps(settings.masked())) == settings.masked()
    assert "0" * 64 not in shown
    assert "sha256:…" in shown
    assert "'lifetime': '2m'" in shown
    assert HASH not in repr(settings)


def test_an_alias_repeats_a_value(load: Load) -> None:
    text = MINIMAL + (
        "resources:\n"
        "  - {resource: https://a.example, scopes: &reading {read: {}}}\n"
        "  - {resource: https://b.example, scopes: *reading}\n"
    )

    first, second = load(text).resources

    assert first.scopes == second.scopes


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_may_end_as_they_do_anywhere(load: Load, ending: str) -> None:
    assert load(FULL.replace("\n", ending).encode()).clients == load(FULL).clients


def test_a_face_off_loopback_is_accepted_with_tls(load: Load, tmp_path: Path) -> None:
    for name in ("cert", "key", "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    text = """\
issuer: https://broker.example
listen: {http: 0.0.0.0:8080, grpc: "[::]:8443"}
http: {is_behind_proxy: true, trusted_proxies: [10.0.0.0/24, "2001:db8::1"]}
grpc: {tls: {cert_file: cert, key_file: key, client_ca_file: cert}, reflection: true}
drain_delay: 5s
keys:
  store: vault-transit
  vault:
    url: https://vault.example
    keys: {ES256: at, RS256: at-rsa}
    auth: {method: token_file, token_file: token}
    ca_file: cert
"""

    settings = load(text)

    assert settings.http.trusted_proxies == ("10.0.0.0/24", "2001:db8::1")
    assert settings.grpc.tls is not None
    assert settings.grpc.tls.client_ca_file == tmp_path / "cert"
    assert settings.grpc.has_reflection
    assert settings.drain_delay == timedelta(seconds=5)
    assert settings.keys.vault is not None
    assert settings.keys.vault.auth.token_file == tmp_path / "token"
    assert settings.keys.vault.ca_file == tmp_path / "cert"


def test_one_algorithm_is_never_listed_twice_and_a_face_can_be_off(load: Load) -> None:
    settings = load(MINIMAL + "keys: {algorithm: RS256}\nlisten: {grpc: null}\n")

    assert settings.keys.algorithms == ("RS256",)
    assert settings.listen.grpc is None
