"""A pod on disk as a kubelet lays it out, so that the broker can be run from what the chart renders."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tests.deploy.chart import Document, Rendered

Files = Mapping[str, str]

_READ_BY_GROUP: Final = stat.S_IRUSR | stat.S_IRGRP
_OF_GROUP: Final = stat.S_IRWXU | stat.S_IRWXG
_CONFIG_MODE: Final = 0o644
_TOKEN_MODE: Final = 0o600
_MOUNTED: Final = re.compile(
    r"(?<![\w/])/(?:etc/(?:broker|metrics)|var/(?:run/secrets|lib/broker)|tmp)\b"
)
_SNAPSHOT: Final = "..2026_11_22_08_00_00.1827364550"


class Pod:
    """
    The volumes of one replica below a folder, in which every path of its containers has its place.

    ``secrets`` and ``config_maps`` are those that are there besides what the release brings along;
    ``token`` is what the cluster projects. ``texts`` are replaced in what is mounted, since an address
    of the pod is not one of this machine.
    """

    def __init__(
        self,
        manifests: Rendered,
        root: Path,
        *,
        secrets: Mapping[str, Files],
        config_maps: Mapping[str, Files] | None = None,
        token: str = "",
        texts: Mapping[str, str] | None = None,
    ) -> None:
        self.manifests = manifests
        self.root = root
        self._secrets = secrets
        self._config_maps = dict(config_maps or {})
        self._token = token
        self._texts = dict(texts or {})

    def place(self, path: str) -> Path:
        """Where a path of the container is on this machine."""
        return self.root / path.lstrip("/")

    def mount(self, container: str = "broker") -> None:
        """Make the volumes of a container, the data volume as it is on its first day."""
        for mount in self.manifests.container(container)["volumeMounts"]:
            place = self.place(mount["mountPath"])
            place.mkdir(parents=True, exist_ok=True)
            if mount["name"] == "data":
                self.hand_over()
            else:
                self._fill(place, self.manifests.volume(mount["name"]))

    def hand_over(self, *, is_always: bool = False) -> None:
        """
        Give the data volume to the group of the pod, as ``fsGroup`` asks for.

        Only its root is looked at, and changed on the first day, unless it ``is_always`` all of it.
        """
        data = self.place("/var/lib/broker")
        everything = sorted(data.rglob("*")) if is_always else []
        for one in (data, *everything):
            mode = one.stat().st_mode
            of_group = _OF_GROUP | stat.S_ISGID if one.is_dir() else stat.S_IRUSR | 0o660
            one.chmod(stat.S_IMODE(mode) | of_group)

    def environment(self) -> dict[str, str]:
        """The variables of the broker's container."""
        given = self.manifests.container()["env"]
        return {one["name"]: self._here(one["value"]) for one in given}

    def _fill(self, place: Path, volume: Document) -> None:
        if "configMap" in volume:
            source = volume["configMap"]
            files = self._config_map(source["name"])
            _write_atomically(place, _chosen(files, source), mode=_CONFIG_MODE)
        elif "secret" in volume:
            source = volume["secret"]
            files = self._secrets[source["secretName"]]
            mode = source["defaultMode"] | _READ_BY_GROUP
            _write_atomically(place, _chosen(files, source), mode=mode)
        elif "projected" in volume:
            (token,) = volume["projected"]["sources"]
            path = token["serviceAccountToken"]["path"]
            _write_atomically(place, {path: self._token}, mode=_TOKEN_MODE | _READ_BY_GROUP)

    def _config_map(self, name: str) -> Files:
        if name in self._config_maps:
            return self._config_maps[name]
        return {key: self._here(text) for key, text in self.manifests.config_data(name).items()}

    def _here(self, text: str) -> str:
        """The text with the places on this machine for the paths of the containers."""
        for old, new in self._texts.items():
            text = text.replace(old, new)
        return _MOUNTED.sub(lambda found: str(self.place(found[0])), text)


def _chosen(files: Files, source: Mapping[str, Any]) -> Files:
    """What of a ConfigMap or Secret is mounted, by path."""
    if "items" not in source:
        return files
    return {one["path"]: files[one["key"]] for one in source["items"]}


def _write_atomically(place: Path, files: Files, *, mode: int) -> None:
    """
    Write files as the kubelet does: into a folder of their own, to which everything else is a link.

    So all of them change at once, by the change of one link.
    """
    snapshot = place / _SNAPSHOT
    snapshot.mkdir()
    for name, text in files.items():
        file = snapshot / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    (place / "..data").symlink_to(_SNAPSHOT)
    for first in {PurePosixPath(name).parts[0] for name in files}:
        (place / first).symlink_to(os.path.join("..data", first))  # noqa: PTH118 - it is a text.


def modes(folder: Path) -> Iterator[tuple[str, int]]:
    """Everything in a folder with the rights to it."""
    for one in sorted(folder.rglob("*")):
        yield one.relative_to(folder).as_posix(), stat.S_IMODE(one.stat().st_mode)
