"""``broker audit show``: one record told to people, with its chain, its grounds, its proof and its kin."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click
from rich.text import Text
from rich.tree import Tree

from broker.audit.chain import line_hash
from broker.audit.merkle import ProofRefused
from broker.audit.query import AuditReader, Found
from broker.audit.seal.prover import Prover
from broker.audit.segments import AuditLogRefused
from broker.audit.telling.chain import Chain, chain_of
from broker.audit.telling.kin import ancestors_of, parents_of
from broker.audit.telling.placement import Placement, Seals, numbered
from broker.audit.telling.sentence import sentence
from broker.audit.telling.tree import chain_tree
from broker.audit.telling.why import Grounds, ScopeGrounds, why
from broker.cli.audit_asking import asked_reader, directory_argument, tell_faults
from broker.cli.audit_sources import (
    NOTHING_KNOWN,
    directory_of,
    found_by,
    present_of,
    settings_for,
)
from broker.cli.inputs import config_option
from broker.cli.output import (
    console,
    echo_json,
    output_option,
    plain,
    print_tree,
    print_wrapped,
)
from broker.cli.stop import Negative

_MOST_KIN: Final = 20
_LABEL: Final = 12
_MARKS: Final = {"permit": ("✔", "green"), "deny": ("✖", "bold red")}
_GOOD: Final = "permit"


@dataclass(frozen=True, slots=True)
class _Shown:
    """All that is shown of one record."""

    found: Found
    chain: Chain
    grounds: Grounds
    placement: Placement | str | None
    number: str
    parents: Sequence[Found]
    children: Sequence[Found]


@click.command()
@click.argument("name", metavar="EVENT_ID|JTI")
@directory_argument()
@config_option()
@output_option("text", "json")
def show(name: str, directory: Path | None, config: Path, output: str) -> None:
    """
    Tell the record of an event, or of the issue of a token, in words.

    It is read in DIRECTORY, or in the one that the settings name: what it says in one sentence, the
    delegation with the tokens on the way, why it was decided so, by which policies and where these stand,
    whether a checkpoint is over it, and the records before and after it. As JSON the record itself is there
    as well, and the line that was hashed.
    """
    settings = settings_for(directory, config)
    place = directory_of(directory, settings)
    with asked_reader(place, config) as reader:
        found = found_by(reader, name)
        if found is None:
            raise Negative(NOTHING_KNOWN)
        ancestors = ancestors_of(reader, found)
        shown = _Shown(
            found,
            chain_of(found.record, ancestors),
            why(found.record, present_of(settings), ancestors),
            _placement(place, found),
            numbered(found.record, reader.extent()),
            parents_of(reader, found),
            _children(reader, found),
        )
        if output == "json":
            echo_json({**_members(shown), "unread": reader.extent().faults})
        else:
            _print(shown)
        tell_faults(reader)
        if isinstance(shown.placement, str):
            raise Negative(
                "The record does not fit its seal; `broker audit verify` tells what is wrong."
            )


def _placement(place: Path, found: Found) -> Placement | str | None:
    """Where its line is sealed, as shown by a proof, or what is wrong; nothing before it is sealed."""
    record = found.record
    try:
        placement = Seals(place).placement(record.writer, record.seq)
        if placement is not None:
            Prover(place).proof(record.writer, record.seq)
    except (AuditLogRefused, ProofRefused) as refused:
        return str(refused)
    return placement


def _children(reader: AuditReader, found: Found) -> Sequence[Found]:
    return reader.children(found, limit=_MOST_KIN)


def _print(shown: _Shown) -> None:
    record = shown.found.record
    print_wrapped(told_line(shown.found), indent=2)
    print_wrapped(Text(sentence(record)))
    tree = chain_tree(shown.chain)
    if tree is not None:
        console().print()
        print_tree(tree)
    grounds = _grounds_tree(shown.grounds)
    if grounds.children:
        console().print()
        print_tree(grounds)
    console().print()
    for line in _places(shown):
        print_wrapped(line, indent=_LABEL)
    for title, kin in (("parents", shown.parents), ("children", shown.children)):
        if kin:
            tree = Tree(Text(title, style="cyan"), guide_style="dim")
            for one in kin:
                tree.add(told_line(one))
            print_tree(tree)


def told_line(found: Found) -> Text:
    """A record on one line: what was decided, when, for whom and what, and its id."""
    record = found.record
    mark, style = _MARKS.get(record.decision, ("•", "dim"))
    line = Text(f"{mark} {record.decision} ", style=style)
    parts = [record.time, record.event, record.client_id, record.resource, record.event_id]
    for part in parts:
        if part:
            line.append_text(plain(part)).append("  ")
    line.rstrip()
    return line


def _grounds_tree(grounds: Grounds) -> Tree:
    tree = Tree(Text("why", style="cyan"), guide_style="dim")
    if grounds.reason:
        tree.add(Text(f"refused: {grounds.reason}", style="red"))
    for one in grounds.scopes:
        _add_scope(tree, one)
    if grounds.lifetime:
        tree.add(Text(grounds.lifetime))
    if grounds.policy_digest:
        state = {True: ", in force now", False: ", not in force now", None: ""}
        line = Text("policy set ").append_text(plain(grounds.policy_digest[:12]))
        tree.add(line.append(state[grounds.is_in_force]))
    for remark in grounds.remarks:
        tree.add(Text(remark, style="yellow"))
    return tree


def _add_scope(tree: Tree, one: ScopeGrounds) -> None:
    style = "green" if one.verdict == _GOOD else "red"
    branch = tree.add(plain(one.scope).append(f"  {one.in_words}", style))
    for policy in one.policies:
        place = f"  {policy.file}:{policy.line}" if policy.file else "  (its place is not known)"
        branch.add(Text("by ").append_text(plain(policy.policy_id)).append_text(plain(place)))
    for miss in one.nearest:
        place = f"{miss.policy.file}:{miss.policy.line}"
        branch.add(plain(f"{miss.policy.policy_id}  {place}: {miss.change}", "yellow"))
    for error in one.errors:
        branch.add(plain(error, "red"))


def _places(shown: _Shown) -> Iterator[Text]:
    """Where the record stands: in its chain, in its file, and under a checkpoint."""
    found = shown.found
    place = f"{shown.number}; {found.file}, byte {found.offset}"
    yield Text.assemble((f"{'place':<{_LABEL}}", "cyan"), plain(place))
    match shown.placement:
        case None:
            sealed, style = "not sealed yet", "yellow"
        case Placement():
            sealed, style = f"sealed as {shown.placement}", "green"
        case wrong:
            sealed, style = f"✖ {wrong}", "bold red"
    yield Text.assemble((f"{'proof':<{_LABEL}}", "cyan"), (sealed, style))


def _members(shown: _Shown) -> dict[str, Any]:
    found = shown.found
    return {
        "sentence": sentence(found.record),
        "chain": asdict(shown.chain),
        "why": asdict(shown.grounds),
        "place": shown.number,
        "proof": {
            "sealed": asdict(shown.placement) if isinstance(shown.placement, Placement) else None,
            "fault": shown.placement if isinstance(shown.placement, str) else "",
            "line_hash": line_hash(found.line),
            "file": found.file,
            "offset": found.offset,
        },
        "parents": [one.record.event_id for one in shown.parents],
        "children": [one.record.event_id for one in shown.children],
        "record": msgspec.to_builtins(found.record),
        "line": found.line.decode("utf-8", "replace"),
    }
