"""The record of the keys in Vault's key-value engine, replaced by check-and-set."""

from collections.abc import Mapping
from typing import Any, Final

from broker.keys.record import HeldRecord, KeyRecord, RecordUnreadable, writable_members
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_path
from broker.keys.vault_session import VaultSession

_MISLEADING: Final = (LookupError, TypeError)


class VaultDocument:
    """
    One document of a key-value engine of version 2.

    Both methods raise ``TemporarilyUnavailable`` when Vault cannot be asked or answers with anything
    else.
    """

    def __init__(self, session: VaultSession, *, mount: str, path: str) -> None:
        self._session = session
        self._path = vault_path(mount, "data", path)

    def read(self) -> tuple[Mapping[str, Any], int]:
        """Its members and its version; no members and 0 where there is none."""
        answer = self._session.find(self._path)
        if answer is None:
            return {}, 0
        try:
            members, version = answer["data"]["data"], answer["data"]["metadata"]["version"]
        except _MISLEADING:
            members, version = None, None
        if not isinstance(members, dict) or type(version) is not int or version < 1:
            raise signer_unavailable("vault: malformed answer")
        return members, version

    def write(self, members: Mapping[str, Any], *, over: int) -> bool:
        """Replace the version ``over``; tells whether these members are there now."""
        body = {"options": {"cas": over}, "data": members}
        if self._session.attempt(self._path, body) is not None:
            return True
        found, version = self.read()
        # The write is sent again if its connection breaks; the first one may have come through.
        if version == over + 1 and found == members:
            return True
        if version == over:
            raise signer_unavailable("vault: request refused")
        return False


class VaultRecord:
    """The record of the keys as a document in Vault."""

    def __init__(self, document: VaultDocument) -> None:
        self._document = document

    def read(self) -> HeldRecord:
        members, version = self._document.read()
        if version == 0:
            return HeldRecord(KeyRecord(), 0)
        try:
            return HeldRecord(KeyRecord.of_members(members), version)
        except RecordUnreadable as error:
            raise signer_unavailable(f"vault: {error}") from None

    def write(self, record: KeyRecord, *, over: int) -> bool:
        return self._document.write(writable_members(record), over=over)
