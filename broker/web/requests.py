"""Form bodies and headers become requests; whatever is not plainly one is refused."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

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
_FORM: Final = "application/x-www-form-urlencoded"
_CONTENT_TYPE: Final = re.compile(
    _FORM + r'(?:[ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*', re.IGNORECASE
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
    read = environ["wsgi.input"].read
    body: bytes = read(size)
    if len(body) == size or not body:
        return body
    chunks = [body]
    size -= len(body)
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
    fields = _read_form(environ, body)
    sent = _with_value(fields)
    scope = sent.get("scope")
    proofs = _header(environ, "HTTP_DPOP")
    return TokenRequest(
        grant_type=sent.get("grant_type", ""),
        credential=_credential(environ, sent),
        subject_token=sent.get("subject_token"),
        subject_token_type=sent.get("subject_token_type"),
        actor_token=sent.get("actor_token"),
        actor_token_type=sent.get("actor_token_type"),
        assertion=sent.get("assertion"),
        resources=_all(fields, "resource") if "resource" in sent else (),
        audiences=_all(fields, "audience") if "audience" in sent else (),
        scopes=None if scope is None else tuple(scope.split(" ")),
        requested_token_type=sent.get("requested_token_type"),
        proofs=proofs,
        proof_target=proof_target if proofs else "",
        present=frozenset(sent),
    )


def read_inquiry(environ: Environ, body: bytes | OAuthError) -> TokenInquiry:
    """The token that a form asks about (RFC 7662 2.1, RFC 7009 2.1); raises likewise."""
    sent = _with_value(_read_form(environ, body))
    return TokenInquiry(_credential(environ, sent), sent.get("token"))


def _credential(environ: Environ, sent: Mapping[str, str]) -> ClientCredential:
    return ClientCredential(
        unverified_authorization=_header(environ, "HTTP_AUTHORIZATION"),
        client_id=sent.get("client_id"),
        client_secret=sent.get("client_secret"),
        client_assertion=sent.get("client_assertion"),
        client_assertion_type=sent.get("client_assertion_type"),
    )


def _with_value(fields: Fields) -> dict[str, str]:
    """A parameter sent without a value counts as omitted (RFC 6749 3.2)."""
    return {name: value for name, value in fields if value}


def _all(fields: Fields, wanted: str) -> tuple[str, ...]:
    """Every value of a parameter that may be repeated."""
    return tuple([value for name, value in fields if name == wanted and value])


def _read_form(environ: Environ, body: bytes | OAuthError) -> Fields:
    """The fields of a form of which every parameter was sent once, but for those that may be repeated."""
    query = environ.get("QUERY_STRING")
    asked = _fields(query) if query else ()
    _check_query(asked)
    _check_kind(environ)
    if isinstance(body, OAuthError):
        raise body
    try:
        form = _fields(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest(Reason.BODY_MALFORMED) from None
    if asked or len(dict(form)) != len(form):
        _check_repetition(asked, form)
    if asked and not KNOWN_PARAMETERS.isdisjoint(name for name, _ in asked):
        raise InvalidRequest(Reason.CREDENTIAL_IN_QUERY)
    _check_sizes(form)
    return form


def _fields(text: str) -> Fields:
    if text.count("&") >= _MOST_FIELDS:
        raise RequestTooLarge(Reason.BODY_TOO_LARGE)
    # What stands neither for an ampersand nor for an equals sign nor for a percent sign may be undone
    # before the fields are told apart, for all at once; after these three few values have escapes left.
    text = text.replace("+", " ").replace("%3A", ":").replace("%2F", "/")
    # An empty piece, as between two ampersands, is no field.
    pieces = [piece.partition("=") for piece in text.split("&") if piece]
    if "%" not in text:
        return [(name, value) for name, _, value in pieces]
    try:
        return [(_unescaped(name), _unescaped(value)) for name, _, value in pieces]
    except ValueError:
        raise InvalidRequest(Reason.BODY_MALFORMED) from None


def _unescaped(text: str) -> str:
    return unquote(text, errors="strict") if "%" in text else text


def _check_query(asked: Fields) -> None:
    """Queries end up in logs and histories, so a credential in one is burnt (RFC 9700 4.3.2)."""
    if asked and not _SECRETS.isdisjoint(name for name, _ in asked):
        raise InvalidRequest(Reason.CREDENTIAL_IN_QUERY)


def _check_kind(environ: Environ) -> None:
    kind = environ.get("CONTENT_TYPE") or ""
    if kind != _FORM and not _CONTENT_TYPE.fullmatch(kind):
        raise InvalidRequest(Reason.CONTENT_TYPE)
    coding = environ.get("HTTP_CONTENT_ENCODING")
    if coding is not None and coding.strip().lower() != "identity":
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


def _check_sizes(form: Fields) -> None:
    for name, value in form:
        if len(value) <= _LONGEST_VALUE or name in _JUDGED_LATER:
            continue
        if name not in _TOKENS or len(value) > _LONGEST_TOKEN:
            raise InvalidRequest(Reason.PARAM_TOO_LARGE, parameter=_known(name))


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
