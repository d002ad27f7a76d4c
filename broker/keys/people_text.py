"""A key of people's pseudonyms as text: 256 bits in base64url."""

import base64
import re
import secrets
from typing import Final

_BYTES: Final = 32
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def new_key_text() -> str:
    """The text of a new key."""
    return _text_of(secrets.token_bytes(_BYTES))


def key_from_text(text: object) -> bytes | None:
    """The key, or ``None`` where a text, or whatever it is, is none."""
    if not isinstance(text, str) or _TEXT.fullmatch(text) is None:
        return None
    key = base64.urlsafe_b64decode(f"{text}=")
    # The last character has two bits too many: one key has one text.
    return key if _text_of(key) == text else None


def _text_of(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")
