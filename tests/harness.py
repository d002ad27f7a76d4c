"""A whole broker in one process, and its two faces behind one way of asking."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.assembly import Parts, TokenRules, assemble
from broker.audit.log import FileAuditLog
from broker.audit.record import REQUEST_EVENTS
from broker.endpoints.limits import Limits, no_limits
from broker.fetch import Fetcher, GuardedFetcher
from broker.interfaces import AuditLog, KeyStore, PolicyEngine, ReplayGuard
from broker.issuers import FetchedClientDocuments, IssuerKeyRing
from broker.keys.dev import DevKeyStore
from broker.model import Client, Resource, ResourceAuthorizationServer, TrustedIssuer
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE
from broker.registry import FileRegistry
from broker.rpc.server import RunningServer, build_server
from broker.state.memory import MemoryState
from broker.tokens.minter import Lifetimes
from broker.v1 import (
    discovery_service_pb2,
    discovery_service_pb2_grpc,
    token_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)
from broker.web.app import OAuthApp
from tests.world import ISS, MCP_CLAIM, NOW, Cast, Parameters

_TOKEN_TYPES = {
    "access_token": token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
    "refresh_token": token_pb2.TOKEN_TYPE_REFRESH_TOKEN,
    "id_token": token_pb2.TOKEN_TYPE_ID_TOKEN,
    "saml1": token_pb2.TOKEN_TYPE_SAML1,
    "saml2": token_pb2.TOKEN_TYPE_SAML2,
    "jwt": token_pb2.TOKEN_TYPE_JWT,
    "id-jag": token_pb2.TOKEN_TYPE_ID_JAG,
}
UNKNOWN_TOKEN_TYPE = 99


def _type_uri(number: int) -> str:
    short = next(name for name, known in _TOKEN_TYPES.items() if known == number)
    return f"urn:ietf:params:oauth:token-type:{short}"


@dataclass(frozen=True)
class Answer:
    """
    What a face answered, in one form for both.

    ``status`` is the HTTP status or the gRPC status name; ``error`` the OAuth code, empty for a grant.
    ``everything`` is all text that reached the caller, for leak checks.
    """

    face: str
    status: str
    error: str
    description: str
    token: str
    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    everything: str = field(repr=False)

    @property
    def is_granted(self) -> bool:
        """Whether a token came back."""
        return bool(self.token)

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of the issued token, unverified."""
        return decode_claims(self.token)


def decode_claims(token: str) -> dict[str, Any]:
    """The payload of a JWS, unverified."""
    return _decode_part(token, 1)


def decode_header(token: str) -> dict[str, Any]:
    """The protected header of a JWS, unverified."""
    return _decode_part(token, 0)


def _decode_part(token: str, number: int) -> dict[str, Any]:
    part = token.split(".")[number]
    return decode_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def decode_object(raw: str | bytes) -> dict[str, Any]:
    """A JSON object."""
    found = json.loads(raw)
    assert isinstance(found, dict)
    return found


class Face(Protocol):
    """A way to ask for a token exchange with form parameters and an Authorization value."""

    name: str

    def exchange(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer: ...


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, at: int = NOW) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


class ReplaceableRegistry:
    """A registry whose content a test replaces while the broker runs."""

    def __init__(self, content: FileRegistry) -> None:
        self.content = content

    @property
    def has_client_documents(self) -> bool:
        return self.content.has_client_documents

    def client(self, client_id: str) -> Client | None:
        return self.content.client(client_id)

    def client_at(self, issuer: str, client_id: str) -> Client | None:
        return self.content.client_at(issuer, client_id)

    def resource(self, name: str) -> Resource | None:
        return self.content.resource(name)

    def issuer(self, issuer: str) -> TrustedIssuer | None:
        return self.content.issuer(issuer)

    def authorization_server(self, name: str) -> ResourceAuthorizationServer | None:
        return self.content.authorization_server(name)

    def is_subject_disabled(self, sub: str) -> bool:
        return self.content.is_subject_disabled(sub)


