"""A log has one name, whoever asks for it first."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.audit.log_id import make_log_id, read_log_id
from broker.audit.segments import AuditLogRefused


def test_all_who_ask_at_once_are_told_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(make_log_id, [tmp_path / "audit"] * 64))
    assert len(found) == 1
    assert found == {read_log_id(tmp_path / "audit")}
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["log.id"]
    assert make_log_id(tmp_path / "other") not in found


def test_a_directory_without_one_has_none(tmp_path: Path) -> None:
    assert read_log_id(tmp_path) is None
    assert read_log_id(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 16, b"A" * 16, b"0" * 15, b"0" * 17])
def test_what_is_no_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.id").write_bytes(content)
    for ask in (read_log_id, make_log_id):
        with pytest.raises(AuditLogRefused, match="does not hold the name"):
            ask(tmp_path)


def test_a_directory_that_others_may_write_names_no_log(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AuditLogRefused):
        make_log_id(tmp_path)


def test_nothing_is_left_behind_when_the_name_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        make_log_id(tmp_path)
    assert list(tmp_path.iterdir()) == []
