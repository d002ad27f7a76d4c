"""The kinds of value a setting can have, as annotations: a reader and a JSON Schema for editors."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from broker.config import values
from broker.config.settings import Address, ServerAddress
from broker.oauth import VERIFICATION_ALGORITHMS


def _schema(kind: str, **members: Any) -> WithJsonSchema:
    return WithJsonSchema({"title": kind, "type": "string", **members})


def lasting(least: str, most: str, *, reason: str = "") -> AfterValidator:
    """The bounds of a duration; ``reason`` says why there is an upper one."""
    bounds = (values.read_duration(least), values.read_duration(most))

    def check(found: timedelta) -> timedelta:
        if not bounds[0] <= found <= bounds[1]:
            because = f": {reason}" if reason else ""
            raise values.refusal(f"must be between {least} and {most}{because}")
        return found

    return AfterValidator(check)


def between(least: int, most: int) -> AfterValidator:
    """The bounds of a whole number."""

    def check(found: int) -> int:
        if not least <= found <= most:
            raise values.refusal(f"must be between {least} and {most}")
        return found

    return AfterValidator(check)


def holding(least: int, most: int, *, reason: str = "") -> AfterValidator:
    """The bounds of the number of entries of a list or a mapping, and that no entry is repeated."""

    def check(found: Any) -> Any:
        if not least <= len(found) <= most:
            because = f": {reason}" if reason and len(found) < least else ""
            raise values.refusal(f"must have {least} to {most} entries{because}")
        names = [entry for entry in found if isinstance(entry, str | ServerAddress)]
        if len(names) != len(set(names)):
            raise values.refusal("names an entry twice")
        return found

    return AfterValidator(check)


Duration = Annotated[
    timedelta,
    PlainValidator(values.read_duration),
    _schema("duration", pattern="^([0-9]+(d|h|ms|m|s))+$", examples=["5m"]),
]
Rate = Annotated[
    str,
    PlainValidator(values.read_rate),
    _schema("rate", pattern="^[0-9]{1,7}/(s|m|h)$", examples=["20/s"]),
]
Size = Annotated[
    int,
    PlainValidator(values.read_size),
    WithJsonSchema(
        {"title": "size", "type": ["integer", "string"], "pattern": "^[0-9]+(KiB|MiB|GiB)?$"}
    ),
]
Moment = Annotated[int, PlainValidator(values.read_moment), _schema("time", format="date-time")]
ListenAddress = Annotated[
    Address,
    PlainValidator(values.read_address),
    _schema("address and port", examples=["127.0.0.1:8080"]),
]
ServerPlace = Annotated[
    ServerAddress,
    PlainValidator(values.read_server),
    _schema("host and port", examples=["server.example:6514"]),
]
KeyPrefix = Annotated[str, AfterValidator(values.read_key_prefix), _schema("name")]
Url = Annotated[str, AfterValidator(values.read_url), _schema("URL", format="uri")]
ForeignIssuer = Annotated[
    str, AfterValidator(values.read_foreign_issuer), _schema("URL or trust domain", format="uri")
]
OwnIssuer = Annotated[str, AfterValidator(values.read_own_issuer), _schema("URL", format="uri")]
ResourceUri = Annotated[str, AfterValidator(values.read_resource), _schema("URI", format="uri")]
Identifier = Annotated[
    str, AfterValidator(values.read_identifier), _schema("identifier", pattern="^[!-~]{1,255}$")
]
ClientId = Annotated[
    str, AfterValidator(values.read_client_id), _schema("identifier", pattern="^[!-~]{1,255}$")
]
SubjectPrefix = Annotated[str, AfterValidator(values.read_subject_prefix), _schema("text")]
Scope = Annotated[
    str, AfterValidator(values.read_scope), _schema("scope", pattern=r"^[!#-\[\]-~]{1,255}$")
]
Algorithm = Annotated[
    str,
    AfterValidator(values.read_algorithm),
    _schema("algorithm", enum=list(VERIFICATION_ALGORITHMS)),
]
SecretHashText = Annotated[
    str,
    PlainValidator(values.read_secret_hash),
    _schema("hash", pattern=r"^(sha256:[0-9a-f]{64}|\$argon2id\$.+)$"),
]
VaultName = Annotated[str, AfterValidator(values.read_vault_name), _schema("name")]
VaultPath = Annotated[str, AfterValidator(values.read_vault_path), _schema("path of names")]
ClaimName = Annotated[str, AfterValidator(values.read_claim_name), _schema("claim name")]
FileName = Annotated[str, AfterValidator(values.read_path), _schema("path")]
Network = Annotated[str, AfterValidator(values.read_network), _schema("address or network")]
HeaderName = Annotated[str, AfterValidator(values.read_header_name), _schema("header name")]
HostName = Annotated[
    str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?$")
]
SubjectName = Annotated[str, AfterValidator(values.read_subject), _schema("text")]
