from typing import Any

import pytest

from broker.errors import Reason
from broker.model import ClientCredential, TokenRequest
from broker.oauth import GRANT_TOKEN_EXCHANGE, KNOWN_PARAMETERS, REPEATABLE_PARAMETERS
from tests.web.face_fakes import CANARY, Caller, FakeToken, Input, Reply, fake_endpoints

FORM = "application/x-www-form-urlencoded"


def ask(body: bytes | str, **environ: Any) -> tuple[FakeToken, Reply]:
    token = FakeToken()
    return token, Caller(fake_endpoints(token)).post(body, **environ)


def read(body: bytes | str, **environ: Any) -> TokenRequest:
    token, reply = ask(body, **environ)
    assert reply.status == 200, reply.body
    return token.requests[0]


def refusal(body: bytes | str, **environ: Any) -> Reason:
    """The reason of a refusal, which reached the audit entry and left nothing of the request."""
    token, reply = ask(body, **environ)
    assert reply.json["error"] == "invalid_request"
    assert not token.requests
    assert CANARY not in f"{reply.headers} {reply.body!r}"
    return token.refusals[0].reason


@pytest.mark.requirement("TX-01")
def test_a_form_becomes_a_token_request() -> None:
    body = (
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"
        "&subject_token=s.s.s&subject_token_type=urn:x&actor_token=a.a.a&actor_token_type=urn:y"
        "&resource=https%3A%2F%2Fone.test&resource=https%3A%2F%2Ftwo.test&audience=crm"
        "&scope=b%3Aread+b%3Awrite&requested_token_type=urn:z&client_id=c%C3%A4&client_secret=s%2B%25"
        "&client_assertion=c.c.c&client_assertion_type=urn:j"
    )
    request = read(body)
    assert request == TokenRequest(
        grant_type=GRANT_TOKEN_EXCHANGE,
        credential=ClientCredential(
            client_id="cä",
            client_secret="s+%",
            client_assertion="c.c.c",
            client_assertion_type="urn:j",
        ),
        subject_token="s.s.s",
        subject_token_type="urn:x",
        actor_token="a.a.a",
        actor_token_type="urn:y",
        resources=("https://one.test", "https://two.test"),
        audiences=("crm",),
        scopes=("b:read", "b:write"),
        requested_token_type="urn:z",
        present=frozenset(
            {
                "grant_type",
                "subject_token",
                "subject_token_type",
                "actor_token",
                "actor_token_type",
                "resource",
                "audience",
                "scope",
                "requested_token_type",
                "client_id",
                "client_secret",
                "client_assertion",
                "client_assertion_type",
            }
        ),
    )


@pytest.mark.requirement("TX-01")
def test_unknown_parameters_are_ignored() -> None:
    request = read("grant_type=g&utm=1&x")
    assert request.present == {"grant_type", "utm"}
    assert request.grant_type == "g"


@pytest.mark.requirement("TEX-02")
@pytest.mark.parametrize("sent", ["", "subject_token=&", "subject_token&", "&&"])
def test_a_parameter_without_a_value_counts_as_omitted(sent: str) -> None:
    request = read(f"{sent}grant_type=g&resource=&scope=")
    assert request.subject_token is None
    assert request.resources == ()
    assert request.scopes is None
    assert request.present == {"grant_type"}


@pytest.mark.requirement("TEX-02")
def test_a_blank_is_a_value_and_the_cores_to_refuse() -> None:
    assert read("grant_type=g&subject_token=+").subject_token == " "


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [("a", ("a",)), ("a+b", ("a", "b")), ("a++b", ("a", "", "b")), ("+a", ("", "a"))],
)
def test_scopes_part_at_single_spaces_so_that_the_core_sees_malformed_ones(
    scope: str, scopes: tuple[str, ...]
) -> None:
    assert read(f"grant_type=g&scope={scope}").scopes == scopes


def test_an_empty_body_asks_for_nothing() -> None:
    assert read("") == TokenRequest(grant_type="", credential=ClientCredential())


@pytest.mark.requirement("TX-01")
@pytest.mark.requirement("HTP-03")
@pytest.mark.parametrize("name", [*sorted(KNOWN_PARAMETERS - REPEATABLE_PARAMETERS), "unknown"])
@pytest.mark.parametrize("values", ["{0}=a&{0}=b", "{0}=a&{0}=a", "{0}=&{0}=a", "{0}&{0}"])
def test_a_repeated_parameter_is_refused(name: str, values: str) -> None:
    assert refusal(values.format(name)) is Reason.DUPLICATE_PARAM


