"""What the checks look at, and what they find."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.config.declarations import ClientEntry, IssuerEntry, ResourceEntry
from broker.config.file import BrokerFile
from broker.config.names import Names
from broker.config.places import Places
from broker.config.problems import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a path; ``is_key`` points at the name there instead of the value."""

    path: Path
    sentence: str
    suggestion: str = ""
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """
    A file as far as it could be read: the sections, and the entries of the lists with their paths.

    ``broken`` names the sections that could not be read and stand in ``file`` with their defaults.
    ``is_single_process`` says that all faces will run in one process. ``key_sets`` is filled by the
    checks: what the ``jwks`` and ``jwks_file`` settings hold, by the path of the entry.
    """

    file: BrokerFile
    names: Names
    places: Places
    clients: tuple[tuple[Path, ClientEntry], ...] = ()
    resources: tuple[tuple[Path, ResourceEntry], ...] = ()
    issuers: tuple[tuple[Path, IssuerEntry], ...] = ()
    broken: frozenset[str] = frozenset()
    is_single_process: bool = False
    key_sets: dict[Path, Mapping[str, Any]] = field(default_factory=dict)
