"""Where the relative paths of the settings lead."""

from dataclasses import dataclass
from pathlib import Path as FilePath

import broker
from broker.config.document import Node
from broker.config.problems import Path
from broker.config.sources import ENVIRONMENT_MARK


@dataclass(frozen=True, slots=True)
class Places:
    """Resolves paths: the file's own beside it, the environment's in the working directory."""

    root: Node
    source: FilePath

    def resolve(self, path: Path, value: str) -> FilePath:
        """The absolute path that the setting at ``path`` means by ``value``."""
        is_from_environment = self.root.mark_of(path).source.startswith(ENVIRONMENT_MARK)
        base = FilePath.cwd() if is_from_environment else self.source.absolute().parent
        return base / value

    def under_data(self, path: Path, value: str | None, *, data_dir: str, name: str) -> FilePath:
        """The directory that a setting names, or else ``name`` in the base directory."""
        if value is not None:
            return self.resolve(path, value)
        return self.resolve(("data_dir",), data_dir) / name


def delivered_policies() -> FilePath:
    """The policies that come with the broker: inside the package, or beside it in a checkout."""
    package = FilePath(broker.__file__).parent
    inside = package / "default_policies"
    return inside if inside.is_dir() else package.parent / "policies"
