"""A manifest says what an export is, in one way, signed by the audit key."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.checkpoints import Checkpoint, CheckpointRefused
from broker.audit.notes import NoteRefused
from broker.audit.query import Query
from broker.audit.telling.manifest import (
    Manifest,
    ManifestRefused,
    Mark,
    Standing,
    opened,
    query_text,
)
from tests.audit.telling.signer import KEY, Signer

MANIFEST = Manifest(
    origin="broker.example/audit/0123456789abcdef",
    format="csv",
    query=query_text(Query(people=("ann",), since=5.0)),
    count=2,
    first=Mark("http-0", 7, "a" * 64),
    last=Mark("http-1", 0, "b" * 64),
    file="export.csv",
    size=1234,
    sha256="c" * 64,
    checkpoint=Standing("d" * 64, 99),
    unread={"grpc-0": "it was changed"},
    time="2026-11-22T08:00:00.000000Z",
    by="root",
)


def test_a_manifest_reads_back_as_it_was_signed() -> None:
    assert opened(MANIFEST.signed(Signer()), [KEY]) == MANIFEST


def test_an_empty_export_has_a_manifest_as_well() -> None:
    empty = replace(MANIFEST, count=0, first=None, last=None, checkpoint=None, unread={})

    assert opened(empty.signed(Signer()), [KEY]) == empty


def test_a_manifest_is_no_checkpoint_whoever_signed_it() -> None:
    with pytest.raises(CheckpointRefused):
        Checkpoint.read(MANIFEST.text)


def test_a_manifest_with_any_byte_changed_is_refused() -> None:
    note = MANIFEST.signed(Signer()).encode()
    for place in range(len(note)):
        for other in (note[place] ^ 1, 0x20):
            changed = note[:place] + bytes([other]) + note[place + 1 :]
            if changed == note:
                continue
            with pytest.raises((NoteRefused, ManifestRefused, UnicodeDecodeError)):
                opened(changed.decode(), [KEY])


def test_a_manifest_of_another_key_is_refused() -> None:
    stranger = Signer(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))

    with pytest.raises(NoteRefused):
        opened(MANIFEST.signed(stranger), [KEY])


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("count 2", "count 02"),
        ("count 2", "count 0"),
        ("count 2", "count two"),
        ('file "export.csv"', 'file "../export.csv"'),
        ('file "export.csv"', 'file ""'),
        ('file "export.csv"', 'file ".."'),
        ('file "export.csv"', "file export.csv"),
        ("size 1234", "size -1"),
        ("c" * 64, "C" * 64),
        ("first a", "first g"),
        ("checkpoint d", "checkpoint x"),
        ('unread {"grpc-0"', 'unread {"grpc-0":1, "x"'),
        ("unread {", "unread [{"),
        ('by "root"', 'by "root'),
        ('by "root"', 'by  "root"'),
        ("broker audit export v1", "broker audit export v2"),
        ('format "csv"\n', ""),
        ('format "csv"\n', 'format "csv"\nformat "csv"\n'),
    ],
)
def test_a_text_that_is_written_otherwise_is_refused(was: str, becomes: str) -> None:
    assert was in MANIFEST.text

    with pytest.raises(ManifestRefused):
        Manifest.read(MANIFEST.text.replace(was, becomes))


@pytest.mark.requirement("LOG-02")
def test_hostile_names_stay_on_their_line() -> None:
    text = 'x\ncount 99\n\n\u2014 signature AAAA\u202e"'
    told = replace(MANIFEST, by=text, query=query_text(Query(clients=(text,))), file=f"a{text}")

    assert told.text.isascii()
    assert opened(told.signed(Signer()), [KEY]) == told
    assert json.loads(told.query) == {"clients": [text]}
