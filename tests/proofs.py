"""DPoP proofs (RFC 9449 4.2), as good or as bad as a test needs them."""

import base64
import hashlib
import json
from typing import Any

from broker.oauth import TYP_DPOP
from tests.idp import Signer, signer
from tests.stage import Stage
from tests.world import NOW, Parameters, fresh_jti, without_none

HOLDER = signer("holder")
OTHER_HOLDER = signer("other-holder")


def bare_jwk(key: Signer) -> dict[str, Any]:
    """The public key without what says how it is meant."""
    material = {"kty", "crv", "x", "y", "n", "e"}
    return {name: value for name, value in key.jwk.items() if name in material}


def thumbprint(key: Signer) -> str:
    """The thumbprint of a key, made by the letter of RFC 7638 3."""
    canonical = json.dumps(bare_jwk(key), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def good_proof_claims(htu: str, /, **changes: Any) -> dict[str, Any]:
    """The claims of a good proof for an address; a claim given as ``None`` is left out."""
    claims = {"htm": "POST", "htu": htu, "iat": NOW, "jti": fresh_jti(), **changes}
    return without_none(claims)


def good_proof(htu: str, /, *, key: Signer = HOLDER, **changes: Any) -> str:
    """A good proof of ``key`` for an address, with ``changes`` to its claims."""
    return signed_proof(good_proof_claims(htu, **changes), key=key)


def signed_proof(claims: Any, /, *, key: Signer = HOLDER, **header: Any) -> str:
    """A proof of these claims; members of the header may be changed, or left out by ``None``."""
    members: dict[str, Any] = {"typ": TYP_DPOP, "kid": None, "jwk": bare_jwk(key), **header}
    return key.sign(claims, **members)


def proof_for(
    stage: Stage, parameters: Parameters, /, *, key: Signer = HOLDER, **changes: Any
) -> str:
    """A good proof for a request on the stage's face, with ``changes`` to its claims."""
    return good_proof(stage.face.address(parameters), key=key, **changes)
