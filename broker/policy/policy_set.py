"""A policy set: read from its folder, checked, parsed once, and ready to be asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

import cedarpy

from broker.model import Action, PolicyQuery
from broker.policy.entities import entities_of, json_text, questions
from broker.policy.evaluation import Answer, ask
from broker.policy.files import PolicyFile, PolicyFiles, read_files
from broker.policy.policies import MAX_POLICIES, Policy, read_policies
from broker.policy.problems import PolicyLoadError, Problem
from broker.policy.samples import sample_queries
from broker.policy.sight import everything
from broker.policy.slices import Slice, Slices

EVERYTHING = everything()


@dataclass(frozen=True, slots=True)
class PolicySet:
    """
    The policies of one folder.

    ``whole`` holds all of them; ``slices`` the few that could concern one client. ``digest`` is the
    SHA-256 in hex of what is decided by.
    """

    whole: Slice
    slices: Slices
    schema: cedarpy.Schema
    tables: tuple[PolicyFile, ...]
    digest: str

    def answers_in_full(self, query: PolicyQuery, *, action: Action) -> list[Answer]:
        """
        Ask all policies, tell them everything, and have the schema check what they are told.

        It is slow and needs none of the shortcuts, so the shortcuts are measured against it.
        """
        facts = EVERYTHING.facts(query)
        entities = json_text(entities_of(facts))
        asked = questions(facts, action=action)
        return ask(self.whole.handle, asked, entities=entities, schema=self.schema)

    def switched_off(self, disabled: frozenset[str]) -> "PolicySet":
        """
        The set less the permits that an operator switched off.

        Raises ``PolicyLoadError`` for a name that is none, or that of a forbid.
        """
        rest = self.without(disabled)
        for name in sorted(disabled):
            policy = self.whole.policies[name]
            if not policy.is_permit:
                sentence = (
                    f"{name} is a forbid: a switch takes rights away, and this would give some."
                )
                place = policy.reference
                raise PolicyLoadError([Problem(place.file, place.line, sentence)])
        return rest

    def without(self, disabled: frozenset[str]) -> "PolicySet":
        """The set less some policies, under a digest of its own. Raises ``PolicyLoadError``."""
        if not disabled:
            return self
        unknown = sorted(disabled - self.whole.policies.keys())
        if unknown:
            near = get_close_matches(unknown[0], self.whole.policies, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            sentence = f"The policy to disable, {unknown[0]}, does not exist.{hint}"
            raise PolicyLoadError([Problem(".", 0, sentence)])
        kept = [one for name, one in self.whole.policies.items() if name not in disabled]
        digest = sha256("\0".join([self.digest, *sorted(disabled)]).encode()).hexdigest()
        return PolicySet(Slice.of(kept), Slices(kept), self.schema, self.tables, digest)


def read_policy_set(directory: Path) -> PolicySet:
    """
    Read and check a policy folder; its decision tables are read but not run.

    Raises ``PolicyLoadError`` with everything that is wrong.
    """
    return policy_set_of(read_files(directory))


def policy_set_of(files: PolicyFiles) -> PolicySet:
    """Check a policy set that was read; raises ``PolicyLoadError`` with everything that is wrong."""
    schema = _schema(files.schema)
    read = [one for file in files.policies for one in read_policies(file, schema)]
    policies = [one for one in read if isinstance(one, Policy)]
    problems = [one for one in read if isinstance(one, Problem)]
    problems += _set_problems(policies)
    if problems:
        raise PolicyLoadError(problems)
    return _assemble(policies, schema=schema, files=files)


def _schema(file: PolicyFile) -> cedarpy.Schema:
    """Parse the schema and try whether it admits what the broker sends."""
    try:
        schema = cedarpy.Schema.from_str(file.text)
    except ValueError as error:
        sentence = f"The schema does not parse: {' '.join(str(error).split())[:300]}."
        raise PolicyLoadError([Problem(file.name, 0, sentence)]) from error
    refusal = next(_refusals(schema), None)
    if refusal is not None:
        sentence = f"The schema does not admit what the broker sends: {refusal}."
        raise PolicyLoadError([Problem(file.name, 0, sentence)])
    return schema


def _refusals(schema: cedarpy.Schema) -> Iterator[str]:
    nothing = cedarpy.PolicySet.from_str("")
    for query in sample_queries():
        facts = EVERYTHING.facts(query)
        entities = json_text(entities_of(facts))
        try:
            cedarpy.Entities.from_json_str(entities, schema)
        except ValueError as error:
            yield " ".join(str(error).split())[-300:]
        for action in Action:
            asked = questions(facts, action=action)
            for answer in ask(nothing, asked, entities=entities, schema=schema):
                yield from answer.errors


def _set_problems(policies: list[Policy]) -> Iterator[Problem]:
    if len(policies) > MAX_POLICIES:
        yield Problem(".", 0, f"There are more than {MAX_POLICIES} policies.")
    first: dict[str, Policy] = {}
    for policy in policies:
        here, there = policy.reference, first.setdefault(policy.policy_id, policy).reference
        if here is not there:
            sentence = f"The @id {here.policy_id} is taken by {there.file}:{there.line}."
            yield Problem(here.file, here.line, sentence)


def _assemble(
    policies: Iterable[Policy], *, schema: cedarpy.Schema, files: PolicyFiles
) -> PolicySet:
    kept = list(policies)
    return PolicySet(Slice.of(kept), Slices(kept), schema, files.tables, files.digest)