class Broker:
    """One broker with real parts in one process; ``records`` reads its audit files."""

    def __init__(
        self,
        directory: Path,
        *,
        cast: Cast,
        policy: PolicyEngine,
        clock: Clock | None = None,
        replay: ReplayGuard | None = None,
        key_store: KeyStore | None = None,
        audit: AuditLog | None = None,
        fetcher: Fetcher | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.directory = directory
        self.clock = clock or Clock()
        self.cast = cast
        self.audit_directory = directory / "audit"
        self.key_store = key_store or DevKeyStore(directory / "keys")
        state = MemoryState(now=self.clock)
        self.state = state
        self.fetcher = fetcher or GuardedFetcher()
        self.key_ring = IssuerKeyRing(self.fetcher)
        self.audit = audit or FileAuditLog(
            self.audit_directory, writer="test-0", now=self.clock, write_timeout=30.0
        )
        rules = TokenRules(
            ISS,
            MCP_CLAIM,
            lifetimes=Lifetimes(cast.lifetime, cast.machine_lifetime, cast.id_jag_lifetime),
            max_token_bytes=cast.max_token_bytes,
            default_resource=cast.default_resource,
            pairwise_key=b"k" * 32,
        )
        self.registry = ReplaceableRegistry(_registry(cast))
        self.endpoints = assemble(
            rules,
            Parts(
                registry=self.registry,
                key_store=self.key_store,
                key_ring=self.key_ring,
                client_documents=FetchedClientDocuments(self.fetcher),
                policy=policy,
                replay=replay or state,
                revocations=state,
                audit=self.audit,
                now=self.clock,
                most_chosen_secrets=lambda: 0,
                limits=limits or no_limits(),
            ),
        )

    def records(self) -> list[dict[str, Any]]:
        """The decisions recorded so far, oldest first, as they stand on disk."""
        lines = [
            json.loads(line)
            for path in sorted(self.audit_directory.glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        return [line for line in lines if line["event"] in REQUEST_EVENTS]

    def spent_count(self) -> int:
        """How many one-time ids have been spent."""
        return self.state.spent_count()

    def replace_cast(self, cast: Cast) -> None:
        """Reload the registry, as an operator would while requests go on."""
        self.registry.content = _registry(cast)

    def close(self) -> None:
        """Stop every thread."""
        self.audit.close()
        self.key_ring.close()
        self.key_store.close()
        self.state.close()


def _registry(cast: Cast) -> FileRegistry:
    return FileRegistry(
        cast.clients,
        cast.resources,
        cast.issuers,
        authorization_servers=cast.authorization_servers,
        client_documents=cast.client_documents,
        disabled_subjects=cast.disabled_subjects,
    )


class HttpFace:
    """The OAuth face, called in process as a WSGI server would."""

    name = "http"

    def __init__(self, broker: Broker) -> None:
        self.app = OAuthApp(broker.endpoints, issuer=ISS, max_body_bytes=65_536)

    def exchange(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer:
        # A header that is sent more than once reaches the application joined by commas.
        headers = {"HTTP_DPOP": ",".join(proofs)} if proofs else {}
        return self.post(urlencode(parameters, doseq=True).encode(), *authorization, **headers)

    def address(self, _parameters: Parameters) -> str:
        """What a DPoP proof for the request must name."""
        return f"{ISS}/token"

    def introspect(self, parameters: Parameters, *authorization: str) -> Answer:
        """Ask about a token; ``fields`` is what is told."""
        body = urlencode(parameters, doseq=True).encode()
        return self.post(body, *authorization, path="/introspect")

    def revoke(self, parameters: Parameters, *authorization: str) -> Answer:
        """Withdraw a token."""
        return self.post(urlencode(parameters, doseq=True).encode(), *authorization, path="/revoke")

    def post(
        self, body: bytes, *authorization: str, path: str = "/token", **environ: str
    ) -> Answer:
        """POST a form body as it is."""
        headers = {"HTTP_AUTHORIZATION": ",".join(authorization)} if authorization else {}
        status, answer_headers, raw = call_wsgi(
            self.app,
            {
                "REQUEST_METHOD": "POST",
                "PATH_INFO": path,
                "QUERY_STRING": "",
                "CONTENT_TYPE": "application/x-www-form-urlencoded",
                "CONTENT_LENGTH": str(len(body)),
                **headers,
                **environ,
            },
            body,
        )
        fields = json.loads(raw) if raw else {}
        return Answer(
            face=self.name,
            status=status,
            error=fields.get("error", ""),
            description=fields.get("error_description", ""),
            token=fields.get("access_token", ""),
            fields=fields,
            headers=answer_headers,
            everything=f"{status} {answer_headers} {raw.decode()}",
        )

    def metadata(self) -> Mapping[str, Any]:
        """The server metadata (RFC 8414)."""
        path = "/.well-known/oauth-authorization-server"
        _, _, raw = call_wsgi(self.app, {"REQUEST_METHOD": "GET", "PATH_INFO": path})
        return decode_object(raw)


def call_wsgi(
    app: Callable[..., Any], environ: Mapping[str, str], body: bytes = b""
) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI application once: the status code, the headers in lower case, the body."""
    seen: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        seen.update(status=status.split(maxsplit=1)[0], headers={k.lower(): v for k, v in headers})

    full = {
        "SERVER_NAME": "sts.test",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "SCRIPT_NAME": "",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        **environ,
    }
    raw = b"".join(app(full, start_response))
    return seen["status"], seen["headers"], raw


class GrpcFace:
    """The gRPC face behind a real socket on loopback."""

    name = "grpc"

    def __init__(self, broker: Broker) -> None:
        self.server: RunningServer = build_server(broker.endpoints, address="127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.stub = token_service_pb2_grpc.TokenServiceStub(self.channel)

    def close(self) -> None:
        """Stop the server and the channel."""
        self.channel.close()
        self.server.stop(0)

    def exchange(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer:
        """Ask by the method that serves the grant; an unknown one goes to the first of them."""
        metadata = (
            *(("authorization", value) for value in authorization),
            *(("dpop", value) for value in proofs),
        )
        method, message = self.call_for(parameters)
        try:
            response, call = method.with_call(message, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return grpc_refusal(error)
        issued = self.issued(response)
        return Answer(
            face=self.name,
            status="OK",
            error="",
            description="",
            token=issued.access_token,
            fields={
                "issued_token_type": _type_uri(issued.issued_token_type),
                "token_type": issued.token_type,
                "expires_in": issued.expires_in,
                "scope": " ".join(issued.scopes),
                "resource": issued.resource,
            },
            headers={name: str(value) for name, value in call.initial_metadata()},
            everything=str(response),
        )

    def call_for(self, parameters: Parameters) -> tuple[Any, Any]:
        """The method to call, and what with."""
        return call_for(self.stub, parameters)

    def issued(self, response: Any) -> Any:
        """The token in an answer."""
        return response.issued_token

    def introspect(self, parameters: Parameters, *authorization: str) -> Answer:
        """Ask about a token; ``fields`` is what is told."""
        message = token_service_pb2.IntrospectTokenRequest(
            token=_text(parameters, "token"),
            token_type_hint=_text(parameters, "token_type_hint"),
            client_authentication=client_authentication(parameters),
        )
        return self._inquire(self.stub.IntrospectToken, message, authorization)

    def revoke(self, parameters: Parameters, *authorization: str) -> Answer:
        """Withdraw a token."""
        message = token_service_pb2.RevokeTokenRequest(
            token=_text(parameters, "token"),
            token_type_hint=_text(parameters, "token_type_hint"),
            client_authentication=client_authentication(parameters),
        )
        return self._inquire(self.stub.RevokeToken, message, authorization)

    def _inquire(self, method: Any, message: Any, authorization: Sequence[str]) -> Answer:
        metadata = tuple(("authorization", value) for value in authorization)
        try:
            response, call = method.with_call(message, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return grpc_refusal(error)
        return Answer(
            face=self.name,
            status="OK",
            error="",
            description="",
            token="",
            fields=_told(response),
            headers={name: str(value) for name, value in call.initial_metadata()},
            everything=str(response),
        )

    def metadata(self) -> Mapping[str, Any]:
        """The server metadata (RFC 8414)."""
        discovery = discovery_service_pb2_grpc.DiscoveryServiceStub(self.channel)
        asked = discovery_service_pb2.GetServerMetadataRequest()
        return decode_object(discovery.GetServerMetadata(asked, timeout=20).document_json)

    def address(self, parameters: Parameters) -> str:
        """What a DPoP proof for the request must name."""
        methods = {
            GRANT_JWT_BEARER: "RedeemAssertion",
            GRANT_CLIENT_CREDENTIALS: "IssueClientToken",
        }
        method = methods.get(_text(parameters, "grant_type"), "ExchangeToken")
        return f"{ISS}/broker.v1.TokenService/{method}"


class GrpcBatchFace(GrpcFace):
    """The same, asked for a batch of one token wherever that can say what the parameters say."""

    def call_for(self, parameters: Parameters) -> tuple[Any, Any]:
        if not _is_batch(parameters):
            return super().call_for(parameters)
        return self.stub.ExchangeTokens, batch_message(parameters, parameters)

    def issued(self, response: Any) -> Any:
        if not isinstance(response, token_service_pb2.ExchangeTokensResponse):
            return super().issued(response)
        (issued,) = response.issued_tokens
        return issued

    def address(self, parameters: Parameters) -> str:
        address = super().address(parameters)
        return f"{address}s" if _is_batch(parameters) else address


def _is_batch(parameters: Parameters) -> bool:
    is_single = all(len(_texts(parameters, name)) <= 1 for name in ("resource", "audience"))
    is_exchange = parameters.get("grant_type") == GRANT_TOKEN_EXCHANGE
    return is_exchange and is_single and "requested_token_type" not in parameters


def call_for(
    stub: token_service_pb2_grpc.TokenServiceStub, parameters: Parameters
) -> tuple[Any, Any]:
    """The method that serves the grant, and the message that says what the parameters say."""
    grant_type = parameters.get("grant_type", "")
    if grant_type == GRANT_JWT_BEARER:
        return stub.RedeemAssertion, redeem_message(parameters)
    if grant_type == GRANT_CLIENT_CREDENTIALS:
        return stub.IssueClientToken, client_message(parameters)
    return stub.ExchangeToken, exchange_message(parameters)


def _told(response: Any) -> dict[str, Any]:
    """What a message tells of a token; its fields say the same as its document."""
    if isinstance(response, token_service_pb2.RevokeTokenResponse):
        return {}
    if not response.active:
        assert response == token_service_pb2.IntrospectTokenResponse()
        return {"active": False}
    document = decode_object(response.document_json)
    for name in ("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "token_type"):
        assert getattr(response, name) == document[name]
    assert list(response.scopes) == document["scope"].split()
    return document


def grpc_refusal(error: Any) -> Answer:
    """What a call was refused with."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        for detail in status.details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
    return Answer(
        face="grpc",
        status=error.code().name,
        error=info.metadata.get("error", ""),
        description=error.details(),
        token="",
        fields={},
        headers=dict(info.metadata),
        everything=f"{error.details()} {status} {error.trailing_metadata()}",
    )


def _text(parameters: Parameters, name: str) -> str:
    value = parameters.get(name, "")
    assert isinstance(value, str)
    return value


def _texts(parameters: Parameters, name: str) -> list[str]:
    value = parameters.get(name, [])
    return [value] if isinstance(value, str) else value


def _scopes(parameters: Parameters) -> list[str]:
    return _text(parameters, "scope").split(" ") if "scope" in parameters else []


def client_authentication(parameters: Parameters) -> token_pb2.ClientAuthentication:
    """The part of any message that says who the caller is."""
    return token_pb2.ClientAuthentication(
        client_id=_text(parameters, "client_id"),
        client_secret=_text(parameters, "client_secret"),
        client_assertion=_text(parameters, "client_assertion"),
        client_assertion_type=_text(parameters, "client_assertion_type"),
    )


def redeem_message(parameters: Parameters) -> token_service_pb2.RedeemAssertionRequest:
    """The message that redeems what form parameters would."""
    return token_service_pb2.RedeemAssertionRequest(
        assertion=_text(parameters, "assertion"),
        resources=_texts(parameters, "resource"),
        audiences=_texts(parameters, "audience"),
        scopes=_scopes(parameters),
        client_authentication=client_authentication(parameters),
    )


def client_message(parameters: Parameters) -> token_service_pb2.IssueClientTokenRequest:
    """The message that asks for a client's own token as form parameters would."""
    return token_service_pb2.IssueClientTokenRequest(
        resources=_texts(parameters, "resource"),
        audiences=_texts(parameters, "audience"),
        scopes=_scopes(parameters),
        client_authentication=client_authentication(parameters),
    )


def exchange_message(parameters: Parameters) -> token_service_pb2.ExchangeTokenRequest:
    """The message that says the same as form parameters do."""
    return token_service_pb2.ExchangeTokenRequest(
        subject_token=_text(parameters, "subject_token"),
        subject_token_type=_token_type(parameters, "subject_token_type"),
        actor_token=_text(parameters, "actor_token"),
        actor_token_type=_token_type(parameters, "actor_token_type"),
        resources=_texts(parameters, "resource"),
        audiences=_texts(parameters, "audience"),
        scopes=_scopes(parameters),
        requested_token_type=_token_type(parameters, "requested_token_type"),
        client_authentication=client_authentication(parameters),
    )


def batch_message(
    common: Parameters, *targets: Parameters
) -> token_service_pb2.ExchangeTokensRequest:
    """The message that asks for several tokens, each for the target that its parameters name."""
    return token_service_pb2.ExchangeTokensRequest(
        subject_token=_text(common, "subject_token"),
        subject_token_type=_token_type(common, "subject_token_type"),
        actor_token=_text(common, "actor_token"),
        actor_token_type=_token_type(common, "actor_token_type"),
        targets=[
            token_service_pb2.ExchangeTarget(
                resource="".join(_texts(target, "resource")),
                audience="".join(_texts(target, "audience")),
                scopes=_scopes(target),
            )
            for target in targets
        ],
        client_authentication=client_authentication(common),
    )


def _token_type(parameters: Parameters, name: str) -> Any:
    short = _text(parameters, name).rpartition(":")[2]
    return _TOKEN_TYPES.get(short, UNKNOWN_TOKEN_TYPE) if short else 0


def basic(client_id: str, secret: str) -> str:
    """An Authorization value for HTTP Basic, form-encoding nothing."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
