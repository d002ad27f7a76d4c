import shutil
from pathlib import Path

import pytest

from broker.policy.cedar import CedarPolicyEngine
from broker.policy.problems import PolicyLoadError
from tests.policy.queries import PERMIT_ALL, SHIPPED, LoadSet, WriteSet, query


def refusal(directory: Path) -> str:
    with pytest.raises(PolicyLoadError) as refused:
        CedarPolicyEngine.load(directory)
    return str(refused.value)


def when(condition: str, *, head: str = "principal", annotations: str = '@id("a")') -> str:
    return f'{annotations} permit ({head}, action == Action::"exchange", resource) when {{ {condition} }};'


@pytest.mark.requirement("POL-03")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("permit (principal, action, resource", "does not parse: unexpected end of input"),
        (when("context.scopes.isEmpty()"), "attribute `scopes` in context"),
        (when("context.chain_depth == 1 && principal.profile > 3"), "expected Long but saw String"),
        (when('context.tenant == "acme"'), "optional attribute `tenant`"),
        (when("true", head='principal in Team::"x"'), "unrecognized entity type `Team`"),
        (when("true", head='principal == Client::"x"', annotations=""), "has no @id"),
        (when("true", annotations='@id("")'), "@id must be 1 to 100"),
        (when("true", annotations='@id("a b")'), "@id must be 1 to 100"),
        (when("true", annotations='@id("a") @maxttl("3")'), "Did you mean @max_ttl?"),
        (when("true", annotations='@id("a") @note("x")'), "@note is not known."),
        (when("true", annotations='@id("a") @max_ttl("5m")'), "@max_ttl must be a whole number"),
        (when("true", annotations='@id("a") @max_ttl("0")'), "@max_ttl must be a whole number"),
        (when("true", annotations='@id("a") @max_ttl("-1")'), "@max_ttl must be a whole number"),
        (
            when("true", annotations='@id("a") @max_ttl("\u0661")'),
            "@max_ttl must be a whole number",
        ),
        (when("true", annotations='@id("a") @cure("step_up")'), "@cure belongs to a forbid only"),
        (when("true", annotations='@id("a") @reason("a\\nb")'), "@reason must be one line"),
        (
            '@id("a") @max_ttl("9") forbid (principal, action, resource);',
            "belongs to a permit only",
        ),
        (
            '@id("a") @cure("dpop") @max_age("9") forbid (principal, action, resource);',
            "only cure known",
        ),
        ('@id("a") @cure("step_up") forbid (principal, action, resource);', "needs @acr_values"),
        ('@id("a") @max_age("9") forbid (principal, action, resource);', "@max_age needs @cure"),
        (
            '@id("a") @cure("step_up") @acr_values("a  b") forbid (principal, action, resource);',
            "@acr_values must be",
        ),
        (
            '@id("a") @cure("step_up") @acr_values(" ") forbid (principal, action, resource);',
            "@acr_values must be",
        ),
        ('@id("a") permit (principal == ?principal, action, resource);', "Templates"),
        ('@id("a") permit (principal, action, resource);', "A permit must name its action"),
        (
            '@id("a") permit (principal, action == Action::"refresh", resource);',
            'never asks about Action::"refresh"',
        ),
        (when('Client::"x".profile == "ai_agent"'), "compared with, not looked into"),
        (when('Client::"x" has tenant'), "compared with, not looked into"),
        (when('Client::"x" in ClientGroup::"g"'), "compared with, not looked into"),
        (when('context.relation == "audiance"'), 'did you mean "audience"?'),
        (
            when('["user", "usr"].contains(context.subject_kind)'),
            "is never the value of subject_kind",
        ),
        (when('context.subject.kind != "robot"'), "is never the value of kind"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_with_its_place(
    write_set: WriteSet, text: str, sentence: str
) -> None:
    with pytest.raises(PolicyLoadError) as refused:
        CedarPolicyEngine.load(write_set(f"// first line\n\n{text}\n"))
    told = [problem for problem in refused.value.problems if sentence in problem.sentence]
    assert [(problem.file, problem.line) for problem in told] == [("test.cedar", 3)]
    assert str(refused.value).startswith("test.cedar:3: ")
    assert "\n" not in str(refused.value)


@pytest.mark.requirement("POL-07")
@pytest.mark.parametrize(
    "condition",
    [
        'resource.uri like "*.example"',
        'resource.uri like "*"',
        'resource.uri like "https://*"',
        'resource.uri like "https://*.example/v1"',
        'resource.uri like "https://api.example*"',
        'resource.uri like "http*"',
        'resource.uri like "api*"',
        'context.subject_issuer like "https://idp.example*"',
        'context.subject.issuer like "https://idp*/"',
        'context has subject_audience && context.subject_audience like "https://mcp.example:*/"',
        'principal.profile like "*agent"',
        'principal.client_id like "https://agent.example*"',
        'resource.name like "*read*"',
    ],
)
def test_a_pattern_that_leaves_its_beginning_open_is_refused(
    write_set: WriteSet, condition: str
) -> None:
    message = refusal(write_set(when(condition)))
    assert "is not anchored" in message or "leaves the host open" in message


@pytest.mark.requirement("POL-07")
@pytest.mark.parametrize(
    "condition",
    [
        'resource.uri like "https://api.example/*"',
        'resource.uri like "https://api.example/v1"',
        'context.subject_issuer like "https://idp.example/tenants/*/v2"',
        'resource.name like "crm.contacts.*"',
        'principal.client_id like "agent-*"',
        r'resource.name like "\*"',
    ],
)
def test_a_pattern_with_a_fixed_beginning_is_accepted(load_set: LoadSet, condition: str) -> None:
    assert load_set(when(condition)).digest


def test_every_problem_is_told_at_once_in_order_of_place(write_set: WriteSet) -> None:
    two = "permit (principal, action, resource);\n" * 2
    directory = write_set(two, **{"b.cedar": when("context.nothing == 1")})
    with pytest.raises(PolicyLoadError) as refused:
        CedarPolicyEngine.load(directory)
    places = [(problem.file, problem.line) for problem in refused.value.problems]
    assert places == sorted(places)
    assert {("b.cedar", 1), ("test.cedar", 1), ("test.cedar", 2)} == set(places)
    assert str(refused.value).endswith("more)")


def test_an_id_is_taken_once_in_the_whole_folder(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL, **{"a.cedar": f"\n{PERMIT_ALL}"})
    assert refusal(directory) == "test.cedar:1: The @id all is taken by a.cedar:2."


@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "test.cedar: The file is empty."),
        (b" \n\t\n", "test.cedar: The file is empty."),
        (
            b"\xef\xbb\xbf" + PERMIT_ALL.encode(),
            "test.cedar:1: The file begins with a byte order mark.",
        ),
        (b"//\n// \xff\n", "test.cedar:2: The file is not UTF-8."),
        (PERMIT_ALL.encode("utf-16"), "test.cedar:1: The file is not UTF-8."),
        (
            PERMIT_ALL.encode()[:-3],
            "test.cedar:1: The policy does not parse: unexpected end of input.",
        ),
        (b"\0" * 100, "test.cedar:1: The policy does not parse: invalid token."),
        (b" " * (4 * 1024 * 1024 + 1), "test.cedar: The file is too large."),
        (b"(" * 100_000, "test.cedar:1: The policy does not parse"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(
    write_set: WriteSet, content: bytes, sentence: str
) -> None:
    directory = write_set("placeholder")
    (directory / "test.cedar").write_bytes(content)
    assert refusal(directory).startswith(sentence)


@pytest.mark.requirement("POL-03")
def test_a_folder_without_what_it_needs_is_refused(tmp_path: Path, write_set: WriteSet) -> None:
    assert "cannot be read" in refusal(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "has no schema" in refusal(tmp_path / "empty")
    directory = write_set()
    assert "has no .cedar file" in refusal(directory)
    (directory / "broker.cedarschema").unlink()
    (directory / "test.cedar").write_text(PERMIT_ALL)
    assert "has no schema" in refusal(directory)
    assert "has no schema" in refusal(directory / "test.cedar")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("entity Subject", "entitx Subject", "does not parse"),
        ("relation: String,", "", "does not admit what the broker sends"),
        ("relation: String,", "relation: Long,", "does not admit what the broker sends"),
        (
            "relation: String,",
            "relation: String, ip: String,",
            "does not admit what the broker sends",
        ),
        ("tenant?: String,", "tenant: String,", "does not admit what the broker sends"),
        ("entity Client in [ClientGroup]", "entity Client", "does not admit what the broker sends"),
        ("exchange appliesTo", "swap appliesTo", "does not admit what the broker sends"),
        ("impersonate appliesTo", "pretend appliesTo", "does not admit what the broker sends"),
    ],
)
def test_a_schema_of_other_facts_than_the_broker_sends_is_refused(
    write_set: WriteSet, old: str, new: str, sentence: str
) -> None:
    directory = write_set(PERMIT_ALL)
    schema = directory / "broker.cedarschema"
    text = schema.read_text()
    assert old in text
    schema.write_text(text.replace(old, new))
    message = refusal(directory)
    assert message.startswith("broker.cedarschema: ")
    assert sentence in message


