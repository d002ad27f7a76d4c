"""The Cedar policies of the world: the shipped schema, and what the cast may do."""

import shutil
import tempfile
from pathlib import Path

from broker.interfaces import PolicyEngine
from broker.policy.cedar import CedarPolicyEngine

_HERE = Path(__file__).parent


def load_world_policy(*, disabled: frozenset[str] = frozenset()) -> PolicyEngine:
    """The engine over the world's policies with the shipped guardrails, less those ``disabled``."""
    shipped = _HERE.parent / "policies"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        shutil.copy(shipped / "broker.cedarschema", directory)
        shutil.copy(shipped / "guardrails.cedar", directory)
        shutil.copy(_HERE / "world_policies" / "world.cedar", directory)
        return CedarPolicyEngine.load(directory, disabled=disabled)
