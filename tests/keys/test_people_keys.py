"""Where the keys of pseudonyms are kept: made once, the same for all, and destroyed for good."""

import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.audit.people.keys import KeysInUse, PeopleKeys
from broker.errors import TemporarilyUnavailable
from broker.keys.key_files import KeyFileRefused
from broker.keys.people_files import PeopleKeyFiles
from broker.keys.people_vault import VaultPeopleKeys
from broker.keys.vault_auth import TokenFileAuth
from broker.keys.vault_session import VaultSession
from tests.e2e.patience import until
from tests.openbao import Transit

pytestmark = pytest.mark.openbao

PERIOD = "2026-11"
RACERS = 6

Open = Callable[[], PeopleKeys]


@pytest.fixture
def files(tmp_path: Path) -> PeopleKeyFiles:
    return PeopleKeyFiles(tmp_path / "people")


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """A folder in Vault of each test's own."""
    return f"broker/{abs(hash(request.node.name))}/people"


@pytest.fixture
def in_vault(transit: Transit, folder: str) -> Open:
    """A replica's view, by the rights that a broker has."""
    return lambda: VaultPeopleKeys(transit.session(login_cooldown=0), mount="kv", path=folder)


@pytest.fixture(params=["files", "vault"])
def open_keys(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same place anew each time."""
    if request.param == "files":
        return lambda: PeopleKeyFiles(tmp_path / "people")
    opened: Open = request.getfixturevalue("in_vault")
    return opened


def test_a_key_outlives_who_made_it(open_keys: Open) -> None:
    key = open_keys().obtain(PERIOD)

    assert len(key) == 32
    assert open_keys().obtain(PERIOD) == key
    assert open_keys().obtain("2026-12") != key
    assert set(open_keys().held()) == {PERIOD, "2026-12"}


def test_nothing_is_made_by_looking(open_keys: Open) -> None:
    assert open_keys().held() == {}
    assert open_keys().held() == {}


def test_replicas_that_race_for_the_first_key_have_the_same(open_keys: Open) -> None:
    got: list[bytes] = []
    start = threading.Barrier(RACERS)

    def race() -> None:
        keys = open_keys()
        keys.held()
        start.wait(60)
        got.append(keys.obtain(PERIOD))

    racers = [threading.Thread(target=race) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)

    assert len(got) == RACERS
    assert len(set(got)) == 1
    assert open_keys().held() == {PERIOD: got[0]}


def test_a_key_is_destroyed_once(files: PeopleKeyFiles, tmp_path: Path) -> None:
    files.obtain(PERIOD)
    other = files.obtain("2026-10")

    assert files.destroy(PERIOD)
    assert not files.destroy(PERIOD)

    assert files.held() == {"2026-10": other}
    assert [one.name for one in (tmp_path / "people").iterdir()] == ["2026-10.key"]


def test_a_destroyed_file_is_overwritten_first(files: PeopleKeyFiles, tmp_path: Path) -> None:
    """Whoever has the file open, or another name of it, reads no key in it."""
    files.obtain(PERIOD)
    another_name = tmp_path / "another"
    os.link(tmp_path / "people" / f"{PERIOD}.key", another_name)

    files.destroy(PERIOD)

    assert another_name.read_bytes().strip() == b""


def test_a_file_of_a_key_is_for_its_owner_alone(files: PeopleKeyFiles, tmp_path: Path) -> None:
    files.obtain(PERIOD)

    directory = tmp_path / "people"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / f"{PERIOD}.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "\n", "A" * 42, "A" * 44, "A" * 42 + "B", "A" * 42 + "=", "é" * 43, "A" * 500],
    ids=["nothing", "a line", "short", "long", "two texts", "padded", "foreign", "huge"],
)
def test_a_file_that_holds_no_key_is_refused_and_not_replaced(
    files: PeopleKeyFiles, tmp_path: Path, content: str
) -> None:
    files.obtain("2026-10")
    file = tmp_path / "people" / f"{PERIOD}.key"
    file.write_text(content)
    file.chmod(0o600)

    for ask in (lambda: files.obtain(PERIOD), files.held):
        with pytest.raises(KeyFileRefused, match="does not hold a key"):
            ask()

    assert file.read_text() == content
    assert files.destroy(PERIOD), "what is damaged can be destroyed"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(
    files: PeopleKeyFiles, tmp_path: Path, mode: int
) -> None:
    files.obtain(PERIOD)
    (tmp_path / "people" / f"{PERIOD}.key").chmod(mode)

    with pytest.raises(KeyFileRefused, match="must have no access"):
        files.obtain(PERIOD)


def test_nobody_is_recorded_by_a_key_that_others_can_read_until_it_is_closed_to_them(
    files: PeopleKeyFiles, tmp_path: Path
) -> None:
    month = "2027-01"
    files.obtain(month)
    file = tmp_path / "people" / f"{month}.key"
    file.chmod(0o640)
    with closing(KeysInUse(files, length="month", now=lambda: 1_800_000_000.0)) as in_use:
        with pytest.raises(TemporarilyUnavailable) as refused:
            in_use.check()
        assert "must have no access" in refused.value.detail

        file.chmod(0o600)

        until(lambda: is_well(in_use), seconds=30, what="the key is used")


def test_a_directory_that_others_can_enter_is_refused(
    files: PeopleKeyFiles, tmp_path: Path
) -> None:
    (tmp_path / "people").mkdir(mode=0o755)

    for ask in (lambda: files.obtain(PERIOD), files.held, lambda: files.destroy(PERIOD)):
        with pytest.raises(KeyFileRefused, match="must have no access"):
            ask()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused(
    files: PeopleKeyFiles, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    files.obtain("2026-10")
    make(tmp_path / "people" / f"{PERIOD}.key")

    with pytest.raises(KeyFileRefused):
        files.obtain(PERIOD)
    with pytest.raises(KeyFileRefused):
        files.destroy(PERIOD)


def test_a_broker_can_neither_change_nor_destroy_a_key_in_vault(
    in_vault: Open, transit: Transit, folder: str
) -> None:
    key = in_vault().obtain(PERIOD)

    with pytest.raises(TemporarilyUnavailable) as refused:
        in_vault().destroy(PERIOD)
    with pytest.raises(TemporarilyUnavailable):
        transit.session().post(f"kv/data/{folder}/{PERIOD}", {"data": {"key": "A" * 43}})

    assert f"delete on kv/metadata/{folder}/{PERIOD}" in refused.value.detail
    assert in_vault().obtain(PERIOD) == key


def test_a_key_destroyed_in_vault_is_gone_with_all_its_versions(
    in_vault: Open, transit: Transit, folder: str, tmp_path: Path
) -> None:
    key = in_vault().obtain(PERIOD)
    transit.bao.call(
        "PUT",
        "sys/policies/acl/forgetting",
        policy=f'path "kv/metadata/{folder}/*" {{ capabilities = ["list", "delete"] }}',
    )
    token = transit.bao.call("POST", "auth/token/create", policies=["forgetting"])["auth"]
    (tmp_path / "token").write_text(token["client_token"])
    session = VaultSession(transit.server, auth=TokenFileAuth(tmp_path / "token"))
    keys = VaultPeopleKeys(session, mount="kv", path=folder)

    assert keys.destroy(PERIOD)
    assert not keys.destroy(PERIOD)

    assert in_vault().held() == {}
    assert in_vault().obtain(PERIOD) != key


@pytest.mark.parametrize(
    "document", [{}, {"key": ""}, {"key": 7}, {"key": "A" * 42}, {"another": "A" * 43}]
)
def test_a_document_that_holds_no_key_is_refused_and_not_replaced(
    in_vault: Open, transit: Transit, folder: str, document: dict[str, object]
) -> None:
    transit.bao.call("POST", f"kv/data/{folder}/{PERIOD}", data=document)

    for ask in (lambda: in_vault().obtain(PERIOD), in_vault().held):
        with pytest.raises(TemporarilyUnavailable) as refused:
            ask()
        assert refused.value.detail == f"vault: there is no key of pseudonyms in {PERIOD}"


def test_what_is_no_period_in_vault_is_not_looked_at(
    in_vault: Open, transit: Transit, folder: str
) -> None:
    transit.bao.call("POST", f"kv/data/{folder}/notes", data={"a": "b"})
    key = in_vault().obtain(PERIOD)

    assert in_vault().held() == {PERIOD: key}


def test_a_key_deleted_but_not_destroyed_is_none_and_closes_the_record(
    in_vault: Open, transit: Transit, folder: str
) -> None:
    """It could be brought back, so there is no other: two people would be one, or one two."""
    in_vault().obtain(PERIOD)
    transit.bao.call("DELETE", f"kv/data/{folder}/{PERIOD}")

    assert in_vault().held() == {}
    with pytest.raises(TemporarilyUnavailable):
        in_vault().obtain(PERIOD)


def test_a_vault_that_comes_late_is_waited_for(in_vault: Open, transit: Transit) -> None:
    transit.bao.seal()
    try:
        in_use = KeysInUse(in_vault(), length="month", now=lambda: 1_800_000_000.0)
        with pytest.raises(TemporarilyUnavailable):
            in_use.check()
    finally:
        transit.bao.unseal()

    with closing(in_use):
        until(lambda: is_well(in_use), seconds=30, what="the key is there")


def is_well(in_use: KeysInUse) -> bool:
    try:
        in_use.check()
    except TemporarilyUnavailable:
        return False
    return True
