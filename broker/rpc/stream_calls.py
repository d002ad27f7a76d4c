"""What stands between grpc.aio and its servicers: how a call is read, and what ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from broker.endpoints.limits import source_of
from broker.errors import OAuthError, Reason, ServerError
from broker.model import ClientCredential, RequestContext
from broker.rpc.boundary import log_failure
from broker.rpc.call import Call, CallMetadata, M, peer_address
from broker.rpc.status import refusal_of
from broker.rpc.token_service import check_sizes, read_credential
from broker.rpc.unheard import NotHeard, Unheard
from broker.v1.token_pb2 import ClientAuthentication

_ANSWER_SECONDS: Final = 10.0

StreamContext = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("broker.rpc")


class ListenerTooSlow(Exception):
    """What was sent to a listener was not taken in time."""


class StreamCalls:
    """
    Reads calls and writes to them, each bounded in time and in bytes.

    It lives in one event loop.
    """

    def __init__(
        self, unheard: Unheard, *, max_message_bytes: int, write_timeout: timedelta
    ) -> None:
        self._unheard = unheard
        self._max_message_bytes = max_message_bytes
        self._write_seconds = write_timeout.total_seconds()

    async def read(
        self, context: StreamContext, parse: Callable[[bytes], M], request_id: str
    ) -> Call[M]:
        """The call, with its message still to be read. Raises ``NotHeard``."""
        data = await self._unheard.message(context)
        peer = peer_address(context.peer())
        deadline = time.monotonic() + _ANSWER_SECONDS
        return Call(
            RequestContext("grpc", request_id, peer, deadline, source_of(peer)),
            CallMetadata.read(context.invocation_metadata() or ()),
            data,
            parse,
            self._max_message_bytes,
        )

    async def write(self, context: StreamContext, data: bytes) -> None:
        """Send a message. Raises ``ListenerTooSlow`` when it is not taken."""
        try:
            async with asyncio.timeout(self._write_seconds):
                await context.write(data)
        except TimeoutError:
            raise ListenerTooSlow from None


@asynccontextmanager
async def stream_boundary(
    context: StreamContext, request_id: str, *, method: str
) -> AsyncIterator[None]:
    """
    End the call as whatever goes wrong in the block wants it.

    A status is sent after what was not taken yet: until that is taken, or the connection's time is up,
    the block is not left.
    """
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except OAuthError as error:
        await _refuse(context, error, request_id=request_id if error.is_recorded else None)
    except NotHeard:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED.sentence)
    except ListenerTooSlow:
        _log.warning("listener_too_slow", request_id=request_id)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "What was sent was not taken.")
    except Exception as error:  # noqa: BLE001 - The caller learns nothing of what it is.
        log_failure(error, request_id, method=method)
        await _refuse(context, ServerError(Reason.INTERNAL_ERROR), request_id=request_id)


async def _refuse(
    context: StreamContext, error: OAuthError, *, request_id: str | None = None
) -> None:
    refusal = refusal_of(error, request_id=request_id)
    await context.abort(refusal.code, refusal.message, refusal.trailers)


def credential_of(authentication: ClientAuthentication, metadata: CallMetadata) -> ClientCredential:
    """
    How a call authenticates, in its message or beside it.

    Raises ``OAuthError`` for more than one way, and for what is too large.
    """
    credential = read_credential(authentication, metadata)
    check_sizes(
        {
            "client_id": credential.client_id,
            "client_secret": credential.client_secret,
            "client_assertion": credential.client_assertion,
            "client_assertion_type": credential.client_assertion_type,
        }
    )
    return credential
