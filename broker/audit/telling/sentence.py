"""One English sentence for every record: who asked for what, and got it, or was refused and why."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from broker.audit.record import KeyChangeFact, Record
from broker.audit.telling.reasons import reason_in_words
from broker.audit.telling.words import (
    Piece,
    Told,
    duration,
    listed,
    moment,
    named,
    pieces,
    together,
    value,
)
from broker.model import PartyKind, Relation
from broker.oauth import TOKEN_TYPE_ID_JAG

_MOST_KEYS: Final = 6
_PARTIES: Final[Mapping[str, str]] = {
    PartyKind.SUBJECT: "person",
    PartyKind.CLIENT: "client",
    PartyKind.MCP_SERVER: "resource",
}
LIMITS: Final[Mapping[str, str]] = {
    "configuration": "the settings",
    "resource": "the resource",
    "policy": "policy",
    "input": "what is left of a token that was presented",
}
"""What limits the life of a token, in words."""
_LOGINS: Final[Mapping[str, str]] = {"link": "a one-time link", "openid": "their login provider"}
_CAUSES: Final[Mapping[str, str]] = {
    "start": "since a process started",
    "rotation": "since the one before was full",
    "recovery": "after a write had failed",
    "stop": "since its process stopped",
}
_INITIATORS: Final[Mapping[str, str]] = {
    "command": "by command",
    "age": "since it was time for it",
    "upkeep": "to keep the keys in order",
}


def sentence(record: Record) -> str:
    """
    What a record says, for people, on one line.

    Nothing in the record can steer a terminal or be read as a part of the sentence, whatever it holds.
    Where the sentence goes into a page it is text, to be escaped as any other.
    """
    return "".join(piece.text for piece in told(record))


def told(record: Record) -> tuple[Piece, ...]:
    """The same in pieces, so that names can be drawn as links."""
    return pieces(_TELLERS[record.event](record))


# ---- who asks, for whom, and for what


def _asker(record: Record) -> Told:
    if record.client_id is None:
        yield from _unproved(record)
    elif _is_own_server(record):
        yield "MCP server "
        yield named("client", record.client_id)
        yield " ("
        yield named("mcp_server", record.mcp_server or "")
        yield ")"
    else:
        yield "Client "
        yield named("client", record.client_id)


def _is_own_server(record: Record) -> bool:
    """Whether whoever asks is the MCP server; what is explained may be the request of another."""
    is_its_request = record.event != "policy.explain"
    return is_its_request and record.relation == Relation.AUDIENCE and bool(record.mcp_server)


def _unproved(record: Record) -> Told:
    if record.unverified_client_id is None:
        yield "Somebody who did not say who they are"
    else:
        yield "Somebody who said to be client "
        yield named("client", record.unverified_client_id)
        yield ", and did not prove it,"


def _for_whom(record: Record) -> Told:
    """Whom the client acts for, and who called it, in commas."""
    if record.relation == Relation.SELF or record.subject is None:
        return
    if record.mcp_client and record.mcp_client != record.client_id:
        yield ", called by client "
        yield named("client", record.mcp_client)
        between = len(record.actors or ()) - 2
        if between > 0:
            yield f" through {between} other{'s' if between > 1 else ''}"
    yield ", for "
    yield from _subject(record)
    yield ","


def _subject(record: Record) -> Told:
    yield "client " if record.subject_kind == "client" else "person "
    yield named("person", record.subject)
    if record.subject_issuer:
        yield f" (known to {value(record.subject_issuer)})"


def _wanted(record: Record) -> Told:
    """What was asked for, as far as that was said."""
    asked = record.scopes_asked or ()
    if asked:
        yield f" asked for {listed(asked)}"
    elif record.resource or record.targets_asked:
        yield " asked for whatever scopes it may have"
    else:
        yield " asked for a token"
    yield from _place(record)


def _place(record: Record) -> Told:
    if record.authorization_server:
        yield f" at authorization server {value(record.authorization_server)}"
    if record.resource:
        yield " of "
        yield named("resource", record.resource)
    elif record.targets_asked:
        yield f" of {listed(record.targets_asked)}"


# ---- what came of it


def _issue(record: Record) -> Told:
    yield from _asker(record)
    yield from _for_whom(record)
    yield from _wanted(record)
    if record.relation == Relation.SELF:
        yield " for itself"
    elif record.relation == Relation.ASSERTED:
        yield " by an identity assertion"
    if record.decision == "permit":
        yield from _got(record)
    else:
        yield from _refusal(record)


def _got(record: Record) -> Told:
    is_assertion = record.issued_token_type == TOKEN_TYPE_ID_JAG
    yield " and was granted " + ("an identity assertion" if is_assertion else "a token")
    if record.jti:
        yield " ("
        yield named("token", record.jti)
        yield ")"
    granted, asked = record.scopes_granted or (), record.scopes_asked or ()
    is_less = any(scope not in granted for scope in asked)
    yield f" for {'no more than ' if is_less else ''}{listed(granted)}"
    if record.lifetime is not None:
        yield f" that lives {duration(record.lifetime)}"
        if record.lifetime_limit:
            limit = LIMITS.get(record.lifetime_limit) or value(record.lifetime_limit)
            yield f", limited by {limit}"
    if record.confirmation:
        yield ", bound to a key of its holder"
    if record.group_size:
        yield f", one of {record.group_size} issued together"
    yield "."


def _refusal(record: Record) -> Told:
    yield " and was refused: "
    yield from _reason(record)


def _reason(record: Record) -> Told:
    yield reason_clause(record)
    if record.policy_ids and record.reason in {"policy_forbidden", "step_up_required"}:
        yield " (by policy "
        yield from _policies(record.policy_ids)
        yield ")"
    yield "."


def _policies(policy_ids: list[str]) -> Told:
    for number, policy_id in enumerate(policy_ids[:_MOST_KEYS]):
        yield ", " if number else ""
        yield named("policy", policy_id)


def reason_clause(record: Record) -> str:
    """Why a request was refused, in words without a full stop, and the parameter at fault if one was."""
    words = "no reason is recorded"
    if record.reason:
        words = reason_in_words(record.reason)
        # Only a reason of ours is a clause; what is none is a value like any other.
        words = value(words) if words == record.reason else words
    return f"{words} (parameter {value(record.parameter)})" if record.parameter else words


def _presented(record: Record) -> Told:
    """The token that is asked about, as far as it is known to be one of ours."""
    if not record.inputs:
        yield "a token"
        return
    jti = record.inputs[0].jti
    yield "token " if jti else "a token without an id"
    if jti:
        yield named("token", jti)
    if record.subject:
        yield " of "
        yield named("person", record.subject)
    if record.resource:
        yield " for "
        yield named("resource", record.resource)


def _introspect(record: Record) -> Told:
    yield from _asker(record)
    yield " asked whether "
    yield from _presented(record)
    yield " counts"
    if record.decision == "permit":
        yield ", and was told that it does."
    elif record.error:
        yield from _refusal(record)
    else:
        yield ", and was told that it does not: "
        yield from _reason(record)


def _revoke(record: Record) -> Told:
    yield from _asker(record)
    if record.decision == "permit":
        yield " withdrew "
        yield from _presented(record)
        yield " and all that was derived from it."
    else:
        yield " asked to withdraw "
        yield from _presented(record)
        if record.error:
            yield from _refusal(record)
        else:
            yield ", which was none to withdraw: "
            yield from _reason(record)


def _withdraw(record: Record) -> Told:
    yield from _asker(record)
    yield " withdrew" if record.decision == "permit" else " asked to withdraw"
    yield " everything that was issued for "
    yield from _party(record)
    if record.issued_since:
        yield f" from {moment(record.issued_since)}"
    if record.issued_until is not None:
        yield f" until {moment(record.issued_until)}"
    if record.decision == "permit":
        yield "."
    else:
        yield from _refusal(record)


def _party(record: Record) -> Told:
    if not record.party:
        yield "nobody in particular"
        return
    kind = record.party_kind or ""
    known = _PARTIES.get(kind)
    yield f"{kind.replace('_', ' ')} " if kind in set(PartyKind) else ""
    yield named(known, record.party) if known else value(record.party)


def _watch(record: Record) -> Told:
    yield from _asker(record)
    if record.decision == "permit":
        yield " began to follow what is withdrawn."
    else:
        yield " asked to follow what is withdrawn"
        yield from _refusal(record)


def _explain(record: Record) -> Told:
    yield from _asker(record)
    yield " asked what would come of a request"
    yield from _place(record)
    if record.subject:
        yield " for "
        yield from _subject(record)
    if record.decision == "permit":
        yield f" and was told ({value(record.detail)})." if record.detail else " and was told."
    else:
        yield from _refusal(record)


# ---- who looks at the record


def _auditor(record: Record) -> Told:
    """An auditor with a session, or a client that reads the record."""
    if record.auditor is None:
        yield from _asker(record)
        return
    yield "Auditor "
    yield named("auditor", record.auditor)
    method = _LOGINS.get(record.auth_method or "")
    if method is not None:
        yield f", by {method},"


def _login(record: Record) -> Told:
    if record.auditor is None:
        yield "Somebody who did not say who they are"
    else:
        yield from _auditor(record)
    if record.decision == "permit":
        yield " logged in to the auditors' pages."
    else:
        yield " tried to log in to the auditors' pages"
        yield from _refusal(record)


def _logout(record: Record) -> Told:
    yield from _auditor(record)
    if record.decision == "permit":
        yield " logged out."
    else:
        yield " tried to log out"
        yield from _refusal(record)


def _read(record: Record) -> Told:
    yield from _auditor(record)
    yield " asked the audit record"
    people = record.people_asked or []
    if record.asked == "person" and people:
        yield " for the page of the person "
    else:
        yield f" for {value(record.asked)}" if record.asked else ""
        yield " about " if people else ""
    for number, person in enumerate(people[:_MOST_KEYS]):
        yield ", " if number else ""
        yield named("person", person)
    if record.decision == "deny":
        yield from _refusal(record)
    elif record.found is None:
        yield "."
    else:
        yield f" and was told {record.found} record{'' if record.found == 1 else 's'}."


# ---- the service itself, its keys and its chains


def _service(what: str) -> Callable[[Record], Told]:
    def tell(record: Record) -> Told:
        yield what
        if record.detail:
            yield f" ({value(record.detail)})"
        if record.policy_digest:
            yield f", with policy set {value(record.policy_digest[:12])} in force"
        yield "."

    return tell


def _keys(what: str) -> Callable[[Record], Told]:
    def tell(record: Record) -> Told:
        yield f"Operator {value(record.operator)}" if record.operator else "The broker"
        yield f" {what}"
        if record.kid:
            yield f" {value(record.kid)}"
        if record.initiator:
            yield f" {_INITIATORS.get(record.initiator) or value(record.initiator)}"
        yield from _changes(record.key_changes or [])
        if record.exposure is not None:
            yield f"; what it signed is dead by {moment(record.exposure.expired_at)}"
        yield "."

    return tell


def _changes(changes: list[KeyChangeFact]) -> Told:
    shown = [
        f"{value(one.kid)} ({value(one.algorithm)}) is {value(one.to_state)} from {moment(one.at)}"
        for one in changes[:_MOST_KEYS]
    ]
    if len(changes) > _MOST_KEYS:
        shown.append(f"{len(changes) - _MOST_KEYS} more")
    if shown:
        yield f": {together(shown)}"


def _key_failed(record: Record) -> Told:
    yield "What was announced of the keys"
    if record.about:
        yield " in "
        yield named("event", record.about)
    yield " did not come about"
    yield f" ({value(record.detail)})." if record.detail else "."


def _chain(what: str) -> Callable[[Record], Told]:
    def tell(record: Record) -> Told:
        yield f"Writer {value(record.writer)} {what}"
        if record.cause:
            yield f", {_CAUSES.get(record.cause) or value(record.cause)}"
        if record.torn_bytes:
            yield f"; {record.torn_bytes} bytes of an unfinished line before it do not count"
        if record.detail:
            yield f" ({value(record.detail)})"
        yield "."

    return tell


def _people(what: str) -> Callable[[Record], Told]:
    def tell(record: Record) -> Told:
        yield f"Operator {value(record.operator)}" if record.operator else "The broker"
        yield f" {what}"
        if record.about:
            yield f" {value(record.about)}"
        if record.detail:
            yield f" ({value(record.detail)})"
        yield "."

    return tell


_TELLERS: Final[Mapping[str, Callable[[Record], Told]]] = {
    "token.issue": _issue,
    "token.introspect": _introspect,
    "token.revoke": _revoke,
    "token.withdraw": _withdraw,
    "revocations.watch": _watch,
    "policy.explain": _explain,
    "audit.login": _login,
    "audit.logout": _logout,
    "audit.read": _read,
    "config.loaded": _service("New settings and policies came into force"),
    "config.rejected": _service("New settings or policies were refused and changed nothing"),
    "service.started": _service("The broker started"),
    "service.stopped": _service("The broker stopped"),
    "key.publish": _keys("published signing keys"),
    "key.rotate": _keys("set successors of the signing keys"),
    "key.revoke": _keys("took a signing key out of use"),
    "key.failed": _key_failed,
    "key.seen": _keys("saw its signing keys change"),
    "people.forget": _people("is about to forget the people of"),
    "people.failed": _people("could not forget the people of"),
    "chain.opened": _chain("began a segment of its chain"),
    "chain.closed": _chain("closed a segment of its chain"),
}


def events_told() -> Iterator[str]:
    """The events that have a sentence."""
    return iter(_TELLERS)
