"""Verification for Starlette and FastAPI: a dependency, the route of the metadata, an exception handler."""

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.client._http_answer import HttpAnswer, answer_metadata, answer_refusal
from broker.client._incoming import incoming_over_asgi
from broker.client.delegation import Delegation
from broker.client.in_progress import begin_request, delegation
from broker.client.refusals import NotServed
from broker.client.resource import ResourceMetadata, metadata_path, origin_of
from broker.client.verify import TokenVerifier

__all__ = ["delegation", "metadata_route", "not_served", "verified"]


def verified(
    verifier: TokenVerifier, *scopes: str
) -> Callable[[HTTPConnection], Awaitable[Delegation]]:
    """
    What verifies the token of a request; ``scopes`` are needed besides the required ones.

    In FastAPI: ``Annotated[Delegation, Depends(verified(verifier, "crm.read"))]``; in Starlette: ``await
    verified(verifier, "crm.read")(request)``. Calls that the endpoint then makes are made in the name of the
    request. Raises ``HTTPException`` with the challenge.
    """
    needed = {*verifier.required_scopes, *scopes}
    origin = origin_of(verifier.resource)

    async def dependency(request: HTTPConnection) -> Delegation:
        incoming = incoming_over_asgi(request.scope, origin=origin)
        try:
            found = await verifier.verify_request(incoming, scopes=needed)
        except NotServed as refused:
            headers = {**answer_refusal(refused).headers}
            headers.pop("Content-Type")
            raise HTTPException(refused.status, refused.description, headers) from None
        begin_request(found)
        return found

    return dependency


def metadata_route(verifier: TokenVerifier, metadata: ResourceMetadata | None = None) -> Route:
    """The route that serves the metadata of the resource (RFC 9728); append it to ``app.router.routes``."""
    path, _, _ = metadata_path(verifier.resource).partition("?")
    told = metadata or verifier.metadata()

    async def endpoint(request: Request) -> Response:
        return _response(answer_metadata(told, request.method))

    return Route(path, endpoint, methods=["GET", "OPTIONS"])


async def not_served(_request: Request, refused: Exception) -> Response:
    """
    Answers a ``NotServed`` that an endpoint raised, as ``delegation.require_scopes`` does.

    ``app.add_exception_handler(NotServed, not_served)``
    """
    if not isinstance(refused, NotServed):
        raise refused
    return _response(answer_refusal(refused))


def _response(answer: HttpAnswer) -> Response:
    return Response(answer.body, answer.status, answer.headers)
