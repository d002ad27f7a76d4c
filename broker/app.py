"""The composition root: settings in, the parts of one process out."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from broker.assembly import Parts, TokenRules, assemble
from broker.bounded import MemoryStatus
from broker.config import Settings
from broker.endpoints import Endpoints
from broker.foundation import Foundation
from broker.in_force import Configuration
from broker.interfaces import AuditLog
from broker.metrics import Metrics, ObservedKeyStore, ObservedPolicyEngine
from broker.monitor import Check
from broker.orders import Order
from broker.people import open_naming
from broker.signing import open_key_store
from broker.tokens.minter import Lifetimes

# It has no dot, so no signature of it can ever pass for that of a JWS.
_CANARY: Final = b"delegation broker: is the signer there?"


class Process:
    """
    The parts of one worker process, made after the fork and closed before its end.

    ``configuration`` is what it serves until it is told otherwise. ``writer`` names the chain of its
    audit records.
    """

    def __init__(self, configuration: Configuration, *, writer: str, metrics: Metrics) -> None:
        settings = configuration.settings
        self._key_store = ObservedKeyStore(
            open_key_store(settings, worker=writer), metrics, settings.keys.store
        )
        self._foundation = Foundation(
            configuration, writer=writer, metrics=metrics, naming=open_naming(settings)
        )
        callers = self._foundation.caller_parts()
        self.endpoints: Endpoints = assemble(
            _rules(settings),
            Parts(
                registry=callers.registry,
                key_ring=callers.key_ring,
                client_documents=callers.client_documents,
                replay=callers.replay,
                audit=callers.audit,
                now=callers.now,
                most_chosen_secrets=callers.most_chosen_secrets,
                limits=callers.limits,
                key_store=self._key_store,
                policy=ObservedPolicyEngine(self._foundation.in_force, metrics),
                revocations=self._foundation.state,
            ),
        )
        self._foundation.begin()

    @property
    def audit(self) -> AuditLog:
        """The chain of its records."""
        return self._foundation.audit

    def checks(self) -> Sequence[Check]:
        """What must be well for this process to be ready."""
        keys = Check("keys", self._sign_canary, every=timedelta(seconds=2))
        return (*self._foundation.checks(), keys)

    def reload(self, order: Order) -> None:
        """Serve what the order says is in force; raises as ``Foundation.reload`` does."""
        self._foundation.reload(order)

    def key_ages(self) -> Mapping[str, float]:
        """For each issuer whose keys were fetched, how many seconds ago that was."""
        return self._foundation.key_ages()

    def memories(self) -> Mapping[str, MemoryStatus]:
        """How everything is doing that is remembered between requests, by name."""
        seen = self.endpoints.introspection.tokens.seen
        return {**self._foundation.memories(), **seen.memories()}

    def close(self) -> None:
        """Stop every thread and write what is still to be written."""
        self._foundation.close()
        self._key_store.close()

    def _sign_canary(self) -> None:
        for algorithm in self._foundation.in_force.current.settings.keys.algorithms:
            self._key_store.signing_key(algorithm).sign(_CANARY)


def _rules(settings: Settings) -> TokenRules:
    tokens = settings.tokens
    return TokenRules(
        issuer=settings.issuer,
        mcp_claim=tokens.mcp_claim,
        algorithm=settings.keys.algorithm,
        lifetimes=Lifetimes(tokens.lifetime, tokens.machine_lifetime, tokens.id_jag_lifetime),
        leeway=tokens.leeway,
        max_actors=tokens.max_actors,
        max_token_bytes=tokens.max_token_bytes,
        jwks_max_age=tokens.jwks_max_age,
        default_resource=settings.default_resource,
        pairwise_key=_pairwise_key(tokens.pairwise_key_file),
    )


def _pairwise_key(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes().strip()