@pytest.mark.requirement("HTP-03")
@pytest.mark.parametrize("name", ["grant_type", "resource", "scope", "unknown"])
def test_a_parameter_in_query_and_body_is_repeated(name: str) -> None:
    assert refusal(f"{name}=a", QUERY_STRING=f"{name}=b") is Reason.DUPLICATE_PARAM


@pytest.mark.requirement("CAU-10", "IDJAG-R-28")
@pytest.mark.parametrize(
    "name",
    [
        "client_secret",
        "client_assertion",
        "access_token",
        "subject_token",
        "actor_token",
        "assertion",
        "password",
        "refresh_token",
        "code",
        "client_id",
        "grant_type",
        "resource",
    ],
)
def test_what_belongs_in_the_body_is_refused_in_the_query(name: str) -> None:
    query = f"x=1&{name}={CANARY}"
    assert refusal("requested_token_type=t", QUERY_STRING=query) is Reason.CREDENTIAL_IN_QUERY


@pytest.mark.requirement("CAU-10")
def test_a_credential_in_the_query_is_refused_whatever_the_body_is() -> None:
    query = {"QUERY_STRING": f"client_secret={CANARY}"}
    assert refusal("client_secret=a", **query) is Reason.CREDENTIAL_IN_QUERY
    assert refusal("{}", CONTENT_TYPE="application/json", **query) is Reason.CREDENTIAL_IN_QUERY


def test_a_query_of_others_is_nothing_to_us() -> None:
    assert read("grant_type=g", QUERY_STRING="utm_source=x&y").present == {"grant_type"}


@pytest.mark.requirement("HTP-02")
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data; boundary=x",
        "text/plain",
        "",
        None,
        f"{FORM}; charset=utf-7",
        f"{FORM}; charset=iso-8859-1",
        f"{FORM}; charset=utf-8; charset=utf-7",
        f"{FORM}, text/plain",
        f"{FORM}x",
        f"x{FORM}",
    ],
)
def test_only_forms_in_utf_8_are_read(content_type: str | None) -> None:
    assert refusal("grant_type=g", CONTENT_TYPE=content_type) is Reason.CONTENT_TYPE


@pytest.mark.parametrize(
    "content_type",
    [FORM, FORM.upper(), f"{FORM};charset=UTF-8", f'{FORM} ; charset="utf-8"', f"{FORM} "],
)
def test_a_form_may_say_that_it_is_utf_8(content_type: str) -> None:
    assert read("grant_type=g", CONTENT_TYPE=content_type).grant_type == "g"


@pytest.mark.requirement("HTP-14")
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "identity, gzip", ""])
def test_a_compressed_body_is_refused_and_not_unpacked(encoding: str) -> None:
    token, reply = ask(b"\x1f\x8b", HTTP_CONTENT_ENCODING=encoding)
    assert reply.status == 415
    assert reply.json["error"] == "invalid_request"
    assert token.refusals[0].reason is Reason.CONTENT_ENCODING


def test_an_identity_encoding_is_no_encoding() -> None:
    assert read("grant_type=g", HTTP_CONTENT_ENCODING="Identity").grant_type == "g"


@pytest.mark.parametrize(
    "body",
    [
        b"grant_type=%ff",
        b"grant_type=\xff",
        b"grant_type=%c0%af",
        b"scope=%ED%A0%80",
        b"%ff=1",
        b"\xed\xa0\x80=1",
        "grant_type=g".encode("utf-16"),
    ],
)
def test_a_body_that_is_not_utf_8_is_refused(body: bytes) -> None:
    assert refusal(body) is Reason.BODY_MALFORMED


@pytest.mark.requirement("HTP-04")
def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    body = Input(b"a" * 65_537)
    token, reply = ask(b"", CONTENT_LENGTH="65537", **{"wsgi.input": body})
    assert reply.status == 413
    assert token.refusals[0].reason is Reason.BODY_TOO_LARGE
    assert body.was_read == 0


@pytest.mark.requirement("HTP-04")
def test_a_body_of_unknown_length_is_read_no_further_than_the_limit() -> None:
    body = Input(b"a" * 5_000_000)
    environ = {"wsgi.input": body, "wsgi.input_terminated": True}
    token, reply = ask(b"", CONTENT_LENGTH=None, **environ)
    assert reply.status == 413
    assert token.refusals[0].reason is Reason.BODY_TOO_LARGE
    assert body.was_read == 65_537


def test_a_body_of_unknown_length_is_read_where_the_server_ends_it() -> None:
    body = Input(b"grant_type=g")
    environ = {"wsgi.input": body, "wsgi.input_terminated": True}
    assert read(b"", CONTENT_LENGTH=None, **environ).grant_type == "g"


