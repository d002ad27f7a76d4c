"""The broker over HTTP: a form goes out, an answer or a failure comes back."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import httpx2

from broker.client.asks import Ask
from broker.client.credentials import Presented
from broker.client.failures import (
    BadAnswer,
    BrokerError,
    Refused,
    StepUp,
    StepUpRequired,
    Unavailable,
)

_LARGEST_ANSWER: Final = 256 * 1024
_Answer = TypeVar("_Answer")


class AsyncHttp:
    """Asks over HTTP, for a running event loop. ``issuer`` is the broker's; nothing else is contacted."""

    def __init__(self, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        self._client = httpx2.AsyncClient(**_settings(ca_file))

    async def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``."""
        try:
            answer = await self._client.send(
                _request(self._client, self.issuer, ask, presented, within)
            )
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        return _read(ask, answer)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class SyncHttp:
    """The same for code that blocks."""

    def __init__(self, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        self._client = httpx2.Client(**_settings(ca_file))

    def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``."""
        try:
            answer = self._client.send(_request(self._client, self.issuer, ask, presented, within))
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        return _read(ask, answer)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


def _settings(ca_file: str | None) -> dict[str, Any]:
    # Nothing ambient takes part: no proxy, no .netrc, no redirect.
    settings: dict[str, Any] = {"trust_env": False, "follow_redirects": False}
    if ca_file is not None:
        import ssl  # noqa: PLC0415 - only whoever has authorities of his own needs it.

        settings["verify"] = ssl.create_default_context(cafile=ca_file)
    return settings


def _request(
    client: httpx2.AsyncClient | httpx2.Client,
    issuer: str,
    ask: Ask[Any],
    presented: Presented,
    within: float,
) -> httpx2.Request:
    if not ask.endpoint:
        raise BadAnswer("This can be asked over gRPC alone.")
    headers = {} if presented.authorization is None else {"Authorization": presented.authorization}
    return client.build_request(
        "POST",
        f"{issuer.rstrip('/')}/{ask.endpoint}",
        data=dict((*ask.form, *presented.form.items())),
        headers=headers,
        timeout=within,
    )


def _read(ask: Ask[_Answer], answer: httpx2.Response) -> _Answer:
    if len(answer.content) > _LARGEST_ANSWER:
        raise BadAnswer("The answer is too large.")
    try:
        body = json.loads(answer.content or b"{}")
    except ValueError:
        body = None
    if answer.status_code == httpx2.codes.OK and isinstance(body, dict):
        return ask.read_json(body)
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        raise _failure(body, answer.headers)
    if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        raise Unavailable(f"The broker answers with status {answer.status_code}.")
    raise BadAnswer(f"The answer has status {answer.status_code} and is not the broker's.")


def _failure(body: Mapping[str, Any], headers: Mapping[str, str]) -> BrokerError:
    code, description = body["error"], str(body.get("error_description", ""))
    decision_id = headers.get("Broker-Decision-Id", "")
    if code in {"temporarily_unavailable", "server_error", "slow_down"}:
        return Unavailable(
            description, retry_after=_seconds(headers.get("Retry-After")), decision_id=decision_id
        )
    if code == "insufficient_user_authentication":
        max_age = body.get("max_age")
        step_up = StepUp(
            str(body.get("acr_values", "")), max_age if isinstance(max_age, int) else None
        )
        return StepUpRequired(code, description, decision_id=decision_id, step_up=step_up)
    return Refused(code, description, decision_id=decision_id)


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isdigit() else 1.0


def _unreachable(error: httpx2.HTTPError) -> Unavailable:
    return Unavailable(f"The broker does not answer: {type(error).__name__}.")
