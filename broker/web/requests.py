"""Form bodies and headers become requests; whatever is not plainly one is refused."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus

from msgspec.structs import replace

from broker.errors import InvalidRequest, OAuthError, Reason, RequestTooLarge
from broker.model import ClientCredential, TokenInquiry, TokenRequest
from broker.oauth import KNOWN_PARAMETERS, REPEATABLE_PARAMETERS

Environ = Mapping[str, Any]
Fields = Sequence[tuple[str, str]]

_MOST_FIELDS: Final = 64
_LONGEST_VALUE: Final = 4 * 1024
_LONGEST_TOKEN: Final = 32 * 1024
# The core refuses these by rules of their own; the body's size is bound enough until then.
_JUDGED_LATER: Final = frozenset({"audience", "resource", "scope"})
_TOKENS: Final = frozenset(
    {"actor_token", "assertion", "client_assertion", "client_secret", "subject_token", "token"}
)
_SECRETS: Final = _TOKENS | {"access_token", "code", "code_verifier", "password", "refresh_token"}
_CONTENT_TYPE: Final = re.compile(
    r'application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*', re.IGNORECASE
)


class CompressedBody(InvalidRequest):
    """The body is compressed (RFC 9110 15.5.16); it was not unpacked."""

    http_status = 415


def take_body(environ: Environ, limit: int) -> bytes | OAuthError:
    """
    The request body, or what is wrong with it.

    It is returned rather than raised so that the audit record can be opened before it is raised. It
    never reads more than one byte beyond ``limit``, and nothing where the length is known to be too
    much. It blocks for as long as the sender takes, so the server bounds that time.
    """
    # The server undoes this one coding and passes over the others (RFC 9112 6.1).
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower() != "chunked":
        return InvalidRequest(Reason.BODY_MALFORMED)
    declared = environ.get("CONTENT_LENGTH") or ""
    if not declared:
        # Only a server that marks the end of the input can be asked for a body of unknown length.
        body = _read(environ, limit + 1) if environ.get("wsgi.input_terminated") else b""
    elif not (declared.isascii() and declared.isdigit()):
        return InvalidRequest(Reason.BODY_MALFORMED)
    elif len(declared) > 9 or int(declared) > limit:
        return RequestTooLarge(Reason.BODY_TOO_LARGE)
    else:
        body = _read(environ, int(declared))
        if len(body) != int(declared):
            return InvalidRequest(Reason.BODY_MALFORMED)
    return RequestTooLarge(Reason.BODY_TOO_LARGE) if len(body) > limit else body


def _read(environ: Environ, size: int) -> bytes:
    read, chunks = environ["wsgi.input"].read, []
    while size > 0 and (chunk := read(size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def read_token_request(
    environ: Environ, body: bytes | OAuthError, *, proof_target: str = ""
) -> TokenRequest:
    """
    The token request in a POST of a form (RFC 6749 3.2, appendix B; RFC 8693 2.1).

    A DPoP proof that comes along must be for ``proof_target``. Raises ``InvalidRequest`` for everything
    that cannot be read as exactly one request.
    """
    request = _token_request(_read_form(environ, body))
    proofs = _header(environ, "HTTP_DPOP")
    return replace(request, proofs=proofs, proof_target=proof_target) if proofs else request


def read_inquiry(environ: Environ, body: bytes | OAuthError) -> TokenInquiry:
    """The token that a form asks about (RFC 7662 2.1, RFC 7009 2.1); raises likewise."""
    form = _read_form(environ, body)
    return TokenInquiry(form.credential, form.single.get("token"))


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of which every parameter was sent once, but for those that may be repeated."""

    single: Mapping[str, str] = field(repr=False)
    repeated: Mapping[str, Sequence[str]]
    credential: ClientCredential


