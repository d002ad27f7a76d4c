"""The admin service: an operator's message withdraws for a whole party."""

from collections.abc import Mapping
from typing import Any, Final

from broker.endpoints.withdrawal import WithdrawalEndpoint
from broker.errors import InvalidRequest, Reason
from broker.model import PartyKind, WithdrawalRequest
from broker.rpc.boundary import Rpc
from broker.rpc.call import Call, CallMetadata
from broker.rpc.token_service import read_credential
from broker.v1 import admin_service_pb2
from broker.v1.admin_service_pb2 import RevokeIssuedTokensRequest, RevokeIssuedTokensResponse

SERVICE: Final[str] = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

_KINDS: Final[Mapping[int, PartyKind | None]] = {
    admin_service_pb2.REVOKED_PARTY_UNSPECIFIED: None,
    admin_service_pb2.REVOKED_PARTY_SUBJECT: PartyKind.SUBJECT,
    admin_service_pb2.REVOKED_PARTY_CLIENT: PartyKind.CLIENT,
    admin_service_pb2.REVOKED_PARTY_MCP_SERVER: PartyKind.MCP_SERVER,
    admin_service_pb2.REVOKED_PARTY_ISSUER: PartyKind.ISSUER,
}


class AdminService:
    """Answers for ``broker.v1.AdminService``."""

    def __init__(self, endpoint: WithdrawalEndpoint) -> None:
        self._endpoint = endpoint

    def rpcs(self) -> Mapping[str, Rpc[Any]]:
        """The methods by their names."""
        parse = RevokeIssuedTokensRequest.FromString
        return {"RevokeIssuedTokens": Rpc(parse, self.revoke_issued_tokens)}

    def revoke_issued_tokens(
        self, call: Call[RevokeIssuedTokensRequest]
    ) -> RevokeIssuedTokensResponse:
        """Withdraw everything that was issued for a party."""
        withdrawal = self._endpoint.withdraw(
            call.context, lambda: _read(call.message(), call.metadata)
        )
        return RevokeIssuedTokensResponse(issued_until=withdrawal.issued_until)


def _read(message: RevokeIssuedTokensRequest, metadata: CallMetadata) -> WithdrawalRequest:
    if message.party not in _KINDS:
        raise InvalidRequest(Reason.PARAM_MALFORMED, parameter="party")
    return WithdrawalRequest(
        credential=read_credential(message.client_authentication, metadata),
        kind=_KINDS[message.party],
        name=message.name,
        issued_since=message.issued_since,
    )
