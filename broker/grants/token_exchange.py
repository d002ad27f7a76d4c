"""Token exchange (RFC 8693): a subject token, and who will act with what it allows."""

from dataclasses import dataclass
from typing import ClassVar

from broker.errors import InvalidDpopProof, InvalidRequest, OAuthError, Reason, TokenRejected
from broker.grants._actor import prove_actor
from broker.grants._chain import CallingActor, check_may_act, check_no_actors, continue_chain
from broker.grants._grant import GrantTools
from broker.grants._id_jag import check_identity, name_assertion
from broker.grants._names import check_tenants
from broker.grants._subject import prove_subject
from broker.model import (
    Action,
    AuthenticatedClient,
    Client,
    Delegation,
    OneTimeId,
    TokenRequest,
)
from broker.oauth import GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_JAG


@dataclass(frozen=True, slots=True)
class TokenExchange:
    """
    Exchanges a token for one that is narrower and meant for another resource.

    Delegation is the rule: the authenticated client becomes the outermost actor, around the chain
    that the subject token brings. An identity can also be exchanged for an assertion of it to another
    authorization server (ID-JAG).
    """

    grant_type: ClassVar[str] = GRANT_TOKEN_EXCHANGE
    parameters: ClassVar[frozenset[str]] = frozenset(
        {
            "subject_token",
            "subject_token_type",
            "actor_token",
            "actor_token_type",
            "resource",
            "audience",
            "scope",
            "requested_token_type",
        }
    )
    refusal: ClassVar[type[OAuthError]] = InvalidRequest

    tools: GrantTools

    def prove(self, request: TokenRequest, authenticated: AuthenticatedClient) -> Delegation:
        """Who the subject token is about, that this client may present it, and who acts."""
        try:
            if request.requested_token_type == TOKEN_TYPE_ID_JAG:
                return self._prove_identity(request, authenticated)
            if request.requested_token_type in (None, TOKEN_TYPE_ACCESS_TOKEN):
                return self._prove_delegation(request, authenticated)
        except TokenRejected as rejected:
            if rejected.reason is not Reason.POP_MISMATCH:
                raise
            # The token is good; it is the proof that does not go with it.
            raise InvalidDpopProof(Reason.POP_MISMATCH) from rejected
        raise InvalidRequest(Reason.REQUESTED_TYPE, parameter="requested_token_type")

    def _prove_delegation(
        self, request: TokenRequest, authenticated: AuthenticatedClient
    ) -> Delegation:
        client = authenticated.client
        proved = prove_subject(self.tools, request, authenticated)
        actor_token = prove_actor(self.tools, request, authenticated)
        actor, inherited = continue_chain(self._caller(client), proved)
        inputs = [proved.as_input]
        one_time_ids: list[OneTimeId] = []
        if actor_token is not None:
            inputs.append(actor_token.as_input)
            one_time_ids.extend(actor_token.one_time_ids)
        check_tenants(proved.subject, client)
        return Delegation(
            subject=proved.subject,
            relation=proved.relation,
            scopes=proved.scopes,
            not_after=min([one.expires_at for one in inputs]),
            actor=actor,
            inherited_act=inherited,
            subject_audience=proved.audience,
            mcp_client=proved.mcp_client,
            mcp_client_issuer=proved.mcp_client_issuer,
            mcp_server=proved.mcp_server,
            foreign_actors_from=proved.foreign_actors_from,
            authentication=proved.authentication,
            inputs=tuple(inputs),
            one_time_ids=tuple(one_time_ids),
            lineage=proved.lineage,
            heritage=proved.heritage,
            has_actor_token=actor_token is not None and actor_token.is_separate,
            is_delegation_required=actor_token is not None or inherited is not None,
        )

    def _prove_identity(
        self, request: TokenRequest, authenticated: AuthenticatedClient
    ) -> Delegation:
        """Whose identity is to be asserted, and to which authorization server (ID-JAG 4.3)."""
        check_identity(request)
        client = authenticated.client
        proved = prove_subject(self.tools, request, authenticated)
        check_no_actors(proved.act)
        check_may_act(
            self._caller(client),
            proved.claims,
            issuer=proved.token_issuer,
            caller_id=proved.caller_id,
        )
        check_tenants(proved.subject, client)
        return Delegation(
            subject=proved.subject,
            relation=proved.relation,
            scopes=None,
            not_after=proved.as_input.expires_at,
            mcp_client=client.client_id,
            authentication=proved.authentication,
            inputs=(proved.as_input,),
            action=Action.ISSUE_ID_JAG,
            id_jag=name_assertion(self.tools, request, client, proved=proved),
        )

    def _caller(self, client: Client) -> CallingActor:
        return CallingActor(self.tools.issuer, client, self.tools.max_actors)
