"""The grants, by their registered type. Discovery, routing and parameter checks follow this mapping."""

from collections.abc import Mapping
from typing import Final

from broker.grants._grant import Grant, GrantTools
from broker.grants.client_credentials import ClientCredentials
from broker.grants.jwt_bearer import JwtBearer
from broker.grants.token_exchange import TokenExchange

GRANTS: Final[Mapping[str, type[Grant]]] = {
    TokenExchange.grant_type: TokenExchange,
    ClientCredentials.grant_type: ClientCredentials,
    JwtBearer.grant_type: JwtBearer,
}

__all__ = ["GRANTS", "Grant", "GrantTools"]
