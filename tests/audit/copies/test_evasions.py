"""What somebody adds to a copy, or does to a log beforehand, hides nothing of what was received."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from broker.audit.chain import Head, encode, line_hash, link
from broker.audit.copies.comparing import Expected, compare_copies
from broker.audit.record import RECORD_DECODER
from broker.audit.telling.formats import FORMATS
from tests.audit.copies.received import LOG_ID, OTHER_ID, compared, kept, received
from tests.audit.copies.test_comparing import sealed_anew, written_anew
from tests.audit.seal.sealed_logs import SealedLog
from tests.audit.seal.signers import KeysInMemory

pytestmark = pytest.mark.requirement("LOG-05")

CEF_HEAD = "CEF:0|delegation-broker|delegation-broker"
CARRIER = b"<110>1 2026-11-22T14:00:00Z host broker 1 - - "


def forged(log: SealedLog, keys: KeysInMemory) -> None:
    """One record changed, and all of it sealed anew."""
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))
    sealed_anew(log, keys)
    assert log.verify().is_whole


def renamed(log: SealedLog, *writers: str) -> None:
    """These chains written anew, under another name of the log."""
    (log.directory / "log.id").write_text(f"{OTHER_ID}\n")
    for writer in writers:
        records = [RECORD_DECODER.decode(line) for line in received(log, writer)]
        for one in records:
            one.log_id = OTHER_ID if one.log_id else None
            one.subject = "somebody-else" if one.subject else None
        written_anew(log, writer, [encode(one) for one in records])


def test_the_head_of_a_table_that_somebody_logs_makes_no_table_of_what_follows(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    lines = [CARRIER + line for line in received(log)]
    head = b"<14>1 2026-11-22T14:00:00Z evil app - - - x,writer,seq,line_hash"
    forged(log, keys)

    for copy in ([head, *lines], [lines[0], head, *lines[1:]]):
        found = compared(log, kept(tmp_path / "copy", copy))
        assert (found.changed, found.unread) == (1, copy[0] != head or 0)


def test_a_caller_who_is_called_like_columns_hides_no_row(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    table, lines = FORMATS["csv"], received(log)
    rows = [table.row(RECORD_DECODER.decode(one), one).rstrip() for one in lines]
    named = RECORD_DECODER.decode(lines[3])
    named.subject, named.client_id, named.resource = "writer", "seq", "line_hash"
    rows.insert(0, table.row(named, encode(named)).rstrip())
    forged(log, keys)

    found = compared(log, kept(tmp_path / "copy", [table.head.rstrip(), *rows]))

    assert (found.records, found.unread) == (len(rows), 0)
    assert not found.is_whole


LIKE_A_RECORD = (
    '{"prev":"x","seq":5,"writer":"http-0"}',
    '{"metadata":{"log_name":"http-0","sequence":5},"unmapped":{"line_hash":"%s"}}' % ("0" * 64),
    f"{CEF_HEAD}|1|x|x|1|deviceExternalId=http-0 cn1=5 flexString2={'0' * 64}",
)


@pytest.mark.parametrize("text", LIKE_A_RECORD)
@pytest.mark.parametrize("name", ["csv", "cef", "ocsf"])
def test_a_caller_who_is_called_like_a_record_hides_none(
    log: SealedLog, tmp_path: Path, name: str, text: str
) -> None:
    chosen, line = FORMATS[name], received(log, "http-0")[5]
    rows = []
    for member in ("subject", "client_id", "mcp_client", "resource", "reason", "detail"):
        named = RECORD_DECODER.decode(line)
        setattr(named, member, f"{text} .")
        rows.append(chosen.row(named, line))
    if name == "cef":
        # The last value is cut to a length, so that a caller can choose what a line ends with.
        rows.append(rows[0].rstrip() + b" " + text.replace("=", "\\=").encode() + b"\n")
    copy = tmp_path / "copy"
    copy.write_bytes(chosen.head + b"".join(rows))

    found = compared(log, copy)

    assert (found.records, found.by_hash) == (len(rows), len(rows))
    assert (found.matching, found.repeated, found.faults) == (1, len(rows) - 1, [])


def test_chains_from_before_logs_had_names_do_not_vouch_for_a_log_that_was_renamed(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    old = [RECORD_DECODER.decode(line) for line in received(log, "keys")]
    written_anew(log, "keys", [encode(msgspec.structs.replace(one, log_id=None)) for one in old])
    copy = kept(tmp_path / "copy", received(log))
    renamed(log, "http-0", "grpc-0")
    sealed_anew(log, keys)

    found = compared(log, copy, mixed=True)

    assert found.matching == len(old)
    assert [str(one) for one in found.faults] == [
        "no record of the copy that names its log is of this log"
    ]


def named(number: int) -> bytes:
    told = b'{"event":"chain.opened","log_id":"%016x","prev":"%s","seq":0,"writer":"x"}'
    return told % (number, b"0" * 64)


def test_many_other_logs_do_not_make_one_of_this_forgotten(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    lines: Sequence[bytes] = received(log, "http-0", "grpc-0", "keys")
    copy = kept(tmp_path / "copy", [*map(named, range(64)), *lines])
    renamed(log, "http-0")
    sealed_anew(log, keys)

    assert LOG_ID != OTHER_ID
    assert not compared(log, copy, mixed=True).is_whole


def test_what_comes_to_a_copy_while_the_log_is_read_is_no_fault(
    log: SealedLog, tmp_path: Path
) -> None:
    lines = received(log)
    copy = kept(tmp_path / "copy", lines)
    last = RECORD_DECODER.decode(received(log, "http-0")[-1])
    before = Head(last.seq + 1, line_hash(received(log, "http-0")[-1]))
    data, _ = link([last], before, writer="http-0")
    segment = max(log.directory.glob("http-0.*.jsonl"))
    later = [segment, copy]

    def progress(_done: int, _whole: int) -> None:
        # The broker works on, and so does whoever receives.
        while later:
            with later.pop(0).open("ab") as file:
                file.write(data)

    found = compare_copies(log.directory, [copy], Expected(), progress=progress)

    assert not later
    assert found.is_whole
    assert found.records == len(lines)
