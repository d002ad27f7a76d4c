"""The one answer of a key store that cannot sign."""

from broker.errors import Reason, TemporarilyUnavailable


def signer_unavailable(detail: str) -> TemporarilyUnavailable:
    """The error to raise; ``detail`` names a class of fault and never anything secret."""
    return TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, detail=detail)
