"""A proof stands alone: with a public key it shows one record, and nothing else is one."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from broker.audit.chain import line_hash
from broker.audit.merkle import ProofRefused, leaf_hash
from broker.audit.notes import signed_note
from broker.audit.seal.proof import FORMAT, LARGEST_PROOF, Proof
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of
from tests.audit.trees import path_as_defined

pytestmark = pytest.mark.requirement("LOG-05")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture(scope="module")
def lines(log: SealedLog) -> list[bytes]:
    """The lines that the first checkpoint seals, in the order of its tree: two writers had begun."""
    found: list[bytes] = []
    for writer, head in sorted(log.heads(0).items()):
        path = log.directory / f"{writer}.000001.jsonl"
        every = path.read_bytes().splitlines()
        for later in sorted(log.directory.glob(f"{writer}.*.jsonl"))[1:]:
            every += later.read_bytes().splitlines()
        found += every[: head.seq]
    return found


def proof_of(log: SealedLog, lines: list[bytes], index: int) -> Proof:
    path = path_as_defined(index, [leaf_hash(line) for line in lines])
    return Proof(lines[index], index, path, log.kept()[0].note)


def test_every_record_that_is_sealed_is_proved_by_its_own_text(
    log: SealedLog, lines: list[bytes]
) -> None:
    for index, line in enumerate(lines):
        proved = Proof.read(proof_of(log, lines, index).text).verify([log.key])
        assert proved.record == line
        assert proved.checkpoint == log.kept()[0].checkpoint
    assert proved.sentence == (
        f"this record was in the audit log {log.key.name}, word for word, when the log was sealed at "
        f"{proved.checkpoint.time}. It calls itself record {len(lines) - 1} of the chain http-0"
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_change_of_any_byte_of_a_proof_is_refused(
    log: SealedLog, lines: list[bytes], data: st.DataObject
) -> None:
    raw = bytearray(proof_of(log, lines, 5).text.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255))
    assume(raw[place] != value)
    raw[place] = value

    with pytest.raises(ProofRefused):
        Proof.read(raw.decode("utf-8", "replace")).verify([log.key])


def test_the_record_of_another_place_is_refused(log: SealedLog, lines: list[bytes]) -> None:
    one, other = proof_of(log, lines, 3), proof_of(log, lines, 4)

    for forged in (
        Proof(other.record, one.index, one.path, one.note),
        Proof(one.record, other.index, one.path, one.note),
        Proof(one.record, one.index, other.path, one.note),
        Proof(one.record, one.index, one.path[:-1], one.note),
        Proof(one.record, one.index, [*one.path, one.path[0]], one.note),
        Proof(one.record, 10**17, one.path, one.note),
        Proof(one.record, one.index, one.path, log.kept()[1].note),
    ):
        with pytest.raises(ProofRefused):
            Proof.read(forged.text).verify([log.key])


def test_a_proof_by_another_key_is_refused(log: SealedLog, lines: list[bytes]) -> None:
    """Whoever writes a log of their own can prove anything of that."""
    keys = KeysInMemory()
    stranger = signer_of(keys).keys()[0]
    text = log.kept()[0].checkpoint.text
    note = signed_note(text, stranger, lambda data: keys.sign(data, version=1))
    proof = proof_of(log, lines, 2)
    forged = Proof(proof.record, proof.index, proof.path, note)

    assert forged.verify([stranger]).record == proof.record
    with pytest.raises(ProofRefused, match="nobody known has signed it"):
        forged.verify([log.key])
    with pytest.raises(ProofRefused):
        proof.verify([])


def test_an_inner_node_does_not_pass_for_a_record(log: SealedLog, lines: list[bytes]) -> None:
    """Two hashes side by side are hashed as a node, and never as a leaf."""
    proof = proof_of(log, lines, 0)
    left, right = bytes.fromhex(line_hash(lines[0])), bytes.fromhex(line_hash(lines[1]))
    forged = Proof(left + right, 0, proof.path[1:], proof.note)

    with pytest.raises(ProofRefused):
        forged.verify([log.key])


@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "no end": FORMAT,
        "no record": f"{FORMAT}\n\nnote",
        "no index": f"{FORMAT}\nextra e30=\n\nnote",
        "an index below": f"{FORMAT}\nextra e30=\nindex -1\n\nnote",
        "an index with a zero": f"{FORMAT}\nextra e30=\nindex 01\n\nnote",
        "no hash": f"{FORMAT}\nextra e30=\nindex 1\nnone\n\nnote",
        "many hashes": f"{FORMAT}\nextra e30=\nindex 1\n" + ("A" * 43 + "=\n") * 66 + "\nnote",
        "too large": FORMAT + "x" * LARGEST_PROOF,
        "another alphabet": f"{FORMAT}\nextra {{}}\u0660\nindex 1\n\nnote",
    }.items(),
    ids=lambda case: case[0],
)
def test_another_text_is_no_proof(text: tuple[str, str], log: SealedLog) -> None:
    with pytest.raises(ProofRefused):
        Proof.read(text[1]).verify([log.key])
