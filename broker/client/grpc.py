"""Tokens of the broker for calls of gRPC, and the token of a call for what is called because of it."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from broker.client._bearing import Wanted
from broker.client._grpc_calls import AUTHORIZATION, Calls, interceptors_for, without_token
from broker.client._proxies import check_direct
from broker.client.broker import Broker
from broker.client.current import set_current, subject_token
from broker.client.failures import BrokerError, WrongOrigin
from broker.client.sync_broker import SyncBroker

__all__ = [
    "CurrentToken",
    "SyncCurrentToken",
    "call_credentials",
    "interceptors",
    "loopback_interceptors",
]

_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")


def call_credentials(
    broker: SyncBroker,
    resource: str,
    *,
    scopes: Sequence[str] = (),
    subject_token: str | None = None,
    own: bool = False,
) -> grpc.CallCredentials:
    """
    Credentials for calls over TLS to the resource, and to nothing else.

    They stay with one subject token, so they are made for each request in progress (by
    ``current.subject_token()``) and go along with its calls; those for a client's ``own`` token may go
    with a channel. Raises ``ValueError`` unless there is just one of the two.
    """
    if (subject_token is None) is not own:
        raise ValueError("The credentials are for a subject token, or else for the client's own.")
    wanted = Wanted(resource, scopes, subject=lambda: subject_token or "", own=own)
    return grpc.metadata_call_credentials(_Plugin(broker, wanted))


class _Plugin(grpc.AuthMetadataPlugin):
    """Fetches a token once gRPC says where a call goes; it runs in a thread of gRPC's."""

    def __init__(self, broker: SyncBroker, wanted: Wanted) -> None:
        self._broker = broker
        self._wanted = wanted

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        try:
            self._wanted.check(context.service_url)
            value = self._wanted.begin().token_blocking(self._broker)
        except BrokerError as failure:
            callback((), failure)
        else:
            callback(((AUTHORIZATION, value),), None)


class _Fixed(grpc.AuthMetadataPlugin):
    """Hands over the token of one call, once gRPC says where it goes."""

    def __init__(self, wanted: Wanted, value: str) -> None:
        self._wanted = wanted
        self._value = value

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        try:
            self._wanted.check(context.service_url)
        except WrongOrigin as failure:
            callback((), failure)
        else:
            callback(((AUTHORIZATION, self._value),), None)


def interceptors(
    broker: Broker,
    resource: str,
    *,
    scopes: Sequence[str] = (),
    subject: Callable[[], str] = subject_token,
    own: bool = False,
) -> list[grpc.aio.ClientInterceptor]:
    """
    The interceptors of a ``grpc.aio.secure_channel``, which give each call a token for the resource.

    gRPC tells where a call goes, and one to anywhere else fails before anything is sent; so does any
    over a channel without TLS. The token is made of what ``subject`` returns, the token of the request
    in progress; with ``own`` it is the client's.
    """
    wanted = Wanted(resource, scopes, subject=subject, own=own)

    def attach(details: Any, value: str) -> Any:
        plugin = grpc.metadata_call_credentials(_Fixed(wanted, value))
        return details._replace(credentials=plugin, metadata=without_token(details.metadata))

    return interceptors_for(Calls(broker, wanted, attach))


def loopback_interceptors(
    broker: Broker,
    resource: str,
    *,
    target: str,
    scopes: Sequence[str] = (),
    subject: Callable[[], str] = subject_token,
    own: bool = False,
) -> list[grpc.aio.ClientInterceptor]:
    """
    The same for a ``grpc.aio.insecure_channel`` on this machine, where gRPC does not tell where it goes.

    ``target`` is the channel's. Raises ``WrongOrigin`` unless it is the resource's host and port, and
    loopback; and where the environment names a proxy for it, which gRPC would go through even there.
    """
    wanted = Wanted(resource, scopes, subject=subject, own=own)
    # To gRPC a target may also be a name to look up elsewhere; it is none if it is this very text.
    if f"http://{target.lower()}" != str(wanted.origin):
        raise WrongOrigin(f"The token is for {wanted.origin}, and the channel is to another place.")
    check_direct(wanted.origin, is_grpc=True)

    def attach(details: Any, value: str) -> Any:
        metadata = without_token(details.metadata)
        metadata.add(AUTHORIZATION, value)
        return details._replace(metadata=metadata)

    return interceptors_for(Calls(broker, wanted, attach))


class CurrentToken(grpc.aio.ServerInterceptor):
    """
    Makes the token of each call the current one, for a ``grpc.aio`` server.

    It verifies nothing; let an interceptor that does come before it.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        # Each call is a task of its own, in which its interceptors and its handler run.
        set_current(_token_of(handler_call_details.invocation_metadata))
        return await continuation(handler_call_details)


class SyncCurrentToken(grpc.ServerInterceptor):
    """The same for a server with threads."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        # Each call has a context of its own, in which its interceptors and its handler run.
        set_current(_token_of(handler_call_details.invocation_metadata))
        return continuation(handler_call_details)


def _token_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    values = [value for name, value in metadata or () if name == AUTHORIZATION]
    found = (
        _BEARER.fullmatch(values[0]) if len(values) == 1 and isinstance(values[0], str) else None
    )
    return None if found is None else found[1]
