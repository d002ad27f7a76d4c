"""Verification for the receiving side: an access token of the broker becomes a delegation, or a refusal."""

import asyncio
from collections.abc import Collection
from concurrent.futures import Future, wait

from broker.client._incoming import Incoming
from broker.client._key_source import KeySchedule
from broker.client._proofs import Proof
from broker.client._rules import RevocationView, Rules
from broker.client.delegation import Actor, Delegation, Login, Person

__all__ = [
    "Actor",
    "Delegation",
    "Incoming",
    "KeySchedule",
    "Login",
    "Person",
    "Proof",
    "RevocationView",
    "SyncTokenVerifier",
    "TokenVerifier",
]


class TokenVerifier(Rules):
    """
    Verifies access tokens by the broker's published keys, in a running event loop.

    One is enough for a program. It waits for the network only where its keys are missing or old.
    """

    async def verify(
        self, token: str, *, proof: Proof | None = None, scopes: Collection[str] | None = None
    ) -> Delegation:
        """
        What the token says, when it is good here; ``scopes`` take the place of the required ones.

        A token that is bound to a key needs ``proof``. Raises ``NotServed``: ``InvalidToken``,
        ``InvalidProof``, ``InsufficientScope``, or ``Unverifiable`` while nobody can tell.
        """
        with self._as_refusals():
            unverified = self._read(token)
            flight = self._flight(unverified)
            if flight is not None:
                await _landing(flight, within=self.schedule.attempt)
            delegation = self._judge(token, unverified, proof)
        self._check_scopes(delegation, scopes)
        return delegation

    async def verify_request(
        self, incoming: Incoming, *, scopes: Collection[str] | None = None
    ) -> Delegation:
        """The same for a request and whatever token it has; without one it raises ``NoToken``."""
        token, proof = self._presented(incoming)
        return await self.verify(token, proof=proof, scopes=scopes)


class SyncTokenVerifier(Rules):
    """The same for code that blocks, from any number of threads."""

    def verify(
        self, token: str, *, proof: Proof | None = None, scopes: Collection[str] | None = None
    ) -> Delegation:
        """What the token says, when it is good here; raises ``NotServed``."""
        with self._as_refusals():
            unverified = self._read(token)
            flight = self._flight(unverified)
            if flight is not None:
                wait([flight], timeout=self.schedule.attempt)
            delegation = self._judge(token, unverified, proof)
        self._check_scopes(delegation, scopes)
        return delegation

    def verify_request(
        self, incoming: Incoming, *, scopes: Collection[str] | None = None
    ) -> Delegation:
        """The same for a request and whatever token it has; without one it raises ``NoToken``."""
        token, proof = self._presented(incoming)
        return self.verify(token, proof=proof, scopes=scopes)


async def _landing(flight: "Future[None]", *, within: float) -> None:
    landing = asyncio.wrap_future(flight)
    try:
        await asyncio.wait([landing], timeout=within)
    finally:
        # Nobody waits any more; the loop may be gone by the time that the flight lands.
        landing.cancel()
