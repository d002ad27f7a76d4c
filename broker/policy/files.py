"""Reads the files of a policy set, once, into memory."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker.policy.problems import PolicyLoadError, Problem

SCHEMA = "broker.cedarschema"

_MAX_FILES = 1_000
_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_TOTAL_BYTES = 16 * 1024 * 1024
_READ_ATTEMPTS = 3

_Snapshot = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file of the set: its name relative to the folder, with ``/`` between parts, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """
    The files of one policy set as they stood at one moment.

    ``digest`` is the SHA-256 in hex over names and bytes of the schema and the policies. Decision
    tables do not change what is decided and are not part of it.
    """

    schema: PolicyFile
    policies: tuple[PolicyFile, ...]
    tables: tuple[PolicyFile, ...]
    digest: str


def read_files(directory: Path) -> PolicyFiles:
    """
    Read a policy folder: ``broker.cedarschema``, every ``.cedar`` file, ``decisions/*.yaml``.

    Names that begin with a dot are skipped. Raises ``PolicyLoadError``.
    """
    snapshot = _steady_snapshot(directory)
    files = [PolicyFile(name, _text(name, content)) for name, content in snapshot.items()]
    schema = next((file for file in files if file.name == SCHEMA), None)
    policies = tuple(file for file in files if file.name.endswith(".cedar"))
    if schema is None:
        raise PolicyLoadError([Problem(SCHEMA, 0, "The policy folder has no schema.")])
    if not policies:
        raise PolicyLoadError([Problem(".", 0, "The policy folder has no .cedar file.")])
    return PolicyFiles(
        schema=schema,
        policies=policies,
        tables=tuple(file for file in files if file.name.endswith(".yaml")),
        digest=_digest((file.name, snapshot[file.name]) for file in (schema, *policies)),
    )


def _steady_snapshot(directory: Path) -> _Snapshot:
    """Read until two readings agree, so that a set that is being replaced is not read half."""
    for _ in range(_READ_ATTEMPTS):
        first = _snapshot(directory)
        if first == _snapshot(directory):
            return first
    raise PolicyLoadError([Problem(".", 0, "The policy files change while they are read.")])


def _snapshot(directory: Path) -> _Snapshot:
    try:
        root = directory.resolve(strict=True)
        paths = sorted(path for path in _candidates(root) if path.is_file())
        if len(paths) > _MAX_FILES:
            raise PolicyLoadError([Problem(".", 0, f"There are more than {_MAX_FILES} files.")])
        found = {path.relative_to(root).as_posix(): _read(path, root=root) for path in paths}
    except OSError as error:
        sentence = f"The policy folder cannot be read: {error.strerror or 'unknown error'}."
        raise PolicyLoadError([Problem(".", 0, sentence)]) from error
    if sum(map(len, found.values())) > _MAX_TOTAL_BYTES:
        raise PolicyLoadError([Problem(".", 0, "The policy files are too large together.")])
    return found


def _candidates(root: Path) -> Iterable[Path]:
    # A mounted folder may hold its content a second time below a dot directory; that copy, like
    # an editor's swap file, is not part of the set.
    for pattern in (SCHEMA, "**/*.cedar", "decisions/*.yaml"):
        for path in root.glob(pattern):
            if not any(part.startswith(".") for part in path.relative_to(root).parts):
                yield path


def _read(path: Path, *, root: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        name = path.relative_to(root).as_posix()
        raise PolicyLoadError([Problem(name, 0, "The file is too large.")])
    return content


def _text(name: str, content: bytes) -> str:
    if content.startswith(b"\xef\xbb\xbf"):
        raise PolicyLoadError([Problem(name, 1, "The file begins with a byte order mark.")])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PolicyLoadError([Problem(name, line, "The file is not UTF-8.")]) from error
    if not text.strip():
        raise PolicyLoadError([Problem(name, 0, "The file is empty.")])
    return text


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    # Each part is preceded by its length, so that no two sets run together to the same bytes.
    digest = hashlib.sha256()
    for name, content in files:
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
