"""The chain of actors: what is inherited, who is added, and when that is refused (RFC 8693 4.1, 4.4)."""

import msgspec

from broker.errors import Reason, TokenRejected
from broker.grants._subject import ProvedSubject
from broker.model import Client, JsonObject, actors_of
from broker.oauth import CLIENT_SUBJECT_PREFIX


class CallingActor(msgspec.Struct, frozen=True):
    """The authenticated client as an actor, and how many actors a chain may have."""

    issuer: str
    client: Client
    max_actors: int

    @property
    def as_claim(self) -> JsonObject:
        """The object that ``act`` will hold for it."""
        return {
            "iss": self.issuer,
            "sub": self.client.client_id,
            "sub_profile": self.client.profile,
        }

    def is_named_by(self, actor: JsonObject) -> bool:
        """Whether an actor object means this client: both issuer and subject, never one alone."""
        return actor.get("iss") == self.issuer and actor.get("sub") == self.client.client_id


def continue_chain(
    caller: CallingActor, proved: ProvedSubject
) -> tuple[JsonObject | None, JsonObject | None]:
    """
    The actor to add, if any, and the chain it is put around, unchanged.

    Nobody is added when the caller is the outermost actor already, or is itself the subject: equal
    parties are no delegation. Raises ``TokenRejected`` for a chain that would loop or grow too long;
    it is never cut.
    """
    check_may_act(caller, proved.claims, issuer=proved.token_issuer, caller_id=proved.caller_id)
    inherited = proved.act
    is_named = [caller.is_named_by(actor) for actor in actors_of(inherited)]
    is_own_subject = proved.subject.sub == CLIENT_SUBJECT_PREFIX + caller.client.client_id
    is_outermost = is_named[:1] == [True]
    is_added = not is_outermost and not (is_own_subject and not is_named)
    if True in is_named[1:]:
        raise TokenRejected(Reason.CHAIN_LOOP)
    if len(is_named) + is_added > caller.max_actors:
        raise TokenRejected(Reason.CHAIN_TOO_DEEP)
    return (caller.as_claim if is_added else None), inherited


def check_no_actors(act: JsonObject | None) -> None:
    """An identity assertion has no actors (ID-JAG 9.7): what it would say of them is not understood."""
    if act is not None:
        raise TokenRejected(Reason.CHAIN_MALFORMED, "an identity has no actors")


def check_may_act(caller: CallingActor, claims: JsonObject, *, issuer: str, caller_id: str) -> None:
    """
    Where a token says who may act, every member must name the caller (RFC 8693 4.4).

    ``issuer`` is the token's, to which ``caller_id`` names the caller. A malformed ``may_act`` names
    nobody; it does not count as absent. Raises ``TokenRejected``.
    """
    if "may_act" not in claims:
        return
    may_act = claims["may_act"]
    if not isinstance(may_act, dict) or not {"sub", "client_id"} & may_act.keys():
        raise TokenRejected(Reason.MAY_ACT_DENIED)
    namespace = may_act.get("iss", issuer)
    caller_ids = {caller.issuer: caller.client.client_id, issuer: caller_id}
    named = caller_ids.get(namespace) if isinstance(namespace, str) else None
    expected = {"iss": namespace, "sub": named, "client_id": named}
    if named is None or any(
        name not in expected or value != expected[name] for name, value in may_act.items()
    ):
        raise TokenRejected(Reason.MAY_ACT_DENIED)
