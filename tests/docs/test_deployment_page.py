"""What the page about deploying has its reader do is done: by Helm, by OpenBao, by the chart."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.deploy.chart import CHART, Document, changed, example, read_yaml, render
from tests.docs.markdown import ROOT, Block, blocks
from tests.docs.shell import run
from tests.openbao import OpenBao

PAGE = blocks(ROOT / "docs" / "deployment.md")
_HELM = "helm upgrade --install"


def helm_commands() -> list[list[str]]:
    """Every command for Helm, as its arguments."""
    text = "\n".join(block.text for block in PAGE if block.language == "sh")
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(_HELM)]


def given(arguments: list[str], option: str) -> list[str]:
    """What an option was given, as often as it stands there."""
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def values_of(arguments: list[str]) -> Document:
    """The values that a command installs with."""
    values: Document = {}
    for file in given(arguments, "--values"):
        values = changed(values, read_yaml((ROOT / file).read_text(encoding="utf-8")))
    for text in given(arguments, "--set-file"):
        path, _, file = text.partition("=")
        section, _, name = path.partition(".")
        content = (ROOT / file).read_text(encoding="utf-8")
        values = changed(values, {section: {name.replace("\\.", "."): content}})
    return values


@pytest.mark.parametrize(
    "position",
    [0, 1, 2],
    ids=["one broker", "several", "own policies"],
)
def test_helm_renders_what_the_page_installs(position: int) -> None:
    arguments = helm_commands()[position]

    assert (ROOT / arguments[4]).samefile(CHART)
    manifests = render(values_of(arguments), release=arguments[3])
    assert manifests.only("StatefulSet", "broker")
    assert given(arguments, "--namespace") == ["broker"]


def test_helm_is_given_nothing_else() -> None:
    assert len(helm_commands()) == 3
    for arguments in helm_commands():
        options = {one for one in arguments if one.startswith("--")}
        assert options <= {"--install", "--namespace", "--values", "--set-file"}


@pytest.mark.parametrize(
    "block",
    [one for one in PAGE if one.language == "yaml" and "scrape_configs" not in one.text],
    ids=lambda block: block.place,
)
def test_the_values_that_the_page_shows_are_taken(block: Block) -> None:
    assert render(changed(example(), read_yaml(block.text)))


def test_values_that_the_chart_does_not_know_would_be_noticed() -> None:
    with pytest.raises(helm_python.HelmError):
        render(changed(example(), {"metric": {"enabled": True}}))


def test_prometheus_looks_for_the_port_that_there_is() -> None:
    (text,) = [one.text for one in PAGE if "scrape_configs" in one.text]
    job: dict[str, Any] = read_yaml(text)["scrape_configs"][0]

    (port,) = [one["regex"] for one in job["relabel_configs"] if one.get("action") == "keep"]
    ports = render(example()).container("metrics")["ports"]
    assert [one["name"] for one in ports] == [port]


@pytest.mark.openbao
def test_vault_takes_the_roles_that_the_page_gives(tmp_path: Path) -> None:
    """The names in them are those of the release that the page installs."""
    bao = OpenBao(tmp_path)
    try:
        bao.set_up()
        bao.call("POST", "sys/auth/kubernetes", type="kubernetes")
        for block in PAGE:
            if block.noted("needs") == "openbao":
                run(block.text, folder=tmp_path, BAO_ADDR=bao.url, BAO_TOKEN=bao.root_token)
        roles = {
            name: bao.call("GET", f"auth/kubernetes/role/{name}")["data"]
            for name in ("broker", "broker-rotator")
        }
    finally:
        bao.close()

    manifests = render(example())
    account = manifests.only("ServiceAccount")["metadata"]["name"]
    (source,) = manifests.volume("vault-token")["projected"]["sources"]
    vault = manifests.settings["keys"]["vault"]
    assert [vault["auth"]["role"], vault["rotator"]["role"]] == list(roles)
    for name, role in roles.items():
        assert role["bound_service_account_names"] == [account]
        assert role["bound_service_account_namespaces"] == given(helm_commands()[0], "--namespace")
        assert role["audience"] == source["serviceAccountToken"]["audience"]
        assert role["token_policies"] == [name]
        assert role["token_no_default_policy"] is True


def test_the_table_has_every_alert_in_words_alone() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

    assert len(re.findall(r"^\| `Broker\w+` \|", page, re.MULTILINE)) >= 16
    assert "{{" not in page
