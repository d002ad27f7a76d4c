"""Withdrawing for a whole party: what operators do when somebody's tokens are in wrong hands."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.endpoints.inquiry import Callers
from broker.errors import InvalidRequest, InvalidTarget, Reason, UnauthorizedClient
from broker.interfaces import AuditEntry, AuditLog, Now, Registry, RevocationList
from broker.model import Party, PartyKind, RequestContext, Withdrawal, WithdrawalRequest
from broker.tokens.resource_uri import normalise_resource

LONGEST_INPUT_LIFETIME: Final = timedelta(days=31)
"""No issuer can be registered whose tokens live longer, and none of ours do."""

_LONGEST_NAME: Final = 2048


@dataclass(frozen=True, slots=True)
class WithdrawalEndpoint:
    """
    Withdraws everything that was issued for a party since a moment, and what was derived from it.

    Callers must be registered for it. A withdrawal reaches ``leeway`` into the future, and so covers
    a token that is being signed meanwhile; what is issued after that counts again.
    """

    callers: Callers
    registry: Registry
    revocations: RevocationList
    audit: AuditLog
    now: Now
    leeway: timedelta

    def withdraw(
        self, context: RequestContext, read: Callable[[], WithdrawalRequest]
    ) -> Withdrawal:
        """
        What was withdrawn, once it counts in no process any more.

        Raises ``OAuthError`` when the caller may not, or did not say what, and
        ``TemporarilyUnavailable`` when it may count still.
        """
        with self.audit.entry("token.withdraw", context) as entry:
            asked = read()
            _note_asked(entry, asked)
            caller = self.callers.authenticate(asked.credential, entry)
            if not caller.client.is_administrator:
                raise UnauthorizedClient(Reason.PERMISSION_MISSING)
            withdrawal = self._withdrawal(asked, entry)
            self.callers.spend(caller)
            self.revocations.withdraw(withdrawal)
        return withdrawal

    def _withdrawal(self, asked: WithdrawalRequest, entry: AuditEntry) -> Withdrawal:
        party = self._party(asked)
        issued_until = self.now() + int(self.leeway.total_seconds())
        entry.note(party=party.name, issued_until=issued_until)
        if not 0 <= asked.issued_since <= issued_until:
            # A moment to come would withdraw nothing, and look as if it had.
            raise InvalidRequest(Reason.PARAM_MALFORMED, parameter="issued_since")
        lifetime = int((LONGEST_INPUT_LIFETIME + self.leeway).total_seconds())
        return Withdrawal(party, asked.issued_since, issued_until, issued_until + lifetime)

    def _party(self, asked: WithdrawalRequest) -> Party:
        if asked.kind is None:
            raise InvalidRequest(Reason.PARAM_MISSING, parameter="party")
        if not asked.name:
            raise InvalidRequest(Reason.PARAM_MISSING, parameter="name")
        if len(asked.name) > _LONGEST_NAME:
            raise InvalidRequest(Reason.PARAM_TOO_LARGE, parameter="name")
        if asked.kind is PartyKind.MCP_SERVER:
            return Party(asked.kind, self._resource(asked.name))
        return Party(asked.kind, asked.name)

    def _resource(self, name: str) -> str:
        """The resource as tokens name it; it may be gone from the registry, but not from them."""
        known = self.registry.resource(name)
        if known is not None:
            return known.resource
        try:
            return normalise_resource(name)
        except InvalidTarget:
            raise InvalidRequest(Reason.PARAM_MALFORMED, parameter="name") from None


def _note_asked(entry: AuditEntry, asked: WithdrawalRequest) -> None:
    """Record what was asked, before anybody has proved to be allowed to ask."""
    entry.note(
        party_kind=None if asked.kind is None else asked.kind.value,
        party=asked.name,
        issued_since=asked.issued_since,
    )
