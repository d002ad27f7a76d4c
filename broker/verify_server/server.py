"""The server under test: how it is asked, and what it answers."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlencode

import httpx2

from broker.client._challenges import challenges
from broker.client._trust import authorities
from broker.oauth import TOKEN_TYPE_BEARER
from broker.strict_json import StrictJsonError, loads_strict
from broker.verify_server.options import MCP

_SECONDS: Final = 10.0
_BODY_SECONDS: Final = 2.0
_LARGEST: Final = 64 * 1024
_PAUSE: Final = 0.1
_SHORTEST_SECRET: Final = 16
_ACCEPT: Final = {"Accept": "application/json, text/event-stream"}
_STATELESS: Final = "2026-07-28"
_WITH_SESSIONS: Final = "2025-11-25"
_CLIENT: Final = {"name": "broker-verify", "version": "1"}
_META: Final = "io.modelcontextprotocol/"
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")


class NoAnswer(Exception):
    """The server did not answer; the sentence says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, as far as it was read."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the request was served."""
        return 200 <= self.status < 300

    @property
    def challenge(self) -> Mapping[str, str] | None:
        """The parameters of its Bearer challenge, ``None`` if it has none (RFC 6750 3)."""
        return self.challenge_of(TOKEN_TYPE_BEARER)

    def challenge_of(self, scheme: str) -> Mapping[str, str] | None:
        """The parameters of its first challenge of a scheme, ``None`` if it has none (RFC 9110 11.6.1)."""
        values = [value for name, value in self.headers if name.lower() == "www-authenticate"]
        return next(iter(challenges(values, scheme)), None)

    def header(self, name: str) -> str:
        """The value of a header, empty if there is none."""
        return next((value for one, value in self.headers if one.lower() == name.lower()), "")

    def document(self) -> Mapping[str, Any] | None:
        """The JSON object in the body, read strictly; ``None`` if it is none."""
        try:
            document = loads_strict(self.body)
        except StrictJsonError:
            return None
        return document if isinstance(document, dict) else None


@dataclass(frozen=True, slots=True)
class Presentation:
    """
    How a token is presented: under which scheme, with which proofs, or in the query instead.

    ``second`` is another token, in a header of its own.
    """

    scheme: str = TOKEN_TYPE_BEARER
    is_in_query: bool = False
    second: str | None = None
    proofs: tuple[str, ...] = ()


AS_BEARER: Final = Presentation()


