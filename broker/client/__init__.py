"""The library for MCP servers, agents and the APIs behind them."""

from broker.client.answers import Explanation, Introspection, Token
from broker.client.asks import IdToken, Target
from broker.client.broker import Broker
from broker.client.cache import TokenCache
from broker.client.credentials import (
    Credential,
    KeyFile,
    Secret,
    VaultKey,
    WorkloadTokenFile,
)
from broker.client.failures import (
    BadAnswer,
    BrokerError,
    CredentialUnusable,
    NoSubjectToken,
    Refused,
    StepUp,
    StepUpRequired,
    Unavailable,
    WrongOrigin,
)
from broker.client.patience import Patience
from broker.client.sync_broker import SyncBroker

__all__ = [
    "BadAnswer",
    "Broker",
    "BrokerError",
    "Credential",
    "CredentialUnusable",
    "Explanation",
    "IdToken",
    "Introspection",
    "KeyFile",
    "NoSubjectToken",
    "Patience",
    "Refused",
    "Secret",
    "StepUp",
    "StepUpRequired",
    "SyncBroker",
    "Target",
    "Token",
    "TokenCache",
    "Unavailable",
    "VaultKey",
    "WorkloadTokenFile",
    "WrongOrigin",
]
