"""Cases of good tokens that are used where, how or when they must not be."""

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from broker.verify_server.cases import Case, Failed, NotShown, Stage
from broker.verify_server.refused import Shot, check_refused, refused
from broker.verify_server.server import Answer, Presentation

_LONGEST_LEEWAY: Final = 65
_SHORT_LIFE: Final = 10
# Or there is no such session, or no such method.
_REFUSALS: Final = frozenset({401, 403, 404, 405, 501})
_SESSION: Final = "Mcp-Session-Id"
_THUMBPRINT: Final = (
    base64.urlsafe_b64encode(hashlib.sha256(b"a key").digest()).decode().rstrip("=")
)


def _bound(stage: Stage) -> Iterable[Shot]:
    yield "DPoP", stage.mint.token({"cnf": {"jkt": _THUMBPRINT}})
    yield "mutual TLS", stage.mint.token({"cnf": {"x5t#S256": _THUMBPRINT}})
    yield "a key by its name", stage.mint.token({"cnf": {"kid": "a-key"}})
    yield "a key itself", stage.mint.token({"cnf": {"jwk": stage.canary.key.public_jwk}})
    yield "nothing that is known", stage.mint.token({"cnf": {}})


def _good(stage: Stage) -> Iterable[Shot]:
    yield "a good token", stage.mint.token()


def _chain(actors: int) -> dict[str, Any]:
    """A chain of so many actors (RFC 8693 4.1)."""
    act: dict[str, Any] = {"sub": "actor-1"}
    for number in range(2, actors + 1):
        act = {"sub": f"actor-{number}", "act": act}
    return {"act": act}


def _longest(stage: Stage) -> int:
    if stage.told.longest_chain is None:
        raise NotShown("say --longest-chain: how many actors your server takes")
    return stage.told.longest_chain


def _play_longest_chain(stage: Stage) -> str:
    longest = _longest(stage)
    answer = stage.server.ask(stage.mint.token(_chain(longest) if longest else {}))
    if not answer.is_success:
        raise Failed(f"{answer.status} for {longest} actors")
    return f"{answer.status} for {longest} actors"


def _too_long(stage: Stage) -> Iterable[Shot]:
    longest = _longest(stage)
    yield f"{longest + 1} actors", stage.mint.token(_chain(longest + 1))


def _with_less_scope(stage: Stage) -> Answer:
    if not stage.told.scopes:
        raise NotShown("say --scope: what a good token must have")
    answer = stage.server.ask(stage.mint.token({"scope": "broker-verify:nothing"}))
    if answer.is_success:
        raise Failed(f"accepted with {answer.status}")
    return answer


def _play_insufficient_scope(stage: Stage) -> str:
    answer = _with_less_scope(stage)
    challenge = answer.challenge or {}
    error = challenge.get("error")
    if answer.status != 403 or error != "insufficient_scope":
        raise Failed(f"{answer.status}, error {error or 'none'}")
    if not challenge.get("resource_metadata"):
        raise Failed("403 insufficient_scope without resource_metadata")
    return "so it was"


def _play_scope_named(stage: Stage) -> str:
    answer = _with_less_scope(stage)
    named = set((answer.challenge or {}).get("scope", "").split())
    if answer.status != 403 or not named:
        raise Failed("it names none")
    if not named <= set(stage.told.scopes):
        raise Failed("it names others than the good token had")
    return f"it names {' '.join(sorted(named))}"


def _play_withdrawn(stage: Stage) -> str:
    if not stage.told.introspects:
        raise NotShown("say --revoked-with-introspection if your server asks the issuer (RFC 7662)")
    if stage.issuer.withdrawn is None:
        raise NotShown("only the pretend issuer can withdraw a token")
    token = stage.mint.token()
    before = stage.server.ask(token)
    if not before.is_success:
        raise Failed(f"{before.status} before it was withdrawn")
    stage.issuer.withdrawn.add(token)
    after = stage.server.ask(token)
    check_refused(after, "withdrawn a moment ago")
    return f"{before.status}, then {after.status}"


def _play_two_tokens(stage: Stage) -> str:
    good, bad = stage.mint.token(), stage.mint.token({"aud": "https://elsewhere.example"})
    statuses = set()
    for label, first, second in (("good, then bad", good, bad), ("bad, then good", bad, good)):
        answer = stage.server.ask(first, Presentation(second=second))
        check_refused(answer, label, also=frozenset({400}))
        statuses.add(str(answer.status))
    return ", ".join(sorted(statuses))


def _session(stage: Stage) -> Mapping[str, str]:
    """The headers of a session of its own."""
    if not stage.server.is_mcp:
        raise NotShown("it is for MCP servers")
    _, session = stage.server.begin_session(stage.mint.token())
    return session


