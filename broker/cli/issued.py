"""What the broker issued, from either face, and how it is printed."""

import re
import time
from dataclasses import asdict, dataclass, field
from typing import Final, Self

import rich_click as click

from broker.cli.fetching import Answer
from broker.cli.output import console, echo_json
from broker.cli.stop import Negative
from broker.cli.token_tree import draw
from broker.errors import TokenRejected
from broker.jws import read_token as take_apart
from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from broker.v1.token_pb2 import IssuedToken, TokenType

TYPE_NUMBERS: Final = {
    None: TokenType.TOKEN_TYPE_UNSPECIFIED,
    TOKEN_TYPE_ACCESS_TOKEN: TokenType.TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN: TokenType.TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT: TokenType.TOKEN_TYPE_JWT,
    TOKEN_TYPE_ID_JAG: TokenType.TOKEN_TYPE_ID_JAG,
}
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCHEME: Final = re.compile(r"[A-Za-z0-9_-]+")
_NAMES: Final = {number: name for name, number in TYPE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer, by the names of RFC 8693 2.2.1."""

    access_token: str = field(repr=False)
    issued_token_type: str
    token_type: str
    expires_in: int
    scope: str

    def __post_init__(self) -> None:
        # What is printed goes to terminals and into shells; a token has no character that they obey.
        if not (_TOKEN.fullmatch(self.access_token) and _SCHEME.fullmatch(self.token_type)):
            raise Negative("The broker issued something that is no token.")

    @classmethod
    def read(cls, answer: Answer) -> Self:
        """What an HTTP answer holds; raises ``Negative`` when it is none."""
        body = answer.json()
        if not isinstance(body, dict):
            raise Negative(f"The broker answers with status {answer.status} and no JSON.")
        try:
            return cls(
                access_token=str(body["access_token"]),
                issued_token_type=str(body.get("issued_token_type", TOKEN_TYPE_ACCESS_TOKEN)),
                token_type=str(body["token_type"]),
                expires_in=int(body["expires_in"]),
                scope=str(body.get("scope", "")),
            )
        except (KeyError, TypeError, ValueError):
            raise Negative("The broker's answer lacks what RFC 8693 2.2.1 requires.") from None

    @classmethod
    def of(cls, message: IssuedToken) -> Self:
        """What a message holds."""
        return cls(
            access_token=message.access_token,
            issued_token_type=_NAMES.get(message.issued_token_type) or "",
            token_type=message.token_type,
            expires_in=message.expires_in,
            scope=" ".join(message.scopes),
        )

    def print(self, *, output: str) -> None:
        """Print it as JSON, as the bare token, for a shell, as a header, or drawn as a tree."""
        if output == "json":
            echo_json(asdict(self))
        elif output == "token":
            click.echo(self.access_token)
        elif output == "env":
            # A token has no character that a shell would look at (RFC 6750 2.1).
            click.echo(f"export BROKER_TOKEN={self.access_token}")
        elif output == "header":
            click.echo(f"Authorization: {self.token_type} {self.access_token}")
        else:
            try:
                parts = take_apart(self.access_token)
            except TokenRejected:
                raise Negative("The broker issued something that is no token.") from None
            console().print(draw(parts, (), now=int(time.time())))
