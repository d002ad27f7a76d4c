"""``broker-verify``: what it prints and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.verify_server import report
from broker.verify_server.cases import Result, Verdict
from broker.verify_server.catalogue import CASES, CASES_BY_NAME
from broker.verify_server.command import main
from broker.verify_server.issuer import pretend_issuer
from tests.docs.markdown import ROOT
from tests.e2e.running import environment
from tests.e2e.setting import free_ports
from tests.verify_kit.faults import FAULTS
from tests.verify_kit.servers import SCOPE, Fault, Plain, serving_plainly

_WITHOUT_A_SERVER = "http://127.0.0.1:9/mcp"


def _tried(*arguments: str, fault: Fault | None = None, folder: Path) -> int:
    """The exit code for a plain server whose issuer is given with its key."""
    with pretend_issuer() as issuer:
        key_file = folder / "key.pem"
        private = issuer.key.private
        key_file.write_bytes(
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        with serving_plainly(lambda url: Plain(issuer.url, url, fault or Fault())) as url:
            own = ["--issuer", issuer.url, "--key", str(key_file), "--kid", issuer.key.kid or ""]
            return main([url, *own, "--scope", SCOPE, *arguments])


@pytest.mark.requirement("MCPRS-01", "MCPRS-03")
def test_the_server_of_the_examples_fails_nothing(tmp_path: Path) -> None:
    ports = free_ports()
    issuer, url = f"http://127.0.0.1:{ports.http}", f"http://127.0.0.1:{ports.grpc}/mcp"
    wiki = {"WIKI_ISSUER": issuer, "WIKI_SERVER": url}
    program = [sys.executable, str(ROOT / "examples" / "mcp_server.py")]
    asked = [url, "--issuer-port", str(ports.http), "--scope", SCOPE, "--json"]
    with subprocess.Popen(program, env=environment() | wiki, cwd=tmp_path) as server:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "broker.verify_server", *asked],
                env=environment(),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        finally:
            server.terminate()

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["is_passed"] is True
    assert (told["url"], told["issuer"]) == (url, issuer)
    assert [one["case"] for one in told["cases"]] == list(CASES_BY_NAME)
    assert issuer in done.stderr


def test_a_server_without_fault_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _tried(folder=tmp_path) == 0

    printed = capsys.readouterr().out
    assert all(case.name in printed for case in CASES)
    assert "FAIL" not in printed


def test_a_fault_ends_with_1_and_says_how_to_mend_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)

    assert _tried(folder=tmp_path, fault=FAULTS["ignores exp"][0]) == 1

    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "accepted with 200" in failed[0]
    assert f"  expired: {CASES_BY_NAME['expired'].mend}" in lines


@pytest.mark.parametrize(("fault", "code"), [("ignores typ", 1), (None, 0)])
def test_a_plain_api_is_tried_by_its_method(tmp_path: Path, fault: str | None, code: int) -> None:
    wrong = FAULTS[fault][0] if fault else None

    assert _tried("--method", "GET", folder=tmp_path, fault=wrong) == code


def test_a_server_that_wants_further_claims_is_given_them(tmp_path: Path) -> None:
    wants = Fault(
        serves=lambda asked: asked.claims.get("tenant") == "acme" and asked.claims["level"] == 3
    )

    assert _tried(folder=tmp_path, fault=wants) == 1
    claims = ["--claim", "tenant=acme", "--claim", "level=3"]
    assert _tried(*claims, folder=tmp_path, fault=wants) == 0


def test_a_case_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "--except", "expired,no-jti"]

    assert _tried(*arguments, folder=tmp_path, fault=FAULTS["ignores exp"][0]) == 0

    cases = {one["case"]: one["verdict"] for one in json.loads(capsys.readouterr().out)["cases"]}
    assert (cases["expired"], cases["no-jti"]) == ("SKIP", "SKIP")


def test_what_only_a_pretend_issuer_can_do_is_skipped_with_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _tried("--json", "--revoked-with-introspection", folder=tmp_path) == 0

    cases = {one["case"]: one for one in json.loads(capsys.readouterr().out)["cases"]}
    assert cases["withdrawn"]["verdict"] == "SKIP"
    assert "pretend issuer" in cases["withdrawn"]["happened"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: url"),
        ([_WITHOUT_A_SERVER, "--except", "no-such-case"], "There is no case no-such-case."),
        ([_WITHOUT_A_SERVER, "--issuer", "https://a.example"], "go together"),
        ([_WITHOUT_A_SERVER, "--key", "key.pem"], "go together"),
        ([_WITHOUT_A_SERVER, "--issuer", "https://a.example", "--key", "/no/such"], "No such file"),
        ([_WITHOUT_A_SERVER, "--issuer-port", "70000"], "up to 65535"),
        ([_WITHOUT_A_SERVER, "--longest-chain", "-1"], "Say a number"),
        ([_WITHOUT_A_SERVER, "--claim", "tenant"], "NAME=VALUE"),
        ([_WITHOUT_A_SERVER, "--algorithm", "HS256"], "invalid choice"),
    ],
)
def test_what_cannot_be_tried_ends_with_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (_WITHOUT_A_SERVER, "nobody answers there"),
        ("not a url", "no answer"),
        ("ftp://127.0.0.1/mcp", "no answer"),
    ],
)
def test_a_server_that_does_not_answer_is_named(
    url: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([url, "--wait", "0"]) == 2

    told = capsys.readouterr().err
    assert f"broker-verify: {url}: {said}" in told
    assert "usage" not in told


def test_a_key_file_without_a_key_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"kty": "EC", "d": "very-secret"}')

    with pytest.raises(SystemExit):
        main([_WITHOUT_A_SERVER, "--issuer", "https://a.example", "--key", str(path)])

    printed = capsys.readouterr()
    assert "very-secret" not in printed.out + printed.err


def test_help_needs_no_package_but_the_standard_library() -> None:
    program = (
        "import sys; sys.modules.update(httpx2=None, jwt=None, cryptography=None, rich=None); "
        "from broker.verify_server.command import main; main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert b"--issuer-port" in done.stdout


@pytest.mark.parametrize("rich", ["there", None])
def test_what_a_server_says_cannot_move_the_cursor(
    rich: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: rich)
    case = CASES_BY_NAME["insufficient-scope"]

    report.print_report([Result(case, Verdict.FAIL, "401, error \x1b[2J[red]" + "x" * 5000)])

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[red]" in printed.replace("\n", "")
    assert printed.count("x") < 500
