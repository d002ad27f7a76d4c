"""The library for MCP servers, agents and the APIs behind them."""

from broker.client.answers import Explanation, Introspection, Token
from broker.client.broker import Broker, Patience, SyncBroker
from broker.client.credentials import (
    Credential,
    CredentialUnusable,
    KeyFile,
    Secret,
    VaultKey,
    WorkloadTokenFile,
)
from broker.client.failures import (
    BadAnswer,
    BrokerError,
    NoSubjectToken,
    Refused,
    StepUp,
    StepUpRequired,
    Unavailable,
    WrongOrigin,
)

__all__ = [
    "BadAnswer",
    "Broker",
    "BrokerError",
    "Credential",
    "CredentialUnusable",
    "Explanation",
    "Introspection",
    "KeyFile",
    "NoSubjectToken",
    "Patience",
    "Refused",
    "Secret",
    "StepUp",
    "StepUpRequired",
    "SyncBroker",
    "Token",
    "Unavailable",
    "VaultKey",
    "WorkloadTokenFile",
    "WrongOrigin",
]