class Server:
    """
    The server at ``url``; ``method`` is ``MCP`` or that of a plain HTTP request.

    MCP servers are asked for their tools: without a session (2026-07-28), or in one where that is
    what they serve. ``told_tokens`` counts the answers that repeated a part of the token they got.
    """

    def __init__(self, url: str, *, method: str = MCP, ca_file: str | None = None) -> None:
        self._client = httpx2.Client(
            verify=authorities(ca_file),
            trust_env=False,
            follow_redirects=False,
            timeout=_SECONDS,
        )
        self.url = url
        self.told_tokens = 0
        self._method = method
        self._session: Mapping[str, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def is_mcp(self) -> bool:
        """Whether it is asked as MCP has it."""
        return self._method == MCP

    @property
    def method(self) -> str:
        """The HTTP method by which it is asked."""
        return "POST" if self._method == MCP else self._method

    def wait(self, seconds: float) -> None:
        """Return when the server answers at all; raises ``NoAnswer`` after so many seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.ask()
            except NoAnswer:
                if time.monotonic() >= end:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def open(self, token: str) -> Answer:
        """The answer to a first request; what it opens is used by all that follow."""
        answer = self.ask(token)
        if self._method != MCP or answer.status in {401, 403} or answer.is_success:
            return answer
        opened, self._session = self.begin_session(token)
        if not opened.is_success:
            return opened
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        self._post(note, self._session, token, AS_BEARER)
        return self.ask(token)

    def begin_session(self, token: str) -> tuple[Answer, Mapping[str, str]]:
        """The answer to a client that begins a session, and the headers of all requests in it."""
        opened = self._post(_initialize(), {}, token, AS_BEARER)
        session = opened.header("Mcp-Session-Id") if opened.is_success else ""
        headers = {"MCP-Protocol-Version": _WITH_SESSIONS}
        return opened, headers | ({"Mcp-Session-Id": session} if session else {})

    def ask(self, token: str | None = None, presentation: Presentation = AS_BEARER) -> Answer:
        """The answer to a request with this token; raises ``NoAnswer``."""
        if self._method != MCP:
            return self._send(self._method, self.url, None, {}, token, presentation)
        if self._session is not None:
            return self._post(_list_tools({}), self._session, token, presentation)
        headers = {"MCP-Protocol-Version": _STATELESS, "Mcp-Method": "tools/list"}
        return self._post(_list_tools({"_meta": _envelope()}), headers, token, presentation)

    def ask_in(
        self, session: Mapping[str, str], token: str | None = None, *, method: str = "POST"
    ) -> Answer:
        """The answer to a request in a session, by any HTTP method."""
        if method == "POST":
            return self._post(_list_tools({}), session, token, AS_BEARER)
        return self._send(method, self.url, None, session, token, AS_BEARER)

    def get(self, url: str) -> Answer:
        """The answer to a request without a token, for what is public."""
        return self._send("GET", url, None, {}, None, AS_BEARER)

    def _post(
        self,
        message: Mapping[str, Any],
        headers: Mapping[str, str],
        token: str | None,
        presentation: Presentation,
    ) -> Answer:
        content = json.dumps(message).encode()
        typed = {"Content-Type": "application/json", **headers}
        return self._send("POST", self.url, content, typed, token, presentation)

    def _send(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: Mapping[str, str],
        token: str | None,
        presentation: Presentation,
    ) -> Answer:
        borne = {} if token is None else {"Authorization": f"{presentation.scheme} {token}"}
        if token is not None and presentation.is_in_query:
            url += ("&" if "?" in url else "?") + urlencode({"access_token": token})
            borne = {}
        proofs = [("DPoP", proof) for proof in presentation.proofs]
        sent = [*({**_ACCEPT, **headers, **borne}).items(), *proofs]
        if presentation.second is not None:
            sent.append(("Authorization", f"{presentation.scheme} {presentation.second}"))
        answer = self._answer(method, url, content=content, headers=sent)
        if token is not None and _repeats(answer, token):
            self.told_tokens += 1
        return answer

    def _answer(self, *request: Any, **content: Any) -> Answer:
        """The answer; a connection that the server has closed meanwhile is opened anew, once."""
        try:
            try:
                return self._answer_once(*request, **content)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                return self._answer_once(*request, **content)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NoAnswer(_said(error)) from None

    def _answer_once(self, *request: Any, **content: Any) -> Answer:
        with self._client.stream(*request, **content) as came:
            told = tuple((name, value) for name, value in came.headers.multi_items())
            return Answer(came.status_code, told, _body(came))


def _said(error: Exception) -> str:
    """What went wrong, in words that fit behind the name of a case."""
    if isinstance(error, httpx2.ConnectError):
        return "nobody answers there"
    if isinstance(error, httpx2.TimeoutException):
        return "it does not answer in time"
    return f"no answer: {type(error).__name__}"


def _list_tools(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}


def _initialize() -> dict[str, Any]:
    params = {"protocolVersion": _WITH_SESSIONS, "capabilities": {}, "clientInfo": _CLIENT}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def _envelope() -> dict[str, Any]:
    """What every request tells where there are no sessions."""
    told = {"protocolVersion": _STATELESS, "clientInfo": _CLIENT, "clientCapabilities": {}}
    return {_META + name: value for name, value in told.items()}


def _body(came: httpx2.Response) -> bytes:
    """The beginning of a body; a stream of events may never end, so its time is short."""
    body = bytearray()
    end = time.monotonic() + _BODY_SECONDS
    is_stream = came.headers.get("Content-Type", "").startswith("text/event-stream")
    for piece in came.iter_bytes():
        body += piece
        is_told = is_stream and b"data:" in body and body.endswith((b"\n\n", b"\r\n\r\n"))
        if is_told or len(body) > _LARGEST or time.monotonic() > end:
            break
    return bytes(body[:_LARGEST])


def _repeats(answer: Answer, token: str) -> bool:
    """Whether an answer has the claims or the signature of a token, or of something like one."""
    text = answer.body + "\n".join(value for _, value in answer.headers).encode(
        "latin-1", "replace"
    )
    secret = [part for part in token.split(".")[1:] if len(part) >= _SHORTEST_SECRET]
    return any(_SEGMENT.fullmatch(part) and part.encode() in text for part in secret)
