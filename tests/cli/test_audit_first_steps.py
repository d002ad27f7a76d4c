"""What somebody meets who checks a record for the first time."""

from pathlib import Path

from broker.client_auth.basic import claimed_id
from broker.model import ClientCredential
from tests.cli.conftest import Run


def test_a_directory_without_a_record_is_not_whole(run: Run, tmp_path: Path) -> None:
    result = run("audit", "verify", str(tmp_path))

    assert result.exit_code == 2
    assert "no audit record" in " ".join(result.output.replace("│", " ").split())


def test_basic_names_the_client_that_it_claims_to_be() -> None:
    sent = ClientCredential(unverified_authorization=("Basic YWdlbnQtbmlnaHRseTp3cm9uZw==",))

    assert claimed_id(sent) == "agent-nightly"
    assert claimed_id(ClientCredential(unverified_authorization=("Bearer x",))) is None
