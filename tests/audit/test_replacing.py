"""A small file is replaced as a whole, whatever somebody put in its way."""

import os
from pathlib import Path

import pytest

from broker.audit.replacing import replace_file


@pytest.mark.parametrize("is_synced", [False, True])
def test_a_file_is_replaced_and_no_draft_is_left(tmp_path: Path, *, is_synced: bool) -> None:
    path = tmp_path / "memory.json"
    for data in (b"first", b"then"):
        replace_file(path, data, is_synced=is_synced)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_waits_for_a_pipe_in_the_place_of_the_draft(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_bytes(b"before")
    os.mkfifo(tmp_path / "memory.new")
    with pytest.raises(OSError, match="No such device"):
        replace_file(path, b"after")
    assert path.read_bytes() == b"before"
    replace_file(path, b"after")
    assert path.read_bytes() == b"after"


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "memory.json", tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "memory.new").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(path, b"after")
    assert other.read_bytes() == b"precious"
    assert not path.exists()
