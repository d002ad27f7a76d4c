"""Login at an OpenID provider: authorization code, PKCE, nonce, and an ID token that is verified strictly."""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.fetch import FetchReason, FetchRefused, Sender, read_url
from broker.interfaces import KeyRing, Now
from broker.jws import read_token
from broker.model import JsonObject, KeySource
from broker.strict_json import StrictJsonError, loads_strict
from broker.tokens.claims import read_sole_audience, read_text, read_times
from broker.web.review.sessions import Auditor

_MEDIA_TYPES: Final = frozenset({"application/json"})
_LARGEST_METADATA: Final = 256 * 1024
_LARGEST_ANSWER: Final = 64 * 1024
_METADATA_SECONDS: Final = 600.0
_COOL_DOWN_SECONDS: Final = 5.0
_LONGEST_LIFETIME: Final = 86_400
_LEEWAY: Final = 30
_LONGEST_CODE: Final = 4096
_LONGEST_SECRET: Final = 1024
_MOST_VALUES: Final = 1024
_TYPS: Final = frozenset({"jwt", ""})


class NotAnAuditor(TokenRejected):
    """Somebody proved who they are, and no rule lets them in; ``name`` is what they are called by."""

    def __init__(self, name: str) -> None:
        super().__init__(Reason.AUDITOR_UNKNOWN)
        self.name = name


@dataclass(frozen=True, slots=True)
class AuditorRules:
    """
    Which people of a provider may read the record: those in ``subjects``, and those whose claim has a value.

    ``claim`` holds a text or a list of texts, one of which must be among ``values``. Whoever meets none is
    refused, and so is everybody where there are none.
    """

    subjects: frozenset[str] = frozenset()
    claim: str = ""
    values: frozenset[str] = frozenset()

    def permit(self, claims: Mapping[str, Any]) -> bool:
        """Whether the rules let in whom these verified claims are about."""
        if claims.get("sub") in self.subjects:
            return True
        told = claims.get(self.claim) if self.claim else None
        told = [told] if isinstance(told, str) else told
        if not isinstance(told, list) or len(told) > _MOST_VALUES:
            return False
        return any(isinstance(one, str) and one in self.values for one in told)


@dataclass(frozen=True, slots=True)
class OpenIdTerms:
    """
    Which provider is believed about auditors, and as whose client the broker asks it.

    ``hosts`` are the hosts besides the issuer's own at which its endpoints may be. ``name_claim`` is what an
    auditor is called by in records. Without a ``secret_file`` the client is a public one.
    """

    issuer: str
    client_id: str
    rules: AuditorRules
    secret_file: Path | None = None
    algorithms: frozenset[str] = frozenset({"ES256", "RS256"})
    scopes: tuple[str, ...] = ("openid",)
    hosts: frozenset[str] = frozenset()
    name_claim: str = "sub"


@dataclass(frozen=True, slots=True)
class Begun:
    """A login on its way: where the browser is sent, and what its answer is held against."""

    url: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Metadata:
    authorization_endpoint: str
    token_endpoint: str
    tells_issuer: bool
    takes_basic: bool


