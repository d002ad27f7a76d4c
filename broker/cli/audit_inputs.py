"""What an auditor brings along: public keys, checkpoints that were kept, receipts, who stamps times."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click

from broker.audit.checkpoints import CheckpointRefused
from broker.audit.notes import LARGEST_NOTE, NoteKey, NoteRefused
from broker.audit.seal.listing import NotedLine, opened_note
from broker.audit.seal.receipts import Receipt, ReceiptRefused
from broker.audit.seal.sealed import Anchor, Trust
from broker.audit.seal.stamps import StampsUnread, StampVerifier
from broker.cli.inputs import read_token, settings_from
from broker.cli.output import plain, print_wrapped

_LARGEST_KEY_FILE: Final = 16_384
_KEY_FORM: Final = (
    "it takes what `broker audit key` prints, such as "
    "broker.example/audit/0123456789abcdef+1a2b3c4d+AWx4…, or the name of a file with that"
)
_ANCHOR_FORM: Final = (
    "it takes a file with what `broker audit anchor` prints, or with a line of checkpoints/*.jsonl"
)
_RECEIPT_FORM: Final = (
    "it takes the txn claim of a token, such as "
    "5e1f0c1e-8a41-4c57-9d0e-5b1f6a2c9e10@0123456789abcdef/http-0/41, or @FILE with the token in it"
)
_ROOTS_FORM: Final = "it takes a file with certificates that begin with -----BEGIN CERTIFICATE-----"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def key_option(*, is_required: bool = False) -> Callable[[_Function], _Function]:
    """The option that gives the public keys of checkpoints."""
    return click.option(
        "--key",
        "keys",
        multiple=True,
        required=is_required,
        metavar="PUBLIC",
        help="A public key that checkpoints are signed with, in one word or in a file; "
        "may be given again.",
    )


def trust_options(command: _Function) -> _Function:
    """The options that say what an auditor trusts; ``trust_from`` takes them."""
    options = [
        key_option(),
        click.option(
            "--anchor",
            "anchors",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="NOTEFILE",
            help="A checkpoint that was kept elsewhere and has to be on the list; may be given again.",
        ),
        click.option(
            "--receipt",
            "receipts",
            multiple=True,
            metavar="RECEIPT",
            help="The txn claim of a token, or the token in @FILE, whose record has to be there; "
            "may be given again.",
        ),
        click.option(
            "--tsa-ca",
            "roots",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The certificates, in PEM, of those who are trusted to stamp times.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def trust_from(
    *, keys: Sequence[str], anchors: Sequence[Path], receipts: Sequence[str], roots: Path | None
) -> Trust:
    """What an auditor has brought along."""
    known = read_keys(keys)
    if not known and (anchors or roots):
        raise click.UsageError(
            "--anchor and --tsa-ca need the public key of the checkpoints: add --key audit.pub, say."
        )
    return Trust(
        keys=known,
        anchors=[read_anchor(file, known) for file in anchors],
        receipts=[read_receipt(text) for text in receipts],
        stamps=read_stamp_roots(roots),
    )


def audit_directory(directory: Path | None, config: Path) -> Path:
    """The directory named, or that of the settings."""
    place = directory or settings_from(config).audit.directory
    if not place.is_dir():
        raise click.UsageError(f"{place} is not a directory.")
    return place


def read_keys(texts: Sequence[str]) -> Sequence[NoteKey]:
    """The keys in these words; what is none is the name of a file that holds some, one a line."""
    return [key for text in texts for key in _keys_in(text)]


def print_keys(keys: Sequence[NoteKey]) -> None:
    """Print by which keys something was verified, so that two people can compare them."""
    for key in keys:
        print_wrapped(plain(f"By the key {key.fingerprint} of {key.name}."), indent=2)
    if keys:
        told = "The operator reads the same from `broker audit key`: compare it by telephone."
        print_wrapped(plain(told, "dim"))


def print_undetected(undetected: Sequence[str], *, before: str = "") -> None:
    """Print what stays undetected all the same, behind a sentence about what was done."""
    print_wrapped(plain(f"{before} Undetectable by this:".lstrip()), indent=2)
    for one in undetected:
        print_wrapped(plain(f"  - {one}"), indent=4)


def key_members(keys: Sequence[NoteKey]) -> list[dict[str, str]]:
    """The same for programs."""
    return [{"name": key.name, "fingerprint": key.fingerprint} for key in keys]


def _keys_in(text: str) -> Sequence[NoteKey]:
    is_file = "+" not in text
    if is_file:
        raw = read_file(Path(text), _LARGEST_KEY_FILE, name="--key", form=_KEY_FORM)
        words = raw.decode("utf-8", "replace")
    else:
        words = text
    # A word is not repeated: somebody will give what is secret where what is public belongs.
    where = f"{text}: " if is_file else ""
    try:
        keys = [NoteKey.read(word) for word in words.split()]
    except ValueError as error:
        raise click.UsageError(f"--key: {where}{error}; {_KEY_FORM}.") from None
    if not keys:
        raise click.UsageError(f"--key: {where}there is no key; {_KEY_FORM}.")
    return keys


def read_anchor(file: Path, keys: Sequence[NoteKey]) -> Anchor:
    """
    The checkpoint that somebody kept in a file: the note as it is, or as it stands in the list.

    One that none of the keys has signed says nothing.
    """
    raw = read_file(file, 2 * LARGEST_NOTE, name="--anchor", form=_ANCHOR_FORM)
    try:
        note = msgspec.json.decode(raw, type=NotedLine).note
    except ValueError:
        note = raw.decode("utf-8", "replace")
    try:
        return Anchor(file, opened_note(note, keys))
    except (NoteRefused, CheckpointRefused) as refused:
        raise click.UsageError(
            f"--anchor: {file} is no checkpoint by these keys: {refused}; {_ANCHOR_FORM}."
        ) from None


def read_receipt(text: str) -> Receipt:
    """A receipt as it is, or that of a token in ``@FILE`` or in standard input, for ``-``."""
    is_token = text == "-" or text.startswith("@")
    if not is_token and "@" not in text and text.count(".") >= 2:
        raise click.UsageError(
            f"--receipt: that looks like a token, which is secret; {_RECEIPT_FORM}."
        )
    try:
        return Receipt.read(read_token(text, name="--receipt") if is_token else text)
    except ReceiptRefused as refused:
        raise click.UsageError(f"--receipt: {refused}; {_RECEIPT_FORM}.") from None


def read_stamp_roots(file: Path | None) -> StampVerifier | None:
    """Who is trusted to stamp times."""
    if file is None:
        return None
    try:
        return StampVerifier(file)
    except StampsUnread as unread:
        raise click.UsageError(f"--tsa-ca: {unread}; {_ROOTS_FORM}.") from None


def read_file(path: Path, limit: int, *, name: str, form: str) -> bytes:
    """What is in a file that is not larger than ``limit`` bytes; ``form`` tells what the option takes."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise click.UsageError(
            f"{name}: {path} cannot be read: {error.strerror}; {form}."
        ) from None
    if len(raw) > limit:
        raise click.UsageError(f"{name}: {path} is too large; {form}.")
    return raw
