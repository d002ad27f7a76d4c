"""Interceptors that let only calls with a good token through to the services of a gRPC server."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from broker.client.in_progress import begin_request, delegation
from broker.client.refusals import NotServed
from broker.client.resource import origin_of
from broker.client.verify import Incoming, SyncTokenVerifier, TokenVerifier

__all__ = ["SyncVerified", "Verified", "abort", "abort_blocking", "delegation"]

_CHALLENGE: Final = "www-authenticate"
_KINDS: Final = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class _Gate:
    """
    Who is let through where.

    ``scopes`` names, by method such as ``/crm.v1.Contacts/Get``, those it needs in place of the required
    ones. Methods in ``public`` need no token.
    """

    def __init__(
        self,
        resource: str,
        scopes: Mapping[str, Collection[str]] | None,
        public: Collection[str],
    ) -> None:
        self._origin = origin_of(resource)
        self._scopes = scopes or {}
        self._public = frozenset(public)

    def is_open(self, method: str) -> bool:
        """Whether anybody may call the method."""
        return method in self._public

    def scopes(self, method: str) -> Collection[str] | None:
        """What the method needs in place of the required scopes."""
        return self._scopes.get(method)

    def incoming(self, method: str, metadata: Iterable[tuple[str, Any]] | None) -> Incoming:
        """A call as it came; a proof is for POST and the method's address."""
        given = tuple(metadata or ())
        return Incoming(
            tuple(str(value) for name, value in given if name == "authorization"),
            tuple(str(value) for name, value in given if name == "dpop"),
            url=self._origin + method,
        )


class Verified(grpc.aio.ServerInterceptor):
    """
    Verifies the token of every call of a ``grpc.aio`` server.

    Handlers find what was verified by ``delegation()``, and calls that they make meanwhile are made in the
    name of that call. ``scopes`` and ``public`` go by methods such as ``/crm.v1.Contacts/Get``.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        scopes: Mapping[str, Collection[str]] | None = None,
        public: Collection[str] = (),
    ) -> None:
        self._verifier = verifier
        self._gate = _Gate(verifier.resource, scopes, public)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if self._gate.is_open(method):
            return await continuation(handler_call_details)
        incoming = self._gate.incoming(method, handler_call_details.invocation_metadata)
        try:
            verified = await self._verifier.verify_request(
                incoming, scopes=self._gate.scopes(method)
            )
        except NotServed as refused:
            return _refusing(refused)
        # Each call is a task of its own, in which its interceptors and its handler run.
        begin_request(verified)
        return await continuation(handler_call_details)


class SyncVerified(grpc.ServerInterceptor):
    """The same for a server with threads."""

    def __init__(
        self,
        verifier: SyncTokenVerifier,
        *,
        scopes: Mapping[str, Collection[str]] | None = None,
        public: Collection[str] = (),
    ) -> None:
        self._verifier = verifier
        self._gate = _Gate(verifier.resource, scopes, public)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None or self._gate.is_open(method):
            return handler
        incoming = self._gate.incoming(method, handler_call_details.invocation_metadata)
        name, make = _KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, name)

        # Interceptors run on the one thread that accepts calls, which must not wait for keys; behaviours
        # run on the pool's. Each call has a context of its own.
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                verified = self._verifier.verify_request(incoming, scopes=self._gate.scopes(method))
            except NotServed as refused:
                abort_blocking(context, refused)
            begin_request(verified)
            return behaviour(request, context)

        return make(guarded, handler.request_deserializer, handler.response_serializer)


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", refused: NotServed) -> NoReturn:
    """End a call with a refusal, as ``delegation().require_scopes`` raises it; its challenge goes along."""
    await context.abort(_status(refused), refused.description, _challenge(refused))
    raise refused


def abort_blocking(context: grpc.ServicerContext, refused: NotServed) -> NoReturn:
    """The same for a server with threads."""
    context.set_trailing_metadata(_challenge(refused))
    context.abort(_status(refused), refused.description)
    raise refused


def _refusing(refused: NotServed) -> Any:
    async def refuse(_requests: Any, context: Any) -> None:
        await abort(context, refused)

    # Whatever kind of method it is, this kind is called before any message has come.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _status(refused: NotServed) -> grpc.StatusCode:
    return grpc.StatusCode[refused.grpc_status]


def _challenge(refused: NotServed) -> tuple[tuple[str, str], ...]:
    value = refused.www_authenticate
    return ((_CHALLENGE, value),) if value else ()
