"""Resource indicators: the one normal form that registry and requests share (RFC 8707 2)."""

import re
from typing import Final

from broker.errors import InvalidTarget, Reason

MAX_LENGTH: Final = 2048
_RESOURCE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?P<port>:[0-9]{1,5})?(?P<rest>[/?][!$-;=?-Z_a-z~%]*)?"
)
_URN: Final = re.compile(r"[uU][rR][nN]:[A-Za-z0-9][A-Za-z0-9-]{1,31}:[!$-;=?-Z_a-z~%]+")


def normalise_resource(value: str) -> str:
    """
    The form in which two spellings of one resource are equal.

    Scheme and host are lower-cased and a lone ``/`` path is dropped; everything else is kept byte for
    byte. Raises ``InvalidTarget`` for anything but an absolute URI with an authority, or a URN, of at
    most 2,048 ASCII characters, without user information and without a fragment.
    """
    if len(value) > MAX_LENGTH:
        raise InvalidTarget(Reason.TARGET_MALFORMED, parameter="resource")
    if _URN.fullmatch(value):
        return "urn" + value[3:]
    match = _RESOURCE.fullmatch(value)
    if match is None or match["scheme"].lower() in ("javascript", "data", "file", "blob"):
        raise InvalidTarget(Reason.TARGET_MALFORMED, parameter="resource")
    rest = match["rest"] or ""
    return (
        f"{match['scheme'].lower()}://{match['host'].lower()}{match['port'] or ''}"
        f"{'' if rest == '/' else rest}"
    )
