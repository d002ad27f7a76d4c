"""Cases of tokens that the issuer signed and whose claims are wrong here (RFC 9068 4, RFC 8725 3)."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from broker.oauth import TYP_ACCESS_TOKEN, TYP_ID_JAG, TYP_JWT
from broker.verify_server.cases import Case, NotShown, Stage
from broker.verify_server.refused import Shot, advised, refused

_AGO: Final = 600
_AHEAD: Final = 300
_ELSEWHERE: Final = "https://elsewhere.example/mcp"
_AUDIENCE: Final = "Compare aud with the server's own URL, the whole text, and take no other."


def _changed(label: str, stage: Stage, **changes: Any) -> Shot:
    return label, stage.mint.token(changes)


def _wrong_audience(stage: Stage) -> Iterable[Shot]:
    yield _changed("another server", stage, aud=_ELSEWHERE)
    yield _changed("a list of another server", stage, aud=[_ELSEWHERE])
    yield _changed("the issuer", stage, aud=stage.issuer.url)


def _no_audience(stage: Stage) -> Iterable[Shot]:
    yield _changed("no aud", stage, aud=None)
    yield _changed("an empty aud", stage, aud="")
    yield _changed("an empty list", stage, aud=[])


def _two_audiences(stage: Stage) -> Iterable[Shot]:
    here = stage.told.resource
    yield _changed("this server first", stage, aud=[here, _ELSEWHERE])
    yield _changed("this server second", stage, aud=[_ELSEWHERE, here])


def _parent(stage: Stage) -> Iterable[Shot]:
    here = stage.told.resource
    parts = urlsplit(here)
    path = parts.path.rstrip("/")
    if not path:
        raise NotShown("the server is at the root of its host")
    origin = f"{parts.scheme}://{parts.netloc}"
    above = {origin, f"{origin}/", origin + path.rpartition("/")[0]} - {here}
    return [_changed(one, stage, aud=one) for one in sorted(above)]


def _child(stage: Stage) -> Iterable[Shot]:
    here = stage.told.resource.rstrip("/")
    yield _changed("a path below", stage, aud=f"{here}/below")
    yield _changed("a query", stage, aud=f"{here}?tenant=other")


def _look_alike(stage: Stage) -> Iterable[Shot]:
    here = stage.told.resource
    parts = urlsplit(here)
    yield _changed("more letters at the end", stage, aud=f"{here}x")
    yield _changed(
        "it as user of another host", stage, aud=f"https://{parts.netloc}@elsewhere.example"
    )
    yield _changed("it in the path of another host", stage, aud=f"{_ELSEWHERE}/{here}")


def _respelt(stage: Stage) -> Iterable[Shot]:
    here = stage.told.resource
    parts = urlsplit(here)
    upper = parts._replace(scheme=parts.scheme.upper(), netloc=parts.netloc.upper()).geturl()
    other = here[:-1] if here.endswith("/") else f"{here}/"
    for label, aud in (("another slash at the end", other), ("upper case", upper)):
        if aud != here:
            yield _changed(label, stage, aud=aud)


def _issued_ahead(stage: Stage) -> Iterable[Shot]:
    issued_at = int(stage.mint.clock()) + _AGO
    yield _changed("in ten minutes", stage, iat=issued_at, exp=issued_at + _AHEAD)


def _expired(stage: Stage) -> Iterable[Shot]:
    now = int(stage.mint.clock())
    yield _changed("ten minutes ago", stage, iat=now - 2 * _AGO, exp=now - _AGO)
    yield _changed("in 1970", stage, iat=0, exp=1)


def _no_expiry(stage: Stage) -> Iterable[Shot]:
    yield _changed("no exp", stage, exp=None)
    yield _changed("an exp that is text", stage, exp="never")
    yield _changed("an exp of digits in text", stage, exp=str(int(stage.mint.clock()) + _AHEAD))
    yield _changed("an exp that is true", stage, exp=True)


def _not_yet_valid(stage: Stage) -> Iterable[Shot]:
    begins = int(stage.mint.clock()) + _AHEAD
    yield _changed("in five minutes", stage, nbf=begins, exp=begins + _AHEAD)


def _wrong_issuer(stage: Stage) -> Iterable[Shot]:
    yield _changed("another issuer", stage, iss="https://elsewhere.example")
    yield _changed("the issuer and a path", stage, iss=f"{stage.issuer.url}/other")
    yield _changed("no iss", stage, iss=None)


def _issuer_of_its_own(stage: Stage) -> Iterable[Shot]:
    canary = stage.canary
    changes = {"iss": canary.place("issuer-of-its-own")}
    yield "a stranger", stage.mint.token(changes, header={"kid": canary.key.kid}, key=canary.key)


def _as(typ: str | None, stage: Stage, changes: Mapping[str, Any]) -> str:
    return stage.mint.token(changes, header={"typ": typ})


def _plain_jwt(stage: Stage) -> Iterable[Shot]:
    yield "typ JWT", _as(TYP_JWT, stage, {})
    yield "no typ", _as(None, stage, {})


def _id_token(stage: Stage) -> Iterable[Shot]:
    now = int(stage.mint.clock())
    told = {
        "auth_time": now,
        "nonce": "n-1",
        "azp": "broker-verify",
        "client_id": None,
        "jti": None,
    }
    yield "typ JWT", _as(TYP_JWT, stage, told)
    yield "no typ", _as(None, stage, told)


def _id_jag(stage: Stage) -> Iterable[Shot]:
    yield f"typ {TYP_ID_JAG}", _as(TYP_ID_JAG, stage, {})


def _other_types(stage: Stage) -> Iterable[Shot]:
    for typ in ("logout+jwt", "secevent+jwt", "dpop+jwt", "client-authentication+jwt"):
        yield f"typ {typ}", _as(typ, stage, {})


def _without(claim: str, sent: str, *, mend: str) -> Case:
    return refused(
        f"no-{claim.replace('_', '-')}",
        sent,
        lambda stage: [_changed(f"no {claim}", stage, **{claim: None})],
        mend=mend,
    )


def _duplicates(stage: Stage) -> Iterable[Shot]:
    claims = stage.mint.claims()
    for label, first, second in (
        ("another aud first", _ELSEWHERE, claims["aud"]),
        ("another aud second", claims["aud"], _ELSEWHERE),
    ):
        rest = json.dumps({name: value for name, value in claims.items() if name != "aud"})
        text = f'{{"aud": {json.dumps(first)}, "aud": {json.dumps(second)}, {rest[1:]}'
        yield label, stage.mint.signed(text, sign=stage.mint.key.sign)


_TYPE: Final = f"Take tokens whose typ is {TYP_ACCESS_TOKEN} and no others (RFC 9068 4)."

CLAIM_CASES: Final = (
    refused("wrong-audience", "a token for another server", _wrong_audience, mend=_AUDIENCE),
    refused("no-audience", "a token for nobody", _no_audience, mend=_AUDIENCE),
    refused(
        "two-audiences",
        "a token for this server and another",
        _two_audiences,
        mend="Take aud with one value only: the other server could use the token here.",
    ),
    refused("parent-audience", "a token for the path above", _parent, mend=_AUDIENCE),
    refused("child-audience", "a token for a path below", _child, mend=_AUDIENCE),
    refused(
        "look-alike-audience", "a token for a URL that looks alike", _look_alike, mend=_AUDIENCE
    ),
    advised(
        refused(
            "respelt-audience",
            "a token for the same URL in another spelling",
            _respelt,
            mend="Compare aud byte for byte: your issuer writes it in one way, and others read it otherwise.",
        )
    ),
    refused("expired", "a token that has expired", _expired, mend="Check exp, with little leeway."),
    refused("no-exp", "a token without expiry", _no_expiry, mend="Require exp to be a number."),
    refused(
        "not-yet-valid", "a token of the future", _not_yet_valid, mend="Check nbf where it is."
    ),
    advised(
        refused(
            "issued-ahead",
            "a token that says it is issued later",
            _issued_ahead,
            mend="Refuse a token whose iat lies ahead, with little leeway.",
        )
    ),
    refused(
        "wrong-issuer",
        "a token that names another issuer",
        _wrong_issuer,
        mend="Compare iss with the issuer that you configured, the whole text.",
    ),
    refused(
        "issuer-of-its-own",
        "a token whose issuer publishes its own keys",
        _issuer_of_its_own,
        mend="Ask for keys at the issuer that you configured, never at the one that a token names.",
    ),
    refused("plain-jwt", "a JWT that is not typed as access token", _plain_jwt, mend=_TYPE),
    refused("id-token", "an ID token", _id_token, mend=_TYPE),
    refused("id-jag", "an identity assertion (ID-JAG)", _id_jag, mend=_TYPE),
    refused("other-type", "tokens of other kinds", _other_types, mend=_TYPE),
    _without("sub", "a token without sub", mend="Require sub: it says for whom you act."),
    _without("client_id", "a token without client_id", mend="Require client_id (RFC 9068 2.2)."),
    _without("iat", "a token without iat", mend="Require iat (RFC 9068 2.2)."),
    _without("jti", "a token without jti", mend="Require jti: withdrawal and audit need it."),
    refused(
        "duplicate-members",
        "a token that names its audience twice",
        _duplicates,
        mend="Refuse JSON with duplicate members: two readers would read two tokens (RFC 7519 4).",
        is_malformed=True,
    ),
)
