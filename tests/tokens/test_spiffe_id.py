import pytest

from broker.tokens.spiffe_id import is_trust_domain, trust_domain_of

LONGEST_PATH = "/" + "p" * (2048 - len("spiffe://td.test/"))


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize(
    ("spiffe_id", "domain"),
    [
        ("spiffe://td.test/agent", "spiffe://td.test"),
        ("spiffe://td.test/ns/prod/sa/Agent_1.2-x", "spiffe://td.test"),
        ("spiffe://td_test-1/a", "spiffe://td_test-1"),
        ("spiffe://td.test/...", "spiffe://td.test"),
        ("spiffe://td.test" + LONGEST_PATH, "spiffe://td.test"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_a_spiffe_id_belongs_to_its_trust_domain(spiffe_id: str, domain: str) -> None:
    assert trust_domain_of(spiffe_id) == domain
    assert is_trust_domain(domain)


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize(
    "text",
    [
        "spiffe://td.test",
        "spiffe://td.test/",
        "spiffe://td.test/agent/",
        "spiffe://td.test//agent",
        "spiffe://td.test/./agent",
        "spiffe://td.test/../agent",
        "spiffe://td.test/agent/..",
        "spiffe://td.test/agent/.",
        "spiffe:///agent",
        "spiffe://TD.test/agent",
        "SPIFFE://td.test/agent",
        "spiffe://user@td.test/agent",
        "spiffe://td.test:8443/agent",
        "spiffe://td.test/agent?x",
        "spiffe://td.test/agent#x",
        "spiffe://td.test/ag%65nt",
        "spiffe://td.test/agent\n",
        "spiffe://td\u0131.test/agent",
        "spiffe://td.test/\uff41gent",
        "spiffe://" + "d" * 256 + "/agent",
        "spiffe://td.test" + LONGEST_PATH + "p",
        "https://td.test/agent",
        "",
        None,
        1,
        ["spiffe://td.test/agent"],
    ],
    ids=lambda one: ascii(one)[:40],
)
def test_anything_else_is_no_spiffe_id(text: object) -> None:
    assert trust_domain_of(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://",
        "spiffe://td.test/",
        "spiffe://td.test/agent",
        "spiffe://Td.test",
        "spiffe://td.test:1",
        "spiffe://*.test",
        "spiffe://td.test\n",
        "https://td.test",
    ],
    ids=ascii,
)
def test_a_trust_domain_is_its_name_alone(name: str) -> None:
    assert not is_trust_domain(name)
