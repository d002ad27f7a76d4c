"""
Authlib's authorization server in Flask: client credentials by secret and by key, ES256 (RFC 9068).

Everything is in memory; of client assertions it remembers the ids, and nothing of what it issued.
"""

import json
import os
from pathlib import Path
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response
from joserfc.jwk import ECKey, KeySet

GIVEN: dict[str, Any] = json.loads(Path(os.environ["GIVEN"]).read_text())
ISSUER = f"http://127.0.0.1:{GIVEN['port']}"
TOKEN_ENDPOINT = f"{ISSUER}/token"
BY_KEY = "private_key_jwt"

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"


class Client(ClientMixin):
    """One of the two clients; ``secret`` is empty for the one with a key."""

    def __init__(self, client_id: str, method: str, secret: str = "") -> None:
        self.client_id = client_id
        self._method = method
        self._secret = secret

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_client_secret(self, client_secret: str) -> bool:
        return bool(self._secret) and self._secret == client_secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method == self._method

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Grant(ClientCredentialsGrant):
    """The grant, for both ways to authenticate."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", BY_KEY)


class Tokens(JWTBearerTokenGenerator):
    """Access tokens as JWTs."""

    def get_jwks(self) -> KeySet:
        return KEYS

    def get_audiences(self, *_: object) -> str:
        return str(GIVEN["api"])


class Assertions(JWTBearerClientAssertion):
    """Authentication by a key, each assertion once."""

    CLIENT_AUTH_METHOD = BY_KEY

    def __init__(self) -> None:
        super().__init__(TOKEN_ENDPOINT)
        self._seen: set[str] = set()

    def get_audiences(self) -> list[str]:
        return [TOKEN_ENDPOINT, ISSUER]

    def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:
        is_new = jti not in self._seen
        self._seen.add(jti)
        return is_new

    def resolve_client_public_key(self, *_: object, **__: object) -> ECKey:
        return CLIENT_KEY


KEYS = KeySet([ECKey.import_key(GIVEN["signing_jwk"])])
CLIENT_KEY = ECKey.import_key(GIVEN["client_jwk"])
CLIENTS = {
    GIVEN["secret_client"]: Client(GIVEN["secret_client"], "client_secret_basic", GIVEN["secret"]),
    GIVEN["key_client"]: Client(GIVEN["key_client"], BY_KEY),
}

app = Flask(__name__)
server = AuthorizationServer(app, query_client=CLIENTS.get, save_token=lambda *_: None)
server.register_token_generator("default", Tokens(issuer=ISSUER, alg="ES256"))
server.register_grant(Grant)
server.register_client_auth_method(BY_KEY, Assertions())


@app.post("/token")
def token() -> Response:
    """The token endpoint."""
    response: Response = server.create_token_response()
    return response
