"""Records as a busy broker writes them, in any number: for measuring what reads them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from broker.audit.disk import DiskChain
from broker.audit.record import VERSION, InputFact, Record, ScopeFact, rfc3339

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OWN: Final = "client_credentials"
ISSUER: Final = "https://broker.example"
PROVIDER: Final = "https://idp.acme.example"

_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_REASONS: Final = (
    "policy_denied",
    "token_expired",
    "scope_not_allowed",
    "token_replayed",
    "client_auth_failed",
    "target_unknown",
)
_BATCH: Final = 1_000


@dataclass(slots=True)
class Life:
    """
    A site with people, agents, MCP servers and what they ask for, over some days.

    The same seed gives the same records. ``is_refused_all`` is a site where nobody gets anything: its records
    are half as long.
    """

    begin: float
    seconds: float
    records: int
    people: int = 20_000
    agents: int = 60
    servers: int = 40
    resources: int = 80
    seed: int = 7
    is_refused_all: bool = False
    _random: random.Random = field(init=False)
    _live: list[tuple[str, str, str, str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - The same records each time.

    def stream(self) -> Iterator[Record]:
        """The records, in the order of their times."""
        step = self.seconds / self.records
        for number in range(self.records):
            time = self.begin + step * number + self._random.random() * step / 2
            yield self._one(number, time)

    def _one(self, number: int, time: float) -> Record:
        dice = self._random.random()
        if self.is_refused_all:
            return self._refused(number, time)
        if dice < 0.45:
            return self._first_use(number, time)
        if dice < 0.75 and self._live:
            return self._second_use(number, time)
        if dice < 0.85:
            return self._own(number, time)
        if dice < 0.94:
            return self._refused(number, time)
        return self._asked_about(number, time)

    def _few(self, most: int) -> int:
        """Some are used much more than others."""
        return min(int(self._random.paretovariate(0.7)) - 1, most - 1) if most > 1 else 0

    def _id(self) -> str:
        return f"{self._random.getrandbits(144):036x}"[:24]

    def _person(self) -> str:
        return f"person-{self._random.randrange(self.people)}@acme.example"

    def _first_use(self, number: int, time: float) -> Record:
        agent = f"agent-{self._few(self.agents)}"
        server = self._few(self.servers)
        person, jti = self._person(), self._id()
        self._live.append((jti, person, agent, f"https://mcp-{server}.example/mcp"))
        if len(self._live) > 500:
            del self._live[:250]
        grant_type = EXCHANGE if self._random.random() < 0.8 else BEARER
        return self._permit(
            number,
            time,
            grant_type=grant_type,
            client_id=agent,
            mcp_client=agent,
            resource=f"https://mcp-{server}.example/mcp",
            subject=person,
            chain_depth=1,
            actors=[{"iss": ISSUER, "sub": agent, "sub_profile": "ai_agent"}],
            jti=jti,
            inputs=[
                InputFact(
                    slot="subject" if grant_type == EXCHANGE else "assertion",
                    issuer=PROVIDER,
                    expires_at=int(time) + 3_600,
                    jti=self._id(),
                )
            ],
            policy_ids=[f"agents-use-{server % 12}"],
        )

    def _second_use(self, number: int, time: float) -> Record:
        parent, person, agent, server = self._random.choice(self._live)
        jti = self._id()
        depth = 2 + int(self._random.random() < 0.05)
        return self._permit(
            number,
            time,
            grant_type=EXCHANGE,
            client_id=server.removeprefix("https://").removesuffix(".example/mcp"),
            mcp_client=agent,
            mcp_server=server,
            resource=f"https://api-{self._few(self.resources)}.example/v2",
            subject=person,
            chain_depth=depth,
            actors=[
                {"iss": ISSUER, "sub": name, "sub_profile": "service"}
                for name in (server, agent, "gateway")[:depth]
            ],
            jti=jti,
            inputs=[
                InputFact(slot="subject", issuer=ISSUER, expires_at=int(time) + 300, jti=parent)
            ],
            policy_ids=["servers-read", "guardrail-depth"][: 1 + depth % 2],
        )

    def _own(self, number: int, time: float) -> Record:
        agent = f"agent-{self._few(self.agents)}"
        return self._permit(
            number,
            time,
            grant_type=OWN,
            client_id=agent,
            mcp_client=agent,
            resource=f"https://mcp-{self._few(self.servers)}.example/mcp",
            subject=f"client:{agent}",
            chain_depth=0,
            actors=[],
            jti=self._id(),
            inputs=[],
            policy_ids=["agents-act-for-themselves"],
        )

    def _permit(self, number: int, time: float, **facts: Any) -> Record:
        policies: Sequence[str] = facts["policy_ids"]
        return Record(
            v=VERSION,
            event="token.issue",
            event_id=self._event_id(number, time),
            time=rfc3339(time),
            decision="permit",
            face="grpc",
            peer="10.1.2.3",
            auth_method="private_key_jwt",
            issued_at=int(time),
            expires_at=int(time) + 300,
            lifetime=300,
            lifetime_limit="configuration",
            issued_token_type=_ACCESS_TOKEN,
            kid="n_PGsgn4G9XmsnYE3QTnzR1ftWM4-5VFe5wWLKgbIVY",
            policy_digest="b2dfd1b85714932ec2e89bf6663eab4e8841297fef55c54771f8d5c789a55c21",
            scope_decisions=[
                ScopeFact(scope="crm:read", verdict="permit", policy_ids=list(policies))
            ],
            scopes_asked=["crm:read"],
            scopes_granted=["crm:read"],
            subject_issuer=PROVIDER,
            subject_kind="user",
            targets_asked=[facts["resource"]],
            **facts,
        )

    def _refused(self, number: int, time: float) -> Record:
        agent = f"agent-{self._few(self.agents)}"
        reason = _REASONS[self._few(len(_REASONS))]
        return Record(
            v=VERSION,
            event="token.issue",
            event_id=self._event_id(number, time),
            time=rfc3339(time),
            decision="deny",
            error="invalid_target",
            reason=reason,
            detail="what was asked for is not what this client may have of that resource"
            if self.is_refused_all
            else None,
            face="http",
            peer="10.1.2.4",
            grant_type=EXCHANGE,
            client_id=agent,
            mcp_client=agent,
            resource=f"https://api-{self._few(self.resources)}.example/v2",
            subject=self._person(),
            chain_depth=1,
            targets_asked=["https://api-1.example/v2"],
            policy_ids=["nobody-writes"] if reason == "policy_denied" else None,
        )

    def _asked_about(self, number: int, time: float) -> Record:
        jti, person, agent, server = self._live[-1] if self._live else ("none", "", "", "")
        return Record(
            v=VERSION,
            event="token.introspect",
            event_id=self._event_id(number, time),
            time=rfc3339(time),
            decision="permit",
            face="http",
            client_id=server.removeprefix("https://").removesuffix(".example/mcp") or "nobody",
            mcp_client=agent or None,
            subject=person or None,
            inputs=[InputFact(slot="token", issuer=ISSUER, expires_at=int(time), jti=jti)],
        )

    def _event_id(self, number: int, time: float) -> str:
        milliseconds = int(time * 1000)
        rest = self._random.getrandbits(48)
        return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{number & 0xFFF:03x}-8000-{rest:012x}"


def write_life(directory: Path, life: Life, *, writers: int = 4) -> None:
    """The records on disk, as several writers would have written them at the same time."""
    clock = life.begin
    chains = [
        DiskChain(directory, writer=f"grpc-{number}", now=lambda: clock)
        for number in range(writers)
    ]
    for chain in chains:
        chain.open("start")
    stream = life.stream()
    while batch := list(islice(stream, _BATCH * writers)):
        for number, chain in enumerate(chains):
            if not chain.is_open:
                chain.open("rotation")
            chain.append(batch[number::writers])
    clock = life.begin + life.seconds
    for chain in chains:
        chain.close()
