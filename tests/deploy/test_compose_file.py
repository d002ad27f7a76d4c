"""The compose file: valid, closed, and the same broker as everywhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker import __version__
from broker.config.durations import parse_duration
from broker.serving import GRACE
from tests.deploy.chart import DEPLOY, Document, read_yaml

FILE = DEPLOY / "compose.yaml"
COMPOSE: Document = read_yaml(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, Document] = COMPOSE["services"]
_LASTING = ("openbao", "valkey", "broker")


def check(file: Path) -> "subprocess.CompletedProcess[str]":
    """What the published schema of compose files says about one."""
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=60, check=False
    )


def volumes(service: Document) -> dict[str, tuple[str, bool]]:
    """Where what a service mounts appears in it, and whether it may write there."""
    found = {}
    for one in service["volumes"]:
        if isinstance(one, dict):
            found[one["source"]] = (one["target"], not one.get("read_only", False))
        else:
            source, target, *mode = one.split(":")
            found[source] = (target, mode != ["ro"])
    return found


def test_it_is_a_compose_file() -> None:
    done = check(FILE)

    assert done.returncode == 0, done.stdout


def test_a_mistake_in_it_would_be_noticed(tmp_path: Path) -> None:
    wrong = FILE.read_text().replace("cap_drop:", "cap_drops:")
    (tmp_path / "compose.yaml").write_text(wrong)

    done = check(tmp_path / "compose.yaml")

    assert done.returncode == 1
    assert "cap_drops" in done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_and_writes_to_its_volumes_alone(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name == "setup":
        assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE"]
        assert service["network_mode"] == "none"
    else:
        assert service["user"] == "65532:65532"
        assert "cap_add" not in service


@pytest.mark.requirement("CFG-04")
def test_a_service_sees_the_secrets_that_are_its_own() -> None:
    made = {
        name: {source for source in volumes(service) if source.startswith("made-")}
        for name, service in SERVICES.items()
    }

    assert made.pop("setup") == {f"made-{name}" for name in made}
    assert made == {name: {f"made-{name}"} for name in made}
    for name in (*_LASTING, "client"):
        assert volumes(SERVICES[name])[f"made-{name}"] == ("/made", False)
    told = str([(one.get("environment"), one.get("command")) for one in SERVICES.values()])
    assert "password" not in told.lower()
    assert "secret" not in told.lower()


def test_every_volume_and_file_is_there() -> None:
    mounted = {source for service in SERVICES.values() for source in volumes(service)}

    files = {one for one in mounted if one.startswith("./")}
    assert all((DEPLOY / one).is_file() for one in files)
    assert all(
        volumes(service).get(one, ("", False))[1] is False
        for one in files
        for service in SERVICES.values()
    )
    assert mounted - files == set(COMPOSE["volumes"])


def test_only_the_broker_is_reached_and_from_this_machine_alone() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"broker"}
    assert SERVICES["broker"]["ports"] == ["127.0.0.1:8080:8080", "127.0.0.1:8443:8443"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["openbao"]["networks"] == SERVICES["valkey"]["networks"] == ["inside"]


def test_every_image_has_a_version() -> None:
    images = {service["image"] for service in SERVICES.values()}

    assert f"delegation-broker:{__version__}" in images
    tags = {image.rpartition(":")[2] for image in images}
    assert all(tag[0].isdigit() for tag in tags)


def test_the_broker_has_the_time_that_it_takes_to_stop() -> None:
    settings = read_yaml((DEPLOY / "compose" / "settings.yaml").read_text())
    drain = parse_duration(settings["drain_delay"])
    given = parse_duration(SERVICES["broker"]["stop_grace_period"])

    assert drain is not None
    assert given is not None
    assert given >= drain + GRACE


def test_what_a_service_waits_for_can_tell_that_it_is_ready() -> None:
    for service in SERVICES.values():
        for name, waiting in service.get("depends_on", {}).items():
            if waiting["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]


def test_the_addresses_in_the_files_are_those_of_the_services() -> None:
    settings = read_yaml((DEPLOY / "compose" / "settings.yaml").read_text())

    assert settings["keys"]["vault"]["url"] == "https://openbao:8200"
    assert settings["state"]["valkey"]["host"] == "valkey:6379"
    assert settings["issuer"] == "https://localhost:8080"
    assert settings["listen"] == {
        "http": "0.0.0.0:8080",
        "grpc": "0.0.0.0:8443",
        "admin": "127.0.0.1:9443",
    }
