"""Readers of single values, each with the reason it refuses what it refuses."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from broker.config.durations import parse_duration
from broker.config.settings import Address, ServerAddress
from broker.errors import InvalidTarget
from broker.oauth import CLIENT_SUBJECT_PREFIX, VERIFICATION_ALGORITHMS
from broker.tokens.resource_uri import normalise_resource
from broker.tokens.spiffe_id import TRUST_DOMAIN_SCHEME, is_trust_domain
from broker.web.peers import FORWARDED_HEADER

_SIZE: Final = re.compile(r"([0-9]{1,12})(|KiB|MiB|GiB)")
_SIZE_UNITS: Final = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_RATE: Final = re.compile(r"([0-9]{1,7})/([smh])")
_PERIODS: Final = {"s": 1, "m": 60, "h": 3600}
_HIGHEST_RATE: Final = 1_000_000
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})"
)
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,63}")
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:[/][!$-;=@-Z_a-z~%]*)?"
)
_SHA256_SECRET: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ARGON2ID_SECRET: Final = re.compile(
    r"\$argon2id\$v=19\$m=(?P<m>[0-9]{1,7}),t=(?P<t>[0-9]{1,2}),p=(?P<p>[0-9]{1,2})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
_IDENTIFIER: Final = re.compile(r"[\x21-\x7e]{1,255}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_KEY_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_VAULT_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
_CLAIM_NAME: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")


def refusal(sentence: str, *, known: Sequence[str] = ()) -> PydanticCustomError:
    """What a reader of a value raises: the sentence, and the names among which to look for a near one."""
    # The sentence is a value of the template, since braces in it would be taken for placeholders.
    facts = {"sentence": sentence, "known": list(known)}
    return PydanticCustomError("refused", "{sentence}", facts)


def text_of(value: Any) -> str:
    """The value, if it is text; nothing else is turned into text."""
    if not isinstance(value, str):
        raise refusal("must be text")
    return value


def read_duration(value: Any) -> timedelta:
    """A duration, which is never a bare number: nobody could tell its unit."""
    found = parse_duration(value) if isinstance(value, str) else None
    if found is None:
        raise refusal("must be a duration with its unit, such as 30s, 5m or 1h30m")
    return found


def read_size(value: Any) -> int:
    """A number of bytes, or of KiB, MiB or GiB."""
    match = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) else None
    if match is None or isinstance(value, bool):
        raise refusal("must be a size, such as 65536, 512KiB or 64MiB")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def read_rate(value: Any) -> str:
    """A number in a second, a minute or an hour."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match[1]) == 0:
        raise refusal("would let nothing pass; the least is 1/h, and a limit of null is no limit")
    if match is None or not 0 < int(match[1]) <= _HIGHEST_RATE:
        raise refusal("must be a number in a second, a minute or an hour, such as 20/s or 10/m")
    return match[0]


def in_a_second(rate: str) -> float:
    """What a rate that was read comes to."""
    number, _, period = rate.partition("/")
    return int(number) / _PERIODS[period]


