import os
from pathlib import Path

import pytest

from broker.policy.problems import PolicyLoadError
from broker.policy.reload import ReloadablePolicyEngine
from tests.policy.queries import PERMIT_ALL, WriteSet, query

FORBID_ALL = '@id("stop") forbid (principal, action, resource) when { context.chain_depth > 0 };\n'


def refused_because(engine: ReloadablePolicyEngine) -> PolicyLoadError | None:
    return engine.last_error


@pytest.mark.requirement("POL-03")
def test_without_a_good_set_there_is_no_engine(write_set: WriteSet) -> None:
    with pytest.raises(PolicyLoadError):
        ReloadablePolicyEngine(write_set("permit"))


@pytest.mark.requirement("POL-05")
def test_the_request_after_a_reload_is_decided_by_the_new_set(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL)
    engine = ReloadablePolicyEngine(directory)
    before = engine.decide(query())
    assert before.granted
    assert engine.decide(query()) is before
    (directory / "test.cedar").write_text(PERMIT_ALL + FORBID_ALL)
    assert engine.decide(query()) is before
    engine.reload()
    after = engine.decide(query())
    assert not after.granted
    assert after.policy_digest == engine.digest != before.policy_digest
    assert engine.explain(query())[0].policies[0].policy_id == "stop"


@pytest.mark.requirement("POL-05")
def test_what_an_older_set_decided_is_not_remembered_when_it_returns(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL)
    engine = ReloadablePolicyEngine(directory)
    for text, is_granted in ((FORBID_ALL, False), (PERMIT_ALL, True)) * 3:
        (directory / "test.cedar").write_text(text)
        engine.reload()
        for _ in range(2):
            decision = engine.decide(query())
            assert bool(decision.granted) is is_granted
            assert decision.policy_digest == engine.digest


@pytest.mark.requirement("POL-03")
@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    "content",
    ["", "permit (principal", "\ufeff" + PERMIT_ALL, "permit (principal, action, resource);", None],
    ids=["empty", "half", "byte order mark", "no id", "gone"],
)
def test_a_bad_set_leaves_the_last_good_one_in_force_and_says_so(
    write_set: WriteSet, content: str | None
) -> None:
    directory = write_set(PERMIT_ALL)
    engine = ReloadablePolicyEngine(directory)
    digest = engine.digest
    assert refused_because(engine) is None
    file = directory / "test.cedar"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(PolicyLoadError) as refused:
        engine.reload()
    assert refused_because(engine) is refused.value
    assert engine.digest == digest
    assert engine.decide(query()).granted
    file.write_text(FORBID_ALL)
    engine.reload()
    assert refused_because(engine) is None
    assert not engine.decide(query()).granted


@pytest.mark.requirement("R-28")
def test_a_folder_that_is_swapped_by_a_link_is_read_whole(
    write_set: WriteSet, tmp_path: Path
) -> None:
    old = write_set(PERMIT_ALL)
    new = tmp_path / "new"
    new.mkdir()
    (new / "broker.cedarschema").write_text((old / "broker.cedarschema").read_text())
    (new / "test.cedar").write_text(FORBID_ALL)
    link = tmp_path / "current"
    link.symlink_to(old)
    engine = ReloadablePolicyEngine(link)
    (tmp_path / "next").symlink_to(new)
    (tmp_path / "next").replace(link)
    engine.reload()
    assert not engine.decide(query()).granted
    (tmp_path / "next").symlink_to(tmp_path / "nowhere")
    (tmp_path / "next").replace(link)
    with pytest.raises(PolicyLoadError):
        engine.reload()
    assert not engine.decide(query()).granted


def test_trouble_of_any_kind_while_reloading_is_a_refusal(
    write_set: WriteSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ReloadablePolicyEngine(write_set(PERMIT_ALL))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("broker.policy.cedar.read_policy_set", fail)
    with pytest.raises(PolicyLoadError, match="MemoryError"):
        engine.reload()
    assert engine.decide(query()).granted


def test_reloading_an_unchanged_set_keeps_what_is_remembered(write_set: WriteSet) -> None:
    engine = ReloadablePolicyEngine(write_set(PERMIT_ALL))
    decision = engine.decide(query())
    engine.reload()
    assert engine.decide(query()) is decision


def test_a_reload_still_leaves_out_what_is_disabled(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL + FORBID_ALL)
    engine = ReloadablePolicyEngine(directory, disabled=frozenset({"stop"}))
    assert engine.decide(query()).granted
    (directory / "test.cedar").write_text(FORBID_ALL + PERMIT_ALL)
    engine.reload()
    assert engine.decide(query()).granted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_decides_and_reloads_for_itself(write_set: WriteSet) -> None:
    directory = write_set(PERMIT_ALL)
    engine = ReloadablePolicyEngine(directory)
    assert engine.decide(query()).granted
    (directory / "test.cedar").write_text(FORBID_ALL)
    child = os.fork()
    if child == 0:
        still = bool(engine.decide(query()).granted)
        engine.reload()
        os._exit(0 if still and not engine.decide(query()).granted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine.decide(query()).granted