def _read_form(environ: Environ, body: bytes | OAuthError) -> _Form:
    asked = _fields(environ.get("QUERY_STRING") or "")
    _check_query(asked)
    _check_kind(environ)
    if isinstance(body, OAuthError):
        raise body
    try:
        form = _fields(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest(Reason.BODY_MALFORMED) from None
    _check_repetition(asked, form)
    if not KNOWN_PARAMETERS.isdisjoint(name for name, _ in asked):
        raise InvalidRequest(Reason.CREDENTIAL_IN_QUERY)
    return _form(form, _header(environ, "HTTP_AUTHORIZATION"))


def _fields(text: str) -> Fields:
    if not text:
        return ()
    if text.count("&") >= _MOST_FIELDS:
        raise RequestTooLarge(Reason.BODY_TOO_LARGE)
    try:
        # An empty piece, as between two ampersands, is no field.
        return [
            (_unescaped(name), _unescaped(value))
            for name, _, value in (piece.partition("=") for piece in text.split("&") if piece)
        ]
    except ValueError:
        raise InvalidRequest(Reason.BODY_MALFORMED) from None


def _unescaped(text: str) -> str:
    """A name or a value without its escapes; few have any, and tokens never do."""
    if "%" not in text and "+" not in text:
        return text
    return unquote_plus(text, errors="strict")


def _check_query(asked: Fields) -> None:
    """Queries end up in logs and histories, so a credential in one is burnt (RFC 9700 4.3.2)."""
    if not _SECRETS.isdisjoint(name for name, _ in asked):
        raise InvalidRequest(Reason.CREDENTIAL_IN_QUERY)


def _check_kind(environ: Environ) -> None:
    if not _CONTENT_TYPE.fullmatch(environ.get("CONTENT_TYPE") or ""):
        raise InvalidRequest(Reason.CONTENT_TYPE)
    if environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise CompressedBody(Reason.CONTENT_ENCODING)


def _check_repetition(asked: Fields, form: Fields) -> None:
    """No parameter may come twice, with or without a value, known or not (RFC 6749 3.2)."""
    in_query = {name for name, _ in asked}
    seen = set(in_query)
    if len(seen) != len(asked):
        raise InvalidRequest(Reason.DUPLICATE_PARAM)
    for name, _ in form:
        if name in seen and (name not in REPEATABLE_PARAMETERS or name in in_query):
            raise InvalidRequest(Reason.DUPLICATE_PARAM, parameter=_known(name))
        seen.add(name)


def _known(name: str) -> str:
    """The name where it is one of ours; a caller's own words are not repeated."""
    return name if name in KNOWN_PARAMETERS else ""


def _header(environ: Environ, name: str) -> tuple[str, ...]:
    """
    The values of the ``Authorization`` or the ``DPoP`` header, by its name in WSGI.

    Servers join repeated headers with a comma, which neither a Basic credential nor a JWS contains
    (RFC 7617 2, RFC 7515 7.1); so a comma means that there was more than one.
    """
    header = environ.get(name)
    return () if header is None else tuple(value.strip() for value in header.split(","))


def _form(fields: Fields, authorization: tuple[str, ...]) -> _Form:
    single: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in REPEATABLE_PARAMETERS}
    for name, value in fields:
        # A parameter sent without a value counts as omitted (RFC 6749 3.2).
        if not value:
            continue
        longest = _LONGEST_TOKEN if name in _TOKENS else _LONGEST_VALUE
        if len(value) > longest and name not in _JUDGED_LATER:
            raise InvalidRequest(Reason.PARAM_TOO_LARGE, parameter=_known(name))
        if name in repeated:
            repeated[name].append(value)
        else:
            single[name] = value
    credential = ClientCredential(
        unverified_authorization=authorization,
        client_id=single.get("client_id"),
        client_secret=single.get("client_secret"),
        client_assertion=single.get("client_assertion"),
        client_assertion_type=single.get("client_assertion_type"),
    )
    return _Form(single, repeated, credential)


def _token_request(form: _Form) -> TokenRequest:
    single, repeated = form.single, form.repeated
    scope = single.get("scope")
    return TokenRequest(
        grant_type=single.get("grant_type", ""),
        credential=form.credential,
        subject_token=single.get("subject_token"),
        subject_token_type=single.get("subject_token_type"),
        actor_token=single.get("actor_token"),
        actor_token_type=single.get("actor_token_type"),
        assertion=single.get("assertion"),
        resources=tuple(repeated["resource"]),
        audiences=tuple(repeated["audience"]),
        scopes=None if scope is None else tuple(scope.split(" ")),
        requested_token_type=single.get("requested_token_type"),
        present=frozenset(single) | {name for name, values in repeated.items() if values},
    )
