"""A day of a broker as an audit directory: people, agents, MCP servers, refusals, and hostile values."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from broker.audit.checkpoints import Checkpoint
from broker.audit.disk import DiskChain
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.record import VERSION, InputFact, KeyChangeFact, Record, ScopeFact, rfc3339
from broker.audit.seal.integrity import Integrity
from broker.audit.seal.prover import Prover
from broker.audit.seal.sealer import Sealer
from broker.audit.telling.handover import SignedHandover
from broker.oauth import (
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
)
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of

NOW: Final = 1_795_356_310.0
"""2026-11-22 14:05:10 in UTC."""
BROKER: Final = "https://broker.example"
ACME: Final = "https://login.acme.example"
TICKETS: Final = "https://tickets.mcp.example/mcp"
CRM: Final = "https://api.crm.example/v2"
MAIL: Final = "https://api.mail.example/v1"
PEOPLE: Final = (
    "alice@acme.example",
    "bela@acme.example",
    "chiara@acme.example",
    "dario@acme.example",
)
AGENTS: Final = ("desk-assistant", "sales-agent")
HOSTILE: Final = (
    "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>{{7*7}}javascript:alert(1)"
)
_DAY: Final = 86_400.0


class Story:
    """An audit directory that records are added to, with the reader of its index, its seal and its proofs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.chains: dict[str, DiskChain] = {}
        self.reader = SqliteAuditReader(directory)
        self.keys = KeysInMemory()
        self.signer = signer_of(self.keys)
        self.sealer = Sealer(directory, self.signer, origin=ORIGIN, now=lambda: NOW)
        self.prover = Prover(directory, self.signer.keys)
        self.handover = SignedHandover(directory, self.signer)

    def tell(self, *records: Record, writer: str = "http-0") -> None:
        """Add records to a chain, and let the index know."""
        if writer not in self.chains:
            self.chains[writer] = DiskChain(self.directory, writer=writer, now=lambda: NOW - _DAY)
            self.chains[writer].open("start")
        self.chains[writer].append(records)
        self.reader.catch_up()

    def seal(self) -> None:
        """Sign what there is."""
        self.sealer.step()

    def integrity(self) -> Integrity:
        """How far it is sealed."""
        last = self.sealer.last
        return Integrity(
            origin=ORIGIN,
            keys=self.sealer.key_texts,
            records=last.checkpoint.size if last else 0,
            sealed_until=NOW if last else None,
            faults={writer: str(fault) for writer, fault in self.sealer.faults.items()},
            has_anchor=True,
            anchored_records=last.checkpoint.size if last else None,
        )

    def prove(self, writer: str, seq: int) -> str:
        """The proof of one record."""
        return self.prover.prove(writer, seq)

    def first_over(self, writer: str, seq: int) -> Checkpoint:
        """The first checkpoint over one record."""
        return self.prover.first_over(writer, seq)

    def close(self) -> None:
        """Let go of all files."""
        self.sealer.close()
        for chain in self.chains.values():
            chain.close()
        self.reader.close()


def issue(event_id: str, *, at: float, **facts: Any) -> Record:
    """A record of a token that was asked for; permitted unless the facts say otherwise."""
    told: dict[str, Any] = {
        "v": VERSION,
        "event": "token.issue",
        "event_id": event_id,
        "time": rfc3339(at),
        "decision": "permit",
        "face": "http",
        "peer": "192.0.2.7",
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "policy_digest": "b2dfd1b85714932ec2e89bf6663eab4e8841297fef55c54771f8d5c789a55c21",
    }
    return Record(**told | facts)


def presented(
    jti: str, *, issuer: str = BROKER, expires_at: float, slot: str = "subject"
) -> InputFact:
    """A token that was presented."""
    return InputFact(slot=slot, issuer=issuer, expires_at=int(expires_at), jti=jti)


