"""Cases about what a server tells clients that have no good token yet (RFC 6750 3, RFC 9728)."""

from collections.abc import Mapping
from typing import Any, Final

from broker.client.resource import metadata_url, origin_of
from broker.verify_server.cases import Case, Failed, NotShown, Stage
from broker.verify_server.server import Answer

_METADATA: Final = "GET its metadata"
_FORBIDDEN_SCOPE: Final = "offline_access"


def _unauthorized(stage: Stage) -> Answer:
    answer = stage.server.ask()
    if answer.status != 401:
        raise Failed(f"{answer.status}")
    return answer


def _play_no_token(stage: Stage) -> str:
    if _unauthorized(stage).challenge is None:
        raise Failed("401 without a Bearer challenge")
    return "401 with a Bearer challenge"


def _play_points_to_metadata(stage: Stage) -> str:
    url = (_unauthorized(stage).challenge or {}).get("resource_metadata", "")
    if not url:
        raise Failed("no resource_metadata in the challenge")
    try:
        is_here = origin_of(url) == origin_of(stage.told.resource)
    except ValueError:
        is_here = False
    if not is_here:
        raise Failed("resource_metadata is not on the server's origin")
    if _document(stage, url).get("resource") != stage.told.resource:
        raise Failed("resource_metadata leads to the metadata of another resource")
    return "it does"


def _play_scope_asked_for(stage: Stage) -> str:
    if not (_unauthorized(stage).challenge or {}).get("scope"):
        raise Failed("it names none")
    return "it does"


def _play_invalid_token(stage: Stage) -> str:
    answer = stage.server.ask(stage.mint.token({"iat": 0, "exp": 1}))
    error = (answer.challenge or {}).get("error")
    if error != "invalid_token":
        raise Failed(f"{answer.status}, error {error or 'none'}")
    return "it is"


def _document(stage: Stage, url: str) -> Mapping[str, Any]:
    answer = stage.server.get(url)
    if answer.status != 200:
        raise Failed(f"{answer.status} for the metadata")
    document = answer.document()
    if document is None:
        raise Failed("the metadata is no JSON object")
    return document


def _metadata(stage: Stage) -> Mapping[str, Any]:
    return _document(stage, metadata_url(stage.told.resource))


def _metadata_if_any(stage: Stage) -> Mapping[str, Any]:
    try:
        return _metadata(stage)
    except Failed:
        raise NotShown("there is no metadata that could say so") from None


def _play_metadata(stage: Stage) -> str:
    _metadata(stage)
    return "200 with a JSON object"


def _play_resource(stage: Stage) -> str:
    if not _is_same(_metadata(stage).get("resource"), stage.told.resource):
        raise Failed("it is not")
    return "it is"


def _play_issuer(stage: Stage) -> str:
    listed = _metadata(stage).get("authorization_servers")
    if not isinstance(listed, list) or not any(_is_same(one, stage.issuer.url) for one in listed):
        raise Failed("it is not")
    return "it is"


def _play_no_offline_access(stage: Stage) -> str:
    scopes = _metadata_if_any(stage).get("scopes_supported", [])
    if not isinstance(scopes, list):
        raise Failed("scopes_supported is no list")
    if _FORBIDDEN_SCOPE in scopes:
        raise Failed("it is")
    return "it is not"


def _play_no_query(stage: Stage) -> str:
    methods = _metadata_if_any(stage).get("bearer_methods_supported", [])
    if not isinstance(methods, list) or "query" in methods:
        raise Failed("it is")
    return "it is not"


def _is_same(told: object, url: str) -> bool:
    """Whether it is the URL; of a URL without a path there are two spellings (RFC 3986 6.2.3)."""
    return told == url or (told == f"{url}/" and origin_of(url) == url)


CHALLENGE_CASES: Final = (
    Case(
        "no-token",
        "no token",
        "401 with a Bearer challenge",
        mend="Answer 401 with WWW-Authenticate: Bearer to every request without a token.",
        play=_play_no_token,
        needs_good_token=False,
    ),
    Case(
        "challenge-metadata",
        "no token",
        "the challenge leads to metadata",
        mend="Put resource_metadata into the challenge, with the URL of your metadata (RFC 9728 5.1).",
        play=_play_points_to_metadata,
        needs_good_token=False,
    ),
    Case(
        "challenge-scope",
        "no token",
        "the challenge names scopes",
        mend="Put scope into the challenge, so that clients ask for no more than they need.",
        play=_play_scope_asked_for,
        needs_good_token=False,
        is_advice=True,
    ),
    Case(
        "challenge-error",
        "a token that has expired",
        "the error is invalid_token",
        mend='Put error="invalid_token" into the challenge, so that clients get a new one.',
        play=_play_invalid_token,
        needs_good_token=False,
        is_advice=True,
    ),
    Case(
        "metadata",
        _METADATA,
        "200 with a JSON object",
        mend="Serve the metadata where RFC 9728 3.1 says: the well-known name, then the server's path.",
        play=_play_metadata,
        needs_good_token=False,
    ),
    Case(
        "metadata-resource",
        _METADATA,
        "resource is the server's URL",
        mend="Let resource be the URL that clients call, the whole text: they compare (RFC 9728 3.3).",
        play=_play_resource,
        needs_good_token=False,
    ),
    Case(
        "metadata-issuer",
        _METADATA,
        "the issuer is listed",
        mend="List the issuer whose tokens you take in authorization_servers.",
        play=_play_issuer,
        needs_good_token=False,
    ),
    Case(
        "metadata-offline-access",
        _METADATA,
        f"{_FORBIDDEN_SCOPE} is not listed",
        mend=f"Take {_FORBIDDEN_SCOPE} out of scopes_supported: it is the client's business.",
        play=_play_no_offline_access,
        needs_good_token=False,
    ),
    Case(
        "metadata-query",
        _METADATA,
        "query is not listed",
        mend="Take query out of bearer_methods_supported.",
        play=_play_no_query,
        needs_good_token=False,
    ),
)
