"""What may stand in ``broker.yaml``: the clients, the resources and the trusted issuers."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from broker.config.kinds import (
    Algorithm,
    ClientId,
    Duration,
    FileName,
    Identifier,
    Moment,
    ResourceUri,
    Scope,
    SecretHashText,
    SubjectPrefix,
    Url,
    holding,
    lasting,
)
from broker.config.section import Section
from broker.model import Purpose
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE

GRANTS: Final = {
    "token_exchange": GRANT_TOKEN_EXCHANGE,
    "client_credentials": GRANT_CLIENT_CREDENTIALS,
    "jwt_bearer": GRANT_JWT_BEARER,
}
"""The grant types by the names that the file uses for them."""

AuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
PurposeName = Literal["user", "workload", "access_token", "id_jag"]
GrantName = Literal["token_exchange", "client_credentials", "jwt_bearer"]


class SecretEntry(Section):
    """A client secret, by its hash alone."""

    hash: SecretHashText = Field(description="What `broker client secret` prints.")
    expires_at: Moment | None = Field(None, description="When it stops working.")


class ClientAuthSection(Section):
    """How a client authenticates. A list in `methods`, or one in `method`."""

    method: AuthMethod | None = Field(None, description="The one method it may use.")
    methods: Annotated[list[AuthMethod], holding(1, 3)] | None = Field(
        None, description="The methods it may use."
    )
    secrets: Annotated[list[SecretEntry], holding(0, 4)] = Field(
        [], description="Its secrets; two while one replaces the other."
    )
    jwks: dict[str, Any] | None = Field(None, description="Its public keys (RFC 7517).")
    jwks_file: FileName | None = Field(None, description="A file with its public keys.")
    jwks_uri: Url | None = Field(None, description="Where it publishes its keys.")
    algorithms: Annotated[list[Algorithm], holding(1, 6)] = Field(
        ["ES256", "RS256"], description="The algorithms of its assertions."
    )