class OpenIdProvider:
    """
    Sends browsers to a provider, and learns from its answer who sits before one.

    ``redirect_uri`` must be registered there letter for letter. What is fetched blocks, so call it in a
    thread. ``now`` is unix seconds.
    """

    def __init__(
        self,
        terms: OpenIdTerms,
        *,
        redirect_uri: str,
        sender: Sender,
        key_ring: KeyRing,
        now: Now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._redirect_uri = redirect_uri
        self._sender = sender
        self._key_ring = key_ring
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: tuple[_Metadata, float] | None = None
        self._not_before = 0.0

    @property
    def issuer(self) -> str:
        """The issuer that is believed."""
        return self._terms.issuer

    def begin(self) -> Begun:
        """Begin a login. Raises ``TemporarilyUnavailable`` (``login_unavailable``)."""
        metadata = self._metadata()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._terms.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._terms.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        url = metadata.authorization_endpoint + joint + urlencode(query)
        return Begun(url, state, nonce, verifier)

    def finish(self, begun: Begun, answer: Mapping[str, str]) -> Auditor:
        """
        Who logged in, from the parameters that the browser came back with.

        Raises ``NotAnAuditor`` for somebody whom no rule lets in, ``TokenRejected`` for other faults, and
        ``TemporarilyUnavailable`` when the provider cannot be asked.
        """
        metadata = self._metadata()
        self._check_answer(metadata, begun, answer)
        claims = self._claims(self._id_token(metadata, answer["code"], begun), begun)
        name = read_text(claims, self._terms.name_claim)
        if not self._terms.rules.permit(claims):
            raise NotAnAuditor(name)
        return Auditor(name, "openid")

    def _check_answer(self, metadata: _Metadata, begun: Begun, answer: Mapping[str, str]) -> None:
        """Refuse what another provider, another login, or nobody answered (RFC 9207 2.4, RFC 6749 4.1.2)."""
        if not compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise TokenRejected(Reason.LOGIN_UNKNOWN, "the state is another one")
        issuer = answer.get("iss")
        if issuer is None and metadata.tells_issuer:
            raise TokenRejected(Reason.LOGIN_REFUSED, "the answer does not tell its issuer")
        if issuer is not None and issuer != self._terms.issuer:
            raise TokenRejected(Reason.LOGIN_REFUSED, "the answer is of another issuer")
        if "error" in answer:
            raise TokenRejected(Reason.LOGIN_REFUSED, "the provider answered with an error")
        if not 0 < len(answer.get("code", "")) <= _LONGEST_CODE:
            raise TokenRejected(Reason.LOGIN_REFUSED, "the answer has no code")

    def _id_token(self, metadata: _Metadata, code: str, begun: Begun) -> str:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": begun.verifier,
        }
        body, authorization = self._authenticated(metadata, fields)
        try:
            answer = self._sender.post(
                metadata.token_endpoint,
                body,
                content_type="application/x-www-form-urlencoded",
                max_bytes=_LARGEST_ANSWER,
                answer_type="application/json",
                authorization=authorization,
            )
        except FetchRefused as refused:
            if refused.reason is FetchReason.STATUS and refused.detail.startswith("4"):
                raise TokenRejected(Reason.LOGIN_REFUSED, "the code was not accepted") from None
            raise _unavailable(refused.reason.value) from None
        told = _object(answer)
        id_token = told.get("id_token")
        if not isinstance(id_token, str):
            raise TokenRejected(Reason.LOGIN_REFUSED, "the provider issued no ID token")
        return id_token

    def _authenticated(self, metadata: _Metadata, fields: dict[str, str]) -> tuple[bytes, str]:
        """
        The form with proof of the client in it or in the header (RFC 6749 2.3.1).

        A public client has no more than its name.
        """
        client_id, secret = self._terms.client_id, self._secret()
        if secret is None:
            return urlencode({**fields, "client_id": client_id}).encode(), ""
        if not metadata.takes_basic:
            proof = {"client_id": client_id, "client_secret": secret}
            return urlencode(fields | proof).encode(), ""
        pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
        return urlencode(fields).encode(), "Basic " + base64.b64encode(pair.encode()).decode()

    def _secret(self) -> str | None:
        if self._terms.secret_file is None:
            return None
        try:
            with self._terms.secret_file.open("rb") as file:
                return file.read(_LONGEST_SECRET).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise _unavailable("the client's secret cannot be read") from None

    def _claims(self, id_token: str, begun: Begun) -> JsonObject:
        """The claims of the ID token, verified (OpenID Connect Core 3.1.3.7)."""
        unverified = read_token(id_token)
        header, claims = unverified.header, unverified.unverified_claims
        if header.unverified_typ not in _TYPS:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        if claims.get("iss") != self._terms.issuer:
            raise TokenRejected(Reason.ISS_UNKNOWN)
        if header.unverified_algorithm not in self._terms.algorithms:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        source = KeySource(discovery=self._terms.issuer)
        key = self._key_ring.key(source, header.unverified_kid, header.unverified_algorithm)
        if not key.verify(unverified.signing_input, unverified.signature):
            raise TokenRejected(Reason.SIG_INVALID)
        if read_sole_audience(claims) != self._terms.client_id:
            raise TokenRejected(Reason.AUD_MISMATCH)
        if claims.get("azp", self._terms.client_id) != self._terms.client_id:
            raise TokenRejected(Reason.AUD_MISMATCH, "azp is another client")
        read_times(claims).check(now=self._now(), leeway=_LEEWAY, longest=_LONGEST_LIFETIME)
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not compare_digest(
            nonce.encode("utf-8", "replace"), begun.nonce.encode()
        ):
            raise TokenRejected(Reason.LOGIN_UNKNOWN, "the nonce is another one")
        read_text(claims, "sub")
        return claims

    def _metadata(self) -> _Metadata:
        with self._lock:
            now = self._monotonic()
            if self._known is not None and now < self._known[1] + _METADATA_SECONDS:
                return self._known[0]
            if now < self._not_before:
                raise _unavailable("it was away a moment ago")
            # Whoever comes meanwhile waits for this fetch, and for no other if it fails.
            self._not_before = now + _COOL_DOWN_SECONDS
            found = self._fetched_metadata()
            self._known = (found, now)
            return found

    def _fetched_metadata(self) -> _Metadata:
        url = self._terms.issuer.removesuffix("/") + "/.well-known/openid-configuration"
        try:
            fetched = self._sender.get(url, max_bytes=_LARGEST_METADATA, media_types=_MEDIA_TYPES)
        except FetchRefused as refused:
            raise _unavailable(refused.reason.value) from None
        told = _object(fetched.body)
        if told.get("issuer") != self._terms.issuer:
            raise _unavailable("the metadata is of another issuer")
        methods = told.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return _Metadata(
            self._endpoint(told, "authorization_endpoint"),
            self._endpoint(told, "token_endpoint"),
            told.get("authorization_response_iss_parameter_supported") is True,
            isinstance(methods, list) and "client_secret_basic" in methods,
        )

    def _endpoint(self, told: Mapping[str, Any], name: str) -> str:
        """An endpoint that the metadata names, at the issuer's own origin or a host declared for it."""
        url = told.get(name)
        if not isinstance(url, str):
            raise _unavailable(f"the metadata has no {name}")
        try:
            target, own = read_url(url), read_url(self._terms.issuer)
        except FetchRefused:
            raise _unavailable(f"the metadata's {name} is not acceptable") from None
        is_declared = target.scheme == "https" and target.authority in self._terms.hosts
        if not is_declared and target.origin != own.origin:
            raise _unavailable(f"the metadata's {name} is at a host that is not declared")
        return url


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        told = loads_strict(body)
    except StrictJsonError:
        told = None
    if not isinstance(told, dict):
        raise _unavailable("the provider's answer is not JSON")
    return told


def _unavailable(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(Reason.LOGIN_UNAVAILABLE, detail=detail)
