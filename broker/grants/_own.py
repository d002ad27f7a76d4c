"""A client that acts for itself: it authenticated, and that is all the proof there is."""

from broker.errors import Reason, UnauthorizedClient
from broker.grants._grant import GrantTools
from broker.model import (
    Action,
    AuthenticatedClient,
    Delegation,
    Relation,
    Subject,
)
from broker.oauth import CLIENT_SUBJECT_PREFIX


def act_for_itself(tools: GrantTools, authenticated: AuthenticatedClient) -> Delegation:
    """
    The delegation of a client that is the subject of its token.

    Its ``sub`` lies in a namespace that no user's can be in (RFC 9700 4.15). Raises ``UnauthorizedClient``
    when the operator has disabled that subject, and ``TemporarilyUnavailable`` while no token could count:
    there is no subject token here that would be refused for it.
    """
    client = authenticated.client
    asserted = authenticated.one_time_id if authenticated.is_by_assertion else None
    sub = CLIENT_SUBJECT_PREFIX + client.client_id
    if tools.registry.is_subject_disabled(sub):
        raise UnauthorizedClient(Reason.PRINCIPAL_DISABLED, detail="the subject")
    tools.tokens.standing.check_moment(tools.tokens.now())
    return Delegation(
        subject=Subject(sub, tools.issuer, "client", client.tenant),
        relation=Relation.SELF,
        scopes=None,
        not_after=None,
        mcp_client=client.client_id,
        one_time_ids=() if asserted is None else (asserted,),
        action=Action.ISSUE,
    )