def granted(
    jti: str, scopes: list[str], *, at: float, lifetime: int, **facts: Any
) -> dict[str, Any]:
    """What a record tells of an issued token."""
    return {
        "jti": jti,
        "kid": "pxAJDSzpJjeYmnAn7LZKXhX9oF4lMRQ7JYX03N-cea0",
        "scopes_granted": scopes,
        "issued_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "issued_at": int(at),
        "expires_at": int(at) + lifetime,
        "lifetime": lifetime,
        **facts,
    }


def _actor(name: str) -> dict[str, str]:
    return {"iss": BROKER, "sub": name, "sub_profile": "ai_agent"}


def _about(person: str) -> dict[str, Any]:
    return {"subject": person, "subject_issuer": ACME, "subject_kind": "user"}


def delegation(number: int, *, at: float, person: str, agent: str = AGENTS[0]) -> list[Record]:
    """A person's ID token, for an agent to the MCP server, which goes on to the API: three records."""
    first = issue(
        f"01a20386-{number:04x}-7c3c-b514-48286917cad1",
        at=at,
        client_id=agent,
        auth_method="private_key_jwt",
        mcp_client=agent,
        relation="identity",
        actors=[_actor(agent)],
        chain_depth=1,
        resource=TICKETS,
        targets_asked=[TICKETS],
        scopes_asked=["tickets:read", "tickets:comment"],
        inputs=[presented(f"idp-{number}", issuer=ACME, expires_at=at + 3_600)],
        policy_ids=["desk-reads-tickets"],
        scope_decisions=[
            ScopeFact(policy_ids=["desk-reads-tickets"], scope="tickets:comment", verdict="permit"),
            ScopeFact(policy_ids=["desk-reads-tickets"], scope="tickets:read", verdict="permit"),
        ],
        **granted(
            f"tickets-{number}",
            ["tickets:comment", "tickets:read"],
            at=at,
            lifetime=300,
            lifetime_limit="configuration",
        ),
        **_about(person),
    )
    second = issue(
        f"01a20386-{number:04x}-7404-b84a-255e3c9561b7",
        at=at + 4,
        client_id="mcp-tickets",
        auth_method="private_key_jwt",
        mcp_client=agent,
        mcp_server=TICKETS,
        relation="audience",
        actors=[_actor("mcp-tickets"), _actor(agent)],
        chain_depth=2,
        resource=CRM,
        targets_asked=[CRM],
        scopes_asked=["crm.contacts.read", "crm.contacts.write"],
        inputs=[presented(f"tickets-{number}", expires_at=at + 300)],
        policy_ids=["tickets-reads-contacts"],
        scope_decisions=[
            ScopeFact(
                policy_ids=["tickets-reads-contacts"], scope="crm.contacts.read", verdict="permit"
            ),
            ScopeFact(scope="crm.contacts.write", verdict="no_permit"),
        ],
        **granted(
            f"crm-{number}",
            ["crm.contacts.read"],
            at=at + 4,
            lifetime=120,
            lifetime_limit="resource",
        ),
        **_about(person),
    )
    third = issue(
        f"01a20386-{number:04x}-7d11-9a4e-0f5e7a90be22",
        at=at + 6,
        decision="deny",
        client_id="mcp-tickets",
        auth_method="private_key_jwt",
        mcp_client=agent,
        mcp_server=TICKETS,
        relation="audience",
        actors=[_actor("mcp-tickets"), _actor(agent)],
        chain_depth=2,
        resource=MAIL,
        targets_asked=[MAIL],
        scopes_asked=["mail.send"],
        inputs=[presented(f"tickets-{number}", expires_at=at + 300)],
        error="access_denied",
        reason="policy_no_permit",
        scope_decisions=[ScopeFact(scope="mail.send", verdict="no_permit")],
        **_about(person),
    )
    return [first, second, third] if number % 4 == 0 else [first, second]


