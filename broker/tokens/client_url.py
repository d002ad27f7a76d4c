"""Client ids that are URLs: which ones can name a metadata document."""

import re
from typing import Final

LONGEST_CLIENT_URL: Final = 248
"""A client's own tokens have ``client:`` and its id as their ``sub``, which is at most 255 long."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLAIN: Final = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]"
# An encoded dot, slash, backslash or control character is a different path to different servers.
_ENCODED: Final = r"%(?!2[EeFf]|5[Cc]|[01]|7[Ff])[0-9A-Fa-f]{2}"
_CLIENT_URL: Final = re.compile(
    rf"https://(?P<host>(?P<name>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[1-9][0-9]{{0,4}}))?)"
    rf"(?P<path>/(?:{_PLAIN}|{_ENCODED})*)"
)
# Resolvers take a name that ends so for an address, in spellings that go back to inet_aton.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL_LIKE: Final = re.compile(r"\s*https?:", re.IGNORECASE)


def client_url_host(client_id: str) -> str | None:
    """
    The host of a client id that can name a metadata document, with its port where it has one.

    It is ``None`` for anything but an https URL with a path, without query, fragment, user information
    or dot segments, whose host is a name in lower case and no address, in plain ASCII of at most
    ``LONGEST_CLIENT_URL`` characters (Client ID Metadata Document 3). Nothing is normalised, decoded
    or resolved: two ids that differ in a byte are two clients.
    """
    match = _CLIENT_URL.fullmatch(client_id) if len(client_id) <= LONGEST_CLIENT_URL else None
    if match is None or int(match["port"] or 443) > 65_535 or len(match["name"]) > 253:
        return None
    if _NUMBER.fullmatch(match["name"].rpartition(".")[2]):
        return None
    segments = match["path"].split("/")
    if not any(segments) or not {".", ".."}.isdisjoint(segments):
        return None
    return match["host"]


def is_url_like(client_id: object) -> bool:
    """Whether a client id is meant as a URL, however malformed."""
    has_scheme = isinstance(client_id, str) and ":" in client_id
    return has_scheme and _URL_LIKE.match(str(client_id)) is not None
