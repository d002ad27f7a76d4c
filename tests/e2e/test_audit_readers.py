"""A real broker: its auditors log in, its clients read the record, and both are in it."""

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import urllib3
from click.testing import CliRunner

from broker.audit.seal.proof import Proof
from broker.cli import main
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER
from broker.v1.audit_service_pb2 import (
    AuditFilter,
    ListEventsRequest,
    ListEventsResponse,
    ProveEventRequest,
)
from broker.v1.audit_service_pb2_grpc import AuditServiceStub
from broker.v1.token_pb2 import ClientAuthentication
from tests.e2e.patience import until
from tests.e2e.running import PYTHON, RunningBroker, environment
from tests.e2e.setting import (
    Setting,
    assertion,
    fresh_id,
    id_token,
    login,
    new_setting,
)
from tests.e2e.wires import settled, wire
from tests.idp import signer
from tests.ports import free_port

READER = "siem"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    setting = new_setting(tmp_path_factory.mktemp("readers"))
    document = setting.document
    reader = {
        "id": READER,
        "auth": {"method": "private_key_jwt", "jwks": signer(READER).jwks},
        "grants": [],
        "read_audit": True,
    }
    one = RunningBroker(
        setting.with_document(
            listen={**document["listen"], "streams": f"127.0.0.1:{free_port()}"},
            clients=[*document["clients"], reader],
            audit={**document["audit"], "review": {}, "seal": {"every": "1s"}},
        )
    )
    try:
        one.wait_until_ready()
        yield one
    finally:
        one.close()


def proof_of_reader(setting: Setting) -> ClientAuthentication:
    return ClientAuthentication(
        client_assertion=assertion(setting, READER),
        client_assertion_type=CLIENT_ASSERTION_JWT_BEARER,
    )


def test_an_issue_is_found_by_the_name_of_a_person_and_proved_over_grpc(
    broker: RunningBroker,
) -> None:
    setting, person = broker.setting, fresh_id()
    with wire("http", setting) as face:
        asked = lambda: {**login(setting), "subject_token": id_token(sub=person)}  # noqa: E731 - asked anew.
        answer = settled(face, asked)
    assert answer.is_granted, answer.everything
    with grpc.insecure_channel(setting.document["listen"]["streams"]) as channel:
        stub = AuditServiceStub(channel)

        def found() -> ListEventsResponse:
            request = ListEventsRequest(
                client_authentication=proof_of_reader(setting),
                filter=AuditFilter(people=[person], decisions=["permit"]),
            )
            return stub.ListEvents(request, timeout=60)

        until(lambda: len(found().events) == 1, seconds=60, what="it is indexed")
        (event,) = found().events

        def proved() -> bool:
            request = ProveEventRequest(
                client_authentication=proof_of_reader(setting), event_id=event.event_id
            )
            try:
                told = stub.ProveEvent(request, timeout=60)
            except grpc.RpcError:
                # It is not sealed yet.
                return False
            return Proof.read(told.proof).record == event.line

        until(proved, seconds=60, what="it is proved")
    assert person not in event.line.decode()
    readings = broker.records("audit.read")
    assert {one["client_id"] for one in readings} == {READER}
    assert person not in json.dumps(readings)


def test_a_link_of_the_command_line_logs_one_browser_in(broker: RunningBroker) -> None:
    origin = f"http://127.0.0.1:{broker.setting.ports.admin}"
    command = [PYTHON, "-m", "broker", "audit", "open", "--config", str(broker.setting.file)]
    made = subprocess.run(
        [*command, "-o", "json"], env=environment(), capture_output=True, timeout=180, check=True
    )
    url = json.loads(made.stdout)["url"]
    assert url.startswith(f"{origin}/audit/login/link/")
    browser = urllib3.PoolManager(retries=False, timeout=60)
    assert browser.request("GET", url).status == 200
    fields = {"secret": url.rpartition("/")[2]}

    def log_in() -> urllib3.BaseHTTPResponse:
        return browser.request(
            "POST",
            f"{origin}/audit/login/link",
            fields=fields,
            encode_multipart=False,
            headers={"Origin": origin},
            redirect=False,
        )

    answer = log_in()
    assert (answer.status, answer.headers["Location"]) == (303, "/audit")
    assert log_in().status == 403
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    without = browser.request("GET", f"{origin}/audit/no-such-page", redirect=False)
    within = browser.request("GET", f"{origin}/audit/no-such-page", headers={"Cookie": cookie})
    assert (without.status, within.status) == (303, 404)
    logins = [(one["decision"], one.get("reason")) for one in broker.records("audit.login")]
    assert logins == [("permit", None), ("deny", "link_unknown")]
    text = "".join(path.read_text() for path in broker.setting.directory.rglob("*.jsonl"))
    for secret in (fields["secret"], cookie.partition("=")[2]):
        assert secret not in broker.session.text
        assert secret not in text


def test_what_an_auditor_takes_away_is_verified_elsewhere(
    broker: RunningBroker, tmp_path: Path
) -> None:
    origin = f"http://127.0.0.1:{broker.setting.ports.admin}"
    settings = ["--config", str(broker.setting.file)]
    link = told("audit", "open", *settings, "-o", "json")
    with urllib3.PoolManager(retries=False, timeout=20) as browser:
        answer = browser.request(
            "POST",
            f"{origin}/audit/login/link",
            fields={"secret": json.loads(link)["url"].rpartition("/")[2]},
            encode_multipart=False,
            headers={"Origin": origin},
            redirect=False,
        )
        cookie = answer.headers["Set-Cookie"].partition(";")[0]

        def taken() -> urllib3.BaseHTTPResponse:
            address = f"{origin}/audit/export?format=ndjson&until=2100-01-01"
            return browser.request("GET", address, headers={"Cookie": cookie})

        # Until something was sealed there is nobody to sign.
        until(lambda: taken().status == 200, seconds=20, what="it is handed over")
        archive = taken()
    with zipfile.ZipFile(io.BytesIO(archive.data)) as found:
        found.extractall(tmp_path)
    (manifest,) = tmp_path.glob("*.manifest")
    (tmp_path / "audit.pub").write_text(told("audit", "key", *settings))
    command = ("audit", "verify-export", str(manifest), "--key", str(tmp_path / "audit.pub"))
    verified = json.loads(told(*command, "-o", "json"))

    assert (verified["is_whole"], verified["is_complete"]) == (True, True)
    assert verified["count"] > 0
    assert verified["by"].endswith(", on the auditor's pages")
    asked = [one["asked"] for one in broker.records("audit.read") if "auditor" in one]
    assert "export ndjson?until=2100-01-01" in asked


def told(*command: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return result.stdout
