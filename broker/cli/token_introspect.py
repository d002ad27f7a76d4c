"""``broker token introspect``: whether a token counts, as the broker tells those it concerns."""

import time
from collections.abc import Mapping
from typing import Any

import rich_click as click

from broker.cli.connection import Connection, connection_from, connection_options
from broker.cli.inputs import read_token
from broker.cli.output import console, echo_json, output_option
from broker.cli.stop import Negative
from broker.cli.token_tree import draw_claims
from broker.strict_json import StrictJsonError, loads_strict
from broker.v1.token_service_pb2 import IntrospectTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub


@click.command()
@click.argument("token", default="-")
@connection_options
@output_option("tree", "json")
def introspect(*, token: str, output: str, **asked: Any) -> None:
    """
    Ask the broker about TOKEN, which is @FILE or - for standard input (RFC 7662).

    It tells the server that the token is for, the client that it was issued to, and clients that are
    registered to ask; all others are told that it is not active. The command then ends with 1.
    """
    connection = connection_from(**asked)
    ask = _over_grpc if connection.grpc else _over_http
    document = ask(connection, read_token(token, name="TOKEN"))
    is_active = document.get("active")
    if not isinstance(is_active, bool):
        raise Negative("The broker's answer lacks what RFC 7662 2.2 requires.")
    if output == "json":
        echo_json(document)
    elif is_active:
        console().print(draw_claims(document, now=int(time.time())))
    if not is_active:
        raise Negative("The token is not active, or does not concern this client.")


def _over_http(connection: Connection, token: str) -> Mapping[str, Any]:
    return _object(connection.post("introspect", [("token", token)]).json())


def _over_grpc(connection: Connection, token: str) -> Mapping[str, Any]:
    with connection.channel() as channel:
        stub = TokenServiceStub(channel)
        response = connection.call(stub.IntrospectToken, IntrospectTokenRequest(token=token))
    if not response.active:
        return {"active": False}
    try:
        return _object(loads_strict(response.document_json.encode()))
    except StrictJsonError:
        return {}


def _object(document: Any) -> Mapping[str, Any]:
    return document if isinstance(document, dict) else {}