def test_a_body_as_large_as_allowed_is_read() -> None:
    body = b"grant_type=g&subject_token=%s&actor_token=" % (b"a" * 32_768)
    assert read(body.ljust(65_536, b"a")).grant_type == "g"


@pytest.mark.parametrize("length", ["-1", "+5", "5 ", "0x5", "٥", "5,5", "1e1"])  # noqa: RUF001 - A digit that is no ASCII one.
def test_a_length_that_is_no_number_reads_nothing(length: str) -> None:
    body = Input(b"grant_type=g")
    token = FakeToken()
    environ = {"wsgi.input": body, "CONTENT_LENGTH": length}
    reply = Caller(fake_endpoints(token)).unchecked("POST", "/token", b"", **environ)
    assert reply.status == 400
    assert token.refusals[0].reason is Reason.BODY_MALFORMED
    assert body.was_read == 0


def test_a_body_shorter_than_declared_is_refused() -> None:
    assert refusal(b"grant_type=g&scope=a", CONTENT_LENGTH="40") is Reason.BODY_MALFORMED


@pytest.mark.requirement("HTP-04")
@pytest.mark.parametrize("body", ["&" * 64, "a=1&" * 64, "&".join(f"a{n}=1" for n in range(65))])
def test_too_many_fields_are_refused_before_any_is_looked_at(body: str) -> None:
    token, reply = ask(body)
    assert reply.status == 413
    assert token.refusals[0].reason is Reason.BODY_TOO_LARGE


def test_as_many_fields_as_allowed_are_read() -> None:
    body = "&".join(f"a{n}=1" for n in range(63)) + "&grant_type=g"
    assert read(body).grant_type == "g"


@pytest.mark.parametrize("name", sorted(KNOWN_PARAMETERS - {"audience", "resource", "scope"}))
def test_a_parameter_is_bounded_and_tokens_have_more_room(name: str) -> None:
    assertions = {"assertion", "client_assertion", "client_secret"}
    tokens = {"actor_token", "subject_token", "token"}
    longest = 32_768 if name in assertions | tokens else 4_096
    assert name in read(f"{name}={'a' * longest}").present
    assert refusal(f"{name}={'a' * (longest + 1)}") is Reason.PARAM_TOO_LARGE


@pytest.mark.requirement("CAU-14")
@pytest.mark.parametrize(
    ("header", "values"),
    [
        (None, ()),
        ("Basic dTpw", ("Basic dTpw",)),
        ("", ("",)),
        ("Basic", ("Basic",)),
        ("Basic dTpw,Basic dTpw", ("Basic dTpw", "Basic dTpw")),
        ("Basic dTpw, Bearer x", ("Basic dTpw", "Bearer x")),
    ],
)
def test_the_authorization_header_is_passed_on_as_it_came(
    header: str | None, values: tuple[str, ...]
) -> None:
    """Servers join two headers with a comma (RFC 9110 5.3), which Basic never contains."""
    request = read("grant_type=g", HTTP_AUTHORIZATION=header)
    assert request.credential.unverified_authorization == values


@pytest.mark.requirement("CAU-02")
def test_all_ways_to_authenticate_reach_the_core_together() -> None:
    body = "grant_type=g&client_id=c&client_secret=s&client_assertion=a"
    credential = read(body, HTTP_AUTHORIZATION="Basic dTpw").credential
    assert credential.unverified_authorization == ("Basic dTpw",)
    assert credential.client_secret == "s"
    assert credential.client_assertion == "a"


@pytest.mark.requirement("DPOP-01", "POP-04")
@pytest.mark.parametrize(
    ("header", "proofs"),
    [("a.b.c", ("a.b.c",)), ("a.b.c, d.e.f", ("a.b.c", "d.e.f")), (" a ", ("a",)), ("", ("",))],
)
def test_every_dpop_header_reaches_the_core(header: str, proofs: tuple[str, ...]) -> None:
    """Even an empty one: a proof that cannot be read is not a proof that was not sent."""
    request = read("grant_type=g", HTTP_DPOP=header)
    assert request.proofs == proofs
    assert request.proof_target == "https://sts.test/token"


@pytest.mark.requirement("POP-10", "HTP-07")
def test_a_proof_is_for_the_published_address_wherever_the_request_went() -> None:
    request = read("grant_type=g", HTTP_DPOP="a.b.c", HTTP_HOST="evil.test")
    assert request.proof_target == "https://sts.test/token"
