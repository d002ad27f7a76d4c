"""
What must be true after processes were killed at any moment, told from what is left on all sides.

The sides are the log of the callers, the audit records, the replay store and, where keys are in
OpenBao, OpenBao's own audit log.
"""

import base64
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.client_auth.assertion import ONE_TIME_KIND
from broker.model import OneTimeId
from broker.state.entries import spent_key
from tests.e2e.load import Call
from tests.e2e.running import RunningBroker, run_broker
from tests.harness import decode_claims
from tests.valkey import ValkeyServer

_CANARY: Final = b"delegation broker: is the signer there?"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """
    What was counted where nothing was wrong.

    ``unreceived`` are tokens that are on record and never reached a caller, which is allowed.
    """

    received: int
    issued: int
    unreceived: int
    unanswered: int
    signed: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    All that is left of a run: the callers' log, the permits on record, the ids that the store keeps.

    ``signed`` are the digests that Vault wrote down as signed, or ``None`` where it did not sign.
    """

    calls: Sequence[Call]
    issued: Sequence[Record]
    spent: AbstractSet[bytes]
    signed: Sequence[bytes] | None = None

    def judge(self) -> Findings:
        """Fails the test unless all sides agree."""
        tokens = [call.token for call in self.calls if call.token]
        received = Counter(str(decode_claims(token)["jti"]) for token in tokens)
        issued = Counter(str(record["jti"]) for record in self.issued)
        assert max(received.values(), default=1) == 1, "a token was handed out twice"
        assert received.keys() <= issued.keys(), "a token was handed out without a record"
        assert max(issued.values(), default=1) == 1, "a token is on record twice"
        self._assert_spent_once()
        self._assert_signed(tokens)
        return Findings(
            received=len(received),
            issued=len(issued),
            unreceived=len(issued) - len(received),
            unanswered=sum(call.answer is None for call in self.calls),
            signed=len(self.signed or ()),
        )

    def _assert_spent_once(self) -> None:
        """Each token on record has spent an assertion of its own, which the store still knows."""
        asked = {_subject_jti(call): _assertion_key(call) for call in self.calls}
        used = [asked[record["inputs"][0]["jti"]] for record in self.issued]
        assert max(Counter(used).values(), default=1) == 1, "an assertion led to two tokens"
        assert set(used) <= self.spent, "a token is on record whose assertion is not spent"

    def _assert_signed(self, tokens: Iterable[str]) -> None:
        """Vault has signed each token once, and no fewer than there are records."""
        if self.signed is None:
            return
        signed = Counter(self.signed)
        del signed[hashlib.sha256(_CANARY).digest()]
        assert max(signed.values(), default=1) == 1, "one input was signed twice"
        digests = {hashlib.sha256(one.rpartition(".")[0].encode()).digest() for one in tokens}
        assert digests <= signed.keys(), "a token was handed out that Vault did not sign"
        assert len(signed) >= len(self.issued), "there are more records than signatures"


def evidence_of(
    broker: RunningBroker,
    calls: Sequence[Call],
    *,
    spent: AbstractSet[bytes],
    vault_log: Path | None = None,
) -> Evidence:
    """What is left of a run with one broker; fails the test unless its chains are whole."""
    assert_chains_are_whole(broker.setting.audit_directory)
    issued = [record for record in broker.records() if record["decision"] == "permit"]
    known = {_subject_jti(call) for call in calls}
    ours = [record for record in issued if record["inputs"][0].get("jti") in known]
    signed = None if vault_log is None else signed_digests(vault_log)
    return Evidence(calls, ours, spent, signed)


def assert_chains_are_whole(directory: Path) -> None:
    """Every chain is sound up to each crash, and goes on after it."""
    whole = run_broker("audit", "verify", str(directory))
    assert whole.returncode == 0, whole.stdout + whole.stderr


def spent_in_sqlite(file: Path) -> set[bytes]:
    """The keys of the spent ids in a state file."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return {bytes(key) for (key,) in database.execute("SELECT key FROM spent")}


def spent_in_valkey(server: ValkeyServer, prefix: str = "broker") -> set[bytes]:
    """The keys of the spent ids in a Valkey."""
    return set(server.ask("ZRANGE", f"{{{prefix}}}:spent", 0, -1))


def signed_digests(audit_log: Path) -> list[bytes]:
    """What OpenBao has signed, as its own audit log has it, one for each signature."""
    found: list[bytes] = []
    with audit_log.open() as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["type"] == "response" and entry["request"]["path"].startswith("transit/sign/"):
                found += _signed(entry)
    return found


def _signed(entry: Record) -> list[bytes]:
    asked = entry["request"].get("data", {}).get("batch_input", [])
    results = (entry["response"].get("data") or {}).get("batch_results", [])
    return [
        base64.b64decode(one["input"])
        for one, result in zip(asked, results, strict=False)
        if result.get("signature")
    ]


def _subject_jti(call: Call) -> str:
    return str(decode_claims(str(call.parameters["subject_token"]))["jti"])


def _assertion_key(call: Call) -> bytes:
    claims = decode_claims(str(call.parameters["client_assertion"]))
    return spent_key(OneTimeId(ONE_TIME_KIND, claims["iss"], claims["jti"], claims["exp"]))
