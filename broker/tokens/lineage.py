"""Where a token of ours comes from: the tokens before it, and everybody whose withdrawal ends it."""

from collections.abc import Iterator
from typing import Any, Final

from broker.errors import Reason, TokenRejected
from broker.model import JsonObject, Party, PartyKind, actors_of
from broker.tokens.claims import LONGEST_URI, read_text

MOST_ANCESTORS: Final = 64
# Each ancestor can add the resource that it was for and the client that it was issued to.
_MOST_NAMES: Final = 2 * MOST_ANCESTORS


def statements_of(claims: JsonObject, mcp_claim: str) -> JsonObject:
    """Our own statements in a token of ours; in anybody else's token the same claim says nothing."""
    value = claims.get(mcp_claim)
    return value if isinstance(value, dict) else {}


def read_lineage(statements: JsonObject) -> tuple[str, ...]:
    """
    The ids of the tokens that a token derives from, the first of them first.

    Raises ``TokenRejected`` (``claim_malformed``) for anything that we cannot have written.
    """
    if "lineage" not in statements:
        return ()
    return tuple(_read_names(statements["lineage"], "lineage", most=MOST_ANCESTORS))


def lineage_after(lineage: tuple[str, ...], jti: str) -> tuple[str, ...]:
    """
    The lineage of what derives from a token with this lineage and id.

    Raises ``TokenRejected`` (``chain_too_deep``) beyond 64 ancestors: none is ever left out.
    """
    if len(lineage) >= MOST_ANCESTORS:
        raise TokenRejected(Reason.CHAIN_TOO_DEEP, "it derives from too many tokens")
    return (*lineage, jti)


def parties_of(claims: JsonObject, statements: JsonObject, *, issuer: str) -> frozenset[Party]:
    """
    Everybody whose withdrawal ends an access token of ours, which ``issuer`` signed or is to sign.

    Whoever stands in a token stands in all that derive from it: in the same place, as another actor, or
    in what ``heritage_claim`` makes. Other issuers' clients are nobody here, whatever they are called.
    Raises ``TokenRejected`` (``claim_malformed``).
    """
    own_actors = (one["sub"] for one in actors_of(claims.get("act")) if one.get("iss") == issuer)
    named = [
        (PartyKind.SUBJECT, claims.get("sub")),
        (PartyKind.ISSUER, statements.get("subject_issuer")),
        (PartyKind.CLIENT, claims.get("client_id")),
        (PartyKind.CLIENT, None if "client_issuer" in statements else statements.get("client")),
        *((PartyKind.CLIENT, actor) for actor in own_actors),
        (PartyKind.MCP_SERVER, statements.get("server")),
        *((PartyKind.MCP_SERVER, audience) for audience in audiences_of(claims)),
    ]
    parties = (Party(kind, name) for kind, name in named if isinstance(name, str))
    return frozenset((*parties, *_inherited(statements)))


def heritage_claim(unnamed: frozenset[Party]) -> JsonObject:
    """
    The statement about those whom a token would not name otherwise, by their kinds; usually none.

    They are the servers before the last one, who exchanged without being named as an actor, and the issuer
    that vouched for a workload.
    """
    names: dict[str, list[str]] = {}
    for party in sorted(unnamed, key=lambda one: (one.kind, one.name)):
        names.setdefault(party.kind.value, []).append(party.name)
    return {"heritage": names} if names else {}


def _inherited(statements: JsonObject) -> Iterator[Party]:
    heritage = statements.get("heritage", {})
    if not isinstance(heritage, dict) or not set(PartyKind).issuperset(heritage):
        raise TokenRejected(Reason.CLAIM_MALFORMED, "heritage")
    for kind, names in heritage.items():
        for name in _read_names(names, "heritage", most=_MOST_NAMES):
            yield Party(PartyKind(kind), name)


def _read_names(value: Any, claim: str, *, most: int) -> Iterator[str]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise TokenRejected(Reason.CLAIM_MALFORMED, claim)
    for name in value:
        yield read_text({claim: name}, claim, longest=LONGEST_URI)


def audiences_of(claims: JsonObject) -> tuple[str, ...]:
    """Whom a token is for, in either form of the claim (RFC 7519 4.1.3)."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    return tuple(one for one in audiences if isinstance(one, str))
