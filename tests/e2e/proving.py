"""That every token a caller holds has its record, and that the record is proved with a public key alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from broker.audit.notes import NoteKey
from broker.audit.record import RECORD_DECODER
from broker.audit.seal.integrity import NotSealed
from broker.audit.seal.proof import Proof
from broker.audit.seal.prover import Prover
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker, run_broker
from tests.harness import decode_claims

_SEAL_SECONDS: Final = 90.0


def audit_key(broker: RunningBroker) -> str:
    """The public key of the broker's record, as the command prints it."""
    told = run_broker("audit", "key", "--config", str(broker.setting.file))
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def assert_every_token_is_proved(broker: RunningBroker, tokens: Sequence[str]) -> None:
    """Fails the test unless each token names its record and that has a valid proof."""
    key, directory = audit_key(broker), broker.setting.audit_directory
    places = {record["jti"]: record for record in broker.records() if "jti" in record}
    for token in tokens:
        claims = decode_claims(token)
        record = places[claims["jti"]]
        _assert_receipt(claims["txn"], record)
        proof = _proof(directory, record)
        proved = Proof.read(proof).verify([NoteKey.read(key)])
        assert RECORD_DECODER.decode(proved.record).jti == claims["jti"]
    whole = run_broker("audit", "verify", str(directory), "--key", key)
    assert whole.returncode == 0, whole.stdout + whole.stderr


def _assert_receipt(receipt: str, record: dict[str, Any]) -> None:
    event_id, _, place = receipt.partition("@")
    _, writer, number = place.split("/")
    assert event_id == record["event_id"]
    assert writer == record["writer"]
    assert int(number) <= record["seq"]


def _proof(directory: Path, record: dict[str, Any]) -> str:
    """The proof of a record, which may have to be sealed first."""
    found: list[str] = []

    def is_proved() -> bool:
        try:
            found.append(Prover(directory).prove(record["writer"], record["seq"]))
        except NotSealed:
            return False
        return True

    until(is_proved, seconds=_SEAL_SECONDS, what="the record is sealed")
    return found[-1]
