"""How the characters of the story talk to the brokers over HTTP, and check what they get."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import urllib3

from broker.dev.failure import StoryFailed
from broker.dev.setup import DevBroker, DevSetup
from broker.drawing import visible

TIMEOUT: Final = 5.0
"""How long an answer may take, in seconds."""


@dataclass
class Caller:
    """Asks as any OAuth client would; the broker is the main one unless ``at`` says otherwise."""

    setup: DevSetup
    http: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(timeout=TIMEOUT, retries=False)
    )

    def get(self, url: str) -> Mapping[str, Any]:
        """The JSON document there."""
        answer: Mapping[str, Any] = self.http.request("GET", url, timeout=TIMEOUT).json()
        return answer

    def post(
        self,
        client: str,
        fields: Mapping[str, str],
        *,
        endpoint: str = "token",
        at: DevBroker | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a form that a client sends to an endpoint, by default that for tokens."""
        secret = self.setup.client_secrets[client]
        return self.http.request_encode_body(
            "POST",
            f"{(at or self.setup.main).issuer}/{endpoint}",
            fields=dict(fields),
            headers=urllib3.make_headers(basic_auth=f"{client}:{secret}"),
            encode_multipart=False,
        )

    def token(self, client: str, fields: Mapping[str, str], *, at: DevBroker | None = None) -> str:
        """The token that a client gets; raises ``StoryFailed`` when it gets none."""
        answer = self.post(client, fields, at=at)
        body = answer.json()
        if answer.status != 200:
            raise StoryFailed(f"The broker refused: {visible(body)}")
        return str(body["access_token"])

    def is_active(self, token: str, client: str) -> bool:
        """Whether the token counts, as the client is told (RFC 7662)."""
        return bool(self.post(client, {"token": token}, endpoint="introspect").json()["active"])

    def verified(
        self, token: str, audience: str, *, at: DevBroker | None = None
    ) -> Mapping[str, Any]:
        """What a recipient does: check the token against the published keys."""
        issuer = (at or self.setup.main).issuer
        keys = jwt.PyJWKSet.from_dict(dict(self.get(f"{issuer}/jwks")))
        claims: Mapping[str, Any] = jwt.decode(
            token,
            keys[jwt.get_unverified_header(token)["kid"]],
            algorithms=["ES256"],
            audience=audience,
            issuer=issuer,
            options={"require": ["exp", "iat", "sub", "jti", "client_id"]},
        )
        return claims
