"""The token service's other half: a message asks about a token that there is, or withdraws it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from broker.endpoints.introspection import IntrospectionEndpoint
from broker.endpoints.revocation import RevocationEndpoint
from broker.model import TokenInquiry
from broker.rpc.boundary import Rpc
from broker.rpc.call import Call, CallMetadata
from broker.rpc.token_service import check_sizes, read_credential
from broker.v1.token_service_pb2 import (
    IntrospectTokenRequest,
    IntrospectTokenResponse,
    RevokeTokenRequest,
    RevokeTokenResponse,
)


class TokenInquiries:
    """Answers for the methods of ``broker.v1.TokenService`` that issue nothing."""

    def __init__(
        self, introspection: IntrospectionEndpoint, revocation: RevocationEndpoint
    ) -> None:
        self._introspection = introspection
        self._revocation = revocation

    def rpcs(self) -> Mapping[str, Rpc[Any]]:
        """The methods by their names."""
        return {
            "IntrospectToken": Rpc(IntrospectTokenRequest.FromString, self.introspect_token),
            "RevokeToken": Rpc(RevokeTokenRequest.FromString, self.revoke_token),
        }

    def introspect_token(self, call: Call[IntrospectTokenRequest]) -> IntrospectTokenResponse:
        """Tell about a token (RFC 7662)."""
        document = self._introspection.introspect(
            call.context, lambda: read_inquiry(call.message(), call.metadata)
        )
        if not document["active"]:
            return IntrospectTokenResponse()
        return IntrospectTokenResponse(
            active=True,
            iss=document["iss"],
            sub=document["sub"],
            aud=document["aud"],
            client_id=document["client_id"],
            scopes=document.get("scope", "").split(),
            iat=document["iat"],
            exp=document["exp"],
            jti=document["jti"],
            token_type=document["token_type"],
            document_json=msgspec.json.encode(document).decode(),
        )

    def revoke_token(self, call: Call[RevokeTokenRequest]) -> RevokeTokenResponse:
        """Withdraw a token (RFC 7009)."""
        self._revocation.revoke(call.context, lambda: read_inquiry(call.message(), call.metadata))
        return RevokeTokenResponse()


def read_inquiry(
    message: IntrospectTokenRequest | RevokeTokenRequest, metadata: CallMetadata
) -> TokenInquiry:
    """The token that a message asks about, as if it had come as a form."""
    credential = read_credential(message.client_authentication, metadata)
    check_sizes(
        {
            "token": message.token,
            "token_type_hint": message.token_type_hint,
            "client_id": credential.client_id,
            "client_secret": credential.client_secret,
            "client_assertion": credential.client_assertion,
            "client_assertion_type": credential.client_assertion_type,
        }
    )
    return TokenInquiry(credential, message.token or None)
