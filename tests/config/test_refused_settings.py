"""Every unsafe or impossible setting, with the line it is refused by."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config import ConfigError
from broker.config.durations import write_duration
from broker.endpoints.withdrawal import LONGEST_INPUT_LIFETIME
from tests.idp import signer

Refuse = Callable[..., list[str]]

ISSUER = "issuer: http://127.0.0.1:8080\n"
HTTPS = "issuer: https://broker.example\n"
HASH = "sha256:" + "0" * 64
SECRET = f'auth: {{method: client_secret_basic, secrets: [{{hash: "{HASH}"}}]}}'
VAULT = (
    "keys:\n  store: vault-transit\n  also: []\n  vault:\n    url: https://vault.example\n"
    "    keys: {ES256: broker-at}\n    auth: {method: kubernetes, role: broker, jwt_file: JWT}\n"
).replace("JWT", __file__)


def issuer_of_users(settings: str, name: str = "idp.example") -> str:
    return f"  - {{issuer: https://{name}, purposes: [user], algorithms: [ES256]{settings}}}\n"


# ---- the broker's own sections


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("tokens: {leeway: 3600s}", "2:18: tokens.leeway: must be between 0s and 30s: more would"),
        ("tokens: {leeway: 31s}", "2:18: tokens.leeway: must be between 0s and 30s"),
        ("tokens: {lifetime: 11m}", "2:20: tokens.lifetime: must be between 10s and 10m: a token"),
        ("tokens: {lifetime: 300}", "2:20: tokens.lifetime: must be a duration with its unit"),
        ("tokens: {lifetime: -5m}", "2:20: tokens.lifetime: must be a duration with its unit"),
        ("tokens: {lifetime: ''}", "2:20: tokens.lifetime: must be a duration with its unit"),
        ("tokens: {max_actors: 6}", "2:22: tokens.max_actors: must be between 1 and 5"),
        ("tokens: {max_actors: '5'}", "2:22: tokens.max_actors: must be a whole number"),
        ("tokens: {mcp_claim: act}", "2:21: tokens.mcp_claim: must be a name of your own"),
        ("listen: {http: example.com:80}", "2:16: listen.http: must begin with an IP address"),
        ("listen: {http: 8080}", "2:16: listen.http: must be an address and a port"),
        ("listen: {http: '127.0.0.1:70000'}", "2:16: listen.http: must be an address and a port"),
        ("listen: {http: null, grpc: null}", "2:9: listen: turns both faces off"),
        (
            "listen: {http: '127.0.0.1:1', admin: '127.0.0.1:1'}",
            "2:38: listen.admin: is the address of listen.http as well",
        ),
        ("http: {is_behind_proxy: true}", "2:25: http.is_behind_proxy: needs the proxy's address"),
        (
            "http: {trusted_proxies: [10.0.0.1]}",
            "2:25: http.trusted_proxies: has no effect without",
        ),
        (
            "http: {caller_header: CallerAddress}",
            "2:23: http.caller_header: has no effect without trusted_proxies",
        ),
        (
            "http: {is_behind_proxy: true, trusted_proxies: [10.0.0.1], caller_header: X-Real-IP}",
            "2:75: http.caller_header: must be X-Forwarded-For, or letters and digits alone",
        ),
        (
            "http: {is_behind_proxy: true, trusted_proxies: [10.0.0.1], caller_header: X_Caller}",
            "2:75: http.caller_header: must be X-Forwarded-For, or letters and digits alone",
        ),
        (
            "http: {is_behind_proxy: true, trusted_proxies: [0.0.0.0/0]}",
            "2:49: http.trusted_proxies.0: would trust every address",
        ),
        (
            "http: {is_behind_proxy: true, trusted_proxies: [10.0.0.1/8]}",
            "2:49: http.trusted_proxies.0: must be an address or a network",
        ),
        ("http: {threads: 0}", "2:17: http.threads: must be between 1 and 256"),
        ("http: {threads: true}", "2:17: http.threads: must be a whole number"),
        (
            "http: {max_body_bytes: 1GiB}",
            "2:24: http.max_body_bytes: must be between 1KiB and 1MiB",
        ),
        ("http: {max_body_bytes: lots}", "2:24: http.max_body_bytes: must be a size"),
        (
            "state: {store: memory}",
            "2:16: state.store: memory is not shared by the 2 worker processes",
        ),
        ("keys: {algorithm: HS256}", "2:19: keys.algorithm: must be 'ES256' or 'RS256'"),
        ("keys: {algorithm: none}", "2:19: keys.algorithm: must be 'ES256' or 'RS256'"),
        (
            "keys: {store: vault-transit}",
            "2:7: keys.vault: is required by keys.store: vault-transit",
        ),
        ("policies: ./nowhere", "2:11: policies: is not a directory"),
        ("default_resource: https://x.example", "2:19: default_resource: is not registered"),
        ("clients: {}", "2:10: clients: must be a list"),
        ("clients: null", "2:10: clients: must be a list"),
        ("tokens: 5m", "2:9: tokens: must be a section with settings of its own"),
        ("log: {level: loud}", "2:14: log.level: must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_an_unsafe_or_impossible_setting_is_refused(
    refuse: Refuse, line: str, problem: str
) -> None:
    (found,) = refuse(ISSUER + line + "\n")

    assert found.startswith(f"broker.yaml:{problem}")


@pytest.mark.requirement("CFG-01", "META-01")
@pytest.mark.parametrize(
    ("issuer", "problem"),
    [
        ("http://broker.example", "must be https: http is accepted on loopback"),
        ("http://127.0.0.1.evil.example", "must be https"),
        ("http://0.0.0.0:8080", "must be https"),
        ("https://broker.example/", "must not end with a slash"),
        ("https://Broker.example", "must have its host in lower case"),
        ("https://broker.example?x=1", "must be a plain https URL"),
        ("https://broker.example#x", "must be a plain https URL"),
        ("https://user@broker.example", "must be a plain https URL"),
        ("https://*.example", "must name one URL; wildcards"),
        ("https://broker.example:99999", "has a port that does not exist"),
        ("ftp://broker.example", "must be a plain https URL"),
        ('"https://broker.example\\t"', "must be a plain https URL"),
        ("'https://br\u043eker.example'", "must be a plain https URL"),
        ("42", "must be text"),
        ("''", "must be a plain https URL"),
    ],
)
def test_an_issuer_that_verifiers_could_not_trust_is_refused(
    refuse: Refuse, issuer: str, problem: str
) -> None:
    (found,) = refuse(f"issuer: {issuer}\n{VAULT}")

    assert found.startswith(f"broker.yaml:1:9: issuer: {problem}")


@pytest.mark.requirement("CFG-03", "TX-27")
def test_no_face_listens_off_loopback_in_the_clear(refuse: Refuse) -> None:
    text = HTTPS + VAULT + 'listen: {http: "0.0.0.0:1", grpc: "[::]:2", admin: "10.0.0.1:3"}\n'

    assert [one.split(": ")[1:] for one in refuse(text)] == [
        [
            "listen.http",
            "needs http.tls to listen off loopback, or http.is_behind_proxy with trusted_proxies",
        ],
        ["listen.grpc", "needs grpc.tls to listen off loopback"],
        ["listen.admin", "must be on loopback", "whoever reaches this port needs no login"],
    ]


@pytest.mark.requirement("CFG-01")
def test_embedded_keys_never_leave_loopback(refuse: Refuse) -> None:
    (problem,) = refuse(HTTPS)
    assert problem.startswith("broker.yaml:1:1: keys.store: embedded keys serve a loopback issuer")
    behind_proxy = "http: {is_behind_proxy: true, trusted_proxies: [10.0.0.1]}\n"
    assert refuse(ISSUER + behind_proxy + 'listen: {http: "0.0.0.0:1"}\n') == [
        "broker.yaml:3:16: listen.http: must be on loopback with the embedded keys (keys.store: dev)"
    ]


def test_vault_settings_without_the_vault_store_are_refused(refuse: Refuse) -> None:
    """Somebody who forgot ``store`` would sign with embedded keys without knowing."""
    text = ISSUER + VAULT.replace("  store: vault-transit\n", "")

    assert refuse(text) == [
        "broker.yaml:4:3: keys.vault: has no effect without keys.store: vault-transit"
    ]


@pytest.mark.requirement("SGN-05")
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("keys.ES256", "../../sys/raw"),
        ("keys.ES256", "a/b"),
        ("keys.ES256", "a..b"),
        ("keys.ES256", "a%2fb"),
        ("keys.ES256", "a b"),
        ("keys.ES256", "a?b"),
        ("keys.ES256", "''"),
        ("mount", "/transit"),
        ("mount", "transit/"),
        ("mount", "a//b"),
        ("mount", "a/../b"),
        ("namespace", "../root"),
        ("auth.role", "a/b"),
    ],
)
def test_a_name_that_would_lead_elsewhere_in_vault_is_refused(
    refuse: Refuse, setting: str, value: str
) -> None:
    text = (
        HTTPS
        + {
            "keys.ES256": VAULT.replace("broker-at", value),
            "mount": VAULT.replace("    keys:", f"    mount: {value}\n    keys:"),
            "namespace": VAULT.replace("    keys:", f"    namespace: {value}\n    keys:"),
            "auth.role": VAULT.replace("role: broker", f"role: {value}"),
        }[setting]
    )

    (found,) = refuse(text)

    assert f"keys.vault.{setting}: must be " in found


def test_every_algorithm_signed_with_needs_its_vault_key(refuse: Refuse) -> None:
    (problem,) = refuse(HTTPS + VAULT.replace("also: []", "also: [RS256]"))

    assert problem.startswith("broker.yaml:7:11: keys.vault.keys: names no key for RS256")


@pytest.mark.requirement("CFG-01")
def test_vault_is_spoken_to_over_tls_only(refuse: Refuse) -> None:
    (found,) = refuse(HTTPS + VAULT.replace("https://vault", "http://vault"))

    assert "keys.vault.url: must be https" in found


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666, 0o601])
def test_a_secret_that_others_can_read_or_replace_is_refused(
    refuse: Refuse, tmp_path: Path, mode: int
) -> None:
    for name, file_mode in (
        ("cert.pem", 0o644),
        ("key.pem", mode),
        ("role", 0o600),
        ("secret", mode),
    ):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(file_mode)
    vault = VAULT.replace(
        f"{{method: kubernetes, role: broker, jwt_file: {__file__}}}",
        "{method: approle, role_id_file: role, secret_id_file: secret}",
    )

    found = refuse(HTTPS + vault + "grpc: {tls: {cert_file: cert.pem, key_file: key.pem}}\n")

    assert [one.split(": ")[1] for one in found] == [
        "keys.vault.auth.secret_id_file",
        "grpc.tls.key_file",
    ]
    assert all("is open to others on this machine" in one for one in found)


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize("name", ["keys", "state", "audit"])
@pytest.mark.parametrize(("directory_mode", "file_mode"), [(0o757, 0o600), (0o700, 0o644)])
def test_a_data_directory_that_others_can_use_is_refused(
    refuse: Refuse, tmp_path: Path, name: str, directory_mode: int, file_mode: int
) -> None:
    directory = tmp_path / ".broker" / name
    directory.mkdir(parents=True)
    (directory / "file").touch()
    (directory / "file").chmod(file_mode)
    directory.chmod(directory_mode)

    (found,) = refuse(ISSUER)

    assert f"the directory for {name} is open to others on this machine" in found


def test_a_data_directory_of_a_group_is_accepted(
    load: Callable[..., object], tmp_path: Path
) -> None:
    """That is what a volume in Kubernetes looks like."""
    directory = tmp_path / ".broker" / "state"
    directory.mkdir(parents=True)
    (directory / "state.sqlite").touch()
    (directory / "state.sqlite").chmod(0o660)
    directory.chmod(0o2775)

    load(ISSUER)


@pytest.mark.requirement("CFG-04")
def test_the_files_of_vault_and_of_both_faces_are_all_looked_at(
    refuse: Refuse, tmp_path: Path
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    vault = VAULT.replace(
        f"{{method: kubernetes, role: broker, jwt_file: {__file__}}}",
        "{method: token_file, token_file: open}\n    ca_file: missing",
    )
    grpc = "grpc: {tls: {cert_file: open, key_file: directory, client_ca_file: missing}}\n"

    found = refuse(HTTPS + vault + grpc)

    assert [tuple(one.split(": ")[1:3]) for one in found] == [
        (
            "keys.vault.auth.token_file",
            "is open to others on this machine; take their rights away (chmod 0640)",
        ),
        ("keys.vault.ca_file", "cannot be read"),
        ("grpc.tls.key_file", "is not a file"),
        ("grpc.tls.client_ca_file", "cannot be read"),
    ]


def test_a_data_directory_that_is_none_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    (found,) = refuse(ISSUER + "audit: {directory: file}\n")

    assert found == "broker.yaml:2:9: audit.directory: the directory for audit is not a directory"


def test_files_that_are_not_there_are_all_named(refuse: Refuse) -> None:
    found = refuse(ISSUER + "http: {tls: {cert_file: no.crt, key_file: no.key}}\n")

    assert [one.split(": ", 1)[1] for one in found] == [
        "http.tls.cert_file: cannot be read: No such file or directory",
        "http.tls.key_file: cannot be read: No such file or directory",
    ]


# ---- clients


@pytest.mark.requirement("CLM-11")
@pytest.mark.parametrize(
    "client_id",
    [
        "\u0430gent-x",
        "\uff41gent-x",
        "agent\u2010x",
        "agent-x\u200b",
        "agent-\u212a",
        "e\u0301-agent",
        "agent x",
        "'agent-x '",
        '"agent\\u0000x"',
        "'*'",
        "agent-*",
        "''",
        "a" * 256,
    ],
)
def test_a_client_id_that_can_pose_as_another_is_refused(refuse: Refuse, client_id: str) -> None:
    (found,) = refuse(f"{ISSUER}clients:\n  - id: {client_id}\n    {SECRET}\n")

    assert found.startswith("broker.yaml:3:9: clients.0.id: must ")


@pytest.mark.requirement("CLM-11")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("agent-x", "Agent-X"),
        ("agent-1", "agent-l"),
        ("agent-I", "agent-l"),
        ("agent-10", "agent-1O"),
        ("modern", "modem"),
    ],
)
def test_two_client_ids_that_look_alike_are_refused(refuse: Refuse, one: str, other: str) -> None:
    text = f"{ISSUER}clients:\n  - id: {one}\n    {SECRET}\n  - id: {other}\n    {SECRET}\n"

    assert refuse(text) == [
        f"broker.yaml:5:9: clients.1.id: is easily taken for '{one}', which is registered too"
    ]


def test_a_client_registered_twice_is_refused(refuse: Refuse) -> None:
    text = f"{ISSUER}clients:\n" + f"  - id: agent\n    {SECRET}\n" * 2

    assert refuse(text) == ["broker.yaml:5:9: clients.1.id: is registered twice"]


@pytest.mark.requirement("TEX-23")
@pytest.mark.parametrize("client_id", ["client:agent-x", "CLIENT:x", "client:"])
def test_a_client_id_that_reads_like_a_subject_is_refused(refuse: Refuse, client_id: str) -> None:
    (found,) = refuse(f"{ISSUER}clients:\n  - id: '{client_id}'\n    {SECRET}\n")

    assert "clients.0.id: must not begin with 'client:'" in found


@pytest.mark.parametrize(
    ("auth", "problem"),
    [
        ("{}", "auth: must have either 'method' or 'methods'"),
        (
            f"{{method: private_key_jwt, methods: [client_secret_basic], secrets: [{{hash: '{HASH}'}}]}}",
            "auth: must have either 'method' or 'methods'",
        ),
        ("{method: none}", "auth.method: must be 'client_secret_basic', 'client_secret_post' or"),
        ("{methods: []}", "auth.methods: must have 1 to 3 entries"),
        ("{methods: [private_key_jwt, private_key_jwt]}", "auth.methods: names an entry twice"),
        (
            "{method: client_secret_basic}",
            "auth: authenticates by a secret, but 'secrets' holds none",
        ),
        ("{method: private_key_jwt}", "auth: needs the client's public keys for private_key_jwt"),
        (
            f"{{method: private_key_jwt, jwks_uri: https://a.example, secrets: [{{hash: '{HASH}'}}]}}",
            "auth.secrets: has no effect: no method uses a secret",
        ),
        (
            f"{{method: client_secret_basic, jwks_uri: https://a.example, secrets: [{{hash: '{HASH}'}}]}}",
            "auth: has keys, but private_key_jwt is not among its methods",
        ),
        (
            "{method: private_key_jwt, jwks_uri: https://a.example, jwks_file: x}",
            "auth.jwks_uri: is one source of keys too many beside jwks_file",
        ),
        ("{method: private_key_jwt, jwks_uri: http://a.example}", "auth.jwks_uri: must be https"),
        (
            "{method: private_key_jwt, jwks_file: missing.json}",
            "auth.jwks_file: cannot be read: No such",
        ),
        ("{method: private_key_jwt, jwks: {}}", "auth.jwks: is not a key set"),
        ("{method: private_key_jwt, jwks: {keys: []}}", "auth.jwks: is not a key set"),
        (
            "{method: private_key_jwt, jwks: {keys: [{kty: oct, k: c2VjcmV0}]}}",
            "auth.jwks: holds a key that is not usable: ",
        ),
        (
            "{method: private_key_jwt, jwks_uri: https://a.example, algorithms: [HS256]}",
            "auth.algorithms.0: is symmetric",
        ),
        (
            "{method: private_key_jwt, jwks_uri: https://a.example, algorithms: []}",
            "auth.algorithms: must have 1 to 6 entries",
        ),
    ],
)
def test_a_client_that_could_not_authenticate_soundly_is_refused(
    refuse: Refuse, auth: str, problem: str
) -> None:
    found = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert f": clients.0.{problem}" in found[0]


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    "stored",
    [
        "my-secret-in-the-clear",
        "md5:" + "0" * 32,
        "sha256:" + "0" * 63,
        "sha256:" + "G" * 64,
        "$2b$12$abcdefghijklmnopqrstuv",
        "$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        "$argon2id$v=19$m=4194304,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        "$argon2id$v=19$m=65536,t=99,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
    ],
)
def test_a_secret_that_is_not_stored_as_a_strong_hash_is_refused(
    refuse: Refuse, stored: str
) -> None:
    auth = f"{{method: client_secret_basic, secrets: [{{hash: '{stored}'}}]}}"

    (found,) = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert "clients.0.auth.secrets.0.hash: " in found
    assert stored not in found


@pytest.mark.requirement("CFG-04")
def test_a_problem_never_prints_a_secret(load: Callable[..., object]) -> None:
    secrets = [
        "hunter2-basic",
        "hunter2-hash",
        "hunter2-quoted",
        "bks_hunter2hunter2",
        "hunter2-pass",
    ]
    text = (
        f"{ISSUER}clients:\n"
        f"  - id: agent\n    client_secret: {secrets[0]}\n"
        f"    auth: {{method: client_secret_basic, secrets: [{{hash: {secrets[1]}}}], x: 1}}\n"
        f"  - id: other\n    auth: {{secret: '{secrets[2]}', y: 2}}\n"
        f"  - {{id: third, profile: {secrets[3]}, auth: {{z: 3}}}}\n"
        f"  - {{id: fourth, auth: {{password: {secrets[4]}}}}}\n"
    )

    with pytest.raises(Exception, match="no such setting") as refused:
        load(text)

    shown = str(refused.value)
    assert not [secret for secret in secrets if secret in shown]
    assert "secrets stand in files of their own" in shown


def test_a_private_key_in_a_key_set_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    private = '{"keys": [{"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "d": "c"}]}'
    (tmp_path / "keys.json").write_text(private)

    found = refuse(
        f"{ISSUER}clients:\n  - id: agent\n    auth: {{method: private_key_jwt, jwks_file: keys.json}}\n"
    )

    assert found[0].startswith(
        "broker.yaml:4:37: clients.0.auth.jwks_file: holds a key that is not"
    )


@pytest.mark.parametrize("content", ["", "[]", "{", '{"keys": [], "keys": []}', "\ufeff{}", "{}"])
def test_a_key_file_that_is_no_key_set_is_refused(
    refuse: Refuse, tmp_path: Path, content: str
) -> None:
    (tmp_path / "keys.json").write_text(content)
    auth = "{method: private_key_jwt, jwks_file: keys.json}"

    (found,) = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert "clients.0.auth.jwks_file: is not " in found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "issuers: [https://idp.exampl]",
            "issuers.0: is not registered in issuers — did you mean",
        ),
        ("issuers: []", "issuers: must have 1 to 256 entries"),
        (
            "issuer_client_ids: {https://x.example: a}",
            "issuer_client_ids.https://x.example: is not",
        ),
        ("grants: [token-exchange]", "grants.0: must be 'token_exchange', 'client_credentials' or"),
        ("grants: [password]", "grants.0: must be "),
        ("tenant: two words", "tenant: must be 1 to 255 visible ASCII characters"),
        ("explayn: true", "explayn: there is no such setting — did you mean 'explain'?"),
        ("explain: yes", "explain: must be true or false"),
    ],
)
def test_a_client_with_an_impossible_setting_is_refused(
    refuse: Refuse, line: str, problem: str
) -> None:
    text = f"{ISSUER}clients:\n  - id: agent\n    {SECRET}\n    {line}\nissuers:\n"

    found = refuse(text + issuer_of_users(""))

    assert f": clients.0.{problem}" in found[0]


@pytest.mark.parametrize("moment", ["2027-01-01", "2027-01-01T00:00:00", "tomorrow", "1798761600"])
def test_an_expiry_without_its_zone_is_refused(refuse: Refuse, moment: str) -> None:
    auth = f"{{method: client_secret_basic, secrets: [{{hash: '{HASH}', expires_at: {moment}}}]}}"

    (found,) = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert "clients.0.auth.secrets.0.expires_at: must be " in found


# ---- resources


@pytest.mark.requirement("CFG-01", "AT-06")
@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["resource: '*'"], "0.resource: must name one resource; wildcards"),
        (["resource: https://*.example/"], "0.resource: must name one resource; wildcards"),
        (["resource: http://api.example"], "0.resource: must be https"),
        (["resource: https://api.example/#x"], "0.resource: must be an absolute URI"),
        (["resource: api"], "0.resource: must be an absolute URI"),
        (["resource: http://127.0.0.1:8080"], "0.resource: is the broker's own issuer as well"),
        (
            ["resource: https://api.example", "resource: HTTPS://API.example/"],
            "1.resource: is the resource of resources.0 as well",
        ),
        (
            [
                "resource: https://a.example\n    audiences: [x]",
                "resource: https://b.example\n    audiences: [x]",
            ],
            "1.audiences.0: is an audience of resources.0 as well",
        ),
        (
            [
                "resource: https://a.example",
                "resource: https://b.example\n    audiences: [https://a.example]",
            ],
            "1.audiences.0: is the resource of resources.0 as well",
        ),
        (
            ["resource: https://a.example\n    audiences: ['*']"],
            "0.audiences.0: must name exactly one",
        ),
        (
            ["resource: https://a.example\n    audiences: [http://127.0.0.1:8080]"],
            "0.audiences.0: is the broker's own issuer as well",
        ),
        (
            ["resource: https://a.example\n    owner: nobody"],
            "0.owner: is not registered in clients",
        ),
        (
            [
                "resource: https://a.example\n    scopes: {read: {from: [reda]}, write: {from: [read]}}"
            ],
            "0.scopes.read.from.0: is a scope of no resource, so no token carries it — did you mean",
        ),
        (
            ["resource: https://a.example\n    scopes: {read: {from: []}}"],
            "0.scopes.read.from: must have 1 to 64 entries: it could never be granted",
        ),
        (["resource: https://a.example\n    scopes: {'a b': {}}"], "0.scopes.a b: must be a scope"),
        (["resource: https://a.example\n    scopes: {'*': {}}"], "0.scopes.*: must be a scope"),
        (
            ["resource: https://a.example\n    scopes: {read: {form: [x]}}"],
            "0.scopes.read.form: there is no",
        ),
        (
            ["resource: https://a.example\n    max_lifetime: 1h"],
            "0.max_lifetime: must be between 10s and",
        ),
        (
            ["resource: https://a.example\n    signing_algorithm: PS256"],
            "0.signing_algorithm: must be 'ES256' or 'RS256'",
        ),
    ],
)
def test_a_resource_that_is_ambiguous_or_unreachable_is_refused(
    refuse: Refuse, entries: list[str], problem: str
) -> None:
    found = refuse(ISSUER + "resources:\n" + "".join(f"  - {entry}\n" for entry in entries))

    assert f": resources.{problem}" in found[0]


def test_a_resource_cannot_ask_for_an_algorithm_that_is_not_signed_with(refuse: Refuse) -> None:
    text = "keys: {also: []}\nresources:\n  - {resource: https://a.example, signing_algorithm: RS256}\n"

    (found,) = refuse(ISSUER + text)

    assert "resources.0.signing_algorithm: is not signed with here" in found


def test_a_scope_may_derive_from_scopes_that_only_a_foreign_token_carries(
    load: Callable[..., object],
) -> None:
    load(
        ISSUER
        + "resources:\n  - {resource: https://a.example, scopes: {read: {from: [theirs]}}}\n"
        + "issuers:\n  - {issuer: https://i.example, purposes: [access_token], algorithms: [ES256]}\n"
    )


def resources_of(*entries: str) -> str:
    listed = "".join(f"  - {{resource: {entry}}}\n" for entry in entries)
    return f"{ISSUER}resources:\n{listed}"


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            [
                "https://a.example, scopes: {'b:read': {}, 'b:write': {}}",
                "https://b.example, scopes: {'b:write': {from: ['b:read']}}",
            ],
            "0.scopes.b:write: could grow from 'b:read' to 'b:write' through https://b.example: ",
        ),
        (
            [
                "https://a.example, scopes: {read: {}, write: {from: [edit]}}",
                "https://b.example, scopes: {see: {from: [read]}}",
                "https://c.example, scopes: {edit: {from: [see]}}",
            ],
            "0.scopes.write: could grow from 'read' to 'write' through https://b.example, then https:",
        ),
        (
            ["https://a.example, scopes: {read: {}, write: {from: [read]}}"],
            "0.scopes.write: could grow from 'read' to 'write' at once: a token must not",
        ),
    ],
    ids=["a shared name", "three resources", "at once"],
)
def test_a_scope_that_exchanges_there_and_back_would_widen_is_refused(
    refuse: Refuse, entries: list[str], problem: str
) -> None:
    (found,) = refuse(resources_of(*entries))

    assert f": resources.{problem}" in found
    assert found.endswith(": a token must not come back with more than it had")


def test_a_long_way_to_a_wider_scope_is_told_in_short(refuse: Refuse) -> None:
    between = [
        f"https://r{at}.example, scopes: {{s{at + 1}: {{from: [s{at}]}}}}" for at in range(7)
    ]
    (found,) = refuse(
        resources_of("https://a.example, scopes: {s0: {}, write: {from: [s7]}}", *between)
    )

    assert "through https://r0.example, then " in found
    assert "https://r3.example and 3 more: " in found


def test_each_scope_that_would_grow_is_named_once_where_it_stands(refuse: Refuse) -> None:
    found = refuse(
        resources_of(
            "https://a.example, scopes: {x: {}, y: {}, z: {}}",
            "https://b.example, scopes: {y: {from: [x, y]}, x: {from: [y]}}",
        )
    )

    assert [one.partition(": resources.")[2].partition(" could")[0] for one in found] == [
        "0.scopes.x:",
        "0.scopes.y:",
        "1.scopes.y:",
        "1.scopes.x:",
    ]
    assert "broker.yaml:3:44: " in found[0]


def test_scopes_that_keep_to_themselves_or_end_elsewhere_are_accepted(
    load: Callable[..., object],
) -> None:
    load(
        resources_of(
            "https://a.example, scopes: {read: {}, write: {}}",
            "https://b.example, scopes: {read: {}, write: {from: [write]}}",
            "https://c.example, scopes: {c.read: {from: [read, write]}, c.write: {from: [write]}}",
            "https://d.example, scopes: {d.all: {from: [c.read, c.write]}}",
        )
    )


small_registries = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.dictionaries(
        st.sampled_from(["p", "q", "r", "s"]),
        st.lists(st.sampled_from(["p", "q", "r", "s"]), max_size=2, unique=True),
        max_size=3,
    ),
    min_size=1,
)


@given(registry=small_registries)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_growth_is_refused_exactly_where_walking_all_exchanges_finds_it(
    load: Callable[..., object], registry: dict[str, dict[str, list[str]]]
) -> None:
    carried = {(place, scope) for place, scopes in registry.items() for scope in scopes}
    known = {scope for _, scope in carried}
    registry = {
        place: {
            scope: [one for one in sources if one in known] for scope, sources in scopes.items()
        }
        for place, scopes in registry.items()
    }
    grown = set()
    for start in carried:
        reached, fresh = {start}, {start}
        while fresh:
            fresh = {
                (place, scope)
                for place, scope in carried
                for _, had in fresh
                if had in (registry[place][scope] or [scope])
            } - reached
            reached |= fresh
        grown |= {end for end in reached if end[0] == start[0] and end != start}
    places = list(registry)
    text = resources_of(
        *(
            f"https://{place}.example, scopes: {json.dumps(scopes_text(registry[place]))}"
            for place in places
        )
    )

    try:
        load(text)
        refused = set()
    except ConfigError as error:
        paths = [problem.path.split(".") for problem in error.problems]
        refused = {(places[int(path[1])], path[3]) for path in paths}

    assert refused == grown


def scopes_text(scopes: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    return {name: {"from": sources} if sources else {} for name, sources in scopes.items()}


def test_a_resource_has_at_most_a_hundred_scopes(
    refuse: Refuse, load: Callable[..., object]
) -> None:
    def one_with(count: int) -> str:
        names = ", ".join(f"s{number}: {{}}" for number in range(count))
        return resources_of(f"https://a.example, scopes: {{{names}}}")

    load(one_with(100))
    (found,) = refuse(one_with(101))

    assert ": resources.0.scopes: must have 0 to 100 entries" in found


# ---- trusted issuers


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("issuer: http://idp.example", "issuer: must be https"),
        ("issuer: https://*.idp.example", "issuer: must name one URL; wildcards"),
        ("issuer: http://127.0.0.1:8080", "issuer: is the broker itself"),
        ("purposes: []", "purposes: must have 1 to 4 entries"),
        ("purposes: [users]", "purposes.0: must be 'user', 'workload', 'access_token' or 'id_jag'"),
        (
            "algorithms: []",
            "algorithms: must have 1 to 6 entries: without a pin any signature might do",
        ),
        ("algorithms: [HS256]", "algorithms.0: is symmetric"),
        ("algorithms: [hs512]", "algorithms.0: is symmetric"),
        ("algorithms: [none]", "algorithms.0: would accept tokens that nobody signed"),
        ("algorithms: [None]", "algorithms.0: would accept tokens that nobody signed"),
        ("algorithms: ['*']", "algorithms.0: must be one of ES256"),
        ("algorithms: [ES265]", "algorithms.0: must be one of ES256"),
        ("jwks_uri: http://idp.example/jwks", "jwks_uri: must be https"),
        ("jwks_uri: 'https://idp.example/jwks?x=1'", "jwks_uri: must be a plain https URL"),
        ("discovery: false", "discovery: leaves no way to find the keys"),
        ("subject_prefix: 'client:'", "subject_prefix: must not begin like 'client:'"),
        ("subject_prefix: 'Client:a'", "subject_prefix: must not begin like 'client:'"),
        ("subject_prefix: 'cli'", "subject_prefix: must not begin like 'client:'"),
        ("subject_prefix: 'a b'", "subject_prefix: must be 1 to 255 visible ASCII"),
        ("foreign_actors: ignore", "foreign_actors: must be 'keep', 'drop' or 'refuse'"),
        ("max_token_lifetime: 365d", "max_token_lifetime: must be between 1m and 31d"),
        # A withdrawal is forgotten once none of the tokens that it covers can live.
        (
            f"max_token_lifetime: {write_duration(LONGEST_INPUT_LIFETIME + timedelta(seconds=1))}",
            "max_token_lifetime: must be between 1m and 31d",
        ),
    ],
)
def test_an_issuer_that_could_not_be_trusted_soundly_is_refused(
    refuse: Refuse, changed: str, problem: str
) -> None:
    settings = {
        "issuer": "issuer: https://idp.example",
        "purposes": "purposes: [user]",
        "algorithms": "algorithms: [ES256]",
    }
    settings[changed.partition(":")[0]] = changed
    text = f"{ISSUER}issuers:\n  - " + "\n    ".join(settings.values())

    (found,) = refuse(text + "\n")

    assert f": issuers.0.{problem}" in found


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("", "", 2),
        ("", ", subject_prefix: b", 1),
        (", subject_prefix: a", ", subject_prefix: a", 1),
        (", subject_prefix: a", ", subject_prefix: ab", 1),
    ],
)
def test_two_issuers_of_users_need_prefixes_that_keep_their_subjects_apart(
    refuse: Refuse, one: str, other: str, count: int
) -> None:
    """Prefixes ``a`` and ``ab`` would make one person of ``bob`` at one and ``ob`` at the other."""
    text = ISSUER + "issuers:\n" + issuer_of_users(one) + issuer_of_users(other, "idp2.example")

    found = refuse(text)

    assert len(found) == count
    assert all("subject_prefix" in problem for problem in found)


def test_an_issuer_with_two_sources_of_keys_is_refused(refuse: Refuse) -> None:
    sources = ", jwks_uri: https://idp.example/jwks, discovery: true"

    (found,) = refuse(f"{ISSUER}issuers:\n{issuer_of_users(sources)}")

    assert "issuers.0.discovery: is one source of keys too many" in found


def test_an_issuer_registered_twice_is_refused(refuse: Refuse) -> None:
    prefixes = (", subject_prefix: a", ", subject_prefix: b")
    text = ISSUER + "issuers:\n" + "".join(issuer_of_users(prefix) for prefix in prefixes)

    assert refuse(text) == ["broker.yaml:4:14: issuers.1.issuer: is registered twice"]


def test_a_workload_issuer_needs_no_prefix_beside_an_issuer_of_users(
    load: Callable[..., object],
) -> None:
    workload = "  - {issuer: https://k8s.example, purposes: [workload], algorithms: [RS256]}\n"

    load(ISSUER + "issuers:\n" + issuer_of_users("") + workload)


# ---- how problems are told


def test_all_problems_are_told_at_once_in_the_order_of_the_file(refuse: Refuse) -> None:
    text = """\
