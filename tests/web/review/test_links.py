"""A link opens the pages once, soon, and for whoever was given it by somebody who owns the broker's files."""

import getpass
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.errors import TokenRejected
from broker.web.review.links import LIFETIME, Links, LinksRefused


@pytest.fixture
def links(tmp_path: Path) -> Links:
    return Links(tmp_path / "links")


def refused(links: Links, secret: str) -> str:
    with pytest.raises(TokenRejected, match="link_unknown") as refusal:
        links.spend(secret)
    return refusal.value.detail


def test_a_link_is_good_once_and_tells_who_made_it(links: Links) -> None:
    secret = links.issue()
    assert links.spend(secret) == getpass.getuser()
    refused(links, secret)
    assert list(links.directory.iterdir()) == []


def test_of_many_who_try_at_once_one_is_let_in(links: Links) -> None:
    secret = links.issue()
    start = threading.Barrier(16)

    def attempt(_number: int) -> bool:
        start.wait()
        try:
            links.spend(secret)
        except TokenRejected:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(attempt, range(16))) == 1


def test_a_link_is_good_for_two_minutes(links: Links) -> None:
    secret = links.issue()
    late = Links(links.directory, now=lambda: time.time() + LIFETIME + 1)
    assert refused(late, secret) == "its time is over"
    refused(links, secret)


def test_a_link_from_before_the_clock_was_set_back_is_none(links: Links) -> None:
    secret = links.issue()
    early = Links(links.directory, now=lambda: time.time() - 3600)
    assert refused(early, secret) == "its time is over"


def test_the_directory_does_not_tell_the_secret(links: Links) -> None:
    secret = links.issue()
    (file,) = links.directory.iterdir()
    assert secret not in file.name
    assert secret not in file.read_text()
    refused(links, file.name)
    assert file.stat().st_mode & 0o777 == 0o600
    assert links.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "secret",
    ["", "a", "../" * 14 + "a", "a" * 43, "a" * 44, "\x00" * 43, "é" * 43, "a" * 42 + "\n"],
)
def test_anything_else_is_no_link(links: Links, secret: str) -> None:
    links.issue()
    refused(links, secret)
    assert len(list(links.directory.iterdir())) == 1


def _truncated(file: Path) -> None:
    file.write_text('{"account": "ro')


def _endless(file: Path) -> None:
    file.write_text(json.dumps({"account": "root", "expires_at": 99_999_999_999}))


def _nameless(file: Path) -> None:
    file.write_text(json.dumps({"expires_at": int(time.time()) + 60}))


def _pointing(file: Path) -> None:
    target = file.parent.parent / "elsewhere"
    file.rename(target)
    file.symlink_to(target)


def _queue(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("damage", [_truncated, _endless, _nameless, _pointing, _queue])
def test_a_damaged_file_lets_nobody_in(links: Links, damage: Callable[[Path], None]) -> None:
    secret = links.issue()
    (file,) = links.directory.iterdir()
    damage(file)
    refused(links, secret)


def test_a_directory_that_is_open_to_others_is_not_used(links: Links) -> None:
    secret = links.issue()
    links.directory.chmod(0o750)
    refused(links, secret)
    with pytest.raises(LinksRefused, match="0700"):
        links.issue()


def test_a_directory_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "links").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinksRefused):
        Links(tmp_path / "links").issue()


def test_a_directory_of_another_account_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(LinksRefused, match="another account"):
        Links(tmp_path / "links").issue()


def test_there_are_no_more_than_sixteen(links: Links) -> None:
    secrets = []
    for number in range(20):
        secrets.append(links.issue())
        newest = max(links.directory.iterdir(), key=lambda one: one.stat().st_ctime_ns)
        os.utime(newest, (time.time() - 60 + number, time.time() - 60 + number))
    assert len(list(links.directory.iterdir())) == 16
    refused(links, secrets[0])
    assert links.spend(secrets[-1])


def test_what_was_left_behind_is_taken_away(links: Links) -> None:
    links.issue()
    (links.directory / ("a" * 64 + ".taken-00")).write_text("")
    (links.directory / ("b" * 64 + ".new")).write_text("")
    for file in links.directory.iterdir():
        os.utime(file, (time.time() - 1000, time.time() - 1000))
    secret = links.issue()
    assert len(list(links.directory.iterdir())) == 1
    assert links.spend(secret)
