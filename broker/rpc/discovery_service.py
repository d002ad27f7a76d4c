"""The discovery service: the server metadata and the key set as messages."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from broker.endpoints.discovery import DiscoveryEndpoint
from broker.rpc.boundary import Rpc
from broker.rpc.call import Call
from broker.v1 import discovery_service_pb2
from broker.v1.discovery_service_pb2 import (
    GetKeySetRequest,
    GetKeySetResponse,
    GetServerMetadataRequest,
    GetServerMetadataResponse,
    JsonWebKey,
)

SERVICE: Final[str] = discovery_service_pb2.DESCRIPTOR.services_by_name[
    "DiscoveryService"
].full_name

_KEY_MEMBERS: Final = frozenset(JsonWebKey.DESCRIPTOR.fields_by_name)


class DiscoveryService:
    """Answers for ``broker.v1.DiscoveryService``, to everybody."""

    def __init__(self, endpoint: DiscoveryEndpoint) -> None:
        self._endpoint = endpoint

    def rpcs(self) -> Mapping[str, Rpc[Any]]:
        """The methods by their names."""
        return {
            "GetServerMetadata": Rpc(
                GetServerMetadataRequest.FromString, self.get_server_metadata, is_open=True
            ),
            "GetKeySet": Rpc(GetKeySetRequest.FromString, self.get_key_set, is_open=True),
        }

    def get_server_metadata(
        self, call: Call[GetServerMetadataRequest]
    ) -> GetServerMetadataResponse:
        """The metadata of RFC 8414, also as the document that HTTP serves."""
        call.message()
        document = self._endpoint.metadata()
        return GetServerMetadataResponse(
            issuer=document["issuer"],
            token_endpoint=document["token_endpoint"],
            jwks_uri=document["jwks_uri"],
            grant_types_supported=document["grant_types_supported"],
            token_endpoint_auth_methods_supported=document["token_endpoint_auth_methods_supported"],
            token_endpoint_auth_signing_alg_values_supported=document[
                "token_endpoint_auth_signing_alg_values_supported"
            ],
            document_json=msgspec.json.encode(document).decode(),
        )

    def get_key_set(self, call: Call[GetKeySetRequest]) -> GetKeySetResponse:
        """The published keys (RFC 7517)."""
        call.message()
        key_set = self._endpoint.key_set()
        return GetKeySetResponse(
            keys=[_json_web_key(jwk) for jwk in key_set.keys], max_age=key_set.max_age
        )


def _json_web_key(jwk: Mapping[str, str]) -> JsonWebKey:
    return JsonWebKey(**{name: value for name, value in jwk.items() if name in _KEY_MEMBERS})
