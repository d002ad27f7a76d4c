"""The grants, by their registered type. Discovery, routing and parameter checks follow this mapping."""

from collections.abc import Mapping
from typing import Final

from broker.grants._grant import Grant, GrantTools
from broker.grants.token_exchange import TokenExchange

GRANTS: Final[Mapping[str, type[Grant]]] = {
    TokenExchange.grant_type: TokenExchange,
}

__all__ = ["GRANTS", "Grant", "GrantTools"]
