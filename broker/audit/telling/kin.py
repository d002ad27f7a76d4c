"""The records before a record: of the issue of the tokens that were presented in it, and so on."""

from collections.abc import Sequence
from typing import Final

from broker.audit.query import AuditReader, Found
from broker.audit.record import Record
from broker.audit.telling.chain import ABOUT_TOKENS

_MOST: Final = 16


def parents_of(reader: AuditReader, found: Found) -> Sequence[Found]:
    """
    The records of the issue of the tokens that were presented, or of the one that is asked about.

    Raises as ``AuditReader`` does.
    """
    if found.record.event not in ABOUT_TOKENS:
        return reader.parents(found)
    tokens = [one.jti for one in found.record.inputs or [] if one.jti]
    return [one for one in map(reader.of_token, tokens[:_MOST]) if one is not None]


def ancestors_of(reader: AuditReader, found: Found) -> dict[str, Record]:
    """Their records, those of the tokens presented for them, and so on, by ``jti``: for ``chain_of``."""
    known: dict[str, Record] = {}
    waiting = [found]
    while waiting and len(known) < _MOST:
        for parent in parents_of(reader, waiting.pop(0)):
            jti = parent.record.jti or ""
            if jti not in known:
                known[jti] = parent.record
                waiting.append(parent)
    return known
