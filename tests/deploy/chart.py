"""The Helm chart, rendered by Helm itself, and what comes out of it."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import helm_python
from ruamel.yaml import YAML

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "examples" / "deploy"
CHART: Final = DEPLOY / "helm" / "broker"
RELEASE: Final = "broker"

Document = dict[str, Any]


def read_yaml(text: str) -> Any:
    """A YAML document."""
    return YAML(typ="safe", pure=True).load(text)


def example() -> Document:
    """The values of the example of one broker."""
    return _values("acme")


def several() -> Document:
    """What is laid over them for several."""
    return _values("several")


def _values(name: str) -> Document:
    values: Document = read_yaml((DEPLOY / "helm" / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def changed(values: Mapping[str, Any], change: Mapping[str, Any]) -> Document:
    """Values with others laid over them, as Helm does it: mappings are merged, all else is replaced."""
    result = copy.deepcopy(dict(values))
    for name, value in change.items():
        old = result.get(name)
        if isinstance(old, dict) and isinstance(value, Mapping):
            result[name] = changed(old, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


class Rendered(list[Document]):
    """The manifests of a release."""

    def all(self, kind: str) -> list[Document]:
        """Those of a kind."""
        return [one for one in self if one["kind"] == kind]

    def only(self, kind: str, name: str = RELEASE) -> Document:
        """The one of this kind and name; fails the test unless there is exactly one."""
        (found,) = [one for one in self.all(kind) if one["metadata"]["name"] == name]
        return found

    @property
    def pod(self) -> Document:
        """The specification of a replica's pod."""
        pod: Document = self.only("StatefulSet")["spec"]["template"]["spec"]
        return pod

    def container(self, name: str = "broker") -> Document:
        """A container of the pod."""
        found: Document
        (found,) = [one for one in self.pod["containers"] if one["name"] == name]
        return found

    def volume(self, name: str) -> Document:
        """A volume of the pod."""
        found: Document
        (found,) = [one for one in self.pod["volumes"] if one["name"] == name]
        return found

    def config_data(self, name: str = RELEASE) -> dict[str, str]:
        """The files in a ConfigMap."""
        data: dict[str, str] = self.only("ConfigMap", name)["data"]
        return data

    @property
    def settings(self) -> Document:
        """What stands in the broker's own file."""
        settings: Document = read_yaml(self.config_data()["broker.yaml"])
        return settings


def render(values: Mapping[str, Any], *, release: str = RELEASE) -> Rendered:
    """The manifests of a release; raises ``helm_python.HelmError`` where Helm refuses."""
    with helm_python.Chart.load(CHART) as loaded:
        loaded.validate_schema(dict(values))
        files = loaded.render(dict(values), name=release, namespace="brokers")
    return Rendered(_manifests(files))


def _manifests(files: Mapping[str, str]) -> Iterator[Document]:
    loader = YAML(typ="safe", pure=True)
    for name, text in sorted(files.items()):
        if name.endswith(".yaml"):
            yield from (one for one in loader.load_all(text) if one)


def findings(values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What ``helm lint`` has against the chart with these values, beyond mere information."""
    report = helm_python.lint(CHART, dict(values), strict=True)
    return [one for one in report["messages"] if one["severity"] > 1]
