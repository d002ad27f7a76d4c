"""Issuing an identity assertion: for whom it is, and what client and user are called there (ID-JAG 4.3)."""

from broker.errors import InvalidRequest, InvalidTarget, Reason, TokenRejected, UnauthorizedClient
from broker.grants._grant import GrantTools
from broker.grants._subject import ProvedSubject
from broker.model import (
    Client,
    IdJag,
    JsonObject,
    Relation,
    ResourceAuthorizationServer,
    SubjectForm,
    TokenRequest,
)
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from broker.tokens.claims import LONGEST_TEXT

_NO_IDENTITIES = frozenset({TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT})


def check_identity(request: TokenRequest) -> None:
    """
    Only an identity can be asserted: an ID token, and no actor beside it (ID-JAG 4.3).

    Raises ``InvalidRequest``, or ``TokenRejected`` for a token of another kind.
    """
    for name in ("actor_token", "actor_token_type"):
        if name in request.present:
            raise InvalidRequest(Reason.PARAM_NOT_ALLOWED, parameter=name)
    if request.subject_token_type in _NO_IDENTITIES:
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE)


def name_assertion(
    tools: GrantTools, request: TokenRequest, client: Client, *, proved: ProvedSubject
) -> IdJag:
    """
    The assertion that the request asks for.

    Raises ``InvalidTarget`` unless exactly one registered authorization server is the audience,
    ``UnauthorizedClient`` when the client has no id there, and ``TokenRejected`` when the user has none.
    """
    if proved.relation is not Relation.IDENTITY:
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
    server = _server(tools, request)
    client_id = server.client_ids.get(client.client_id)
    if client_id is None:
        raise UnauthorizedClient(Reason.CLIENT_MAPPING_MISSING)
    email = _email(proved.claims) if server.has_email else None
    return IdJag(server, client_id, _sub(tools, server, proved.subject.sub), email)


def _server(tools: GrantTools, request: TokenRequest) -> ResourceAuthorizationServer:
    audiences = set(request.audiences)
    server = tools.registry.authorization_server(min(audiences)) if len(audiences) == 1 else None
    if server is None or server.is_disabled or server.issuer == tools.issuer:
        raise InvalidTarget(Reason.JAG_AUDIENCE, parameter="audience")
    return server


def _sub(tools: GrantTools, server: ResourceAuthorizationServer, sub: str) -> str:
    """The user's name at that server: never the one that the requesting client sees (ID-JAG 5)."""
    if server.subject_form is SubjectForm.SAME:
        return sub
    if server.subject_form is SubjectForm.PAIRWISE and tools.pseudonyms is not None:
        return tools.pseudonyms.of(sub, at=server.issuer)
    named = server.subjects.get(sub)
    if named is None:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED)
    return named


def _email(claims: JsonObject) -> str | None:
    """The address that the identity provider states, unless it says that it is not verified."""
    email = claims.get("email")
    is_usable = isinstance(email, str) and 0 < len(email) <= LONGEST_TEXT and email.isprintable()
    return email if is_usable and claims.get("email_verified") is not False else None
