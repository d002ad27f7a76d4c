"""An exchange as the command line asks for it, whichever face it goes to."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

from broker.cli.stop import Negative
from broker.config.problems import printable


@dataclass(frozen=True, slots=True)
class Server:
    """Where the broker is, over HTTP and over gRPC, and the authorities of its certificate."""

    issuer: str | None
    grpc: str | None
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """The parameters of RFC 8693 2.1 and the client's credential."""

    client_id: str
    client_secret: str = field(repr=False)
    subject_token: str = field(repr=False)
    subject_token_type: str
    actor_token: str | None = field(default=None, repr=False)
    actor_token_type: str | None = None
    resources: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    @property
    def authorization(self) -> str:
        """The Basic credential, each part form-encoded (RFC 6749 2.3.1)."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return "Basic " + base64.b64encode(pair.encode()).decode()


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer, by the names of RFC 8693 2.2.1."""

    access_token: str = field(repr=False)
    issued_token_type: str
    token_type: str
    expires_in: int
    scope: str


def refusal(error: object, description: object, decision_id: object) -> Negative:
    """The broker's refusal as the end of the command."""
    which = f" (decision {decision_id})" if decision_id else ""
    return Negative(printable(f"{error}: {description}{which}"))
