"""The whole record is looked through again and again, by a process that can do nothing else."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from broker.audit.notes import NoteKey
from broker.audit.seal.verified import LARGEST_MESSAGE, MOST_FAULTS, Failed, Question, Verified
from broker.audit.seal.verifier import answer
from broker.audit.seal.verifying import (
    MEMORY,
    Unverified,
    Verifying,
    VerifyTerms,
    answer_apart,
)
from broker.errors import Reason, TemporarilyUnavailable
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of
from tests.e2e.patience import until

NOW = 1_800_000_000.0
WHOLE = Verified(at=NOW, seconds=0.1, records=82, sealed=74, anchors=0, fault_count=0, faults=())
HANGS = "import time; time.sleep(600)"
# A verifier is the last that a busy machine gives a turn to.
PATIENCE = 300.0
TERMS = VerifyTerms(every=0.05, within=PATIENCE, settled=0.0)


def saying(found: Verified | Failed) -> str:
    """The program of a verifier that always says the same."""
    return f"print({msgspec.json.encode(found).decode()!r})"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    """A log that nobody touches."""
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir()
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture
def log(sealed: SealedLog, tmp_path: Path) -> SealedLog:
    """A log to do something to."""
    return sealed.copy(tmp_path / "audit")


def question(log: SealedLog, **other: Any) -> Question:
    asked = {"directory": str(log.directory), "keys": [log.key.text], "within": PATIENCE}
    return Question(**{"parent": os.getpid(), **asked, **other})


def change(log: SealedLog, name: str = "http-0.000001.jsonl", line: int = 2) -> None:
    """One byte of an old segment."""

    def edit(lines: list[bytes]) -> None:
        lines[line] = lines[line].replace(b'"permit"', b'"permis"')

    before = (log.directory / name).read_bytes()
    log.edit(name, edit)
    assert (log.directory / name).read_bytes() != before


def found(log: SealedLog, **other: Any) -> list[tuple[str, str]]:
    told = answer(question(log, **other))
    assert isinstance(told, Verified)
    return [(one.place, one.kind) for one in told.faults]


# What is found.


def test_a_process_of_its_own_finds_a_byte_that_was_changed(log: SealedLog) -> None:
    change(log)
    broken = answer_apart(question(log))
    assert broken is not None
    assert broken.fault_count == 1
    assert [(one.place, one.kind) for one in broken.faults] == [
        ("http-0.000001.jsonl:3", "changed")
    ]
    assert time.time() - broken.at < PATIENCE


def test_a_whole_record_is_found_whole(log: SealedLog) -> None:
    whole = answer(question(log, anchor=log.kept()[1].note))
    assert isinstance(whole, Verified)
    assert (whole.records, whole.sealed, whole.anchors, whole.faults) == (82, 74, 1, ())


def test_what_is_anchored_and_no_longer_on_the_list_is_found(log: SealedLog) -> None:
    newest = log.kept()[-1].note
    log.edit("checkpoints/000001.jsonl", lambda lines: lines.pop())
    assert found(log) == []
    assert found(log, anchor=newest) == [("anchor:1", "rolled back")]


def test_an_anchor_that_somebody_else_has_signed_is_found(log: SealedLog, tmp_path: Path) -> None:
    other, keys = tmp_path / "other", KeysInMemory()
    other.mkdir()
    real_run(other, keys)
    strange = SealedLog(other, log.key).kept()[-1].note
    assert found(log, anchor=strange) == [("anchor", "foreign")]
    assert found(log, anchor="no note at all") == [("anchor", "foreign")]


def test_checkpoints_that_were_taken_away_are_found(log: SealedLog) -> None:
    log.checkpoints.unlink()
    assert [kind for _, kind in found(log)] == ["missing"]


def test_a_chain_that_is_gone_is_found(log: SealedLog) -> None:
    for file in log.directory.glob("keys.*"):
        file.unlink()
    assert found(log) == [("keys.000001.jsonl:1", "missing")]


def test_faults_beyond_those_that_are_told_are_counted(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(log)
    change(log, "grpc-0.000001.jsonl")
    monkeypatch.setattr("broker.audit.seal.verifier.MOST_FAULTS", 1)
    told = answer(question(log))
    assert isinstance(told, Verified)
    assert (told.fault_count, len(told.faults)) == (2, 1)
    assert MOST_FAULTS > 1


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"keys": ["no key"]}, "ValueError: it is not a public key"),
        ({"stamp_roots": "/nowhere.pem"}, "StampsUnread"),
        ({"directory": "/nowhere/at/all"}, "FileNotFoundError: "),
    ],
)
def test_what_keeps_it_from_verifying_is_told_and_is_no_verdict(
    log: SealedLog, other: dict[str, Any], kind: str
) -> None:
    told = answer(question(log, **other))
    assert isinstance(told, Failed)
    assert told.failure.startswith(kind)
    assert "at/all" not in told.failure


# The process.


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (HANGS, "it took longer than 0 s"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("pass", "no answer of ours"),
        ("print('whole')", "no answer of ours"),
        ('print(\'{"type":"Verified","records":82}\')', "no answer of ours"),
        (f"print(' ' * {LARGEST_MESSAGE} + {msgspec.json.encode(WHOLE).decode()!r})", "no answer"),
        (saying(WHOLE) + "; raise SystemExit(1)", "ended with status 1"),
        (saying(Failed("the disk is gone")), "the disk is gone"),
    ],
)
def test_a_verifier_that_gives_no_verdict_is_no_good_news(
    log: SealedLog, program: str, told: str
) -> None:
    within = 0.3 if program == HANGS else PATIENCE
    with pytest.raises(Unverified, match=told):
        answer_apart(question(log, within=within), verifier=("-S", "-c", program))


def test_a_verifier_that_somebody_else_has_started_says_nothing(log: SealedLog) -> None:
    with pytest.raises(Unverified, match="no answer of ours"):
        answer_apart(question(log, parent=1))


def test_a_verifier_gives_way_and_is_given_nothing_but_what_is_public(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_VAULT_TOKEN", "hvs.secret")
    program = (
        "import os, sys, json; asked = json.load(sys.stdin); fds = os.listdir('/proc/self/fd')\n"
        "told = [sorted(os.environ), sys.argv, len(fds), sorted(asked), asked['keys'], os.getcwd()]\n"
        "told += [os.getpriority(os.PRIO_PROCESS, 0)]\n"
        "print(json.dumps({'type': 'Failed', 'failure': json.dumps(told)}))"
    )
    with pytest.raises(Unverified) as raised:
        answer_apart(question(log), verifier=("-S", "-c", program))
    environment, arguments, descriptors, members, keys, place, priority = msgspec.json.decode(
        str(raised.value)
    )
    # Python adds the second by itself where no locale is told.
    assert set(environment) <= {"PYTHONPATH", "LC_CTYPE"}
    assert arguments == ["-c"]
    assert descriptors == 4
    assert members == sorted(Question.__struct_fields__)
    assert [NoteKey.read(key) for key in keys] == [log.key]
    assert (place, priority) == ("/", 19)


def test_a_verifier_ends_with_whoever_asked_and_first_where_memory_runs_out(
    log: SealedLog,
) -> None:
    mark = log.directory / "mark"
    slow = (
        "import os, time; from broker.audit.seal import verifier\n"
        f"verifier.answer = lambda _: os.mkdir({str(mark)!r}) or time.sleep(600)\n"
        "verifier.main()"
    )
    starter = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE)\n"
        "child.stdin.write(sys.argv[2].replace('4194304', str(os.getpid())).encode())\n"
        "child.stdin.close(); print(child.pid, flush=True); time.sleep(600)"
    )
    asked = msgspec.json.encode(question(log, parent=4_194_304)).decode()
    command = [sys.executable, "-S", "-c", starter, slow, asked]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(mark.exists, seconds=PATIENCE, what="it has begun to look")
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        parent.kill()
    until(lambda: not is_alive(pid), seconds=PATIENCE, what="it has ended")


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


# The schedule.


@contextmanager
def verifying(
    log: SealedLog,
    verifier: Sequence[str] | Callable[[], Sequence[str]],
    *,
    ask: Callable[[], Question | None] | None = None,
    terms: VerifyTerms = TERMS,
    now: Callable[[], float] = time.time,
) -> Iterator[Verifying]:
    """Look again and again, by another program."""
    (log.directory / MEMORY).write_text(f'{{"due": 0, "since": {now()}}}')
    arguments = verifier() if callable(verifier) else verifier
    made = Verifying(
        log.directory, terms, ask or (lambda: question(log)), now=now, verifier=("-S", *arguments)
    )
    made.begin()
    try:
        yield made
    finally:
        made.close(within=60)
        assert not made._thread.is_alive()


def test_looks_follow_one_another_and_are_never_two_at_once(log: SealedLog) -> None:
    alone, times = log.directory / "alone", log.directory / "times"
    program = (
        "import os, time\n"
        f"os.mkdir({str(alone)!r}); time.sleep(0.1); os.rmdir({str(alone)!r})\n"
        f"open({str(times)!r}, 'a').write('x')\n{saying(WHOLE)}"
    )
    terms = VerifyTerms(every=0.01, within=PATIENCE, settled=0.0)
    with capture_logs() as told, verifying(log, ("-c", program), terms=terms) as made:
        until(
            lambda: times.exists() and len(times.read_text()) > 3,
            seconds=PATIENCE,
            what="it goes on",
        )
        assert (made.trouble, made.failures, made.last) == ("", 0, WHOLE)
    assert {one["event"] for one in told} == {"audit_verified"}


def test_what_fails_is_told_counted_and_tried_again_until_it_works(log: SealedLog) -> None:
    broken = log.directory / "broken"
    broken.mkdir()
    program = f"import os; assert not os.path.exists({str(broken)!r})\n{saying(WHOLE)}"
    with capture_logs() as told, verifying(log, ("-c", program)) as made:
        until(lambda: made.failures > 1, seconds=PATIENCE, what="it is tried again")
        assert made.trouble == "the verifier ended with status 1"
        assert made.last is None
        broken.rmdir()
        until(lambda: made.last and not made.trouble, seconds=PATIENCE, what="it works again")
    failed = [one for one in told if one["event"] == "audit_verification_failed"]
    assert failed[0]["reason"] == "the verifier ended with status 1"
    assert failed[0]["log_level"] == "error"


def test_a_failure_to_ask_is_told(log: SealedLog) -> None:
    def ask() -> Question:
        raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, detail="Vault is away")

    with capture_logs(), verifying(log, ("-c", saying(WHOLE)), ask=ask) as made:
        until(lambda: made.trouble, seconds=PATIENCE, what="it is told")
        assert made.trouble == "TemporarilyUnavailable: Vault is away"


def test_a_fault_is_told_with_its_place_and_kind_and_outlives_a_failure(log: SealedLog) -> None:
    change(log)
    told_once = answer(question(log))
    assert isinstance(told_once, Verified)
    mark = log.directory / "mark"
    program = (
        f"import os; os.path.exists({str(mark)!r}) and os._exit(1); os.mkdir({str(mark)!r})\n"
        f"{saying(told_once)}"
    )
    with capture_logs() as told, verifying(log, ("-c", program)) as made:
        until(lambda: made.failures, seconds=PATIENCE, what="it failed later")
        assert made.last == told_once
    first = told[0]
    assert (first["event"], first["log_level"]) == ("audit_not_whole", "critical")
    assert (first["place"], first["kind"], first["faults"]) == (
        "http-0.000001.jsonl:3",
        "changed",
        1,
    )
    # Another process looks for itself, and at once.
    other = Verifying(log.directory, VerifyTerms(every=60, within=60, settled=0), lambda: None)
    assert other._first_pause() == 0


def test_the_end_does_not_wait_for_a_look(log: SealedLog) -> None:
    pid = log.directory / "pid"
    program = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid()))\n{HANGS}"
    with verifying(log, ("-c", program)) as made:
        until(lambda: pid.exists() and pid.read_text(), seconds=PATIENCE, what="it looks")
        begun = time.monotonic()
        made.close(within=60)
        assert time.monotonic() - begun < 30
        assert not is_alive(int(pid.read_text()))
    assert (made.last, made.trouble) == (None, "")


def test_looks_that_never_come_to_an_end_are_told(log: SealedLog) -> None:
    terms = VerifyTerms(every=0.05, within=0.05, settled=0.01)
    asked, passed = 0, 0.0

    def ask() -> None:
        nonlocal asked
        asked += 1

    program, now = ("-c", saying(WHOLE)), lambda: NOW + passed
    with verifying(log, program, ask=ask, terms=terms, now=now) as made:
        until(lambda: asked > 1, seconds=PATIENCE, what="it goes on")
        assert made.trouble == ""
        passed = 0.2
        assert "no look through the whole record" in made.trouble
        assert made.failures == 0


@pytest.mark.parametrize(
    ("kept", "least", "most"),
    [
        (f'{{"due": 0, "since": {NOW}}}', 30, 30),
        (f'{{"due": {NOW + 1_000}, "since": {NOW}}}', 1_000, 1_000),
        (f'{{"due": {NOW + 86_401}, "since": {NOW}}}', 30, 8_640),
        (f'{{"due": {NOW + 86_400}, "since": {NOW - 90_000}}}', 30, 8_640),
        (f'{{"due": {NOW + 20_000}, "since": {NOW + 90_000}}}', 20_000, 20_000),
        (f'{{"due": NaN, "since": {NOW}}}', 30, 8_640),
        (f'{{"due": 0, "since": {NOW}, "whole": true}}', 30, 8_640),
        ('{"due": 0}', 30, 8_640),
        ("", 30, 8_640),
        (None, 30, 8_640),
    ],
)
def test_when_the_next_look_is_due_outlives_a_restart_and_puts_off_none(
    tmp_path: Path, kept: str | None, least: float, most: float
) -> None:
    terms = VerifyTerms(every=86_400, within=60, settled=30)
    if kept is not None:
        (tmp_path / MEMORY).write_text(kept)
    pause = Verifying(tmp_path, terms, lambda: None, now=lambda: NOW)._first_pause()
    assert least <= pause <= most
    # What was drawn is kept: a broker that is started often is not late for ever.
    again = Verifying(tmp_path, terms, lambda: None, now=lambda: NOW)._first_pause()
    assert again == pytest.approx(pause)


def test_a_broker_that_never_lives_long_enough_to_look_tells_it(tmp_path: Path) -> None:
    terms = VerifyTerms(every=86_400, within=60, settled=30)
    told = []
    for day in range(4):
        life = Verifying(tmp_path, terms, lambda: None, now=lambda day=day: NOW + day * 86_400.0)  # type: ignore[misc]
        life._first_pause()
        told.append(life.trouble)

    assert told[:2] == ["", ""]
    assert "no look through the whole record" in told[3]


def test_a_link_in_the_place_of_the_memory_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "verification.new").symlink_to(other)
    (tmp_path / MEMORY).symlink_to(other)
    terms = VerifyTerms(every=86_400, within=60, settled=30)
    assert Verifying(tmp_path, terms, lambda: None)._first_pause() <= 8_640
    assert other.read_text() == "precious"


def test_a_pipe_in_the_place_of_the_memory_is_waited_for_by_nobody(log: SealedLog) -> None:
    os.mkfifo(log.directory / "verification.new")
    with verifying(log, ["-c", saying(WHOLE)]) as looking:
        until(lambda: looking.last is not None, seconds=PATIENCE, what="a look has ended")


def test_a_verifier_that_never_stops_talking_takes_no_memory(log: SealedLog) -> None:
    program = "import sys\nfor _ in range(300): sys.stdout.write('x' * 1_000_000)"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unverified, match="no answer of ours"):
        answer_apart(question(log), verifier=("-S", "-c", program))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
