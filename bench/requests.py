"""What is asked of a broker, as bytes for either face."""

import base64
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

from bench.setting import API, CLIENT, IDP, SCOPE, SECRET, SERVER_RESOURCE, Setting
from bench.signing import times, with_wrong_signature
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
)
from broker.v1 import token_pb2, token_service_pb2

Face = Literal["http", "grpc"]
Grant = Literal["exchange", "client_credentials"]
Method = Literal["private_key_jwt", "client_secret"]
Subject = Literal["fresh", "seen", "forged", "none"]

FACES: Final[tuple[Face, ...]] = ("http", "grpc")
_GRPC_METHODS: Final = {
    "exchange": "/broker.v1.TokenService/ExchangeToken",
    "client_credentials": "/broker.v1.TokenService/IssueClientToken",
}
_BASIC: Final = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
_serial = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Stream:
    """
    Requests of one kind to one server.

    ``make`` gives body after body, each new; ``is_repeatable`` says that one may be sent over and over.
    ``is_granted``: the answer that is right, so that every other makes the measurement invalid.
    """

    face: Face
    port: int
    path: str
    make: Callable[[], Iterator[bytes]]
    headers: tuple[tuple[str, str], ...] = ()
    is_repeatable: bool = False
    is_granted: bool = True
    verb: str = "POST"


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What is asked: a grant, how the client authenticates, and what its subject token is like.

    A ``fresh`` one was never seen before, a ``seen`` one is the same every time, and a ``forged`` one has a
    wrong signature. ``depth`` is how many actors the new token will have.
    """

    grant: Grant
    method: Method
    subject: Subject = "fresh"
    depth: int = 1

    @property
    def name(self) -> str:
        """A name for the results."""
        words = {"fresh": "", "seen": ", token seen before", "forged": ", refused", "none": ""}
        return f"{self.grant}, {self.method}{words[self.subject]}"


EXCHANGE: Final = Kind("exchange", "private_key_jwt")
"""The exchange that the floor belongs to: two verifications and one signature."""


def stream(setting: Setting, kind: Kind, face: Face) -> Stream:
    """The requests of a kind to a face of a broker."""
    made = _http(setting, kind) if face == "http" else _grpc(setting, kind)
    headers: tuple[tuple[str, str], ...] = ()
    if face == "http":
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    if kind.method == "client_secret":
        headers += (("authorization", f"Basic {_BASIC}"),)
    return Stream(
        face=face,
        port=setting.ports.http if face == "http" else setting.ports.grpc,
        path="/token" if face == "http" else _GRPC_METHODS[kind.grant],
        make=made,
        headers=headers,
        is_repeatable=kind.method == "client_secret" and kind.subject in ("seen", "none"),
        is_granted=kind.subject != "forged",
    )


def assertion(setting: Setting) -> str:
    """A client assertion that nobody has used."""
    claims = {
        "iss": CLIENT,
        "sub": CLIENT,
        "aud": setting.issuer,
        **times(290),
        "jti": f"a-{next(_serial)}",
    }
    return setting.client.sign(claims)


def subject_token(setting: Setting, *, depth: int = 1) -> str:
    """A user's token for the MCP server, that so many actors less one have passed on."""
    claims: dict[str, Any] = {
        "iss": IDP,
        "sub": "ann",
        "aud": SERVER_RESOURCE,
        "client_id": "agent-desk",
        "scope": "tickets:read tickets:comment",
        **times(3600),
        "jti": f"s-{next(_serial)}",
    }
    for number in range(depth - 1):
        inner = {"act": claims["act"]} if "act" in claims else {}
        claims["act"] = {"iss": IDP, "sub": f"actor-{number}", **inner}
    return setting.idp.sign(claims, typ="at+jwt")


def _subjects(setting: Setting, kind: Kind) -> Iterator[str]:
    seen = subject_token(setting, depth=kind.depth)
    while True:
        match kind.subject:
            case "fresh":
                yield subject_token(setting, depth=kind.depth)
            case "forged":
                yield with_wrong_signature(subject_token(setting, depth=kind.depth))
            case _:
                yield seen


def _http(setting: Setting, kind: Kind) -> Callable[[], Iterator[bytes]]:
    def bodies() -> Iterator[bytes]:
        for token in _subjects(setting, kind):
            yield urlencode(form(setting, kind, token)).encode()

    return bodies


def form(setting: Setting, kind: Kind, token: str) -> dict[str, str]:
    """The parameters of one request, authenticated by a new assertion where the kind says so."""
    if kind.grant == "exchange":
        parameters = {
            "grant_type": GRANT_TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        }
    else:
        parameters = {"grant_type": GRANT_CLIENT_CREDENTIALS}
    parameters |= {"resource": API, "scope": SCOPE}
    if kind.method == "private_key_jwt":
        parameters["client_assertion_type"] = CLIENT_ASSERTION_JWT_BEARER
        parameters["client_assertion"] = assertion(setting)
    return parameters


def _grpc(setting: Setting, kind: Kind) -> Callable[[], Iterator[bytes]]:
    def messages() -> Iterator[bytes]:
        for token in _subjects(setting, kind):
            yield _message(setting, kind, token)

    return messages


def _message(setting: Setting, kind: Kind, token: str) -> bytes:
    proof = None
    if kind.method == "private_key_jwt":
        proof = token_pb2.ClientAuthentication(
            client_assertion=assertion(setting), client_assertion_type=CLIENT_ASSERTION_JWT_BEARER
        )
    if kind.grant == "client_credentials":
        return token_service_pb2.IssueClientTokenRequest(
            resources=[API], scopes=[SCOPE], client_authentication=proof
        ).SerializeToString()
    return token_service_pb2.ExchangeTokenRequest(
        subject_token=token,
        subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
        resources=[API],
        scopes=[SCOPE],
        client_authentication=proof,
    ).SerializeToString()
