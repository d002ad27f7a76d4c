"""Identity assertions: the servers that redeem ours, and the issuers whose we redeem."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from broker.config import Settings

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\n"
HASH = "sha256:" + "0" * 64
CLIENTS = f"""\
clients:
  - id: agent-desk
    auth: {{method: client_secret_basic, secrets: [{{hash: "{HASH}"}}]}}
"""
WIKI = {"resource": "https://wiki.example/mcp", "scopes": ["pages.read"]}


def servers(*entries: dict[str, object], rest: str = "") -> str:
    """A file with these authorization servers."""
    full = [
        {"issuer": f"https://as-{at}.example", "resources": [WIKI], **entry}
        for at, entry in enumerate(entries)
    ]
    return f"{OWN}{CLIENTS}{rest}authorization_servers: {json.dumps(full)}\n"


def a_server(rest: str = "", /, **settings: object) -> str:
    return servers(settings, rest=rest)


def refused(refuse: Refuse, text: str) -> list[str]:
    """The problems from their paths on."""
    return [one.partition(": ")[2] for one in refuse(text)]


def pairwise_key(tmp_path: Path, content: bytes = b"k" * 32, *, mode: int = 0o600) -> str:
    """The settings that name a file with this content."""
    file = tmp_path / "pairwise.key"
    file.write_bytes(content)
    file.chmod(mode)
    return "tokens: {pairwise_key_file: pairwise.key}\n"


# ---- authorization servers


@pytest.mark.requirement("IDJAG-I-13", "IDJAG-I-14")
def test_a_server_is_loaded_as_it_is_declared(load: Load, tmp_path: Path) -> None:
    settings = load(
        a_server(
            pairwise_key(tmp_path),
            names=["wiki"],
            client_ids={"agent-desk": "desk-at-wiki"},
            subject="pairwise",
            tenant="acme",
            email=True,
        )
    )
    (server,) = settings.authorization_servers

    assert server.issuer == "https://as-0.example"
    assert server.client_ids == {"agent-desk": "desk-at-wiki"}
    assert server.names == {"wiki"}
    assert (server.subject_form, server.tenant, server.has_email) == ("pairwise", "acme", True)
    assert settings.tokens.pairwise_key_file == tmp_path / "pairwise.key"


@pytest.mark.requirement("CFG-01", "JAG-05")
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"client_ids": {"agent-dsk": "x"}},
            "client_ids.agent-dsk: is not registered in clients — did you mean 'agent-desk'?",
        ),
        (
            {"client_ids": {"https://c.example/app": "x"}},
            "client_ids.https://c.example/app: is not registered in clients",
        ),
        ({"issuer": "http://127.0.0.1:8080"}, "issuer: is the broker's own issuer as well"),
        ({"names": ["http://127.0.0.1:8080"]}, "names.0: is the broker's own issuer as well"),
        (
            {"names": ["https://as-0.example"]},
            "names.0: is the issuer of authorization_servers.0 as well",
        ),
        ({"subject": "mapped"}, "subject: needs 'subjects': nobody would have an account there"),
        ({"subjects": {"u1": "u2"}}, "subjects: has no effect without subject: mapped"),
        (
            {"subject": "pairwise"},
            "subject: needs a secret that pseudonyms are made of, in tokens.pairwise_key_file",
        ),
        ({"subject": "pairwsie"}, "subject: must be 'same', 'pairwise' or 'mapped' — did you mean"),
        (
            {"resources": [WIKI, {**WIKI, "resource": "HTTPS://WIKI.example/mcp"}]},
            "resources.1.resource: is registered twice at this server",
        ),
        (
            {"resources": [{"resource": "https://wiki.example/mcp"}]},
            "resources.0: has no scopes, so nothing could ever be asserted for it",
        ),
        ({"resources": []}, "resources: must have 1 to 100 entries"),
        ({"resources": [{**WIKI, "scopes": ["*"]}]}, "resources.0.scopes.0: must be a scope"),
        ({"issuer": "https://as.example?x"}, "issuer: must be a plain https URL"),
        ({"issuer": "spiffe://as.example"}, "issuer: must be a plain https URL"),
        ({"client_id": {}}, "client_id: there is no such setting — did you mean 'client_ids'?"),
    ],
)
def test_a_server_that_is_unsafe_or_impossible_is_refused(
    refuse: Refuse, settings: dict[str, object], problem: str
) -> None:
    (found,) = refused(refuse, a_server(**settings))

    assert found.startswith("authorization_servers.0." + problem)


@pytest.mark.requirement("CFG-01", "IDJAG-I-05")
def test_no_two_servers_have_one_name(refuse: Refuse) -> None:
    text = servers(
        {"names": ["wiki"]},
        {"issuer": "https://as-0.example", "names": ["wiki", "https://as-2.example"]},
        {},
    )

    assert refused(refuse, text) == [
        "authorization_servers.1.issuer: is the issuer of authorization_servers.0 as well",
        "authorization_servers.1.names.0: is a name of authorization_servers.0 as well",
        "authorization_servers.1.names.1: is the issuer of authorization_servers.2 as well",
    ]


def test_a_problem_is_told_with_its_line_and_a_caret(refuse: Refuse) -> None:
    text = (
        f"{OWN}{CLIENTS}authorization_servers:\n"
        "  - issuer: https://as.example\n"
        "    client_ids: {agent-desc: x}\n"
        "    resources: [{resource: https://wiki.example, scopes: [read]}]\n"
    )

    (found,) = refuse(text)

    assert found.startswith(
        "broker.yaml:7:18: authorization_servers.0.client_ids.agent-desc: is not"
    )


@pytest.mark.requirement("IDJAG-I-14")
def test_a_client_that_is_known_by_its_document_may_have_an_id_elsewhere(
    load: Load, refuse: Refuse
) -> None:
    documents = "client_documents: {hosts: [c.example]}\n"
    known, other = {"https://c.example/app": "x"}, {"https://d.example/app": "x"}

    assert load(a_server(documents, client_ids=known)).authorization_servers[0].client_ids == known
    assert len(refuse(a_server(documents, client_ids=other))) == 1


@pytest.mark.requirement("IDJAG-I-13", "CFG-04")
@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"k" * 31, 0o600, "does not hold a secret of 32 to 4096 bytes"),
        (b" " * 30 + b"k\n" + b" " * 30, 0o600, "does not hold a secret of 32 to 4096 bytes"),
        (b"", 0o600, "does not hold a secret of 32 to 4096 bytes"),
        (b"k" * 4097, 0o600, "does not hold a secret of 32 to 4096 bytes"),
        (b"k" * 32, 0o644, "is open to others on this machine"),
        (b"k" * 32, 0o620, "is open to others on this machine"),
    ],
    ids=range(6),
)
@pytest.mark.parametrize("subject", ["pairwise", "same"])
def test_a_key_of_pseudonyms_that_protects_nothing_is_refused(
    refuse: Refuse, tmp_path: Path, content: bytes, mode: int, problem: str, subject: str
) -> None:
    rest = pairwise_key(tmp_path, content, mode=mode)
    (found,) = refused(refuse, a_server(rest, subject=subject))

    assert found.startswith(f"tokens.pairwise_key_file: {problem}")
    assert "kkkk" not in found


@pytest.mark.requirement("CFG-04")
def test_a_key_of_pseudonyms_that_is_not_there_is_refused(refuse: Refuse) -> None:
    (found,) = refused(refuse, OWN + "tokens: {pairwise_key_file: nowhere}\n")

    assert found == "tokens.pairwise_key_file: cannot be read: No such file or directory"


# ---- issuers whose identity assertions are redeemed, and the rest that is new


def an_issuer(**settings: object) -> str:
    entry = {
        "issuer": "https://idp.example",
        "purposes": ["id_jag"],
        "algorithms": ["ES256"],
        **settings,
    }
    return f"{OWN}issuers: [{json.dumps(entry)}]\n"


@pytest.mark.requirement("IDJAG-R-18", "IDJAG-R-20")
def test_accounts_are_by_subject_or_by_tenant(load: Load) -> None:
    plain = load(an_issuer(accounts={"u1": "alice"})).issuers[0]
    by_tenant = {"t1": {"u1": "alice"}, "t2": {"u1": "bob"}}
    several = load(an_issuer(accounts=by_tenant, multi_tenant=True)).issuers[0]
    none = load(an_issuer(accounts={})).issuers[0]

    assert plain.accounts == {"": {"u1": "alice"}}
    assert several.accounts == by_tenant
    assert none.accounts == {}
    assert load(an_issuer()).issuers[0].accounts is None


@pytest.mark.requirement("IDJAG-R-20", "CFG-01", "TEX-23")
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"accounts": {"t1": {"u1": "alice"}}},
            "accounts.t1: must be one subject, since there are no tenants without multi_tenant",
        ),
        (
            {"accounts": {"u1": "alice"}, "multi_tenant": True},
            "accounts.u1: must hold the accounts of a tenant, since multi_tenant is set",
        ),
        (
            {"accounts": {"u1": "client:agent-desk"}},
            "accounts.u1: must not begin with 'client:', which marks the subjects of clients",
        ),
        (
            {"accounts": {"t1": {"u1": "client:x"}}, "multi_tenant": True},
            "accounts.t1.u1: must not begin with 'client:'",
        ),
        ({"accounts": {"u1": 7}}, "accounts.u1: must be text; put it in quotes"),
        ({"accounts": {"u1": ["alice"]}}, "accounts.u1: must be text; put it in quotes"),
        ({"accounts": {"t1": {}}, "multi_tenant": True}, "accounts.t1: must have 1 to 100000"),
        ({"accounts": {"t1": {"u1": 7}}, "multi_tenant": True}, "accounts.t1.u1: must be text"),
        (
            {"accounts": {"u1": "alice"}, "purposes": ["user"]},
            "accounts: has no effect: 'id_jag' is not among its purposes",
        ),
        (
            {"multi_tenant": True, "purposes": ["workload"]},
            "multi_tenant: has no effect: by its purposes this issuer names no users",
        ),
        (
            {"multi_tenant": True, "tenant": "acme"},
            "tenant: contradicts multi_tenant, by which each token names the tenant of its subject",
        ),
    ],
)
def test_accounts_that_could_name_nobody_or_somebody_else_are_refused(
    refuse: Refuse, settings: dict[str, object], problem: str
) -> None:
    (found,) = refused(refuse, an_issuer(**settings))

    assert found.startswith("issuers.0." + problem)


@pytest.mark.requirement("CFG-01")
def test_listed_accounts_need_no_prefix_beside_other_issuers_of_users(
    load: Load, refuse: Refuse
) -> None:
    other = {"issuer": "https://b.example", "purposes": ["user"], "algorithms": ["ES256"]}
    listed = {**other, "issuer": "https://a.example", "purposes": ["id_jag"]}

    def text(one: Mapping[str, object]) -> str:
        return f"{OWN}issuers: {json.dumps([one, other])}\n"

    assert len(load(text({**listed, "accounts": {"u1": "alice"}})).issuers) == 2
    assert len(refuse(text(listed))) == 2
    assert (
        len(refuse(text({**listed, "accounts": {"u": "a"}, "purposes": ["id_jag", "user"]}))) == 2
    )


@pytest.mark.requirement("CFG-01", "INTRO-07")
def test_what_a_client_may_introspect_is_registered(load: Load, refuse: Refuse) -> None:
    text = (
        OWN
        + CLIENTS
        + "    introspect: [HTTPS://API.example/]\nresources:\n  - {resource: https://api.example}\n"
    )

    assert load(text).clients[0].introspects == {"https://api.example"}
    (found,) = refuse(text.replace("API.example", "apj.example"))
    assert found.startswith(
        "broker.yaml:5:18: clients.0.introspect.0: is not registered in resources"
    )
    assert found.endswith("did you mean 'https://api.example'?")
