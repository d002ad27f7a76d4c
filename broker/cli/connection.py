"""Where a command finds the broker, as which client it asks, and how it asks on either face."""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import grpc
import rich_click as click
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import Channel
from grpc_status import rpc_status

from broker.cli.fetching import Answer, Fetcher
from broker.cli.inputs import read_secret
from broker.cli.stop import Negative
from broker.client._grpc import authenticated, metadata_of
from broker.client.credentials import Credential, KeyFile, Presented, Secret
from broker.client.failures import CredentialUnusable
from broker.config.problems import printable

_SECONDS: Final = 10.0
# Through a proxy of the environment gRPC would go even on loopback, and show it everything.
_DIRECT: Final = (("grpc.enable_http_proxy", 0),)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def connection_options(function: _Function) -> _Function:
    """The options that ``connection_from`` reads."""
    issuer = click.option(
        "--issuer",
        envvar=["BROKER_ISSUER", "BROKER_HTTP"],
        help="The broker's issuer, at whose address its HTTP face is asked.",
    )
    grpc_address = click.option(
        "--grpc", envvar="BROKER_GRPC", help="Its gRPC address instead, HOST:PORT."
    )
    return issuer(grpc_address(_caller_options(function)))


def grpc_options(function: _Function) -> _Function:
    """The same for what only the gRPC face does."""
    address = click.option(
        "--grpc", envvar="BROKER_GRPC", required=True, help="The broker's gRPC address, HOST:PORT."
    )
    issuer = click.option(
        "--broker-issuer", envvar="BROKER_ISSUER", help="Its issuer, which --key-file needs."
    )
    return address(issuer(_caller_options(function)))


def _caller_options(function: _Function) -> _Function:
    options = (
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path),
            help="Authorities of the broker's TLS.",
        ),
        click.option(
            "--client", envvar="BROKER_CLIENT_ID", required=True, help="The client that asks."
        ),
        click.option(
            "--secret-file",
            type=click.Path(path_type=Path),
            envvar="BROKER_CLIENT_SECRET_FILE",
            help="A file with its secret; else BROKER_CLIENT_SECRET is taken.",
        ),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path),
            envvar="BROKER_CLIENT_KEY_FILE",
            help="A file with its private key instead, as JWK or PEM.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Connection:
    """
    The broker's two faces, the authorities of its certificate, and the client's credential.

    ``grpc`` is asked where it is set, ``issuer`` else. What a key signs is for ``issuer`` on both.
    """

    issuer: str | None
    grpc: str | None
    ca_file: Path | None
    credential: Credential = field(repr=False)

    def post(self, endpoint: str, form: Sequence[tuple[str, str | None]]) -> Answer:
        """
        The answer of an HTTP endpoint, such as ``token``, to a form; empty values are not sent.

        Raises ``Negative`` with the broker's refusal.
        """
        presented = self._present()
        told = [(name, value) for name, value in form if value]
        answer = Fetcher(ca_file=self.ca_file).post(
            f"{(self.issuer or '').rstrip('/')}/{endpoint}",
            [*told, *presented.form.items()],
            authorization=presented.authorization,
        )
        if answer.status != 200:
            body = answer.json()
            if not isinstance(body, dict):
                raise Negative(f"The broker answers with status {answer.status} and no JSON.")
            raise _refusal(body.get("error"), body.get("error_description"), answer.decision_id)
        return answer

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """
        A channel to the gRPC face, with TLS, which only a broker on loopback may do without.

        A call that fails in the block ends as ``Negative`` with the broker's refusal.
        """
        with self._open() as channel:
            try:
                yield channel
            except grpc.RpcError as error:
                raise _grpc_refusal(error) from None

    def call(self, method: Callable[..., Any], message: Any) -> Any:
        """The response of a method of a stub."""
        presented = self._present()
        sent = authenticated(message, presented)
        return method(sent, timeout=_SECONDS, metadata=metadata_of(presented))

    def _present(self) -> Presented:
        try:
            return self.credential.present(self.issuer or "")
        except CredentialUnusable as unusable:
            raise Negative(printable(unusable.description)) from None

    def _open(self) -> Channel:
        target = self.grpc or ""
        if self.ca_file is None and _is_loopback(target):
            return grpc.insecure_channel(target, options=_DIRECT)
        try:
            roots = self.ca_file.read_bytes() if self.ca_file is not None else None
        except OSError as error:
            raise click.UsageError(f"--ca-file: {self.ca_file}: {error.strerror}.") from None
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=_DIRECT)


def connection_from(
    *,
    grpc: str | None,
    ca_file: Path | None,
    client: str,
    secret_file: Path | None,
    key_file: Path | None,
    issuer: str | None = None,
    **_other: Any,
) -> Connection:
    """The connection that the options describe; ends the command when they do not."""
    if not issuer and not grpc:
        raise click.UsageError("Say where the broker is: --issuer URL or --grpc HOST:PORT.")
    if key_file is None:
        return Connection(issuer, grpc, ca_file, Secret(client, read_secret(secret_file)))
    if not issuer:
        raise click.UsageError(
            "Say the broker's issuer as well (--issuer, or --broker-issuer of `broker revoke`): what a "
            "key signs is for one broker."
        )
    return Connection(issuer, grpc, ca_file, KeyFile(client, key_file))


def _is_loopback(target: str) -> bool:
    try:
        host = urlsplit(f"//{target}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _grpc_refusal(error: grpc.RpcError) -> Negative:
    # What a call raises is the call itself, which the types do not say.
    status = rpc_status.from_call(cast(grpc.Call, error))
    for detail in () if status is None else status.details:
        info = ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            facts = info.metadata
            return _refusal(facts["error"], status.message, facts["decision_id"])
    return _refusal(error.code().name, error.details(), "")


def _refusal(error: object, description: object, decision_id: object) -> Negative:
    """The broker's refusal as the end of the command."""
    which = f" (decision {decision_id})" if decision_id else ""
    return Negative(printable(f"{error}: {description}{which}"))
