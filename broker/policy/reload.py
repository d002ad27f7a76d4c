"""A policy engine whose set can be replaced while it decides."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from broker.model import Decision, PolicyQuery, ScopeExplanation
from broker.policy.cedar import DECISION_CACHE_SIZE, CedarPolicyEngine
from broker.policy.problems import PolicyLoadError, Problem

_RELOAD_PATIENCE = 30.0


class ReloadablePolicyEngine:
    """
    Decides by the last good policy set of a folder.

    The first set is read at once: without one there is no engine, and ``PolicyLoadError`` is raised.
    Each decision is made by one whole set; what an older set decided is forgotten with it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        decision_cache_size: int = DECISION_CACHE_SIZE,
        disabled: frozenset[str] = frozenset(),
    ) -> None:
        self._directory = directory
        self._decision_cache_size = decision_cache_size
        self._disabled = disabled
        self._reloading = Lock()
        self._last_error: PolicyLoadError | None = None
        self._engine = self._load()

    @property
    def digest(self) -> str:
        """The SHA-256 of the set in force, in hex."""
        return self._engine.digest

    @property
    def last_error(self) -> PolicyLoadError | None:
        """Why the last reload was refused; ``None`` while the set in force is the one on disk."""
        return self._last_error

    def decide(self, query: PolicyQuery) -> Decision:
        return self._engine.decide(query)

    def permits_any(self, query: PolicyQuery) -> bool:
        return self._engine.permits_any(query)

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        return self._engine.explain(query)

    def reload(self) -> None:
        """
        Put the set that is now on disk in force, whole and at once.

        Raises ``PolicyLoadError`` when it is not good; the set in force then stays so.
        """
        if not self._reloading.acquire(timeout=_RELOAD_PATIENCE):
            raise PolicyLoadError([Problem(".", 0, "Another reload has not ended.")])
        try:
            engine = self._load()
            # An unchanged set keeps its engine, and with it what has been decided already.
            if engine.digest != self._engine.digest:
                self._engine = engine
            self._last_error = None
        except PolicyLoadError as error:
            self._last_error = error
            raise
        finally:
            self._reloading.release()

    def _load(self) -> CedarPolicyEngine:
        try:
            return CedarPolicyEngine.load(
                self._directory,
                decision_cache_size=self._decision_cache_size,
                disabled=self._disabled,
            )
        except PolicyLoadError:
            raise
        except Exception as error:
            sentence = f"The policy folder cannot be loaded: {type(error).__name__}."
            raise PolicyLoadError([Problem(".", 0, sentence)]) from error
