"""The kinds of value a setting can have, as annotations: a reader and a JSON Schema for editors."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from broker.config import values
from broker.config.settings import Address, ServerAddress
from broker.oauth import VERIFICATION_ALGORITHMS


def _schema(kind: str, **members: Any) -> WithJsonSchema:
    return WithJsonSchema({"title": kind, "type": "string", **members})


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What a value is held to after it was read, and the words that tell so in the name of its kind.

    ``members`` are those of JSON Schema that say the same to editors, where there are any.
    """

    check: Callable[[Any], Any]
    told: str
    members: tuple[tuple[str, int], ...] = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        kind = found.get("title", "whole number")
        return {**found, "title": f"{kind} {self.told}", **dict(self.members)}


def lasting(least: str, most: str, *, reason: str = "") -> Bounds:
    """The bounds of a duration; ``reason`` says why there is an upper one."""
    bounds = (values.read_duration(least), values.read_duration(most))

    def check(found: timedelta) -> timedelta:
        if not bounds[0] <= found <= bounds[1]:
            because = f": {reason}" if reason else ""
            raise values.refusal(f"must be between {least} and {most}{because}")
        return found

    # The shortest that means nothing is no bound to tell of.
    told = f"from {least} to {most}" if bounds[0] else f"up to {most}"
    return Bounds(check, told)


def between(least: int, most: int) -> Bounds:
    """The bounds of a whole number."""
    return _whole(least, most, str(least), str(most))


def sized(least: str, most: str) -> Bounds:
    """The bounds of a size."""
    return _whole(values.read_size(least), values.read_size(most), least, most)


def _whole(least: int, most: int, least_told: str, most_told: str) -> Bounds:
    def check(found: int) -> int:
        if not least <= found <= most:
            raise values.refusal(f"must be between {least_told} and {most_told}")
        return found

    return Bounds(
        check, f"from {least_told} to {most_told}", (("minimum", least), ("maximum", most))
    )


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
