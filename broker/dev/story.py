"""The story that development mode plays once, for real, through the broker's own sockets."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import jwt
import urllib3
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from broker.audit.reader import verify_directory
from broker.dev.failure import StoryFailed
from broker.dev.setup import (
    CRM_RESOURCE,
    DESK,
    OPERATOR,
    TICKETS,
    TICKETS_RESOURCE,
    DevSetup,
)
from broker.drawing import token_tree, visible
from broker.oauth import (
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
)
from broker.v1 import (
    policy_service_pb2,
    policy_service_pb2_grpc,
    token_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)

_TIMEOUT: Final = 5.0


@dataclass
class Story:
    """
    Tells how a person's token becomes one for an API behind an MCP server.

    Every step talks to the running broker as its users would. Raises ``StoryFailed``.
    """

    setup: DevSetup
    console: Console
    http: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
    )
    number: int = 0

    def play(self) -> None:
        """All steps, in order."""
        id_token = self.log_in()
        with grpc.insecure_channel(f"127.0.0.1:{self.setup.grpc_port}") as channel:
            received = self.reach_the_server(id_token)
            self.exchange_over_grpc(received, channel)
            self.exchange_over_http(received)
            self.ask_for_too_much(received, channel)
        self.verify_the_audit_log()

    def log_in(self) -> str:
        """Ann logs in to the agent's web page at the pretend identity provider."""
        self._step(f"Ann logs in. The agent {DESK} now holds her ID token.")
        url = f"{self.setup.idp_issuer}/login?sub=ann&client_id={DESK}"
        answer = self.http.request("GET", url, timeout=_TIMEOUT)
        return str(answer.json()["id_token"])

    def reach_the_server(self, id_token: str) -> str:
        """The agent gets a token for the MCP server, which checks it against the published keys."""
        self._step(f"{DESK} turns it into a token for the MCP server {TICKETS}, and calls it.")
        answer = self._post(DESK, TICKETS_RESOURCE, id_token, TOKEN_TYPE_ID_TOKEN)
        token = self._granted(answer)
        self._draw(self._verified(token, TICKETS_RESOURCE))
        return token

    def exchange_over_grpc(self, received: str, channel: grpc.Channel) -> None:
        """The MCP server exchanges what it received; it may not pass it on."""
        self._step(f"{TICKETS} may not pass that token on. It exchanges it, over gRPC.")
        stub = token_service_pb2_grpc.TokenServiceStub(channel)
        response = stub.ExchangeToken(
            _message(received, "crm.contacts.read", self._authentication(TICKETS)),
            timeout=_TIMEOUT,
        )
        self._draw(self._verified(response.issued_token.access_token, CRM_RESOURCE))

    def exchange_over_http(self, received: str) -> None:
        """The same over HTTP, as every OAuth client can."""
        self._step("And again over HTTP, as any OAuth client would.")
        answer = self._post(
            TICKETS, CRM_RESOURCE, received, TOKEN_TYPE_ACCESS_TOKEN, scope="crm.contacts.read"
        )
        claims = self._verified(self._granted(answer), CRM_RESOURCE)
        self.console.print(
            f"    the same person, the same chain, {claims['exp'] - claims['iat']} s"
        )

    def ask_for_too_much(self, received: str, channel: grpc.Channel) -> None:
        """A request that policy refuses: what the caller sees, and what an operator can find out."""
        self._step(f"{TICKETS} asks to change contacts as well. That is too much.")
        answer = self._post(
            TICKETS, CRM_RESOURCE, received, TOKEN_TYPE_ACCESS_TOKEN, scope="crm.contacts.write"
        )
        refusal = answer.json()
        if answer.status != 400 or "access_token" in refusal:
            raise StoryFailed("A token was issued that should have been refused.")
        self.console.print(
            Text(
                f"    refused: {visible(refusal['error'])} - {visible(refusal['error_description'])}"
            )
        )
        self.console.print(f"    decision {answer.headers['Broker-Decision-Id']}", style="dim")
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        explained = stub.ExplainDecision(
            policy_service_pb2.ExplainDecisionRequest(
                exchange=_message(received, "crm.contacts.write", self._authentication(OPERATOR)),
                client_id=TICKETS,
            ),
            timeout=_TIMEOUT,
        )
        for line in _grounds(explained):
            self.console.print(Text("    " + line))

    def verify_the_audit_log(self) -> None:
        """Whoever reviews the log finds it whole."""
        self._step("Every decision above is in the audit log. Is the log whole?")
        report = verify_directory(self.setup.directory / "audit")
        if not report.is_intact:
            raise StoryFailed("The audit log does not verify.")
        self.console.print(
            f"    {report.records} records in {len(report.chains)} chains, all intact"
        )

    def _step(self, sentence: str) -> None:
        self.number += 1
        self.console.print(Text(f"\n{self.number}. {sentence}", "bold"))

    def _post(
        self, client: str, resource: str, token: str, token_type: str, *, scope: str = ""
    ) -> urllib3.BaseHTTPResponse:
        fields = {
            "grant_type": GRANT_TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": token_type,
            "resource": resource,
            "scope": scope,
        }
        headers = urllib3.make_headers(basic_auth=f"{client}:{self.setup.client_secrets[client]}")
        return self.http.request_encode_body(
            "POST",
            self.setup.issuer + "/token",
            fields={name: value for name, value in fields.items() if value},
            headers=headers,
            encode_multipart=False,
        )

    def _granted(self, answer: urllib3.BaseHTTPResponse) -> str:
        body = answer.json()
        if answer.status != 200:
            raise StoryFailed(f"The broker refused: {visible(body)}")
        return str(body["access_token"])

    def _verified(self, token: str, audience: str) -> Mapping[str, Any]:
        """What a resource server does: check the token against the published keys."""
        answer = self.http.request("GET", self.setup.issuer + "/jwks", timeout=_TIMEOUT)
        keys = jwt.PyJWKSet.from_dict(answer.json())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["ES256"],
            audience=audience,
            issuer=self.setup.issuer,
            options={"require": ["exp", "iat", "sub", "jti", "client_id"]},
        )
        return claims

    def _draw(self, claims: Mapping[str, Any]) -> None:
        self.console.print(Padding(token_tree(claims, now=int(time.time())), (0, 0, 0, 4)))

    def _authentication(self, client: str) -> token_pb2.ClientAuthentication:
        return token_pb2.ClientAuthentication(
            client_id=client, client_secret=self.setup.client_secrets[client]
        )


