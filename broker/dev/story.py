"""The story that development mode plays once, for real, through the brokers' own sockets."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from broker.audit.reader import verify_directory
from broker.dev.caller import TIMEOUT, Caller
from broker.dev.failure import StoryFailed
from broker.dev.setup import (
    CALENDAR_RESOURCE,
    CRM_RESOURCE,
    DESK,
    DESK_AT_WIKI,
    LEDGER_RESOURCE,
    NIGHTLY,
    OPERATOR,
    TICKETS,
    TICKETS_RESOURCE,
    WIKI_RESOURCE,
    DevBroker,
    DevSetup,
)
from broker.drawing import token_tree, visible
from broker.oauth import (
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
)
from broker.v1 import (
    policy_service_pb2,
    policy_service_pb2_grpc,
    token_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)

_READ: Final = "crm.contacts.read"
_FREE: Final = "calendar.free.read"
_WRITE: Final = "crm.contacts.write"


@dataclass
class Story:
    """
    Tells how a person's token becomes one for an API behind an MCP server, and what else is done here.

    Every step talks to the running brokers as its users would; ``await_wiki`` returns once the second one
    is ready. Raises ``StoryFailed``.
    """

    setup: DevSetup
    console: Console
    await_wiki: Callable[[], None]
    number: int = 0
    caller: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.caller = Caller(self.setup)

    def play(self) -> None:
        """All steps, in order."""
        id_token = self.log_in()
        with grpc.insecure_channel(f"127.0.0.1:{self.setup.main.grpc_port}") as channel:
            received = self.reach_the_server(id_token)
            exchanged = self.exchange_over_grpc(received, channel)
            self.exchange_over_http(received)
            self.exchange_for_several(received, channel)
            self.ask_for_too_much(received, channel)
        self.work_at_night()
        self.await_wiki()
        assertion = self.assert_identity(id_token)
        self.redeem(assertion)
        self.redeem_again(assertion)
        self.revoke(received, exchanged)
        self.verify_the_audit_logs()

    def log_in(self) -> str:
        """Ann logs in to the agent's web page at the pretend identity provider."""
        self._step(f"Ann logs in. The agent {DESK} now holds her ID token.")
        url = f"{self.setup.idp_issuer}/login?sub=ann&client_id={DESK}"
        return str(self.caller.get(url)["id_token"])

    def reach_the_server(self, id_token: str) -> str:
        """The agent gets a token for the MCP server, which checks it against the published keys."""
        self._step(f"{DESK} turns it into a token for the MCP server {TICKETS}, and calls it.")
        token = self.caller.token(
            DESK,
            {
                "grant_type": GRANT_TOKEN_EXCHANGE,
                "subject_token": id_token,
                "subject_token_type": TOKEN_TYPE_ID_TOKEN,
                "resource": TICKETS_RESOURCE,
            },
        )
        self._draw(self.caller.verified(token, TICKETS_RESOURCE))
        return token

    def exchange_over_grpc(self, received: str, channel: grpc.Channel) -> str:
        """The MCP server exchanges what it received; it may not pass it on."""
        self._step(f"{TICKETS} may not pass that token on. It exchanges it, over gRPC.")
        stub = token_service_pb2_grpc.TokenServiceStub(channel)
        response = stub.ExchangeToken(self._message(received, _READ, TICKETS), timeout=TIMEOUT)
        token = response.issued_token.access_token
        self._draw(self.caller.verified(token, CRM_RESOURCE))
        return token

    def exchange_over_http(self, received: str) -> None:
        """The same over HTTP, as every OAuth client can."""
        self._step("And again over HTTP, as any OAuth client would.")
        token = self.caller.token(TICKETS, self._exchange(received, _READ))
        claims = self.caller.verified(token, CRM_RESOURCE)
        self._say(f"the same person, the same chain, {claims['exp'] - claims['iat']} s")

    def exchange_for_several(self, received: str, channel: grpc.Channel) -> None:
        """Tokens for two APIs in one call, and none at all where one of three is refused."""
        self._step(f"{TICKETS} needs two APIs at once. One call, two tokens, or none.")
        stub = token_service_pb2_grpc.TokenServiceStub(channel)
        response = stub.ExchangeTokens(self._several(received), timeout=TIMEOUT)
        resources = (CRM_RESOURCE, CALENDAR_RESOURCE)
        for issued, resource in zip(response.issued_tokens, resources, strict=True):
            claims = self.caller.verified(issued.access_token, resource)
            self._say(f"{claims['aud']}   {claims['scope']}, {claims['exp'] - claims['iat']} s")
        try:
            stub.ExchangeTokens(self._several(received, LEDGER_RESOURCE), timeout=TIMEOUT)
        except grpc.RpcError as refusal:
            self._say(f"with {LEDGER_RESOURCE} among them: refused, all three")
            self._say(f"{visible(refusal.details())}")
        else:
            raise StoryFailed("Tokens were issued that should have been refused.")

    def ask_for_too_much(self, received: str, channel: grpc.Channel) -> None:
        """A request that policy refuses: what the caller sees, and what an operator can find out."""
        self._step(f"{TICKETS} asks to change contacts as well. That is too much.")
        decision = self._refused(TICKETS, self._exchange(received, _WRITE))
        self.console.print(f"    decision {decision}", style="dim")
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        explained = stub.ExplainDecision(
            policy_service_pb2.ExplainDecisionRequest(
                exchange=self._message(received, _WRITE, OPERATOR), client_id=TICKETS
            ),
            timeout=TIMEOUT,
        )
        for line in _grounds(explained):
            self._say(line)

    def work_at_night(self) -> None:
        """An agent gets a machine token (the MCP extension OAuth Client Credentials)."""
        self._step(f"{NIGHTLY} works for nobody in particular. It gets a token for itself.")
        token = self.caller.token(
            NIGHTLY, {"grant_type": GRANT_CLIENT_CREDENTIALS, "resource": TICKETS_RESOURCE}
        )
        self._draw(self.caller.verified(token, TICKETS_RESOURCE))

    def assert_identity(self, id_token: str) -> str:
        """An ID-JAG for somebody else's authorization server (Enterprise-Managed Authorization)."""
        self._step(
            f"The wiki has an authorization server of its own. {DESK} gets Ann's identity asserted to it."
        )
        token = self.caller.token(
            DESK,
            {
                "grant_type": GRANT_TOKEN_EXCHANGE,
                "requested_token_type": TOKEN_TYPE_ID_JAG,
                "subject_token": id_token,
                "subject_token_type": TOKEN_TYPE_ID_TOKEN,
                "audience": self.setup.wiki.issuer,
                "resource": WIKI_RESOURCE,
                "scope": "pages.read",
            },
        )
        claims = self.caller.verified(token, self.setup.wiki.issuer)
        self._say(f"for {claims['aud']}, where the agent is called {claims['client_id']}")
        return token

    def redeem(self, assertion: str) -> None:
        """A second broker, which shares nothing with the first but its published keys."""
        self._step("There the assertion is redeemed, without asking Ann anything.")
        token = self.caller.token(DESK_AT_WIKI, self._redemption(assertion), at=self.setup.wiki)
        self._draw(self.caller.verified(token, WIKI_RESOURCE, at=self.setup.wiki))

    def redeem_again(self, assertion: str) -> None:
        """An assertion is good once."""
        self._step("Somebody has copied the assertion and redeems it again.")
        self._refused(DESK_AT_WIKI, self._redemption(assertion), at=self.setup.wiki)

    def revoke(self, received: str, exchanged: str) -> None:
        """Whoever withdraws a token withdraws what was made of it."""
        self._step(f"{DESK} withdraws its token. What {TICKETS} exchanged it for is dead as well.")
        before = self.caller.is_active(exchanged, TICKETS)
        self.caller.post(DESK, {"token": received}, endpoint="revoke")
        after = self.caller.is_active(exchanged, TICKETS)
        if not before or after:
            raise StoryFailed("A token outlived the one that it was made of.")
        self._say("active before, inactive now; and exchanged again it is")
        self._refused(TICKETS, self._exchange(received, _READ))

    def verify_the_audit_logs(self) -> None:
        """Whoever reviews the logs finds them whole."""
        self._step("Every decision above is in the audit log. Is the log whole?")
        brokers = {"the broker": self.setup.main, "the wiki's own": self.setup.wiki}
        for name, broker in brokers.items():
            report = verify_directory(broker.directory / "audit")
            if not report.is_intact:
                raise StoryFailed("The audit log does not verify.")
            self._say(
                f"{name}: {report.records} records in {len(report.chains)} chains, all intact"
            )

    def _step(self, sentence: str) -> None:
        self.number += 1
        self.console.print(Text(f"\n{self.number}. {sentence}", "bold"))

    def _say(self, sentence: str) -> None:
        self.console.print(Text("    " + sentence))

    def _draw(self, claims: Mapping[str, Any]) -> None:
        self.console.print(Padding(token_tree(claims, now=int(time.time())), (0, 0, 0, 4)))

    def _refused(
        self, client: str, fields: Mapping[str, str], *, at: DevBroker | None = None
    ) -> str:
        """Ask for what must be refused, tell the refusal, and return the decision's id."""
        answer = self.caller.post(client, fields, at=at)
        refusal = answer.json()
        if answer.status != 400 or "access_token" in refusal:
            raise StoryFailed("A token was issued that should have been refused.")
        error, description = visible(refusal["error"]), visible(refusal["error_description"])
        self._say(f"refused: {error} - {description}")
        return answer.headers["Broker-Decision-Id"]

    @staticmethod
    def _redemption(assertion: str) -> dict[str, str]:
        return {"grant_type": GRANT_JWT_BEARER, "assertion": assertion}

    @staticmethod
    def _exchange(token: str, scope: str) -> dict[str, str]:
        return {
            "grant_type": GRANT_TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "resource": CRM_RESOURCE,
            "scope": scope,
        }

    def _several(self, token: str, *more: str) -> token_service_pb2.ExchangeTokensRequest:
        wanted = {CRM_RESOURCE: [_READ], CALENDAR_RESOURCE: [_FREE], **{one: [] for one in more}}
        return token_service_pb2.ExchangeTokensRequest(
            subject_token=token,
            subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
            targets=[
                token_service_pb2.ExchangeTarget(resource=resource, scopes=scopes)
                for resource, scopes in wanted.items()
            ],
            client_authentication=self._authentication(TICKETS),
        )

    def _authentication(self, client: str) -> token_pb2.ClientAuthentication:
        return token_pb2.ClientAuthentication(
            client_id=client, client_secret=self.setup.client_secrets[client]
        )

    def _message(
        self, token: str, scope: str, client: str
    ) -> token_service_pb2.ExchangeTokenRequest:
        return token_service_pb2.ExchangeTokenRequest(
            subject_token=token,
            subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
            resources=[CRM_RESOURCE],
            scopes=[scope],
            client_authentication=self._authentication(client),
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
