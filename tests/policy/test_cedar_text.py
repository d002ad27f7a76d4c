import cedarpy
import pytest
from cedarpy import pst
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.cedar_text import cedar_text
from broker.policy.syntax import conditions, statements


def expression(text: str) -> pst.Expr:
    policy = cedarpy.policies_to_pst(f"permit (principal, action, resource) when {{ {text} }};")
    (clause,) = policy.static_policies["policy0"].clauses
    return clause.expr


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = st.one_of(
    st.sampled_from([pst.Var("principal"), pst.Var("context"), pst.BoolLit(True)]),
    st.integers(-(2**63), 2**63 - 1).map(pst.LongLit),
    texts.map(pst.StringLit),
    texts.map(lambda name: pst.EntityLit(pst.EntityUid(pst.EntityType("T", ("N",)), name))),
)
INFIX = (
    "eq",
    "not_eq",
    "less",
    "less_eq",
    "greater",
    "greater_eq",
    "and",
    "or",
    "add",
    "sub",
    "mul",
)
METHODS = ("in", "contains", "contains_all", "contains_any", "get_tag", "has_tag", "offset")
UNARY = ("not", "neg", "is_empty", "is_ipv4", "to_date", "to_milliseconds")


def grow(inner: st.SearchStrategy[pst.Expr]) -> st.SearchStrategy[pst.Expr]:
    names = st.one_of(st.sampled_from(["a", "if", "has", "in", "two words", ""]), texts)
    elements = st.one_of(
        st.just(pst.Wildcard()), st.characters(exclude_categories=["Cs"]).map(pst.Char)
    )
    return st.one_of(
        st.builds(pst.BinaryOp, st.sampled_from(INFIX + METHODS), inner, inner),
        st.builds(pst.UnaryOp, st.sampled_from(UNARY), inner),
        st.builds(pst.GetAttr, inner, names),
        st.builds(pst.HasAttr, inner, st.tuples(names)),
        st.builds(pst.Like, inner, st.lists(elements, max_size=5).map(tuple)),
        st.builds(pst.Is, inner, st.just(pst.EntityType("T")), st.one_of(st.none(), inner)),
        st.builds(pst.IfThenElse, inner, inner, inner),
        st.lists(inner, max_size=3).map(lambda some: pst.Set(tuple(some))),
        st.dictionaries(names, inner, max_size=2).map(lambda some: pst.Record(pst.FrozenMap(some))),
    )


@given(tree=st.recursive(leaves, grow, max_leaves=8))
@settings(max_examples=150, deadline=None)
def test_text_read_again_is_the_same_expression(tree: pst.Expr) -> None:
    policy = pst.Template(
        "p", "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (pst.When(tree),), {}
    )
    written_by_cedar = str(cedarpy.PolicySet.from_pst(pst.PolicySet({}, {"p": policy}, ())))
    expected = cedarpy.policies_to_pst(written_by_cedar).static_policies["policy0"].clauses
    assert (pst.When(expression(cedar_text(tree))),) == expected


@pytest.mark.parametrize(
    "text",
    [
        'context.relation == "audience" && context.chain_depth <= 3',
        "context.a && (context.b || context.c)",
        "!(context.a == 1)",
        '!context.scopes.contains("x")',
        "context has tenant",
        'context["two words"] == "a\\nb\\"c\\\\d"',
        'resource.uri like "https://x/\\**"',
        'principal in ClientGroup::"g" && principal is Client in ClientGroup::"h"',
        "(1 + 2) * 3 - -4 == 5 - (6 - 7)",
        'if context.a then ["x"] else []',
        'ip("10.0.0.1").isInRange(ip("10.0.0.0/8")) && decimal("1.0").lessThanOrEqual(decimal("2.0"))',
        'datetime("2026-01-01").offset(duration("1h")).toTime() == duration("1h")',
    ],
)
def test_text_has_no_more_parentheses_than_needed(text: str) -> None:
    assert cedar_text(expression(text)) == text


def test_policies_are_told_apart_by_where_they_begin() -> None:
    text = """// one; two
@id("a;b") // not; here
permit (principal, action, resource)
when { context.a == "\\";//" };  @id("c")
forbid (principal, action, resource);

// trailing; comment
permit (principal"""
    found = list(statements(text))
    assert [line for line, _ in found] == [2, 4, 8]
    assert [one.split("(")[0] for _, one in found] == ["@id", "@id", "permit "]
    assert list(statements(" // nothing;\n")) == []


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ("when { context.a && context.b && context.c }", ["context.a", "context.b", "context.c"]),
        ("when { context.a || context.b }", ["context.a || context.b"]),
        ("unless { context.a || context.b }", ["!context.a", "!context.b"]),
        ("unless { context.a && context.b }", ["!(context.a && context.b)"]),
        ("unless { !context.a }", ["context.a"]),
        ("when { !(context.a || !context.b) }", ["!context.a", "context.b"]),
        ("when { context.a } unless { context.b }", ["context.a", "!context.b"]),
        ("", []),
    ],
)
def test_what_must_hold_is_told_one_by_one(clauses: str, expected: list[str]) -> None:
    policy = cedarpy.policies_to_pst(f"permit (principal, action, resource) {clauses};")
    found = conditions(policy.static_policies["policy0"])
    assert [cedar_text(one) for one in found] == expected
