"""Signed notes (C2SP signed-note): a few lines of text and who signed them, for people and programs."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LARGEST_NOTE: Final = 65_536
MOST_SIGNATURES: Final = 16

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_NAME: Final = re.compile(r"[!-*,-~]{1,128}")
_LINE: Final = re.compile(r"\u2014 ([!-*,-~]{1,128}) ([A-Za-z0-9+/]{1,512}={0,2})")
_TEXT: Final = re.compile(r"(?:[^\x00-\x09\x0b-\x1f\x7f]*\n)+")


class NoteRefused(ValueError):
    """A note that nobody known has signed, or that is none; the sentence says which."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """
    The name and the public key by which the notes of somebody are known.

    Raises ``ValueError`` for a name with spaces, a plus, or anything that is not printable ASCII.
    """

    name: str
    public_key: Ed25519PublicKey

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("the name of a key is one printable word without a plus")

    @classmethod
    def read(cls, text: str) -> "NoteKey":
        """The key in the form that ``text`` writes it in. Raises ``ValueError`` for any other."""
        name, told_id, encoded = [*text.strip().split("+", 2), "", ""][:3]
        try:
            material = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            material = b""
        if len(material) != 1 + _KEY_BYTES or material[:1] != _ED25519:
            raise ValueError("it is not a public key in the form NAME+NUMBER+KEY")
        key = cls(name, Ed25519PublicKey.from_public_bytes(material[1:]))
        if key.id.hex() != told_id:
            raise ValueError("the name, the number and the key in it do not belong together")
        return key

    @property
    def text(self) -> str:
        """Name, number and key in one word, to be handed on."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self._raw).decode()}"

    @property
    def id(self) -> bytes:
        """The four bytes by which a signature says which key made it."""
        return self._digest[:_ID_BYTES]

    @property
    def fingerprint(self) -> str:
        """
        What two people read to each other to be sure that they have the same key, under the same name.

        It is the whole SHA-256 that ``id`` is the beginning of, in base64, written as OpenSSH writes those
        of its keys.
        """
        return f"SHA256:{base64.b64encode(self._digest).decode().rstrip('=')}"

    @property
    def _digest(self) -> bytes:
        named = self.name.encode() + b"\n" + _ED25519 + self._raw
        return hashlib.sha256(named).digest()

    @property
    def _raw(self) -> bytes:
        return self.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def signed_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """
    The text with the signature that ``sign`` makes of its bytes, by the private half of ``key``.

    Raises ``ValueError`` for a text that does not end with its line, or has what is not printable in it.
    """
    _check_text(text)
    signature = base64.b64encode(key.id + sign(text.encode())).decode()
    return f"{text}\n\u2014 {key.name} {signature}\n"


def open_note(note: str, keys: Sequence[NoteKey]) -> str:
    """
    The text of a note that one of ``keys`` at least has signed.

    Signatures of others are passed over. A wrong one under the name and number of a known key refuses the
    whole note, whoever else has signed it. Raises ``NoteRefused``.
    """
    text, signatures = _parted(note)
    known: Mapping[tuple[str, bytes], NoteKey] = {(key.name, key.id): key for key in keys}
    is_signed = False
    for name, key_id, signature in signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        try:
            key.public_key.verify(signature, text.encode())
        except InvalidSignature:
            raise NoteRefused(f"the signature of {name} is wrong") from None
        is_signed = True
    if not is_signed:
        raise NoteRefused("nobody known has signed it")
    return text


def strangers(note: str, keys: Sequence[NoteKey]) -> Sequence[str]:
    """
    Who has signed a note that none of ``keys`` has, by name and number; nobody where one has.

    What they call themselves is not proved.
    """
    try:
        _, signatures = _parted(note)
    except NoteRefused:
        return []
    signers = {(name, key_id) for name, key_id, _ in signatures}
    if not signers.isdisjoint((key.name, key.id) for key in keys):
        return []
    return [f"{name}+{key_id.hex()}" for name, key_id in sorted(signers)]


def _parted(note: str) -> tuple[str, Sequence[tuple[str, bytes, bytes]]]:
    if len(note) > LARGEST_NOTE:
        raise NoteRefused("it is too large")
    # The text may have empty lines of its own; the signatures never do.
    text, between, below = note.rpartition("\n\n")
    text += "\n"
    lines = below.split("\n")
    if not between or lines.pop() != "" or not 1 <= len(lines) <= MOST_SIGNATURES:
        raise NoteRefused("it has no text with signatures below")
    try:
        _check_text(text)
    except ValueError as error:
        raise NoteRefused(str(error)) from None
    return text, [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise NoteRefused("a line below the text is no signature")
    try:
        signature = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        raise NoteRefused("a signature is not in base64") from None
    # Each signature has one spelling, so nothing about a note can be changed unseen.
    if len(signature) <= _ID_BYTES or base64.b64encode(signature).decode() != found[2]:
        raise NoteRefused("a signature is too short, or not written as it should be")
    return found[1], signature[:_ID_BYTES], signature[_ID_BYTES:]


def _check_text(text: str) -> None:
    if _TEXT.fullmatch(text) is None or "\ufffd" in text:
        raise ValueError("the text of a note is made of whole lines that can be read")
    text.encode()
