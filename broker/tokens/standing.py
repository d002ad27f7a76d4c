"""Whether a token still counts: nobody withdrew it, and everybody it depends on is still there."""

from dataclasses import dataclass

from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.interfaces import Registry, RevocationList
from broker.model import Client, JsonObject, Party, PartyKind, Pedigree, Resource, Subject
from broker.tokens.lineage import audiences_of, parties_of, read_lineage, statements_of


@dataclass(frozen=True, slots=True)
class Standing:
    """
    Asks about verified tokens what their signatures cannot tell.

    The list of revocations is asked once for each token. ``issuer`` is ours, and ``mcp_claim`` names
    the claim of our own statements.
    """

    issuer: str
    registry: Registry
    revocations: RevocationList
    mcp_claim: str

    def check_own(self, claims: JsonObject) -> None:
        """
        Refuse an access token of ours, whose signature and claims have been checked, that is dead.

        Switching a client, an issuer or an MCP server off ends every chain that passes through it, as
        withdrawing its tokens does. Raises ``TokenRejected``, or ``TemporarilyUnavailable`` where it
        cannot be known.
        """
        statements = statements_of(claims, self.mcp_claim)
        parties = parties_of(claims, statements, issuer=self.issuer)
        ancestors = read_lineage(statements)
        self._check_pedigree(Pedigree(claims["jti"], int(claims["iat"]), parties, ancestors))
        if "client_id" not in claims:
            raise TokenRejected(Reason.PRINCIPAL_DISABLED, "it was issued to nobody")
        # Whom the token is for, is judged by the place that it was presented in.
        addressees = {Party(PartyKind.MCP_SERVER, name) for name in audiences_of(claims)}
        for party in parties - addressees:
            self._check_present(party)

    def check_foreign(
        self, subject: Subject, issued_at: int, *, others: frozenset[Party] = frozenset()
    ) -> None:
        """
        Refuse another issuer's token, issued at that unix second, for a subject as minted here.

        ``others`` are the parties of ours that it names. Raises as ``check_own`` does. What is withdrawn for
        a party includes the tokens from which more of the same could be had.
        """
        parties = {Party(PartyKind.SUBJECT, subject.sub), Party(PartyKind.ISSUER, subject.issuer)}
        self._check_pedigree(Pedigree(None, issued_at, others | parties))
        self._check_subject(subject.sub)
        for party in others:
            if party.kind is PartyKind.CLIENT:
                self._check_present(party)

    def check_moment(self, moment: int) -> None:
        """
        Refuse to begin a chain while all that is issued at this unix second is withdrawn already.

        That is so after the store of what is withdrawn began anew. Raises ``TemporarilyUnavailable``, also
        where it cannot be known.
        """
        if self.revocations.reason_against(Pedigree(None, moment, frozenset())) is not None:
            detail = "what is issued now is withdrawn already"
            raise TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail=detail)

    def _check_present(self, party: Party) -> None:
        if party.kind is PartyKind.SUBJECT:
            self._check_subject(party.name)
        elif party.kind is PartyKind.CLIENT:
            _check(self.registry.client(party.name), "a client that it names")
        elif party.kind is PartyKind.MCP_SERVER:
            _check(self.registry.resource(party.name), "an MCP server that it came through")
        elif party.name != self.issuer:
            issuer = self.registry.issuer(party.name)
            if issuer is None or issuer.is_disabled:
                raise TokenRejected(Reason.ISSUER_DISABLED, "it first vouched for the subject")

    def _check_subject(self, sub: str) -> None:
        if self.registry.is_subject_disabled(sub):
            raise TokenRejected(Reason.PRINCIPAL_DISABLED, "the subject")

    def _check_pedigree(self, pedigree: Pedigree) -> None:
        reason = self.revocations.reason_against(pedigree)
        if reason is not None:
            raise TokenRejected(reason)


def _check(found: Client | Resource | None, detail: str) -> None:
    if found is None or found.is_disabled:
        raise TokenRejected(Reason.PRINCIPAL_DISABLED, detail)
