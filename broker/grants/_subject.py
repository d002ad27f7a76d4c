"""The subject token: who it is about, and why this client is entitled to present it."""

from collections.abc import Mapping
from typing import Final

import msgspec

from broker.errors import InvalidRequest, Reason, TokenRejected
from broker.grants._grant import GrantTools
from broker.grants._names import foreign_subject
from broker.model import (
    AuthenticatedClient,
    Authentication,
    Client,
    InputToken,
    JsonObject,
    Party,
    PartyKind,
    Relation,
    Resource,
    Subject,
    TokenRequest,
    actors_of,
)
from broker.oauth import (
    CLIENT_SUBJECT_PREFIX,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from broker.tokens.lineage import lineage_after, parties_of, read_lineage, statements_of
from broker.tokens.verifier import ACCESS_TOKEN, FOREIGN_JWT, ID_TOKEN, Profile, VerifiedToken

_PROFILES: Final[Mapping[str, Profile]] = {
    TOKEN_TYPE_ACCESS_TOKEN: ACCESS_TOKEN,
    TOKEN_TYPE_JWT: FOREIGN_JWT,
    TOKEN_TYPE_ID_TOKEN: ID_TOKEN,
}


class _Named(msgspec.Struct, frozen=True):
    """
    Whom a token concerns of those on record here: each was looked up once.

    ``caller_id`` is what its issuer calls the caller. ``addressee`` is the resource that its audience names,
    and ``given_to`` the client that another issuer gave it to.
    """

    caller: Client
    caller_id: str
    addressee: Resource | None
    given_to: Client | None


class ProvedSubject(msgspec.Struct, frozen=True):
    """
    A verified subject token that the client may present, read as the facts a delegation needs.

    ``may_act_issuer`` is the namespace of a ``may_act`` that names none itself, and ``caller_id`` is the
    client's id in that namespace.
    """

    subject: Subject
    relation: Relation
    scopes: frozenset[str] | None
    audience: str
    act: JsonObject | None
    claims: JsonObject
    token_issuer: str
    caller_id: str
    mcp_client: str | None
    mcp_client_issuer: str | None
    mcp_server: str | None
    foreign_actors_from: str | None
    authentication: Authentication
    as_input: InputToken
    lineage: tuple[str, ...]
    heritage: frozenset[Party]


def prove_subject(
    tools: GrantTools, request: TokenRequest, authenticated: AuthenticatedClient
) -> ProvedSubject:
    """
    The subject of the request.

    Raises ``InvalidRequest`` for missing parameters and unsupported types, and ``TokenRejected`` for a
    token that is bad, or good but taken from somebody else (RFC 8693 2.1, 2.2.2).
    """
    client, token = authenticated.client, (request.subject_token or "").strip()
    if not token:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="subject_token")
    if not request.subject_token_type:
        raise InvalidRequest(Reason.PARAM_MISSING, parameter="subject_token_type")
    profile = _PROFILES.get(request.subject_token_type)
    if profile is None:
        raise InvalidRequest(Reason.TYPE_UNSUPPORTED, parameter="subject_token_type")
    try:
        verified = tools.tokens.verify(
            token, profile, client=client, proved_key=authenticated.proved_key
        )
    except TokenRejected as rejected:
        if rejected.reason is Reason.TOKEN_EXPIRED:
            raise TokenRejected(Reason.SUBJECT_EXPIRED) from rejected
        raise
    caller_id = id_of_caller(verified, client)
    named = _Named(
        client,
        caller_id,
        tools.registry.resource(verified.audience),
        _client_named(tools, verified),
    )
    relation = _relation(tools, verified, named, is_identity=profile is ID_TOKEN)
    is_own = verified.is_own
    # Our own statement in an own token; the same claim from anybody else says nothing here.
    own_object = statements_of(verified.claims, tools.mcp_claim) if is_own else {}
    act = _inherited_act(tools, verified)
    mcp_client, mcp_client_issuer = _mcp_client(verified, own_object, named, relation=relation)
    return ProvedSubject(
        subject=_subject(tools, verified, own_object, named, relation=relation),
        relation=relation,
        scopes=verified.scopes,
        audience=verified.audience,
        act=act,
        claims=verified.claims,
        token_issuer=verified.issuer,
        caller_id=caller_id,
        mcp_client=mcp_client,
        mcp_client_issuer=mcp_client_issuer,
        mcp_server=_mcp_server(verified, own_object, relation),
        foreign_actors_from=_foreign_actors_from(verified, own_object, act),
        authentication=verified.authentication,
        as_input=InputToken("subject", verified.issuer, verified.jti, verified.expires_at),
        lineage=_lineage(verified, own_object) if is_own else (),
        heritage=parties_of(verified.claims, own_object, issuer=tools.issuer)
        if is_own
        else frozenset(),
    )


def id_of_caller(verified: VerifiedToken, client: Client) -> str:
    """What the token's issuer calls the client that presents it."""
    if verified.is_own:
        return client.client_id
    return client.issuer_client_ids.get(verified.issuer, client.client_id)


