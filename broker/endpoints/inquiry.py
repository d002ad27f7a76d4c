"""What introspection and revocation share: who asks, and about which token of ours."""

from dataclasses import dataclass

from broker.client_auth import ClientAuthenticator
from broker.client_auth.basic import claimed_id
from broker.endpoints.limits import Limits
from broker.errors import InvalidClient, InvalidRequest, Reason
from broker.interfaces import AuditEntry, ReplayGuard
from broker.model import AuthenticatedClient, ClientCredential, InputToken, TokenInquiry
from broker.tokens.verifier import VerifiedToken


@dataclass(frozen=True, slots=True)
class Callers:
    """
    Admits those who ask for something else than a token.

    Their credential is spent last, as it is for a token, so that a refused request burns nothing.
    """

    authenticator: ClientAuthenticator
    replay: ReplayGuard
    limits: Limits

    def authenticate(self, credential: ClientCredential, entry: AuditEntry) -> AuthenticatedClient:
        """
        The caller.

        Raises as ``ClientAuthenticator.authenticate`` does, and ``RateLimited`` when it asks too often.
        """
        entry.note(unverified_client_id=claimed_id(credential))
        caller = self.authenticator.authenticate(credential)
        entry.note(client_id=caller.client.client_id, auth_method=caller.method)
        entry.admitted = self.limits.admit(caller)
        return caller

    def spend(self, caller: AuthenticatedClient) -> None:
        """Use the caller's assertion up; raises ``InvalidClient`` (``replay``) if it was before."""
        if caller.one_time_id is not None and self.replay.spend([caller.one_time_id]) is not None:
            raise InvalidClient(Reason.REPLAY)


def presented_token(inquiry: TokenInquiry) -> str:
    """The token asked about; raises ``InvalidRequest`` when there is none."""
    token = (inquiry.token or "").strip()
    if not token:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="token")
    return token


def note_token(entry: AuditEntry, token: VerifiedToken) -> None:
    """Record which token it is, once it is known to be one of ours."""
    entry.note(
        inputs=(InputToken("token", token.issuer, token.jti, token.expires_at),),
        subject=token.sub,
        resource=token.audience,
    )