def machine(number: int, *, at: float) -> Record:
    """A client's token for itself."""
    return issue(
        f"01a20387-{number:04x}-7b01-8b1f-1c0ffee00000",
        at=at,
        grant_type=GRANT_CLIENT_CREDENTIALS,
        client_id="nightly-report",
        auth_method="private_key_jwt",
        mcp_client="nightly-report",
        relation="self",
        actors=[],
        chain_depth=0,
        subject="client:nightly-report",
        subject_issuer=BROKER,
        subject_kind="client",
        resource=CRM,
        targets_asked=[CRM],
        scopes_asked=["crm.contacts.read"],
        inputs=[],
        policy_ids=["report-reads-contacts"],
        **granted(
            f"machine-{number}",
            ["crm.contacts.read"],
            at=at,
            lifetime=300,
            lifetime_limit="configuration",
        ),
    )


def id_jag(number: int, *, at: float, person: str) -> Record:
    """An identity assertion of another domain, redeemed."""
    return issue(
        f"01a20388-{number:04x}-7a77-8a55-1c0ffee00001",
        at=at,
        grant_type=GRANT_JWT_BEARER,
        client_id="sales-agent",
        auth_method="client_secret_basic",
        mcp_client="sales-agent",
        relation="asserted",
        actors=[_actor("sales-agent")],
        chain_depth=1,
        resource=TICKETS,
        targets_asked=[TICKETS],
        scopes_asked=["tickets:read"],
        inputs=[presented(f"jag-{number}", issuer=ACME, expires_at=at + 300, slot="assertion")],
        policy_ids=["partners-read-tickets"],
        **granted(
            f"partner-{number}",
            ["tickets:read"],
            at=at,
            lifetime=300,
            lifetime_limit="configuration",
        ),
        **_about(person),
    )


def refused(number: int, *, at: float) -> Record:
    """A client that did not prove who it is."""
    return issue(
        f"01a20389-{number:04x}-7c22-8c33-1c0ffee00002",
        at=at,
        decision="deny",
        unverified_client_id="desk-assistant",
        scopes_asked=["tickets:read"],
        targets_asked=[TICKETS],
        error="invalid_client",
        reason="bad_secret",
    )


def hostile(
    event_id: str = "01a20390-0001-7e00-8e00-1c0ffee00003", *, at: float = NOW - 60
) -> Record:
    """A record in which everything that a caller chooses is an attack on whoever reads it."""
    return issue(
        event_id,
        at=at,
        decision="deny",
        unverified_client_id=HOSTILE,
        client_id=HOSTILE,
        auth_method=HOSTILE,
        subject=HOSTILE,
        subject_issuer=HOSTILE,
        subject_kind="user",
        tenant=HOSTILE,
        peer=HOSTILE,
        grant_type=HOSTILE,
        mcp_client=HOSTILE,
        mcp_server=HOSTILE,
        relation="audience",
        actors=[{"iss": HOSTILE, "sub": HOSTILE, "client_id": HOSTILE}],
        chain_depth=1,
        resource=HOSTILE,
        targets_asked=[HOSTILE],
        scopes_asked=[HOSTILE],
        scopes_granted=[HOSTILE],
        policy_ids=[HOSTILE],
        policy_digest=HOSTILE,
        scope_decisions=[
            ScopeFact(errors=[HOSTILE], policy_ids=[HOSTILE], scope=HOSTILE, verdict=HOSTILE)
        ],
        inputs=[InputFact(slot=HOSTILE, issuer=HOSTILE, jti=HOSTILE, expires_at=int(NOW))],
        jti=HOSTILE,
        error=HOSTILE,
        reason=HOSTILE,
        parameter=HOSTILE,
        detail=HOSTILE,
        authorization_server=HOSTILE,
        confirmation=HOSTILE,
    )


