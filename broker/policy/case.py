"""One scope of a query with everything told, as data that can be changed to try what if."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Self

import cedarpy
import msgspec

from broker.model import PolicyQuery, Scope
from broker.policy.entities import context_of, entities_of, json_text, question
from broker.policy.evaluation import Answer, ask
from broker.policy.phrases import Path
from broker.policy.policy_set import EVERYTHING

PARENTS = "in"
"""The last step of a path to the groups that an entity is in."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A fact put in place of another; ``None`` takes it away."""

    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class Case:
    """The entities and the context of one question. They are never changed in place."""

    query: PolicyQuery
    client: dict[str, Any]
    scope: dict[str, Any]
    subject: dict[str, Any]
    context: dict[str, Any]

    @classmethod
    def of(cls, query: PolicyQuery, scope: Scope) -> Self:
        """The case of one scope of the query."""
        single = msgspec.structs.replace(query, scopes=(scope,))
        facts = EVERYTHING.facts(single)
        client, entity, subject = entities_of(facts)
        return cls(single, client, entity, subject, context_of(facts))

    def read(self, path: Path) -> Any:
        """The fact at a path, or ``None`` where there is none."""
        record, name = self.place(path)
        return record.get(name)

    def edited(self, edits: Iterable[Edit]) -> Self:
        """A copy in which these facts are otherwise."""
        copy = replace(
            self,
            client=deepcopy(self.client),
            scope=deepcopy(self.scope),
            subject=deepcopy(self.subject),
            context=deepcopy(self.context),
        )
        for edit in edits:
            record, name = copy.place(edit.path)
            if edit.value is None:
                record.pop(name, None)
            else:
                record[name] = edit.value
        return copy

    def ask(self, policies: cedarpy.PolicySet, *, schema: cedarpy.Schema | None = None) -> Answer:
        """What these policies say in this case."""
        facts = EVERYTHING.facts(self.query)
        asked = question(
            facts,
            facts.scopes[0],
            action=facts.action,
            context=json_text(self.context),
        )
        entities = json_text([self.client, self.scope, self.subject])
        return ask(policies, [asked], entities=entities, schema=schema)[0]

    def place(self, path: Path) -> tuple[dict[str, Any], str]:
        """The record that holds the last step of a path."""
        match path:
            case ("principal" | "resource" as name, step):
                entity = self.client if name == "principal" else self.scope
                return (entity, "parents") if step == PARENTS else (entity["attrs"], step)
            case ("context", "subject", step):
                return self.subject["attrs"], step
            case ("context", "auth", step):
                return self.context["auth"], step
            case ("context", step):
                return self.context, step
            case _:
                return {}, ""