def test_files_below_the_folder_belong_to_the_set_and_hidden_ones_do_not(
    write_set: WriteSet,
) -> None:
    directory = write_set(PERMIT_ALL)
    (directory / "team").mkdir()
    forbid = '@id("stop") forbid (principal, action, resource) when { context.chain_depth > 0 };'
    for hidden in (".test.cedar", "..data/test.cedar", "team/.swap.cedar"):
        path = directory / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_text("not a policy")
    assert CedarPolicyEngine.load(directory).decide(query()).granted
    (directory / "team" / "stop.cedar").write_text(forbid)
    assert CedarPolicyEngine.load(directory).decide(query()).policy_ids == ("stop",)


def test_the_digest_is_of_names_and_bytes_of_policies_and_schema(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL)
    digests = [CedarPolicyEngine.load(directory).digest]
    (directory / "test.cedar").write_text(PERMIT_ALL + "// a comment\n")
    digests.append(CedarPolicyEngine.load(directory).digest)
    shutil.move(directory / "test.cedar", directory / "other.cedar")
    digests.append(CedarPolicyEngine.load(directory).digest)
    with (directory / "broker.cedarschema").open("a") as schema:
        schema.write("// a comment\n")
    digests.append(CedarPolicyEngine.load(directory).digest)
    (directory / "decisions" / "schema.json").write_text("{}")
    assert CedarPolicyEngine.load(directory).digest == digests[-1]
    assert len(set(digests)) == 4
    assert all(len(digest) == 64 for digest in digests)


