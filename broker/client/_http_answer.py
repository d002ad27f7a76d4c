"""How a refusal and a document are answered over HTTP."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.client.refusals import NotServed, Unverifiable
from broker.client.resource import ResourceMetadata

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI wants them, the length of the body included."""
        headers = {**self.headers, "Content-Length": str(len(self.body))}
        return [
            (name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()
        ]


def answer_refusal(refused: NotServed) -> HttpAnswer:
    """The status, the challenge, and in the body what it says, for people (RFC 6750 3)."""
    headers = {"Content-Type": _JSON, "Cache-Control": "no-store"}
    if refused.www_authenticate:
        headers["WWW-Authenticate"] = refused.www_authenticate
    if isinstance(refused, Unverifiable):
        headers["Retry-After"] = str(refused.retry_after)
    told = {"error": refused.error, "error_description": refused.description}
    body = {name: value for name, value in told.items() if value}
    return HttpAnswer(refused.status, headers, json.dumps(body).encode())


def answer_metadata(metadata: ResourceMetadata, method: str) -> HttpAnswer:
    """The metadata of the resource, which pages of any origin may read: there is nothing secret in it."""
    anybody = {"Access-Control-Allow-Origin": "*"}
    if method == "OPTIONS":
        allowed = {"Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "*"}
        return HttpAnswer(204, {**anybody, **allowed, "Access-Control-Max-Age": "3600"})
    if method not in {"GET", "HEAD"}:
        return HttpAnswer(405, {"Allow": "GET, HEAD, OPTIONS"})
    headers = {**anybody, "Content-Type": _JSON, "Cache-Control": "public, max-age=3600"}
    document: dict[str, Any] = metadata.document()
    return HttpAnswer(200, headers, json.dumps(document).encode())
