"""One call as a servicer sees it: a message still to be read, a credential, the circumstances."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

from google.protobuf.message import DecodeError, Message
from msgspec import Struct

from broker.errors import InvalidRequest, Reason, RequestTooLarge
from broker.model import RequestContext

M = TypeVar("M", bound=Message)

_CONNECTIONS: Final = 4096
"""Peers whose address is remembered: about as many as there may be connections."""


@dataclass(frozen=True, slots=True)
class CallMetadata:
    """
    The metadata that a call may authenticate itself with, each key as often as it was sent.

    ``proofs`` are DPoP proofs, which must be for ``proof_target``, the address of the call's method. All
    other metadata is ignored, above all what claims to know the caller (``x-forwarded-user``).
    """

    authorization: tuple[str, ...] = field(default=(), repr=False)
    client_assertion: tuple[str, ...] = field(default=(), repr=False)
    client_assertion_type: tuple[str, ...] = ()
    proofs: tuple[str, ...] = field(default=(), repr=False)
    proof_target: str = ""

    @staticmethod
    def read(
        metadata: Iterable[tuple[str, str | bytes]], *, proof_target: str = ""
    ) -> "CallMetadata":
        """Pick the credentials out of all metadata."""
        found: dict[str, list[str]] = {}
        for key, value in metadata:
            if key in _CREDENTIALS and isinstance(value, str):
                found.setdefault(key, []).append(value)
        if not found:
            return _NOT_SENT
        authorization, assertion, assertion_type, proofs = (
            tuple(found.get(key, ())) for key in _CREDENTIALS
        )
        return CallMetadata(authorization, assertion, assertion_type, proofs, proof_target)


_NOT_SENT: Final = CallMetadata()
_CREDENTIALS = ("authorization", "client-assertion", "client-assertion-type", "dpop")


class Call(Struct, Generic[M], frozen=True):
    """
    A call on its way to a servicer.

    ``data`` is the message as it came, ``None`` when the caller ended the call without one. More than
    ``limit`` bytes are refused.
    """

    context: RequestContext
    metadata: CallMetadata
    data: bytes | None
    parse: Callable[[bytes], M]
    limit: int

    def __repr__(self) -> str:
        # What it carries may hold anything.
        return f"Call({self.context!r})"

    def message(self) -> M:
        """
        The message; raises ``InvalidRequest`` when it is none.

        It is read this late, inside the audit entry, so that a message that cannot be read, or never
        came, is recorded like any other refused request.
        """
        if self.data is None:
            raise InvalidRequest(Reason.BODY_MALFORMED)
        if len(self.data) > self.limit:
            raise RequestTooLarge(Reason.BODY_TOO_LARGE)
        try:
            return self.parse(self.data)
        except (DecodeError, UnicodeDecodeError):
            raise InvalidRequest(Reason.BODY_MALFORMED) from None


@lru_cache(maxsize=_CONNECTIONS)
def peer_address(peer: str) -> str:
    """The IP address in a gRPC peer name such as ``ipv6:%5B::1%5D:50051``; empty for others."""
    family, _, rest = peer.partition(":")
    if family not in {"ipv4", "ipv6"}:
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
