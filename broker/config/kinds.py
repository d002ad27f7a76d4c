"""The kinds of value a setting can have, as annotations: a reader and a JSON Schema for editors."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from broker.config import values
from broker.config.settings import Address
from broker.oauth import VERIFICATION_ALGORITHMS


def _schema(**members: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **members})


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
        if isinstance(found, list) and any(entry in found[:at] for at, entry in enumerate(found)):
            raise values.refusal("names an entry twice")
        return found

    return AfterValidator(check)


def one_of(*names: str) -> AfterValidator:
    """One of the names listed."""
    listed = ", ".join(names)

    def check(found: str) -> str:
        if found not in names:
            raise values.refusal(f"must be one of {listed}", known=names)
        return found

    return AfterValidator(check)


Duration = Annotated[
    timedelta,
    PlainValidator(values.read_duration),
    _schema(pattern="^([0-9]+(d|h|ms|m|s))+$", examples=["5m"]),
]
Size = Annotated[
    int,
    PlainValidator(values.read_size),
    WithJsonSchema({"type": ["integer", "string"], "pattern": "^[0-9]+(KiB|MiB|GiB)?$"}),
]
Moment = Annotated[int, PlainValidator(values.read_moment), _schema(format="date-time")]
ListenAddress = Annotated[
    Address, PlainValidator(values.read_address), _schema(examples=["127.0.0.1:8080"])
]
Url = Annotated[str, AfterValidator(values.read_url), _schema(format="uri")]
OwnIssuer = Annotated[str, AfterValidator(values.read_own_issuer), _schema(format="uri")]
ResourceUri = Annotated[str, AfterValidator(values.read_resource), _schema(format="uri")]
Identifier = Annotated[
    str, AfterValidator(values.read_identifier), _schema(pattern="^[!-~]{1,255}$")
]
ClientId = Annotated[str, AfterValidator(values.read_client_id), _schema(pattern="^[!-~]{1,255}$")]
SubjectPrefix = Annotated[str, AfterValidator(values.read_subject_prefix), _schema()]
Scope = Annotated[
    str, AfterValidator(values.read_scope), _schema(pattern=r"^[!#-\[\]-~]{1,255}$")
]
Algorithm = Annotated[
    str, AfterValidator(values.read_algorithm), _schema(enum=list(VERIFICATION_ALGORITHMS))
]
SecretHashText = Annotated[
    str,
    PlainValidator(values.read_secret_hash),
    _schema(pattern=r"^(sha256:[0-9a-f]{64}|\$argon2id\$.+)$"),
]
VaultName = Annotated[str, AfterValidator(values.read_vault_name), _schema()]
VaultPath = Annotated[str, AfterValidator(values.read_vault_path), _schema()]
ClaimName = Annotated[str, AfterValidator(values.read_claim_name), _schema()]
FileName = Annotated[str, AfterValidator(values.read_path), _schema()]
Network = Annotated[str, AfterValidator(values.read_network), _schema()]
SubjectName = Annotated[str, AfterValidator(values.read_subject), _schema()]