def together(*, at: float) -> list[Record]:
    """Two tokens that were issued together."""
    return [
        issue(
            f"01a20391-0001-7f00-8f00-1c0ffee00004#{number}",
            at=at,
            group="01a20391-0001-7f00-8f00-1c0ffee00004",
            group_number=number,
            group_size=2,
            client_id="mcp-tickets",
            mcp_client="desk-assistant",
            mcp_server=TICKETS,
            relation="audience",
            actors=[_actor("mcp-tickets"), _actor("desk-assistant")],
            chain_depth=2,
            resource=resource,
            targets_asked=[resource],
            inputs=[presented("tickets-0", expires_at=at + 200)],
            **granted(f"pair-{number}", [scope], at=at, lifetime=60, lifetime_limit="input"),
            **_about(PEOPLE[0]),
        )
        for number, (resource, scope) in enumerate(
            [(CRM, "crm.contacts.read"), (MAIL, "mail.read")], start=1
        )
    ]


def deep(*, at: float) -> Record:
    """A long chain of actors: a token that went through many hands."""
    names = ["mcp-crm", "mcp-tickets", "planner", "desk-assistant"]
    return issue(
        "01a20392-0001-7f00-8f00-1c0ffee00005",
        at=at,
        client_id="mcp-crm",
        mcp_client="desk-assistant",
        mcp_server=CRM,
        relation="audience",
        actors=[_actor(name) for name in names],
        chain_depth=len(names),
        resource=MAIL,
        targets_asked=[MAIL],
        scopes_asked=["mail.read"],
        inputs=[presented("crm-0", expires_at=at + 90)],
        **granted("mail-0", ["mail.read"], at=at, lifetime=60, lifetime_limit="input"),
        **_about(PEOPLE[0]),
    )


def key_rotation(*, at: float) -> Record:
    """A key that gets a successor."""
    return Record(
        v=VERSION,
        event="key.rotate",
        event_id="01a20393-0001-7f00-8f00-1c0ffee00006",
        time=rfc3339(at),
        decision="info",
        face="command",
        operator="root",
        initiator="command",
        key_changes=[
            KeyChangeFact(
                algorithm="ES256",
                at=int(at) + 600,
                from_state="published",
                kid="n3xt",
                to_state="active",
            )
        ],
    )


def a_day() -> Iterator[tuple[float, list[Record]]]:
    """Everything of one day in the order of time, the last of it shortly before ``NOW``."""
    chance = random.Random(7)  # noqa: S311 - a story, not a secret.
    told: list[tuple[float, list[Record]]] = []
    for number in range(150):
        at = NOW - 200 if number == 0 else NOW - 300 - _DAY * 0.98 * chance.betavariate(1.1, 1.7)
        person = PEOPLE[0] if number == 0 else chance.choice(PEOPLE)
        agent = AGENTS[0] if number == 0 else chance.choice(AGENTS)
        told.append((at, delegation(number, at=at, person=person, agent=agent)))
    told += [(at, [machine(number, at=at)]) for number, at in enumerate(_times(40, chance))]
    told += [
        (at, [id_jag(number, at=at, person=chance.choice(PEOPLE))])
        for number, at in enumerate(_times(25, chance))
    ]
    burst = NOW - 5 * 3_600
    told += [(at, [refused(number, at=at)]) for number, at in enumerate(_times(14, chance))]
    told += [
        (burst + number * 20, [refused(100 + number, at=burst + number * 20)])
        for number in range(24)
    ]
    told.append((NOW - 190, together(at=NOW - 190)))
    told.append((NOW - 180, [deep(at=NOW - 180)]))
    told.append((NOW - 7_200, [key_rotation(at=NOW - 7_200)]))
    yield from sorted(told, key=lambda one: one[0])


def _times(count: int, chance: random.Random) -> list[float]:
    return [NOW - 400 - _DAY * 0.97 * chance.random() for _ in range(count)]


def told_in(directory: Path, *, is_hostile: bool = False) -> Story:
    """The story of a day in an audit directory."""
    story = Story(directory)
    story.tell(*(record for _, records in a_day() for record in records))
    if is_hostile:
        story.tell(hostile(), writer="grpc-0")
    story.seal()
    return story
