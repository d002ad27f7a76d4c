from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from broker.policy.cedar import CedarPolicyEngine
from tests.policy.queries import SHIPPED, LoadSet, WriteSet


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Write a policy folder with the shipped schema: a text for each file name, or one text alone."""

    def write(text: str = "", **files: str) -> Path:
        directory = tmp_path / "policies"
        (directory / "decisions").mkdir(parents=True, exist_ok=True)
        (directory / "broker.cedarschema").write_text((SHIPPED / "broker.cedarschema").read_text())
        if text:
            (directory / "test.cedar").write_text(text)
        for name, content in files.items():
            (directory / name).write_text(content)
        return directory

    return write


@pytest.fixture
def load_set(write_set: WriteSet) -> LoadSet:
    """An engine over policies that are given as text."""

    def load(text: str, *, decision_cache_size: int = 64) -> CedarPolicyEngine:
        return CedarPolicyEngine.load(write_set(text), decision_cache_size=decision_cache_size)

    return load


@pytest.fixture
def write_guarded(write_set: WriteSet) -> LoadSet:
    """An engine over policies that are given as text, behind the shipped guardrails."""

    def load(text: str) -> CedarPolicyEngine:
        guardrails = (SHIPPED / "guardrails.cedar").read_text()
        return CedarPolicyEngine.load(write_set(text, **{"guardrails.cedar": guardrails}))

    return load


@pytest.fixture(scope="session")
def shipped() -> CedarPolicyEngine:
    """The engine over the policies that are shipped."""
    return CedarPolicyEngine.load(SHIPPED)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each call to Cedar held; it is Cedar that answers them."""
    seen: list[int] = []
    answer = cedarpy.is_authorized_batch

    def counted(questions: Sequence[Any], *others: Any) -> Any:
        seen.append(len(questions))
        return answer(list(questions), *others)

    monkeypatch.setattr(cedarpy, "is_authorized_batch", counted)
    return seen