def _message(
    token: str, scope: str, authentication: token_pb2.ClientAuthentication
) -> token_service_pb2.ExchangeTokenRequest:
    return token_service_pb2.ExchangeTokenRequest(
        subject_token=token,
        subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
        resources=[CRM_RESOURCE],
        scopes=[scope],
        client_authentication=authentication,
    )


def _grounds(explained: policy_service_pb2.ExplainDecisionResponse) -> list[str]:
    """Why, and what would allow it, from the answer of the policy service."""
    lines: list[str] = []
    for scope in explained.scopes:
        lines.extend(f"because of {_place(policy)}" for policy in scope.policies)
        for miss in scope.nearest_misses:
            lines.append(f"nearest to {_place(miss.policy)}")
            lines.append(f"           {visible(miss.change)}")
    return lines


def _place(policy: policy_service_pb2.PolicyReference) -> str:
    return f"{visible(policy.id)}  ({visible(policy.file)}:{policy.line})"


def commands(setup: DevSetup) -> list[tuple[str, str]]:
    """
    What to try by hand against the running broker: a title, and a command for a POSIX shell each.

    They are to be run in their order and in one shell.
    """
    as_desk = f'-u "{DESK}:$(cat {setup.secret_file(DESK)})"'
    as_tickets = f'-u "{TICKETS}:$(cat {setup.secret_file(TICKETS)})"'
    exchange = f"-d grant_type={GRANT_TOKEN_EXCHANGE}"
    access_token = 'sed \'s/.*"access_token":"\\([^"]*\\)".*/\\1/\''
    return [
        (
            "ann logs in at the pretend identity provider",
            (
                f"ID_TOKEN=$(curl -s '{setup.idp_issuer}/login?sub=ann&client_id={DESK}'"
                " | cut -d'\"' -f4)"
            ),
        ),
        (
            "the agent gets a token for the MCP server",
            (
                f"TOKEN=$(curl -s {as_desk} {exchange} -d subject_token=$ID_TOKEN"
                f" -d subject_token_type={TOKEN_TYPE_ID_TOKEN} -d resource={TICKETS_RESOURCE}"
                f" {setup.issuer}/token | {access_token})"
            ),
        ),
        (
            "the MCP server exchanges it for one for the API behind it",
            (
                f"curl -s {as_tickets} {exchange} -d subject_token=$TOKEN"
                f" -d subject_token_type={TOKEN_TYPE_ACCESS_TOKEN} -d resource={CRM_RESOURCE}"
                f" -d scope=crm.contacts.read {setup.issuer}/token"
            ),
        ),
        (
            "the same with the command line, drawn as a tree",
            (
                f'printf %s "$TOKEN" | broker token exchange --issuer {setup.issuer} --client {TICKETS}'
                f" --secret-file {setup.secret_file(TICKETS)} --subject-token - --resource {CRM_RESOURCE}"
                " --scope crm.contacts.read --output tree"
            ),
        ),
        (
            "is the audit log whole?",
            f"broker audit verify {setup.directory / 'audit'}",
        ),
    ]