def _relation(
    tools: GrantTools, verified: VerifiedToken, named: _Named, *, is_identity: bool
) -> Relation:
    """Signature and issuer are not enough: the token must have been given to this very client."""
    caller_id, addressee = named.caller_id, named.addressee
    if is_identity:
        authorized_party = verified.claims.get("azp", caller_id)
        if verified.audience != caller_id or authorized_party != caller_id:
            raise TokenRejected(Reason.SUBJECT_AUD_MISMATCH)
        return Relation.IDENTITY
    if addressee is not None and addressee.resource == verified.audience:
        return _relation_by_resource(addressee, verified, named.caller)
    if verified.is_own:
        raise TokenRejected(Reason.AUD_MISMATCH)
    # Client ids of another issuer mean something here only in a token made out to this broker.
    if verified.audience == tools.issuer and verified.client_id == caller_id:
        return Relation.ISSUED_TO
    raise TokenRejected(Reason.SUBJECT_NOT_FOR_BROKER)


def _relation_by_resource(addressee: Resource, verified: VerifiedToken, client: Client) -> Relation:
    if addressee.is_disabled:
        raise TokenRejected(Reason.SUBJECT_NOT_FOR_CALLER, "its resource is disabled")
    if addressee.owner == client.client_id:
        return Relation.AUDIENCE
    if verified.is_own and verified.client_id == client.client_id:
        return Relation.ISSUED_TO
    raise TokenRejected(Reason.SUBJECT_NOT_FOR_CALLER)


def _lineage(verified: VerifiedToken, own_object: JsonObject) -> tuple[str, ...]:
    """The own tokens that anything derived from this own one derives from."""
    if verified.jti is None:
        return ()
    return lineage_after(read_lineage(own_object), verified.jti)


def _subject(
    tools: GrantTools,
    verified: VerifiedToken,
    own_object: JsonObject,
    named: _Named,
    *,
    relation: Relation,
) -> Subject:
    trusted = verified.trusted_issuer
    if trusted is None:
        origin = own_object.get("subject_issuer", tools.issuer)
        _check_origin(tools, origin, named.caller)
        kind = "client" if verified.sub.startswith(CLIENT_SUBJECT_PREFIX) else "user"
        return Subject(verified.sub, origin, kind, own_object.get("tenant"))
    subject = foreign_subject(verified, trusted)
    given_to = named.caller if relation is Relation.IDENTITY else named.given_to
    others = _named_here(verified, named.addressee, given_to)
    tools.tokens.standing.check_foreign(subject, verified.issued_at, others=others)
    return subject


def _client_named(tools: GrantTools, verified: VerifiedToken) -> Client | None:
    """The client of ours that another issuer's access token was given to, as that issuer calls it."""
    if verified.is_own or verified.client_id is None:
        return None
    return tools.registry.client_at(verified.issuer, verified.client_id)


def _named_here(
    verified: VerifiedToken, addressee: Resource | None, given_to: Client | None
) -> frozenset[Party]:
    """The client and the MCP server of ours that another issuer's token names, if it does."""
    named = set()
    if given_to is not None:
        named.add(Party(PartyKind.CLIENT, given_to.client_id))
    if addressee is not None:
        named.add(Party(PartyKind.MCP_SERVER, verified.audience))
    return frozenset(named)


def _check_origin(tools: GrantTools, origin: str, client: Client) -> None:
    """What a client may not do with an issuer's own tokens, it may not do with what derives from them."""
    if origin != tools.issuer and client.issuers is not None and origin not in client.issuers:
        raise TokenRejected(Reason.ISSUER_NOT_FOR_CLIENT, "the issuer that first vouched for it")


def _inherited_act(tools: GrantTools, verified: VerifiedToken) -> JsonObject | None:
    trusted = verified.trusted_issuer
    if trusted is None or verified.act is None:
        return verified.act
    if trusted.foreign_actors == "drop":
        return None
    if trusted.foreign_actors == "refuse":
        raise TokenRejected(Reason.CHAIN_MALFORMED, "its issuer may not assert actors")
    if any(actor.get("iss") == tools.issuer for actor in actors_of(verified.act)):
        # Nobody else speaks for our actors: one could be made up to pass for the caller.
        raise TokenRejected(Reason.CHAIN_MALFORMED, "its issuer asserts actors of ours")
    return verified.act


def _foreign_actors_from(
    verified: VerifiedToken, own_object: JsonObject, act: JsonObject | None
) -> str | None:
    """Actors that another issuer asserted are marked as such for good."""
    if verified.is_own:
        return own_object.get("foreign_actors_from")
    return verified.issuer if act is not None else None


def _mcp_client(
    verified: VerifiedToken, own_object: JsonObject, named: _Named, *, relation: Relation
) -> tuple[str | None, str | None]:
    """
    The MCP client, and whose name for it that is where it is not ours.

    Another issuer's client ids are its own: one of them may be equal to an id of ours by chance.
    """
    if "client" in own_object:
        return str(own_object["client"]), own_object.get("client_issuer")
    if relation is not Relation.AUDIENCE:
        return named.caller.client_id, None
    if verified.is_own or verified.client_id is None:
        return verified.client_id, None
    known = named.given_to
    return (verified.client_id, verified.issuer) if known is None else (known.client_id, None)


def _mcp_server(verified: VerifiedToken, own_object: JsonObject, relation: Relation) -> str | None:
    if relation is Relation.AUDIENCE:
        return verified.audience
    server = own_object.get("server")
    return str(server) if server is not None else None