def test_a_disabled_policy_does_not_decide_and_the_digest_says_so() -> None:
    engine = CedarPolicyEngine.load(SHIPPED)
    without = CedarPolicyEngine.load(SHIPPED, disabled=frozenset({"tickets-reads-contacts"}))
    assert engine.decide(query()).granted
    assert not without.decide(query()).granted
    assert engine.digest != without.digest == without.decide(query()).policy_digest


def test_disabling_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PolicyLoadError, match="typo, does not exist"):
        CedarPolicyEngine.load(SHIPPED, disabled=frozenset({"typo"}))


def test_a_guardrail_cannot_be_switched_off() -> None:
    with pytest.raises(PolicyLoadError, match=r"guardrails\.cedar:\d+.*is a forbid"):
        CedarPolicyEngine.load(SHIPPED, disabled=frozenset({"guard-own-resource"}))


@pytest.mark.requirement("POL-03")
def test_a_set_whose_own_tables_fail_is_refused(tmp_path: Path) -> None:
    directory = shutil.copytree(SHIPPED, tmp_path / "set")
    exchange = directory / "exchange.cedar"
    exchange.write_text(exchange.read_text().replace('"tickets:read"', '"tickets:comment"'))
    assert "decisions/exchange.yaml" in refusal(directory)


@pytest.mark.requirement("R-28")
def test_a_set_that_lost_a_policy_to_a_half_written_file_is_refused(tmp_path: Path) -> None:
    directory = shutil.copytree(SHIPPED, tmp_path / "set")
    guardrails = directory / "guardrails.cedar"
    text = guardrails.read_text()
    guardrails.write_text(text[: text.index('@id("guard-client-tenant")')])
    assert "a client does not leave its tenant" in refusal(directory)