isuser: https://broker.example
tokens: {lifetime: 1h, leeway: 1h}
clients:
  - id: one
    auth: {method: client_secret_basic}
  - id: two
    auth: {method: none}
resources:
  - {resource: https://a.example, owner: two}
  - {resource: https://a.example/, owner: tow}
"""

    assert [one.split(": ")[1] for one in refuse(text)] == [
        "issuer",
        "isuser",
        "tokens.lifetime",
        "tokens.leeway",
        "clients.0.auth",
        "clients.1.auth.method",
        "resources.1.resource",
        "resources.1.owner",
    ]


def test_a_reference_to_an_entry_with_a_mistake_is_no_mistake_itself(refuse: Refuse) -> None:
    text = (
        f"{ISSUER}clients:\n  - id: mcp\n    auth: {{}}\n    explayn: true\n"
        "resources:\n  - {resource: https://a.example, owner: mcp}\n"
    )

    (found,) = refuse(text)

    assert "clients.0.explayn" in found


def test_a_problem_shows_its_line_with_a_caret(load: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="did you mean") as refused:
        load(ISSUER + "state:\n    store: sqlit\n")

    assert str(refused.value) == (
        f"{tmp_path}/broker.yaml:3:12: state.store: must be 'sqlite', 'memory' or 'valkey'"
        " — did you mean 'sqlite'?\n"
        "      store: sqlit\n"
        "             ^"
    )


def test_a_problem_with_a_variable_names_the_variable(refuse: Refuse) -> None:
    environ = {
        "BROKER_TOKENS__LEEWAY": "10",
        "BROKER_TOKNES__LEEWAY": "1s",
        "BROKER_WORKERS": "2",
        "BROKER_LISTEN": "{http: [",
        "BROKER_AUDIT__DIRECTORY": "x" * 70_000,
    }

    assert [one.partition(" 30s")[0] for one in refuse(ISSUER, environ)] == [
        "environment BROKER_AUDIT__DIRECTORY: is longer than 65536 characters",
        "environment BROKER_LISTEN: is not YAML: expected the node content, but found '<stream end>'",
        "environment BROKER_TOKENS__LEEWAY: tokens.leeway: must be a duration with its unit, such as",
        "environment BROKER_TOKNES__LEEWAY: toknes: there is no such setting — did you mean 'tokens'?",
        "environment BROKER_WORKERS: workers: must be a section with settings of its own",
    ]


def test_control_characters_of_the_file_do_not_reach_the_terminal(refuse: Refuse) -> None:
    (found,) = refuse(ISSUER + '"a\\e[31mred\u202e": 1\n')

    assert "\x1b" not in found
    assert "\u202e" not in found
    assert "a\\u001b[31mred\\u202e" in found


def test_a_key_file_is_only_read_so_far(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b" " * 70_000)
    auth = "{method: private_key_jwt, jwks_file: keys.json}"

    (found,) = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert "clients.0.auth.jwks_file: is larger than 65536 bytes" in found


def test_a_key_set_may_hold_only_so_many_keys(refuse: Refuse) -> None:
    keys = ", ".join(str(signer("k").jwk).replace("'", '"') for _ in range(33))
    auth = f"{{method: private_key_jwt, jwks: {{keys: [{keys}]}}}}"

    (found,) = refuse(f"{ISSUER}clients:\n  - id: agent\n    auth: {auth}\n")

    assert "clients.0.auth.jwks: is not a key set with 1 to 32 entries" in found
