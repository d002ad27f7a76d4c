"""Other people's keys: fetched through the guard, read strictly, and remembered for a while."""

from broker.issuers.client_documents import FetchedClientDocuments
from broker.issuers.key_set import KeySet, SourceFault, SourceRefused, read_key_set
from broker.issuers.ring import IssuerKeyRing
from broker.issuers.source import RefreshSchedule, SourceStatus

__all__ = [
    "FetchedClientDocuments",
    "IssuerKeyRing",
    "KeySet",
    "RefreshSchedule",
    "SourceFault",
    "SourceRefused",
    "SourceStatus",
    "read_key_set",
]
