"""``broker revoke``: an operator withdraws all that was issued for a party, in an emergency."""

import time
from datetime import UTC, datetime
from typing import Any, Final

import rich_click as click

from broker.cli.connection import connection_from, grpc_options
from broker.cli.output import echo_json, output_option
from broker.config.durations import parse_duration
from broker.config.problems import printable
from broker.v1.admin_service_pb2 import RevokedParty, RevokeIssuedTokensRequest
from broker.v1.admin_service_pb2_grpc import AdminServiceStub

_KINDS: Final = {
    "subject": RevokedParty.REVOKED_PARTY_SUBJECT,
    "client_id": RevokedParty.REVOKED_PARTY_CLIENT,
    "mcp_server": RevokedParty.REVOKED_PARTY_MCP_SERVER,
    "issuer": RevokedParty.REVOKED_PARTY_ISSUER,
}


@click.command()
@grpc_options
@click.option("--subject", help="The person or machine that tokens are about, as their `sub`.")
@click.option("--client-id", help="The client that they were issued to, or that acts in them.")
@click.option("--mcp-server", help="The resource that they are for, or came through.")
@click.option("--issuer", help="The issuer that vouched for their subjects.")
@click.option(
    "--since",
    help="Only what was issued since: `10m` ago, or a moment such as `2026-11-22T08:00:00Z`.",
)
@output_option("text", "json")
def revoke(*, since: str | None, output: str, **given: Any) -> None:
    """
    Withdraw all that was issued for one party, and all that was derived from it.

    It counts in every worker once the command ends. The client that asks must be registered with
    `administer`. Whoever must get nothing any more is switched off in the configuration, before this.
    """
    party, name = _party(given)
    issued_since = 0 if since is None else _moment(since, now=int(time.time()))
    others = {option: given[option] for option in given.keys() - _KINDS.keys()}
    connection = connection_from(issuer=given["broker_issuer"], **others)
    message = RevokeIssuedTokensRequest(party=_KINDS[party], name=name, issued_since=issued_since)
    with connection.channel() as channel:
        response = connection.call(AdminServiceStub(channel).RevokeIssuedTokens, message)
    if output == "json":
        echo_json(
            {
                "party": party,
                "name": name,
                "issued_since": issued_since,
                "issued_until": response.issued_until,
            }
        )
        return
    begin = "the beginning" if since is None else _shown(issued_since)
    named = f"{party.replace('_', '-')} {printable(name)}"
    click.echo(f"Withdrawn: {named}, from {begin} through {_shown(response.issued_until)}.")
    click.echo(
        "What is issued after that moment counts again, and so do logins after it.", err=True
    )


def _party(given: dict[str, Any]) -> tuple[str, str]:
    named = [(kind, given[kind]) for kind in _KINDS if given[kind]]
    if len(named) != 1:
        raise click.UsageError("Name one party: --subject, --client-id, --mcp-server or --issuer.")
    return named[0]


def _moment(text: str, *, now: int) -> int:
    """The moment meant, in unix seconds: so long ago, or RFC 3339."""
    duration = parse_duration(text)
    if duration is not None:
        return max(0, now - int(duration.total_seconds()))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.UsageError("--since takes a duration such as 10m, or a moment with its offset.")
    return int(moment.timestamp())


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
