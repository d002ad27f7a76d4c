"""The exchange over HTTP, as a form (RFC 8693 2.1)."""

from broker.cli.exchange import ExchangeRequest, Issued, Server, refusal
from broker.cli.fetching import Fetcher
from broker.cli.stop import Negative
from broker.oauth import GRANT_TOKEN_EXCHANGE


def exchange_over_http(server: Server, request: ExchangeRequest) -> Issued:
    """The token that the broker issues; raises ``Negative`` with its refusal."""
    form = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        ("subject_token", request.subject_token),
        ("subject_token_type", request.subject_token_type),
        ("actor_token", request.actor_token),
        ("actor_token_type", request.actor_token_type),
        *(("resource", resource) for resource in request.resources),
        *(("audience", audience) for audience in request.audiences),
        ("scope", " ".join(request.scopes)),
    ]
    answer = Fetcher(ca_file=server.ca_file).post(
        f"{(server.issuer or '').rstrip('/')}/token",
        [(name, value) for name, value in form if value],
        authorization=request.authorization,
    )
    body = answer.json()
    if not isinstance(body, dict):
        raise Negative(f"The broker answers with status {answer.status} and no JSON.")
    if answer.status != 200:
        raise refusal(body.get("error"), body.get("error_description"), answer.decision_id)
    try:
        return Issued(
            access_token=str(body["access_token"]),
            issued_token_type=str(body["issued_token_type"]),
            token_type=str(body["token_type"]),
            expires_in=int(body["expires_in"]),
            scope=str(body.get("scope", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise Negative("The broker's answer lacks what RFC 8693 2.2.1 requires.") from None
