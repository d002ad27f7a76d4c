"""The keys of people's pseudonyms in Vault's key-value engine, the same for all replicas."""

import re
from collections.abc import Mapping
from typing import Any, Final

from broker.errors import TemporarilyUnavailable
from broker.keys.people_text import key_from_text, new_key_text
from broker.keys.record_vault import VaultDocument
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_path
from broker.keys.vault_session import VaultSession

_MOST_KEYS: Final = 4096
_NAME: Final = re.compile(r"[0-9][0-9a-z-]{3,15}")


class VaultPeopleKeys:
    """
    A folder of documents, each with the key of a period.

    A key is made by check-and-set, so that of several replicas one wins, and all use its key. Everything
    raises ``TemporarilyUnavailable`` when Vault cannot be asked, refuses, or holds no key there.
    """

    def __init__(self, session: VaultSession, *, mount: str, path: str) -> None:
        self._session = session
        self._mount = mount
        self._path = path

    def obtain(self, period: str) -> bytes:
        document = self._document(period)
        members, version = document.read()
        if version == 0:
            members = _made(document)
        return _key_in(members, period)

    def held(self) -> Mapping[str, bytes]:
        found = self._session.names(vault_path(self._mount, "metadata", self._path))
        periods = [name for name in found if isinstance(name, str) and _NAME.fullmatch(name)]
        documents = {
            period: self._document(period).read()
            for period in sorted(periods, reverse=True)[:_MOST_KEYS]
        }
        # A document that was deleted, but not destroyed, is listed still.
        return {
            period: _key_in(members, period)
            for period, (members, version) in documents.items()
            if version > 0
        }

    def destroy(self, period: str) -> bool:
        folder = vault_path(self._mount, "metadata", self._path)
        # What was deleted in another way is listed, and could be brought back.
        is_there = period in self._session.names(folder)
        if is_there:
            self._session.delete(vault_path(folder, period))
        return is_there

    def _document(self, period: str) -> VaultDocument:
        return VaultDocument(self._session, mount=self._mount, path=f"{self._path}/{period}")


def _made(document: VaultDocument) -> Mapping[str, Any]:
    """A new key, or that of whoever was first."""
    made = {"key": new_key_text()}
    try:
        if document.write(made, over=0):
            return made
    except TemporarilyUnavailable:
        # Who may make a key and not change one is refused otherwise once there is one.
        members, version = document.read()
        if version == 0:
            raise
        return members
    return document.read()[0]


def _key_in(members: Mapping[str, Any], period: str) -> bytes:
    key = key_from_text(members.get("key"))
    if key is None:
        raise _no_key(period)
    return key


def _no_key(period: str) -> TemporarilyUnavailable:
    return signer_unavailable(f"vault: there is no key of pseudonyms in {period}")
