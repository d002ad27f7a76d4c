"""Text made fit to keep for ever: bounded, printable, and without tokens."""

import hashlib
import re
from collections.abc import Collection
from typing import Final

TOKEN_REMOVED: Final = "[token removed]"
SECRET_REMOVED: Final = "[secret removed]"

# A run of the characters that a compact JWS (RFC 7515 7.1) is made of, long enough to be one.
_RUN: Final = re.compile(r"[\w.-]{24,}", re.ASCII)
_LEAST_UNUSUAL_TOKEN: Final = 64
# A generated client secret, and a Basic credential: a caller may put either where an id belongs.
_SECRET: Final = re.compile(r"bks_[A-Za-z0-9_-]{8,}|\b(?i:basic) +[A-Za-z0-9+/=]{8,}")
# Capitals small, and whatever ``str.isprintable`` refuses of ASCII as zero.
_FOLDED: Final = bytes(ord(chr(code).lower()) if 32 <= code < 127 else 0 for code in range(256))
# With less than this nothing begins that ``safe_text`` takes for a token without reading "eyJ" in it.
_TOKEN_LIKE: Final = re.compile(rb"e[wy][\w.-]{62}")


def is_plain(texts: Collection[str], limit: int) -> bool:
    """
    Whether ``safe_text`` would leave each of the texts as it is, told by one look at all of them.

    It may say no to texts that are, and never yes to one that is not: what makes a text change is
    looked for without asking where in it that stands.
    """
    together = " ".join(texts)
    if not together.isascii() or max(map(len, texts), default=0) > limit:
        return False
    folded = together.encode().translate(_FOLDED)
    return not (
        b"\0" in folded
        or b"eyj" in folded
        or b"bks_" in folded
        or b"asic " in folded
        or _TOKEN_LIKE.search(folded)
    )


def safe_text(value: str, limit: int) -> str:
    """
    The value as a record may hold it, in at most ``limit`` characters.

    Longer text is cut; a marker then tells its full length and the SHA-256 of all of it. Characters
    that could steer a terminal, reorder a line or break a strict JSON reader become their visible
    escapes. Anything that looks like a compact JWS is removed. ``limit`` is at least 128, so that
    the marker fits.
    """
    is_whole = len(value) <= limit
    shown = value if is_whole else value[:limit]
    if len(shown) >= 12:
        shown = _RUN.sub(_without_token, _SECRET.sub(SECRET_REMOVED, shown))
    if not shown.isprintable():
        shown = "".join(one if one.isprintable() else _escape(one) for one in shown)
    if is_whole and len(shown) <= limit:
        return shown
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    marker = f"[cut, {len(value)} characters, sha256:{digest}]"
    return shown[: limit - len(marker)] + marker


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _without_token(run: re.Match[str]) -> str:
    """
    The run without the token that it is or ends with.

    A JOSE header begins with a brace and a quote, which encode as ``eyJ``; one with a blank in
    between is unusual, so more has to speak for it.
    """
    text = run[0]
    start = text.find("eyJ")
    if start < 0 and text.startswith(("ew", "ey")) and len(text) >= _LEAST_UNUSUAL_TOKEN:
        start = 0 if text.count(".") in {2, 4} else -1
    if start < 0 or "." not in text[start:]:
        return text
    return text[:start] + TOKEN_REMOVED