def _play_other_methods(stage: Stage) -> str:
    session, statuses = _session(stage), []
    for method in ("GET", "DELETE"):
        answer = stage.server.ask_in(session, method=method)
        if answer.status not in _REFUSALS - {403}:
            raise Failed(f"{answer.status} ({method} without a token)")
        statuses.append(str(answer.status))
    return ", ".join(statuses)


def _play_session_of_another(stage: Stage) -> str:
    session = _session(stage)
    if _SESSION not in session:
        raise NotShown("it keeps no sessions")
    token = stage.mint.token({"sub": "somebody-else"})
    for method in ("POST", "GET", "DELETE"):
        answer = stage.server.ask_in(session, token, method=method)
        if answer.status not in _REFUSALS:
            raise Failed(f"{answer.status} ({method} with a good token of somebody else)")
    return "it is refused"


def _play_outlived(stage: Stage) -> str:
    if not stage.told.is_patient:
        raise NotShown("say --patient: it takes a minute and a half")
    now = int(stage.mint.clock())
    token = stage.mint.token({"exp": now + _SHORT_LIFE})
    before = stage.server.ask(token)
    if not before.is_success:
        raise Failed(f"{before.status} before it expired")
    while stage.mint.clock() < now + _SHORT_LIFE + _LONGEST_LEEWAY:
        time.sleep(1)
    after = stage.server.ask(token)
    check_refused(after, "a minute after it expired")
    return f"{before.status}, then {after.status}"


def _play_not_told(stage: Stage) -> str:
    for token in (
        stage.mint.token({"exp": 1, "iat": 0}),
        stage.mint.token(key=stage.canary.key),
        stage.mint.token({"aud": "https://elsewhere.example"}),
        stage.mint.token().replace(".", ".."),
    ):
        stage.server.ask(token)
    if stage.server.told_tokens:
        raise Failed(f"{stage.server.told_tokens} answers had a part of the token")
    return "none has"


USE_CASES: Final = (
    refused(
        "bound-as-bearer",
        "a token that is bound to a key, without proof",
        _bound,
        mend="Refuse a token with cnf unless its key was proved (RFC 9449 7.1, RFC 8705 3).",
    ),
    refused(
        "token-in-query",
        "a good token in the query",
        _good,
        mend="Take tokens from the Authorization header alone.",
        presentation=Presentation(is_in_query=True),
        is_malformed=True,
    ),
    Case(
        "two-tokens",
        "two Authorization headers, a good one and a bad one",
        "401 or 400",
        mend="Refuse a request with two Authorization headers: the next that reads it takes the other one.",
        play=_play_two_tokens,
        is_advice=True,
    ),
    Case(
        "other-methods",
        "GET and DELETE without a token",
        "401, or that there is no such method",
        mend="Guard every method of the endpoint: the stream of an MCP session is a GET.",
        play=_play_other_methods,
        needs_good_token=False,
    ),
    Case(
        "session-of-another",
        "a good token of somebody else, in a session that is open",
        "404, 401 or 403",
        mend="Keep a session to the one who opened it; its id is no credential.",
        play=_play_session_of_another,
    ),
    Case(
        "outlived",
        "a token that was taken before it expired",
        "401",
        mend="Remember a verified token no longer than it lives.",
        play=_play_outlived,
    ),
    refused(
        "other-scheme",
        "a good token under the scheme Token",
        _good,
        mend="Take tokens under the scheme Bearer alone.",
        presentation=Presentation(scheme="Token"),
        is_malformed=True,
    ),
    Case(
        "longest-chain",
        "a token with as many actors as are allowed",
        "accepted",
        mend="Take chains of as many actors as you said.",
        play=_play_longest_chain,
    ),
    refused(
        "chain-too-long",
        "a token with one actor more",
        _too_long,
        mend="Count the actors in act, and refuse a longer chain; never cut it.",
    ),
    Case(
        "insufficient-scope",
        "a token without the scopes",
        "403 insufficient_scope with resource_metadata",
        mend="Answer 403 with that challenge, so that clients ask for more (RFC 6750 3.1).",
        play=_play_insufficient_scope,
    ),
    Case(
        "insufficient-scope-named",
        "a token without the scopes",
        "the challenge names the scopes",
        mend="Put scope into the challenge: all that the operation needs.",
        play=_play_scope_named,
        is_advice=True,
    ),
    Case(
        "withdrawn",
        "a token that was accepted and then withdrawn",
        "401",
        mend="Introspect every token, and keep no answer longer than withdrawal may take.",
        play=_play_withdrawn,
    ),
    Case(
        "token-not-told",
        "four bad tokens",
        "no answer has part of a token",
        mend="Say what is wrong in words of your own, and never print what came.",
        play=_play_not_told,
        needs_good_token=False,
    ),
)
