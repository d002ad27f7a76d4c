"""What may be declared about clients that are known by a metadata document."""

import pytest

from broker.model import ClientDocumentTerms, KeySource
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_TOKEN_EXCHANGE
from tests.config.conftest import Load, Refuse

URL = "https://c.test/app.json"
ISSUER = "issuer: http://127.0.0.1:8080\n"
CLIENT = ISSUER + "clients: [{{id: '{id}', auth: {{{auth}}}}}]\n"
BY_DOCUMENT = "method: private_key_jwt, document: true"
SECRET = f"secrets: [{{hash: 'sha256:{'0' * 64}'}}]"


def client(client_id: str = URL, auth: str = BY_DOCUMENT) -> str:
    return CLIENT.format(id=client_id, auth=auth)


@pytest.mark.requirement("CIMD-13")
def test_no_document_counts_unless_its_host_is_listed(load: Load) -> None:
    assert load(ISSUER).client_documents is None


def test_the_terms_are_those_that_are_declared(load: Load) -> None:
    listed = "client_documents: {hosts: [c.test, 'd.test:8443']}\n"
    assert load(ISSUER + listed).client_documents == ClientDocumentTerms(
        frozenset({"c.test", "d.test:8443"}), frozenset({GRANT_TOKEN_EXCHANGE})
    )

    more = (
        "client_documents: {hosts: [c.test], grants: [client_credentials], groups: [g], profile: p}"
    )
    assert load(ISSUER + more).client_documents == ClientDocumentTerms(
        frozenset({"c.test"}), frozenset({GRANT_CLIENT_CREDENTIALS}), frozenset({"g"}), "p"
    )


@pytest.mark.requirement("NET-13", "CFG-01")
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1:8443", "0x7f.1", "1", "c..test", "c.test:0", "c.test:70000", "c-.test"],
)
def test_a_host_that_no_client_id_can_have_is_refused(refuse: Refuse, host: str) -> None:
    [problem] = refuse(ISSUER + f"client_documents: {{hosts: [ok.test, '{host}']}}\n")

    assert "client_documents.hosts.1" in problem
    assert "is no host of a client id" in problem


@pytest.mark.requirement("NET-13", "CFG-01")
@pytest.mark.parametrize(
    "host",
    ["*.c.test", "C.test", "c.test.", "https://c.test", "c.test/a", "c@d", "", "\u0441.test"],
)
def test_what_is_no_host_is_refused(refuse: Refuse, host: str) -> None:
    problems = refuse(ISSUER + f"client_documents: {{hosts: ['{host}']}}\n")

    assert problems
    assert all("client_documents.hosts.0" in problem for problem in problems)


@pytest.mark.parametrize("section", ["{}", "{hosts: []}", "{hosts: [c.test, c.test]}"])
def test_a_list_of_hosts_has_some_and_none_twice(refuse: Refuse, section: str) -> None:
    assert refuse(ISSUER + f"client_documents: {section}\n")


def test_a_registered_client_may_be_known_by_its_document(load: Load) -> None:
    [declared] = load(client()).clients

    assert declared.keys == KeySource(document=URL)
    assert declared.client_id == URL


@pytest.mark.requirement("CIMD-01", "CFG-01")
@pytest.mark.parametrize(
    "client_id",
    [
        "app",
        "https://c.test",
        "https://c.test/",
        "http://c.test/app.json",
        "https://c.test/app.json?a=b",
        "https://c.test/a/../b",
        "https://C.test/app.json",
        "https://127.0.0.1/app.json",
        "https://c.test/" + "a" * 240,
    ],
)
def test_an_id_that_is_no_url_of_a_document_is_refused(refuse: Refuse, client_id: str) -> None:
    [problem] = refuse(client(client_id))

    assert "clients.0.id" in problem
    assert "is not where a document can be" in problem


@pytest.mark.requirement("CIMD-05", "CIMD-10", "CFG-01")
@pytest.mark.parametrize(
    ("auth", "sentence"),
    [
        (BY_DOCUMENT + ", jwks_uri: 'https://c.test/jwks'", "one source of keys too many"),
        (BY_DOCUMENT + ", jwks_file: a.jwks", "one source of keys too many"),
        (
            f"methods: [private_key_jwt, client_secret_basic], document: true, {SECRET}",
            "leaves private_key_jwt as the only method",
        ),
        (
            f"method: client_secret_basic, document: true, {SECRET}",
            "leaves private_key_jwt as the only method",
        ),
    ],
)
def test_a_document_is_the_only_proof_of_its_client(
    refuse: Refuse, auth: str, sentence: str
) -> None:
    problems = refuse(client(auth=auth))

    assert any("clients.0.auth.document" in one and sentence in one for one in problems)
