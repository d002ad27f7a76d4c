import pytest

from broker.errors import InvalidTarget
from broker.model import Client, ClientDocumentTerms, KeySource, Resource, TrustedIssuer
from broker.oauth import AUTH_PRIVATE_KEY_JWT, VERIFICATION_ALGORITHMS
from broker.registry import FileRegistry

CLIENT = Client("agent-x", frozenset(), frozenset())
API = Resource("HTTPS://API.example/", {}, audiences=frozenset({"the-api"}))
ISSUER = TrustedIssuer("https://idp.example", frozenset(), frozenset({"ES256"}), KeySource())


def registry() -> FileRegistry:
    return FileRegistry([CLIENT], [API], [ISSUER], disabled_subjects=frozenset({"mallory"}))


def test_what_was_declared_is_found_by_its_name() -> None:
    found = registry()

    assert found.client("agent-x") == CLIENT
    assert found.issuer("https://idp.example") == ISSUER
    assert found.is_subject_disabled("mallory")
    assert not found.is_subject_disabled("alice")


def test_a_resource_is_found_by_its_normal_form_and_by_its_audiences() -> None:
    found = registry()

    api = found.resource("https://api.example")
    assert api is not None
    assert api.resource == "https://api.example"
    assert found.resource("the-api") == api
    assert found.resource("HTTPS://API.example/") is None


@pytest.mark.requirement("CLM-11")
@pytest.mark.parametrize(
    "look_alike",
    [
        "Agent-x",
        "agent-x ",
        "\u0430gent-x",
        "\uff41gent-x",
        "agent\u2010x",
        "agent-x\u200b",
        "agent-\u212a",
        "",
    ],
)
def test_a_look_alike_of_a_client_id_names_nobody(look_alike: str) -> None:
    assert registry().client(look_alike) is None


@pytest.mark.parametrize(
    "other", ["https://idp.example/", "https://IDP.example", "http://idp.example"]
)
def test_an_issuer_is_found_byte_for_byte_only(other: str) -> None:
    assert registry().issuer(other) is None


@pytest.mark.parametrize(
    ("clients", "resources", "issuers"),
    [
        ([CLIENT, CLIENT], [], []),
        ([], [API, Resource("https://api.example", {})], []),
        ([], [API, Resource("https://b.example", {}, audiences=frozenset({"the-api"}))], []),
        (
            [],
            [API, Resource("https://b.example", {}, audiences=frozenset({"https://api.example"}))],
            [],
        ),
        ([], [], [ISSUER, ISSUER]),
    ],
)
def test_two_declarations_of_one_name_are_refused(
    clients: list[Client], resources: list[Resource], issuers: list[TrustedIssuer]
) -> None:
    with pytest.raises(ValueError, match="declared twice"):
        FileRegistry(clients, resources, issuers)


TERMS = ClientDocumentTerms(
    frozenset({"c.test", "c.test:8443"}), frozenset({"a-grant"}), frozenset({"apps"}), "ai_agent"
)


@pytest.mark.requirement("CIMD-13", "NET-11")
def test_a_client_at_a_listed_host_has_what_the_terms_say_and_no_more() -> None:
    found = FileRegistry([], [], [], client_documents=TERMS)

    for url in ("https://c.test/app.json", "https://c.test:8443/app.json"):
        assert found.client(url) == Client(
            url,
            frozenset({AUTH_PRIVATE_KEY_JWT}),
            frozenset({"a-grant"}),
            keys=KeySource(document=url),
            algorithms=frozenset(VERIFICATION_ALGORITHMS),
            groups=frozenset({"apps"}),
            profile="ai_agent",
        )


@pytest.mark.requirement("CIMD-13", "NET-13")
@pytest.mark.parametrize(
    "client_id",
    [
        "https://d.test/app.json",
        "https://c.test:443/a",
        "https://c.test",
        "https://C.test/a",
        "c.test",
    ],
)
def test_no_other_url_names_a_client(client_id: str) -> None:
    assert FileRegistry([], [], [], client_documents=TERMS).client(client_id) is None
    assert FileRegistry([], [], []).client("https://c.test/app.json") is None


@pytest.mark.requirement("CIMD-12")
def test_a_declared_client_wins_over_the_terms() -> None:
    declared = Client("https://c.test/app.json", frozenset(), frozenset(), is_disabled=True)
    found = FileRegistry([declared], [], [], client_documents=TERMS)

    assert found.client("https://c.test/app.json") is declared


@pytest.mark.requirement("CIMD-09")
def test_documents_are_told_of_where_a_client_can_be_known_by_one() -> None:
    by_document = Client("c", frozenset(), frozenset(), keys=KeySource(document="https://c.test/a"))

    assert not registry().has_client_documents
    assert FileRegistry([], [], [], client_documents=TERMS).has_client_documents
    assert FileRegistry([by_document], [], []).has_client_documents


def test_a_resource_without_a_normal_form_is_refused() -> None:
    with pytest.raises(InvalidTarget):
        FileRegistry([], [Resource("https://api.example/#part", {})], [])
