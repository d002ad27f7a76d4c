"""Published signature vectors (Wycheproof): what is invalid is refused, what we support verifies."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.errors import TokenRejected
from broker.issuers import SourceRefused, read_key_set
from broker.jws import decode_segment
from broker.oauth import VERIFICATION_ALGORITHMS
from broker.strict_json import StrictJsonError, loads_strict

_VECTORS = Path(os.environ.get("BROKER_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
_FILES = ("json_web_signature_test.json", "json_web_key_test.json")
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)")

pytestmark = pytest.mark.skipif(
    not all((_VECTORS / name).exists() for name in _FILES),
    reason="the vectors are not here; BROKER_VECTORS names their folder",
)


def vectors(name: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for group in json.loads((_VECTORS / name).read_bytes())["testGroups"]:
        published = group.get("public", group["private"])
        jwks = published if "keys" in published else {"keys": [published]}
        for test in group["tests"]:
            yield jwks, test


def is_supported(jwks: Mapping[str, Any], token: str) -> bool:
    """Whether key and token both name one algorithm that is accepted here."""
    algorithm = jwks["keys"][0].get("alg")
    if algorithm not in VERIFICATION_ALGORITHMS:
        return False
    header = json.loads(decode_segment(token.partition(".")[0]))
    return bool(header.get("alg") == algorithm)


def is_accepted(jwks: Mapping[str, Any], token: str) -> bool:
    """Whether the key set verifies the token, in the order in which the broker asks."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        return False
    try:
        header = loads_strict(decode_segment(match[1]))
        if header.get("alg") not in VERIFICATION_ALGORITHMS:
            return False
        key = read_key_set(jwks).find(header.get("kid"), header["alg"])
        return key.verify(token[: match.end(2)].encode(), decode_segment(match[3]))
    except (TokenRejected, SourceRefused, StrictJsonError):
        return False


@pytest.mark.requirement("JWS-12")
@pytest.mark.requirement("JWS-13")
@pytest.mark.requirement("JWS-14")
@pytest.mark.parametrize("name", _FILES)
def test_every_invalid_vector_is_refused(name: str) -> None:
    accepted = [
        f"{test['tcId']}: {test['comment']}"
        for jwks, test in vectors(name)
        if test["result"] == "invalid" and is_accepted(jwks, test["jws"])
    ]

    assert accepted == []


@pytest.mark.parametrize("name", _FILES)
def test_every_valid_vector_of_a_supported_algorithm_verifies(name: str) -> None:
    supported = [
        (jwks, test)
        for jwks, test in vectors(name)
        if test["result"] == "valid" and is_supported(jwks, test["jws"])
    ]
    refused = [
        f"{test['tcId']}: {test['comment']}"
        for jwks, test in supported
        if not is_accepted(jwks, test["jws"])
    ]

    assert supported
    assert refused == []
