"""Signed notes: what somebody signed is opened, and nothing else is."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused, open_note, signed_note

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = NoteKey("broker.example/audit", PRIVATE.public_key())
OTHER_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = NoteKey("witness.example", OTHER_PRIVATE.public_key())
TEXT = "broker.example/audit\n42\nqINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=\n"
NOTE = signed_note(TEXT, KEY, PRIVATE.sign)
BY_BOTH = NOTE + signed_note(TEXT, OTHER, OTHER_PRIVATE.sign).rpartition("\n\n")[2]


def test_a_note_is_opened_by_the_key_of_whoever_signed_it() -> None:
    assert open_note(NOTE, [KEY]) == TEXT
    assert open_note(BY_BOTH, [KEY]) == open_note(BY_BOTH, [OTHER]) == TEXT
    assert NOTE.splitlines()[-1].startswith("\u2014 broker.example/audit ")


def test_the_known_key_of_the_specification_is_read() -> None:
    """The verifier key that the documentation of Go's ``sumdb/note`` shows."""
    known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert NoteKey.read(known).text == known


def test_a_text_with_empty_lines_is_opened_whole() -> None:
    text = "one\n\ntwo\n\n\nthree\n"
    assert open_note(signed_note(text, KEY, PRIVATE.sign), [KEY]) == text


def test_a_key_is_handed_on_in_one_word() -> None:
    assert NoteKey.read(KEY.text + "\n") == NoteKey.read(KEY.text)
    raw = base64.b64decode(KEY.text.split("+", 2)[2])
    digest = hashlib.sha256(b"broker.example/audit\n" + raw).digest()
    assert KEY.id == digest[:4]
    assert base64.b64decode(KEY.fingerprint.removeprefix("SHA256:") + "=") == digest


def test_one_key_under_two_names_has_two_fingerprints() -> None:
    other = NoteKey("broker.example/other", KEY.public_key)
    assert other.fingerprint != KEY.fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        "name+00000000+AA==",
        "name+zz+!",
        KEY.text.replace("broker", "brokes"),
        KEY.text[:-5],
        KEY.text + "AAAA",
        "a b+" + KEY.text.split("+", 1)[1],
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        NoteKey.read(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "ä", "x" * 129])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        NoteKey(name, Ed25519PublicKey.from_public_bytes(bytes(32)))


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize(
    "note",
    {
        "nothing": "",
        "no signature": TEXT,
        "an empty line alone": TEXT + "\n",
        "another text": NOTE.replace("42", "43"),
        "a line more": NOTE.replace("42\n", "42\n7\n"),
        "a line less": NOTE.replace("42\n", ""),
        "no last line feed": NOTE[:-1],
        "something below": NOTE + "x\n",
        "a hyphen": NOTE.replace("\u2014", "-"),
        "another name": NOTE.replace("\u2014 broker", "\u2014 broken"),
        "cut": NOTE[:-10] + "\n",
        "a signature by nobody": NOTE.rpartition(" ")[0] + " AAAAAAAA\n",
        "no number": NOTE.rpartition(" ")[0] + " AAAA\n",
        "the same bytes otherwise": NOTE[:-3] + chr(ord(NOTE[-3]) + 1) + NOTE[-2:],
        "no base64": NOTE.rpartition(" ")[0] + " AAAAA\n",
        "too large": "x" * LARGEST_NOTE + NOTE,
        "a carriage return": NOTE.replace("42\n", "42\r\n"),
        "an escape": NOTE.replace("42", "\x1b[2J42"),
        "a lone surrogate": NOTE.replace("42", "\ud800"),
        "too many signatures": NOTE + NOTE.splitlines(keepends=True)[-1] * 16,
    }.items(),
    ids=lambda one: one[0],
)
def test_what_is_not_what_was_signed_is_refused(note: tuple[str, str]) -> None:
    with pytest.raises(NoteRefused):
        open_note(note[1], [KEY])


def test_strangers_count_for_nothing_and_a_wrong_signature_of_one_who_is_known_for_all() -> None:
    with pytest.raises(NoteRefused, match="nobody known"):
        open_note(NOTE, [OTHER])
    with pytest.raises(NoteRefused, match="nobody known"):
        open_note(NOTE, [])
    forged = NOTE + signed_note(TEXT, OTHER, PRIVATE.sign).rpartition("\n\n")[2]
    assert open_note(forged, [KEY]) == TEXT
    with pytest.raises(NoteRefused, match="wrong"):
        open_note(forged, [KEY, OTHER])


@pytest.mark.parametrize("text", ["", "no end", "a\tb\n", "a\x00b\n", "a\n\x7f\n"])
def test_what_cannot_be_read_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="note"):
        signed_note(text, KEY, PRIVATE.sign)


@given(st.integers(0, len(NOTE) - 1), st.characters())
def test_no_character_can_be_changed(place: int, other: str) -> None:
    changed = NOTE[:place] + other + NOTE[place + 1 :]
    if changed != NOTE:
        with pytest.raises(NoteRefused):
            open_note(changed, [KEY])
