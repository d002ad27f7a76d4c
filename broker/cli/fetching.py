"""What commands fetch over HTTP: bounded, without redirects, and from https or loopback alone."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import urllib3
from pydantic_core import PydanticCustomError

from broker.cli.stop import Negative
from broker.config.problems import printable
from broker.config.values import read_url
from broker.strict_json import StrictJsonError, loads_strict

_LARGEST_ANSWER: Final = 1_048_576
_DECISION_ID: Final = "Broker-Decision-Id"
_METADATA_PATHS: Final = ("oauth-authorization-server", "openid-configuration")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; ``decision_id`` is the broker's own name for the decision."""

    status: int
    raw: bytes = field(repr=False)
    decision_id: str = ""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.raw.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as strict JSON, or ``None`` if it is none."""
        try:
            return loads_strict(self.raw)
        except StrictJsonError:
            return None


def _said(error: Exception) -> str:
    """What went wrong on the way, in words."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "nobody listens there, or it cannot be reached"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "what listens there speaks no HTTP; is it the port of another face?"
    return type(error).__name__


@dataclass(frozen=True, slots=True)
class Fetcher:
    """
    Fetches for a command. ``timeout`` is in seconds. ``ca_file`` replaces the system's authorities.

    Raises ``Negative`` when there is no answer.
    """

    timeout: float = 10.0
    ca_file: Path | None = None

    def get(self, url: str, **query: str) -> Answer:
        """The answer to a GET."""
        return self._request("GET", url, fields=query)

    def post(
        self, url: str, form: Sequence[tuple[str, str]], *, authorization: str | None
    ) -> Answer:
        """The answer to a form that is posted, with credentials in it or in the header."""
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if authorization is not None:
            headers["authorization"] = authorization
        return self._request("POST", url, body=urlencode(form), headers=headers)

    def _request(self, method: str, url: str, **arguments: Any) -> Answer:
        try:
            read_url(url)
        except PydanticCustomError as refused:
            raise Negative(f"{printable(url)} {refused.message()}.") from None
        ca_certs = str(self.ca_file) if self.ca_file is not None else None
        timeout = urllib3.Timeout(total=self.timeout)
        with urllib3.PoolManager(ca_certs=ca_certs, retries=False) as pool:
            try:
                response = pool.request(
                    method, url, timeout=timeout, redirect=False, preload_content=False, **arguments
                )
                with closing(response):
                    raw = response.read(_LARGEST_ANSWER + 1, decode_content=True)
            except urllib3.exceptions.SSLError:
                host = printable(urlsplit(url).netloc)
                sentence = (
                    "shows a certificate that is not trusted; name its authority with --ca-file"
                )
                raise Negative(f"{host} {sentence}.") from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                host = printable(urlsplit(url).netloc)
                raise Negative(f"{host} does not answer: {_said(error)}.") from None
        if len(raw) > _LARGEST_ANSWER:
            raise Negative(f"{printable(url)} answers with more than {_LARGEST_ANSWER} bytes.")
        return Answer(response.status, raw, response.headers.get(_DECISION_ID, ""))

    def key_set(self, issuer: str) -> Any:
        """The key set of an issuer, found through its metadata (RFC 8414 3)."""
        metadata = self._metadata(issuer)
        uri = metadata.get("jwks_uri")
        if metadata.get("issuer") != issuer or not isinstance(uri, str):
            raise Negative(f"The metadata of {issuer} is that of another issuer, or names no keys.")
        answer = self.get(uri)
        document = answer.json() if answer.status == 200 else None
        if document is None:
            raise Negative(f"{printable(uri)} answers with status {answer.status}, not with keys.")
        return document

    def _metadata(self, issuer: str) -> Mapping[str, Any]:
        parts = urlsplit(issuer)
        for name in _METADATA_PATHS:
            path = parts.path.rstrip("/")
            answer = self.get(f"{parts.scheme}://{parts.netloc}/.well-known/{name}{path}")
            document = answer.json() if answer.status == 200 else None
            if isinstance(document, dict):
                return document
        raise Negative(f"{printable(issuer)} publishes no metadata.")
