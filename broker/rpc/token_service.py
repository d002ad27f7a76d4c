"""The token service: a message and metadata become a token request, an issued token a message."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from broker.endpoints.token import MOST_TARGETS, TokenEndpoint
from broker.errors import InvalidRequest, Reason
from broker.model import BatchRequest, ClientCredential, IssuedToken, TargetRequest, TokenRequest
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE
from broker.rpc.boundary import Rpc
from broker.rpc.call import Call, CallMetadata
from broker.rpc.token_types import token_type_number, token_type_uri
from broker.v1 import token_pb2, token_service_pb2
from broker.v1.token_service_pb2 import (
    ExchangeTarget,
    ExchangeTokenRequest,
    ExchangeTokenResponse,
    ExchangeTokensRequest,
    ExchangeTokensResponse,
    IssueClientTokenRequest,
    IssueClientTokenResponse,
    RedeemAssertionRequest,
    RedeemAssertionResponse,
)

SERVICE: Final[str] = token_service_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name

_Message = (
    ExchangeTokenRequest | ExchangeTokensRequest | RedeemAssertionRequest | IssueClientTokenRequest
)
_Asked = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]
"""The resources, audiences and scopes of a request."""
_NOTHING: Final[_Asked] = ((), (), None)

_LONGEST_VALUE: Final = 4 * 1024
_LONGEST_TOKEN: Final = 32 * 1024
_TOKENS: Final = frozenset(
    {"actor_token", "assertion", "client_assertion", "client_secret", "subject_token", "token"}
)


class TokenService:
    """Answers for ``broker.v1.TokenService``."""

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint

    def rpcs(self) -> Mapping[str, Rpc[Any]]:
        """The methods by their names."""
        return {
            "ExchangeToken": Rpc(ExchangeTokenRequest.FromString, self.exchange_token),
            "ExchangeTokens": Rpc(ExchangeTokensRequest.FromString, self.exchange_tokens),
            "RedeemAssertion": Rpc(RedeemAssertionRequest.FromString, self.redeem_assertion),
            "IssueClientToken": Rpc(IssueClientTokenRequest.FromString, self.issue_client_token),
        }

    def exchange_token(self, call: Call[ExchangeTokenRequest]) -> ExchangeTokenResponse:
        """Exchange a token (RFC 8693)."""
        issued = self._endpoint.issue(
            call.context, lambda: read_exchange(call.message(), call.metadata)
        )
        return ExchangeTokenResponse(issued_token=_message(issued))

    def exchange_tokens(self, call: Call[ExchangeTokensRequest]) -> ExchangeTokensResponse:
        """Exchange a token for several, all or none."""
        issued = self._endpoint.issue_all(
            call.context, lambda: read_batch(call.message(), call.metadata)
        )
        return ExchangeTokensResponse(issued_tokens=map(_message, issued))

    def redeem_assertion(self, call: Call[RedeemAssertionRequest]) -> RedeemAssertionResponse:
        """Redeem an assertion (RFC 7523 2.1)."""
        issued = self._endpoint.issue(
            call.context, lambda: read_redemption(call.message(), call.metadata)
        )
        return RedeemAssertionResponse(issued_token=_message(issued))

    def issue_client_token(self, call: Call[IssueClientTokenRequest]) -> IssueClientTokenResponse:
        """Issue a client's own token (RFC 6749 4.4)."""
        issued = self._endpoint.issue(
            call.context, lambda: read_client_request(call.message(), call.metadata)
        )
        return IssueClientTokenResponse(issued_token=_message(issued))


def _message(issued: IssuedToken) -> token_pb2.IssuedToken:
    return token_pb2.IssuedToken(
        access_token=issued.token,
        issued_token_type=token_type_number(issued.issued_token_type),
        token_type=issued.token_type,
        expires_in=issued.expires_in,
        scopes=issued.scopes,
        resource=issued.resource,
    )


def read_exchange(message: ExchangeTokenRequest, metadata: CallMetadata) -> TokenRequest:
    """
    The token request that a message and its metadata make, as if it had come as a form.

    An empty string counts as omitted, as a parameter without a value does (RFC 6749 3.2).
    """
    single = _tokens(message)
    single["requested_token_type"] = token_type_uri(message.requested_token_type)
    return _read(
        GRANT_TOKEN_EXCHANGE,
        metadata,
        message=message,
        single=single,
        asked=_asked(message.resources, message.audiences, message.scopes),
    )


