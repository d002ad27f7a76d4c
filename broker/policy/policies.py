"""A policy as read from its file: where it stands, what it says, what its annotations promise."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cedarpy
from cedarpy import pst

from broker.model import PolicyReference
from broker.policy.annotations import Annotations, read_annotations
from broker.policy.files import PolicyFile
from broker.policy.lint import lint
from broker.policy.problems import Problem
from broker.policy.syntax import statements

MAX_POLICIES = 20_000


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. Its syntax tree bears its ``@id``, so that Cedar reports it by that name."""

    reference: PolicyReference
    tree: pst.Template
    annotations: Annotations

    @property
    def policy_id(self) -> str:
        """The ``@id``."""
        return self.reference.policy_id

    @property
    def is_permit(self) -> bool:
        """Whether it permits; otherwise it forbids."""
        return self.tree.effect == "permit"


def handle(policies: dict[str, pst.Template]) -> cedarpy.PolicySet:
    """A parsed policy set that reports each policy by its key."""
    named = {name: replace(tree, id=name) for name, tree in policies.items()}
    return cedarpy.PolicySet.from_pst(pst.PolicySet({}, named, ()))


def read_policies(file: PolicyFile, schema: cedarpy.Schema) -> Iterator[Policy | Problem]:
    """Read the policies of one file, and what is wrong with them."""
    places = list(statements(file.text))
    try:
        parsed = cedarpy.policies_to_pst(file.text)
    except ValueError:
        yield from _syntax_problems(file, places)
        return
    lines = {f"policy{index}": line for index, (line, _) in enumerate(places)}
    if lines.keys() != parsed.static_policies.keys() | parsed.templates.keys():
        yield Problem(file.name, 0, "The policies of the file cannot be told apart.")
        return
    for name in parsed.templates:
        sentence = "Templates with ?principal or ?resource are not supported."
        yield Problem(file.name, lines[name], sentence)
    for name, tree in parsed.static_policies.items():
        yield from _read(tree, file=file.name, line=lines[name])
    yield from _type_problems(file, schema, lines)


def _read(tree: pst.Template, *, file: str, line: int) -> Iterator[Policy | Problem]:
    for sentence in sorted(set(lint(tree))):
        yield Problem(file, line, sentence)
    annotations = read_annotations(tree.annotations, is_permit=tree.effect == "permit")
    if isinstance(annotations, Annotations):
        reference = PolicyReference(annotations.policy_id, file, line)
        yield Policy(reference, replace(tree, id=annotations.policy_id), annotations)
    else:
        for sentence in annotations:
            yield Problem(file, line, sentence)


def _syntax_problems(file: PolicyFile, places: list[tuple[int, str]]) -> Iterator[Problem]:
    """Find the policies that do not parse; the parser itself gives no place."""
    is_found = False
    for line, text in places:
        try:
            cedarpy.policies_to_pst(text)
        except ValueError as error:
            is_found = True
            yield Problem(file.name, line, f"The policy does not parse: {_one_line(error)}.")
    if not is_found:
        yield Problem(file.name, 0, "The file does not parse.")


def _type_problems(
    file: PolicyFile, schema: cedarpy.Schema, lines: dict[str, int]
) -> Iterator[Problem]:
    checked = cedarpy.validate_policies(file.text, schema)
    for error in checked.errors:
        sentence = _one_line(error.error.removeprefix(f"for policy `{error.policy_id}`, "))
        yield Problem(file.name, lines.get(error.policy_id, 0), f"The schema says: {sentence}.")
    if not checked.validation_passed and not checked.errors:
        yield Problem(file.name, 0, "The policies do not fit the schema.")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
