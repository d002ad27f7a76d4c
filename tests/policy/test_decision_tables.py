import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from broker.model import Relation, Verdict
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.problems import PolicyLoadError
from broker.policy.table_rows import RowRequest, json_schema, query_of
from broker.policy.tables import Findings, check, run_tables
from tests.policy.queries import PERMIT_ALL, SHIPPED, WriteSet

FORBID = """@id("stop") @cure("step_up") @acr_values("phr")
forbid (principal, action, resource)
unless { context.auth has acr && context.auth.acr == "phr" };
"""
POLICIES = PERMIT_ALL.replace("@id", '@max_ttl("60") @id') + FORBID
REQUEST = "client: agent, resource: https://api.example, scope: read, relation: audience"


def table(*rows: str) -> str:
    return "rows:\n" + "".join(f"  - {{{row}}}\n" for row in rows)


def row(request: str, rest: str, *, name: str = "one") -> str:
    return f"name: {name}, request: {{{REQUEST}{request}}}, {rest}"


PERMITTED = row(", auth: {acr: phr}", "expect: permit, because: all, max_ttl: 60")
FORBIDDEN = row("", "expect: forbidden, because: [stop], step_up: {acr_values: phr}")


def faults(directory: Path) -> list[str]:
    found = check(directory)
    return [str(problem) for problem in (*found.problems, *found.remarks)]


def write(write_set: WriteSet, *rows: str, policies: str = POLICIES) -> Path:
    return write_set(policies, **{"decisions/t.yaml": table(*rows)})


def test_a_table_that_says_what_is_decided_passes(write_set: WriteSet) -> None:
    directory = write(write_set, PERMITTED, FORBIDDEN)
    report = run_tables(directory)
    assert report.is_passing
    assert report.problems == ()
    assert check(directory) == Findings()
    first = report.rows[0]
    assert (first.file, first.line, first.name) == ("decisions/t.yaml", 2, "one")
    assert (first.expected, first.got, first.policy_ids) == (
        Verdict.PERMIT,
        Verdict.PERMIT,
        ("all",),
    )


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (
            row("", "expect: permit, because: all"),
            "expected permit, got forbidden (stop).",
        ),
        (
            row(", auth: {acr: phr}", "expect: permit, because: stop"),
            "expected because stop, got all.",
        ),
        (row(", auth: {acr: phr}", "expect: permit"), "expected because no policy, got all."),
        (
            row(", auth: {acr: phr}", "expect: permit, because: all, max_ttl: 61"),
            "expected max_ttl 61, got 60.",
        ),
        (
            row("", "expect: forbidden, because: stop, step_up: {acr_values: mfa}"),
            (
                "expected step_up with acr_values 'mfa' and max_age None, "
                "got step_up with acr_values 'phr' and max_age None."
            ),
        ),
        (
            row(", action: impersonate, auth: {acr: phr}", "expect: permit, because: all"),
            "expected permit, got no_permit (no policy).",
        ),
    ],
)
def test_a_row_that_is_wrong_or_right_for_the_wrong_reason_fails_with_its_place(
    write_set: WriteSet, wrong: str, fault: str
) -> None:
    directory = write(write_set, PERMITTED, FORBIDDEN, wrong)
    assert faults(directory) == [f"decisions/t.yaml:4: The row 'one' fails: {fault}"]
    assert not run_tables(directory).is_passing
    with pytest.raises(PolicyLoadError, match="The row 'one' fails"):
        CedarPolicyEngine.load(directory)


def test_a_policy_that_decides_no_row_is_reported_but_may_be_put_in_force(
    write_set: WriteSet,
) -> None:
    directory = write(write_set, PERMITTED)
    assert faults(directory) == [
        "test.cedar:2: No row of a decision table is decided by stop.",
    ]
    assert not run_tables(directory).is_passing
    assert not check(directory).problems
    assert CedarPolicyEngine.load(directory).digest


def test_a_permit_that_only_stands_by_while_forbidden_decides_nothing(write_set: WriteSet) -> None:
    assert faults(write(write_set, FORBIDDEN)) == [
        "test.cedar:1: No row of a decision table is decided by all.",
    ]


def test_a_row_can_expect_an_error(write_set: WriteSet) -> None:
    overflow = "context.chain_depth * 9223372036854775807 > 0"
    policies = f'@id("f") forbid (principal, action, resource) when {{ {overflow} }};'
    directory = write(
        write_set,
        row(", chain_depth: 2", "expect: error"),
        row("", "expect: forbidden, because: f"),
        policies=policies,
    )
    assert faults(directory) == []
    wrong = row(", chain_depth: 2", "expect: no_permit", name="two")
    (fault,) = faults(
        write(write_set, wrong, row("", "expect: forbidden, because: f"), policies=policies)
    )
    assert "got error (error while evaluating policy `f`: integer overflow" in fault


