"""The actor token: evidence that the authenticated client is the one that will act."""

from dataclasses import dataclass

from broker.errors import InvalidRequest, Reason, TokenRejected
from broker.grants._grant import GrantTools
from broker.model import AuthenticatedClient, InputToken, OneTimeId, TokenRequest
from broker.oauth import CLIENT_SUBJECT_PREFIX, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from broker.tokens.verifier import ACCESS_TOKEN

_SLOT_REASONS = {
    Reason.TOKEN_EXPIRED: Reason.ACTOR_EXPIRED,
    Reason.REVOKED: Reason.ACTOR_REVOKED,
    Reason.ANCESTOR_REVOKED: Reason.ACTOR_REVOKED,
    Reason.PRINCIPAL_DISABLED: Reason.ACTOR_REVOKED,
    Reason.AUD_MISMATCH: Reason.ACTOR_AUD_MISMATCH,
    Reason.AUD_NOT_SOLE_ISSUER: Reason.ACTOR_AUD_MISMATCH,
    Reason.WRONG_TOKEN_TYPE: Reason.ACTOR_WRONG_TYPE,
    Reason.CLIENT_ID_MISMATCH: Reason.ACTOR_NOT_CALLER,
}


@dataclass(frozen=True, slots=True)
class ProvedActor:
    """
    A verified actor token that names the authenticated client.

    ``is_separate`` says that it is another token than the one that authenticated the client.
    """

    as_input: InputToken
    one_time_ids: tuple[OneTimeId, ...] = ()
    is_separate: bool = True


def prove_actor(
    tools: GrantTools, request: TokenRequest, authenticated: AuthenticatedClient
) -> ProvedActor | None:
    """
    The actor token's proof, or ``None`` when the request has none.

    Nothing in RFC 8693 ties an actor token to its presenter, so only one that names the authenticated
    client counts: its own access token, or an assertion it signed. Raises ``InvalidRequest`` and
    ``TokenRejected``.
    """
    token, token_type = (request.actor_token or "").strip(), request.actor_token_type
    if not token and not token_type:
        return None
    if not token:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="actor_token")
    if not token_type:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="actor_token_type")
    try:
        if token_type == TOKEN_TYPE_ACCESS_TOKEN:
            return _by_access_token(tools, token, authenticated)
        if token_type == TOKEN_TYPE_JWT:
            return _by_assertion(tools, token, request, authenticated)
    except TokenRejected as rejected:
        reason = _SLOT_REASONS.get(rejected.reason, rejected.reason)
        raise TokenRejected(reason, rejected.detail) from rejected
    raise InvalidRequest(Reason.TYPE_UNSUPPORTED, parameter="actor_token_type")


def _by_access_token(
    tools: GrantTools, token: str, authenticated: AuthenticatedClient
) -> ProvedActor:
    client = authenticated.client
    verified = tools.tokens.verify(
        token, ACCESS_TOKEN, client=client, proved_key=authenticated.proved_key
    )
    if verified.act is not None:
        raise TokenRejected(Reason.ACTOR_DELEGATED)
    names_caller = verified.sub == CLIENT_SUBJECT_PREFIX + client.client_id
    if not verified.is_own or not names_caller or verified.client_id != client.client_id:
        raise TokenRejected(Reason.ACTOR_NOT_CALLER)
    addressee = tools.registry.resource(verified.audience)
    is_for_caller = addressee is not None and addressee.owner == client.client_id
    if verified.audience != tools.issuer and not is_for_caller:
        raise TokenRejected(Reason.AUD_MISMATCH)
    return ProvedActor(InputToken("actor", verified.issuer, verified.jti, verified.expires_at))


def _by_assertion(
    tools: GrantTools, token: str, request: TokenRequest, authenticated: AuthenticatedClient
) -> ProvedActor:
    client_id = authenticated.client.client_id
    verified = tools.assertions.verify(token, client_id=client_id)
    # One JWT may stand in both places; then it is spent once, as the client's credential.
    is_same = token == request.credential.client_assertion
    return ProvedActor(
        InputToken("actor", client_id, verified.one_time_id.jti, verified.expires_at),
        () if is_same else (verified.one_time_id,),
        is_separate=not is_same,
    )