def read_batch(message: ExchangeTokensRequest, metadata: CallMetadata) -> BatchRequest:
    """
    The request for several tokens; what they have in common is read like a request for one.

    Of too many targets no more are read than it takes to see that they are.
    """
    common = _read(
        GRANT_TOKEN_EXCHANGE, metadata, message=message, single=_tokens(message), asked=_NOTHING
    )
    targets = islice(message.targets, MOST_TARGETS + 1)
    return BatchRequest(common, tuple(map(_target, targets)))


def _target(target: ExchangeTarget) -> TargetRequest:
    return TargetRequest(*_asked([target.resource], [target.audience], target.scopes))


def _tokens(message: ExchangeTokenRequest | ExchangeTokensRequest) -> dict[str, str | None]:
    return {
        "subject_token": message.subject_token or None,
        "subject_token_type": token_type_uri(message.subject_token_type),
        "actor_token": message.actor_token or None,
        "actor_token_type": token_type_uri(message.actor_token_type),
    }


def _asked(resources: Iterable[str], audiences: Iterable[str], scopes: Iterable[str]) -> _Asked:
    asked = tuple(scopes)
    return (
        tuple([one for one in resources if one]),
        tuple([one for one in audiences if one]),
        # A form joins the scopes with spaces, so that one empty scope alone is no value at all.
        None if asked in ((), ("",)) else asked,
    )


def read_redemption(message: RedeemAssertionRequest, metadata: CallMetadata) -> TokenRequest:
    """The token request that redeems an assertion, as if it had come as a form."""
    return _read(
        GRANT_JWT_BEARER,
        metadata,
        message=message,
        single={"assertion": message.assertion or None},
        asked=_asked(message.resources, message.audiences, message.scopes),
    )


def read_client_request(message: IssueClientTokenRequest, metadata: CallMetadata) -> TokenRequest:
    """The token request of a client for itself, as if it had come as a form."""
    asked = _asked(message.resources, message.audiences, message.scopes)
    return _read(GRANT_CLIENT_CREDENTIALS, metadata, message=message, single={}, asked=asked)


def _read(
    grant_type: str,
    metadata: CallMetadata,
    *,
    message: _Message,
    single: Mapping[str, str | None],
    asked: _Asked,
) -> TokenRequest:
    """What all grants have in common, beside the parameters that this one has."""
    credential = read_credential(message.client_authentication, metadata)
    sent: dict[str, str | tuple[str, ...] | None] = {
        "grant_type": grant_type,
        "client_id": credential.client_id,
        "client_secret": credential.client_secret,
        "client_assertion": credential.client_assertion,
        "client_assertion_type": credential.client_assertion_type,
        **single,
    }
    # In a message that is small as a whole no parameter can be too large.
    if message.ByteSize() > _LONGEST_VALUE:
        check_sizes(sent)
    resources, audiences, scopes = asked
    sent.update(resource=resources, audience=audiences, scope=scopes)
    return TokenRequest(
        grant_type=grant_type,
        credential=credential,
        resources=resources,
        audiences=audiences,
        scopes=scopes,
        present=frozenset([name for name, value in sent.items() if value]),
        subject_token=single.get("subject_token"),
        subject_token_type=single.get("subject_token_type"),
        actor_token=single.get("actor_token"),
        actor_token_type=single.get("actor_token_type"),
        assertion=single.get("assertion"),
        requested_token_type=single.get("requested_token_type"),
        proofs=metadata.proofs,
        proof_target=metadata.proof_target,
    )


def read_credential(
    message: token_pb2.ClientAuthentication, metadata: CallMetadata
) -> ClientCredential:
    """What a message and its metadata say of who the caller is, unproved."""
    return ClientCredential(
        unverified_authorization=metadata.authorization,
        client_id=message.client_id or None,
        client_secret=message.client_secret or None,
        client_assertion=_sole(message.client_assertion, metadata.client_assertion),
        client_assertion_type=_sole(message.client_assertion_type, metadata.client_assertion_type),
    )


def _sole(in_message: str, in_metadata: tuple[str, ...]) -> str | None:
    """The one value sent, here or there; more than one is more than one credential."""
    if not in_metadata:
        return in_message or None
    values = [value for value in (in_message, *in_metadata) if value]
    if len(values) > 1:
        raise InvalidRequest(Reason.MULTIPLE_CLIENT_AUTH)
    return values[0] if values else None


def check_sizes(single: Mapping[str, str | tuple[str, ...] | None]) -> None:
    """
    Refuse a parameter that is too large, by its name (``param_too_large``).

    Targets and scopes are not looked at: the core refuses them by rules of their own.
    """
    for name, value in single.items():
        longest = _LONGEST_TOKEN if name in _TOKENS else _LONGEST_VALUE
        if value is not None and len(value) > longest:
            raise InvalidRequest(Reason.PARAM_TOO_LARGE, parameter=name)
