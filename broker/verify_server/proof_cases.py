"""Cases of tokens that are bound to a key, and of proofs of that key (DPoP, RFC 9449 4.3 and 7)."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from broker.client._key_set import read_key
from broker.client.resource import metadata_url
from broker.oauth import TOKEN_TYPE_BEARER, TOKEN_TYPE_DPOP, TYP_DPOP, TYP_JWT
from broker.verify_server.cases import Case, Failed, NotShown, Stage
from broker.verify_server.keys import Key, fresh_key
from broker.verify_server.minting import Members, Mint, encoded
from broker.verify_server.options import ALGORITHMS
from broker.verify_server.refused import Attempt, all_refused, check_refused
from broker.verify_server.server import Answer, Presentation

_AGO: Final = 600
_ELSEWHERE: Final = "https://elsewhere.example/mcp"
_NOTHING: Final[Members] = {}
_NAMES: Final = "dpop_signing_alg_values_supported"


@dataclass(frozen=True, slots=True)
class _Holder:
    """Somebody with a key, tokens that are bound to it, and proofs of it for the server under test."""

    stage: Stage
    key: Key

    def token(self) -> str:
        return self.stage.mint.token({"cnf": {"jkt": _thumbprint(self.key.public_jwk)}})

    def proof(
        self,
        token: str,
        changes: Members = _NOTHING,
        *,
        header: Members = _NOTHING,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> str:
        """A proof that goes with a token, with changes; what is changed to ``None`` is left out."""
        mint = self.stage.mint
        claims = {
            "htm": self.stage.server.method,
            "htu": self.stage.server.url.partition("?")[0],
            "iat": int(mint.clock()),
            "jti": secrets.token_urlsafe(12),
            "ath": encoded(hashlib.sha256(token.encode()).digest()),
            **changes,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        head = {
            "typ": TYP_DPOP,
            "alg": self.key.algorithm,
            "kid": None,
            "jwk": _bare(self.key.public_jwk),
        }
        maker = Mint(mint.issuer, mint.audience, self.key)
        return maker.signed(json.dumps(told), header={**head, **header}, sign=sign or self.key.sign)

    def ask(self, token: str, *proofs: str, scheme: str = TOKEN_TYPE_DPOP) -> Answer:
        return self.stage.server.ask(token, Presentation(scheme, proofs=proofs))


def _bare(jwk: Members) -> dict[str, Any]:
    """The public key without what says how it is meant."""
    return {name: value for name, value in jwk.items() if name not in {"kid", "alg", "use"}}


def _thumbprint(jwk: Members) -> str:
    return read_key(dict(jwk), str(jwk["alg"])).thumbprint


def _holder(stage: Stage) -> _Holder:
    """Whoever holds a key of a kind that the server takes; raises ``NotShown`` if it takes none."""
    document = stage.server.get(metadata_url(stage.told.resource)).document() or {}
    named = document.get(_NAMES)
    algorithms = [one for one in ALGORITHMS if isinstance(named, list) and one in named]
    if not algorithms:
        raise NotShown(f"its metadata has no {_NAMES}: it takes no bound tokens (RFC 9728 2)")
    return _Holder(stage, fresh_key(algorithms[0]))


def _play_good_proof(stage: Stage) -> str:
    holder = _holder(stage)
    token = holder.token()
    for _ in range(2):
        answer = holder.ask(token, holder.proof(token))
        if not answer.is_success:
            raise Failed(f"{answer.status}")
    return str(answer.status)


_Shot = tuple[str, str, tuple[str, ...]]
"""The words that tell it from the others of its case, a token, and the proofs that go with it."""


def _refused(
    name: str,
    sent: str,
    forge: Callable[[_Holder], Iterable[_Shot]],
    *,
    mend: str,
    scheme: str = TOKEN_TYPE_DPOP,
    is_malformed: bool = False,
) -> Case:
    """A case of requests all of which must be refused, though the same key is good for another."""

    def attempts(stage: Stage) -> Iterable[Attempt]:
        holder = _holder(stage)
        token = holder.token()
        if not holder.ask(token, holder.proof(token)).is_success:
            raise NotShown("nothing would be shown: the server does not take a good proof")
        for label, shot, proofs in forge(holder):
            yield label, holder.ask(shot, *proofs, scheme=scheme)

    return all_refused(name, sent, attempts, mend=mend, is_malformed=is_malformed)


def _none(holder: _Holder) -> Iterable[_Shot]:
    yield "no proof", holder.token(), ()
    yield "an empty proof", holder.token(), ("",)


def _good(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    yield "a good proof", token, (holder.proof(token),)


def _two(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    yield "two good proofs", token, (holder.proof(token), holder.proof(token))


def _not_bound(holder: _Holder) -> Iterable[_Shot]:
    token = holder.stage.mint.token()
    yield "a good proof", token, (holder.proof(token),)


def _by_others(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    other = _Holder(holder.stage, fresh_key(holder.key.algorithm))
    yield "by its own key", token, (other.proof(token),)
    claimed = {"jwk": _bare(holder.key.public_jwk)}
    yield "under the key of the token", token, (other.proof(token, header=claimed),)


def _of_other_tokens(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    yield "the ath of another token", token, (holder.proof(holder.token()),)
    yield "no ath", token, (holder.proof(token, {"ath": None}),)


def _for_other_requests(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    url = holder.stage.server.url.partition("?")[0]
    changes: dict[str, Members] = {
        "another method": {"htm": "DELETE"},
        "no method": {"htm": None},
        "another host": {"htu": _ELSEWHERE},
        "another path": {"htu": f"{url.rstrip('/')}/other"},
        "no address": {"htu": None},
    }
    for label, change in changes.items():
        yield label, token, (holder.proof(token, change),)


def _of_other_times(holder: _Holder) -> Iterable[_Shot]:
    token, now = holder.token(), int(holder.stage.mint.clock())
    for label, made_at in (
        ("ten minutes ago", now - _AGO),
        ("in ten minutes", now + _AGO),
        ("at no time", None),
    ):
        yield label, token, (holder.proof(token, {"iat": made_at}),)


def _of_other_types(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    yield f"typ {TYP_JWT}", token, (holder.proof(token, header={"typ": TYP_JWT}),)
    yield "no typ", token, (holder.proof(token, header={"typ": None}),)


def _unsigned(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    for none in ("none", "None"):
        yield (
            f"alg {none}",
            token,
            (holder.proof(token, header={"alg": none}, sign=lambda _: b""),),
        )


def _by_secrets(holder: _Holder) -> Iterable[_Shot]:
    """A secret key has a thumbprint too, and whoever reads the proof could make another."""
    secret = secrets.token_bytes(32)
    jwk = {"k": encoded(secret), "kty": "oct"}
    canonical = json.dumps(jwk, separators=(",", ":"), sort_keys=True)
    jkt = encoded(hashlib.sha256(canonical.encode()).digest())
    token = holder.stage.mint.token({"cnf": {"jkt": jkt}})
    proof = holder.proof(
        token,
        header={"alg": "HS256", "jwk": jwk},
        sign=lambda text: hmac.new(secret, text, hashlib.sha256).digest(),
    )
    yield "HS256", token, (proof,)


def _with_private_key(holder: _Holder) -> Iterable[_Shot]:
    token = holder.token()
    jwk = {**_bare(holder.key.public_jwk), "d": encoded(secrets.token_bytes(32))}
    yield "a member d", token, (holder.proof(token, header={"jwk": jwk}),)


def _play_replayed(stage: Stage) -> str:
    holder = _holder(stage)
    token = holder.token()
    proof = holder.proof(token)
    first = holder.ask(token, proof)
    if not first.is_success:
        raise NotShown("nothing would be shown: the server does not take a good proof")
    again = holder.ask(token, proof)
    check_refused(again, "the same proof again")
    return f"{first.status}, then {again.status}"


def _play_proof_challenge(stage: Stage) -> str:
    holder = _holder(stage)
    token = holder.token()
    answer = holder.ask(token, holder.proof(token, {"htm": "DELETE"}))
    challenge = answer.challenge_of(TOKEN_TYPE_DPOP) or {}
    if challenge.get("error") != "invalid_dpop_proof" or not challenge.get("algs"):
        raise Failed(f"{answer.status}, error {challenge.get('error') or 'none'}")
    return "it does"


_PROOF: Final = "Check htm and htu against the request that came (RFC 9449 4.3)."

PROOF_CASES: Final = (
    Case(
        "good-proof",
        "a token that is bound to a key, with proof",
        "accepted",
        mend="Take what the metadata say that you take, or leave the algorithms out of them.",
        play=_play_good_proof,
    ),
    _refused(
        "proof-missing",
        "a bound token without its proof",
        _none,
        mend="Require one proof with every bound token (RFC 9449 7.1).",
        is_malformed=True,
    ),
    _refused(
        "proof-as-bearer",
        "a bound token with its proof, as bearer token",
        _good,
        mend="Take bound tokens under the scheme DPoP alone (RFC 9449 7.2).",
        scheme=TOKEN_TYPE_BEARER,
    ),
    _refused(
        "two-proofs",
        "two proofs",
        _two,
        mend="Take one header DPoP and no more (RFC 9449 4.3).",
        is_malformed=True,
    ),
    _refused(
        "proof-without-binding",
        "a token that is not bound, with a proof",
        _not_bound,
        mend="Compare the key of the proof with cnf.jkt, and refuse a token without it (RFC 9449 7.1).",
    ),
    _refused(
        "proof-of-other-key",
        "a proof of somebody else",
        _by_others,
        mend="Verify the proof by its key, and compare the key's thumbprint with cnf.jkt (RFC 9449 6.1).",
    ),
    _refused(
        "proof-of-other-token",
        "a proof for another token",
        _of_other_tokens,
        mend="Require ath to be the hash of the token (RFC 9449 4.3).",
    ),
    _refused(
        "proof-of-other-request", "a proof for another request", _for_other_requests, mend=_PROOF
    ),
    _refused(
        "proof-of-other-time",
        "a proof of another time",
        _of_other_times,
        mend="Take proofs of the last minute or so (RFC 9449 11.1).",
    ),
    _refused(
        "proof-of-other-type",
        "a proof that is not typed as one",
        _of_other_types,
        mend=f"Take proofs whose typ is {TYP_DPOP} and no others (RFC 9449 4.3).",
    ),
    _refused(
        "proof-unsigned",
        "a proof without a signature",
        _unsigned,
        mend="Pin the asymmetric algorithms that you take; never do as the header says.",
    ),
    _refused(
        "proof-by-secret",
        "a proof by a secret that it carries",
        _by_secrets,
        mend="Take asymmetric algorithms alone (RFC 9449 4.3).",
    ),
    _refused(
        "proof-with-private-key",
        "a proof that carries a private key",
        _with_private_key,
        mend="Refuse a proof whose jwk has members of a private key (RFC 9449 4.3).",
    ),
    Case(
        "replayed",
        "a proof that was used before",
        "401",
        mend="Remember the jti of proofs for as long as their time is taken (RFC 9449 11.1).",
        play=_play_replayed,
        is_advice=True,
    ),
    Case(
        "proof-challenge",
        "a proof for another request",
        "the challenge is about proofs",
        mend='Answer with WWW-Authenticate: DPoP, error="invalid_dpop_proof" and algs (RFC 9449 7.1).',
        play=_play_proof_challenge,
        is_advice=True,
    ),
)
