"""What was asked for becomes an issuer and a server to try."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from broker.verify_server.cases import Told
from broker.verify_server.catalogue import CASES_BY_NAME
from broker.verify_server.issuer import Issuer, pretend_issuer
from broker.verify_server.keys import read_key

Asked = Mapping[str, Any]


def told_of(url: str, asked: Asked) -> Told:
    """What is told of the server; raises ``ValueError`` for a case that there is not."""
    left_out = frozenset(name for name in asked["except"].replace(",", " ").split())
    unknown = sorted(left_out - CASES_BY_NAME.keys())
    if unknown:
        raise ValueError(f"There is no case {', '.join(unknown)}.")
    return Told(
        url,
        audience=asked["audience"],
        scopes=tuple(asked["scope"].split()),
        extra=dict(asked["claim"]),
        longest_chain=asked["longest_chain"],
        introspects=asked["revoked_with_introspection"],
        is_patient=asked["patient"],
        left_out=left_out,
    )


@contextmanager
def issuer_of(asked: Asked) -> Iterator[Issuer]:
    """The issuer until the end of the block; raises ``ValueError`` or ``OSError`` when there can be none."""
    url, key_file = asked["issuer"], asked["key"]
    if (url is None) != (key_file is None):
        raise ValueError("An issuer and its key go together.")
    if url is None:
        with pretend_issuer(port=asked["issuer_port"], algorithm=asked["algorithm"]) as issuer:
            yield issuer
        return
    yield Issuer(url, read_key(key_file, algorithm=asked["algorithm"], kid=asked["kid"]))