def read_moment(value: Any) -> int:
    """An RFC 3339 time with its zone, as unix seconds."""
    try:
        moment = datetime.fromisoformat(text_of(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise refusal("must be a time with its zone, such as 2027-01-31T12:00:00Z")
    return int(moment.astimezone(UTC).timestamp())


def read_address(value: Any) -> Address:
    """``127.0.0.1:8080`` or ``[::1]:8080``; a name other than ``localhost`` could resolve to anything."""
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65_535:
        raise refusal("must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080")
    host = match["v6"] or match["v4"]
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise refusal("must begin with an IP address or localhost") from None
    return Address("127.0.0.1" if host == "localhost" else host, int(match["port"]))


def read_server(value: Any) -> ServerAddress:
    """Where a server is: a name or an address, and a port."""
    match = _ADDRESS.fullmatch(text_of(value))
    if match is None or not 0 < int(match["port"]) <= 65_535:
        raise refusal("must be host:port, such as server.example:6514")
    host = match["v6"] or match["v4"]
    if not _is_host(host, is_in_brackets=match["v6"] is not None):
        raise refusal("must begin with a host name or an address")
    return ServerAddress(host, int(match["port"]))


def _is_host(host: str, *, is_in_brackets: bool) -> bool:
    try:
        return ipaddress.ip_address(host).version == (6 if is_in_brackets else 4)
    except ValueError:
        return not is_in_brackets and _HOST.fullmatch(host) is not None


def read_key_prefix(value: str) -> str:
    """How the keys of a deployment begin; braces would tear them apart in a cluster."""
    if not _KEY_PREFIX.fullmatch(value):
        raise refusal("must be 1 to 64 letters, digits, '-', '_', '.' or ':'")
    return value


def read_network(value: str) -> str:
    """An address or a network in CIDR form, which may not be everybody's."""
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError:
        raise refusal("must be an address or a network, such as 10.0.0.0/24") from None
    if network.prefixlen == 0:
        raise refusal("would trust every address; name the proxies")
    return value


def read_header_name(value: str) -> str:
    """The name of a header that has no look-alike for whoever reads it, or the customary one."""
    if value != FORWARDED_HEADER and _HEADER.fullmatch(value) is None:
        raise refusal(
            f"must be {FORWARDED_HEADER}, or letters and digits alone, such as CallerAddress"
        )
    return value


def read_url(value: str) -> str:
    """A URL that only its owner can answer for: https, or http on this very machine."""
    match = _URL.fullmatch(value) if len(value) <= 2048 else None
    if match is None:
        if "*" in value:
            raise refusal("must name one URL; wildcards are not accepted")
        raise refusal("must be a plain https URL without user, query or fragment")
    if match["scheme"] == "http" and not is_loopback_url(value):
        raise refusal("must be https: http is accepted on loopback addresses only")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise refusal("has a port that does not exist") from None
    return value


def read_foreign_issuer(value: str) -> str:
    """Whoever signs tokens elsewhere: a URL, or a SPIFFE trust domain as its SPIFFE IDs begin."""
    if not value.startswith(TRUST_DOMAIN_SCHEME):
        return read_url(value)
    if not is_trust_domain(value):
        raise refusal("must be a trust domain alone, such as spiffe://example.org")
    return value


def is_loopback_url(url: str) -> bool:
    """Whether a URL's host is this machine, as an address or as ``localhost``."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_own_issuer(value: str) -> str:
    """Our own issuer, which every verifier compares byte for byte (RFC 8414 2)."""
    url = read_url(value)
    if url.endswith("/"):
        raise refusal("must not end with a slash: tokens carry it byte for byte")
    if url.partition("://")[2].partition("/")[0] != (urlsplit(url).netloc.lower()):
        raise refusal("must have its host in lower case: tokens carry it byte for byte")
    return url


def read_identifier(value: str) -> str:
    """A name that looks like no other: visible ASCII, so no letter can pose as another (UTS 39)."""
    if not _IDENTIFIER.fullmatch(value):
        raise refusal("must be 1 to 255 visible ASCII characters: others can pose as one another")
    if "*" in value:
        raise refusal("must name exactly one; wildcards are not accepted")
    return value


def read_client_id(value: str) -> str:
    """A client id; subjects of clients are minted as ``client:<id>``, so no id may begin so."""
    read_identifier(value)
    if value.lower().startswith(CLIENT_SUBJECT_PREFIX):
        raise refusal("must not begin with 'client:', which marks the subjects of clients")
    return value


def read_subject_prefix(value: str) -> str:
    """What is put before the subjects of an issuer; it may not make them look like clients."""
    if value:
        read_identifier(value)
    folded = value.lower() or "-"
    if folded.startswith(CLIENT_SUBJECT_PREFIX) or CLIENT_SUBJECT_PREFIX.startswith(folded):
        raise refusal("must not begin like 'client:', which marks the subjects of clients")
    return value


def read_subject(value: str) -> str:
    """A subject as minted: a ``client:`` one, or whatever an issuer calls its users."""
    if not 0 < len(value) <= 255 or not value.isprintable():
        raise refusal("must be 1 to 255 printable characters")
    return value


def read_resource(value: str) -> str:
    """A resource URI; it is brought to its normal form later, when duplicates are looked for."""
    if "*" in value:
        raise refusal("must name one resource; wildcards are not accepted")
    try:
        normal = normalise_resource(value)
    except InvalidTarget:
        raise refusal("must be an absolute URI without user or fragment (RFC 8707 2)") from None
    if normal.startswith("http://") and not is_loopback_url(normal):
        raise refusal("must be https: http is accepted on loopback addresses only")
    return value


def read_scope(value: str) -> str:
    """A scope token (RFC 6749 3.3)."""
    if not _SCOPE.fullmatch(value) or "*" in value:
        raise refusal("must be a scope: visible ASCII without quotes, backslashes and wildcards")
    return value


def read_algorithm(value: str) -> str:
    """A signature algorithm that a stranger cannot compute: asymmetric, and of the known list."""
    if value.lower() == "none":
        raise refusal("would accept tokens that nobody signed")
    if value.upper().startswith("HS"):
        raise refusal("is symmetric: whoever can verify with it could also sign")
    if value not in VERIFICATION_ALGORITHMS:
        names = ", ".join(VERIFICATION_ALGORITHMS)
        raise refusal(f"must be one of {names}", known=VERIFICATION_ALGORITHMS)
    return value


def read_secret_hash(value: Any) -> str:
    """The hash of a client secret; what ``broker client secret`` prints."""
    if isinstance(value, str) and _SHA256_SECRET.fullmatch(value):
        return value
    match = _ARGON2ID_SECRET.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refusal(
            "must be sha256:<64 hex digits> or an argon2id hash; 'broker client secret' makes both"
        )
    memory, passes, lanes = (int(match[name]) for name in "mtp")
    if not (7168 <= memory <= 262_144 and 1 <= passes <= 10 and 1 <= lanes <= 8):
        raise refusal("has a cost too low to protect the secret, or too high to pay each time")
    return value if isinstance(value, str) else ""


def read_vault_name(value: str) -> str:
    """The name of a key in the engine; it becomes part of a path there, so it is one plain word."""
    if not _VAULT_NAME.fullmatch(value):
        raise refusal("must be letters, digits, '-', '_' and single dots")
    return value


def read_vault_path(value: str) -> str:
    """A mount or a namespace: plain words with slashes between them."""
    if len(value) > 255 or not all(_VAULT_NAME.fullmatch(word) for word in value.split("/")):
        raise refusal("must be plain words with single slashes between them, none at either end")
    return value


def read_claim_name(value: str) -> str:
    """A claim name that cannot collide with a registered one (RFC 7519 4.2)."""
    if not _CLAIM_NAME.fullmatch(value) or not re.search(r"[:/]", value):
        raise refusal("must be a name of your own, such as https://example.com/claims/mcp")
    return value


def read_path(value: str) -> str:
    """The name of a file or directory."""
    if not value or "\0" in value:
        raise refusal("must name a file or directory")
    return value