def test_a_row_that_cannot_be_read_is_named_by_its_line(write_set: WriteSet) -> None:
    (fault,) = faults(write(write_set, PERMITTED, row("", "expect: maybe")))
    assert fault.startswith("decisions/t.yaml:3: The table cannot be read: Invalid enum value")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rows: []\n", "length >= 1"),
        ("[]\n", "Expected `object`, got `array`"),
        ("rows: 1\n", "Expected `array`, got `int`"),
        ("rows:\n  - name: [\n", "t.yaml:3: "),
        (table(PERMITTED) + "more: 1\n", "unknown field `more`"),
        (table(PERMITTED + ", expects: permit"), "unknown field `expects` - at `$.rows[0]`"),
        (table(row(", depth: 1", "expect: permit")), "unknown field `depth`"),
        (table(row(", relation: audiance", "expect: permit")), "t.yaml:"),
        (
            table(PERMITTED.replace("relation: audience", "relation: owner")),
            "Invalid enum value 'owner'",
        ),
        (table(PERMITTED.replace("client: agent, ", "")), "missing required field `client`"),
        (
            table(PERMITTED.replace("https://api.example", "https://a#b")),
            "Expected `str` matching regex",
        ),
        (table(row("", "expect: maybe")), "Invalid enum value 'maybe'"),
        (table(row(", chain_depth: 65", "expect: permit")), "Expected `int` <= 64"),
        ("rows:\n  - &a {name: x}\n  - *a\n", "Aliases are not accepted."),
        ("rows: " + "[" * 20 + "]" * 20 + "\n", "nested too deeply"),
        ("rows: [!!python/object:os.system {}]\n", "t.yaml"),
        ("--- 1\n--- 2\n", "t.yaml:"),
        ("x" * (256 * 1024 + 1), "too large"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    write_set: WriteSet, text: str, sentence: str
) -> None:
    directory = write_set(POLICIES, **{"decisions/t.yaml": text})
    (fault,) = faults(directory)
    assert fault.startswith("decisions/t.yaml")
    assert "The table cannot be read: " in fault
    assert sentence in fault
    with pytest.raises(PolicyLoadError):
        CedarPolicyEngine.load(directory)


def test_a_table_of_too_many_values_is_refused(
    write_set: WriteSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(write_set, PERMITTED, FORBIDDEN)
    assert faults(directory) == []
    monkeypatch.setattr("broker.policy.table_rows._MAX_NODES", 20)
    assert "too many values" in faults(directory)[0]


def test_what_is_wrong_with_the_policies_is_told_by_check_too(write_set: WriteSet) -> None:
    assert faults(write_set("permit")) == [
        "test.cedar:1: The policy does not parse: unexpected end of input."
    ]


def test_defaults_hold_for_every_row_that_says_nothing_else(write_set: WriteSet) -> None:
    text = f"""
defaults: {{{REQUEST}, auth: {{acr: phr}}}}
rows:
  - {{name: as by default, request: {{}}, expect: permit, because: all}}
  - {{name: otherwise, request: {{auth: {{acr: pwd}}}}, expect: forbidden, because: stop}}
"""
    assert faults(write_set(POLICIES, **{"decisions/t.yaml": text})) == []


def test_a_request_becomes_the_query_that_a_grant_would_make() -> None:
    request = RowRequest(
        client="c",
        resource="https://r.example",
        scope="s",
        relation=Relation.AUDIENCE,
        client_groups=["g"],
        resource_owner="o",
        derives_from=["d"],
        scope_groups=["sg"],
        tenant="t",
        subject_scopes=["d"],
        chain_depth=3,
    )
    query = query_of(request)
    assert query.client.groups == {"g"}
    assert query.resource.owner == "o"
    assert query.scopes[0].derives_from == {"d"}
    assert query.scopes[0].groups == {"sg"}
    assert query.delegation.subject.tenant == "t"
    assert query.delegation.scopes == frozenset({"d"})
    assert query.delegation.chain_depth == 3
    assert query.delegation.authentication.auth_time is None


def test_the_schema_that_editors_use_is_the_one_the_reader_follows() -> None:
    published = json.loads((SHIPPED / "decisions" / "schema.json").read_text())
    assert published == json_schema(), "write json_schema() to policies/decisions/schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


@pytest.mark.parametrize(
    "path", sorted((SHIPPED / "decisions").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_shipped_tables_fit_the_schema(path: Path) -> None:
    jsonschema.validate(read(path), json_schema())
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    good = {"name": "x", "request": {}, "expect": "permit"}
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid({"rows": [good]})
    for bad in (
        {**good, "expect": "maybe"},
        {**good, "request": {"depth": 1}},
        {**good, "why": "x"},
    ):
        assert not validator.is_valid({"rows": [bad]})
