"""The example of clients known by a document in the operator's page works as it stands."""

import json
from pathlib import Path

import pytest

from broker.config import load_settings
from broker.issuers.client_metadata import read_client_metadata
from broker.model import KeySource
from broker.registry import FileRegistry
from tests.docs.markdown import ROOT, blocks


def shown(language: str, word: str) -> str:
    """The one block in this language that has the word in it."""
    page = blocks(ROOT / "docs" / "operations.md")
    [text] = [one.text for one in page if one.language == language and word in one.text]
    return text


@pytest.mark.requirement("CIMD-13")
def test_the_example_lists_the_host_of_the_document_that_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("issuer: http://127.0.0.1:8080\n" + shown("yaml", "client_documents"))
    settings = load_settings(file, {})
    raw = shown("json", "token_endpoint_auth_method")
    url = json.loads(raw)["client_id"]

    registry = FileRegistry(settings.clients, [], [], client_documents=settings.client_documents)
    client = registry.client(url)
    assert client is not None
    assert client.keys == KeySource(document=url)
    assert read_client_metadata(raw.encode(), url).jwks_uri == "https://agents.acme.example/jwks"
