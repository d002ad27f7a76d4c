"""``broker audit lineage``: everything that was derived from a token."""

from pathlib import Path
from typing import Any

import rich_click as click
from rich.text import Text
from rich.tree import Tree

from broker.audit.query import Branch, Lineage
from broker.audit.telling.sentence import sentence
from broker.cli.audit_asking import asked_reader, directory_argument, tell_faults
from broker.cli.audit_show import told_line
from broker.cli.audit_sources import directory_of, settings_for
from broker.cli.inputs import config_option
from broker.cli.output import echo_json, output_option, plain, print_tree, print_wrapped
from broker.cli.stop import Negative


@click.command()
@click.argument("jti")
@directory_argument()
@config_option()
@output_option("tree", "json")
def lineage(jti: str, directory: Path | None, config: Path, output: str) -> None:
    """
    Draw everything that was derived from a token, by the records in DIRECTORY or where the settings say.

    It begins with the record of its issue or, for a token of another issuer, with those in which it was
    presented.
    """
    place = directory_of(directory, settings_for(directory, config))
    with asked_reader(place, config) as reader:
        found = reader.lineage(jti)
        _print(found, output=output)
        tell_faults(reader)


def _print(found: Lineage, *, output: str) -> None:
    if found.root is None and not found.uses:
        raise Negative("Nothing is known of such a token.")
    if output == "json":
        echo_json(_members(found))
        return
    print_tree(_tree(found))
    if found.is_cut:
        print_wrapped(Text("There is more than is shown.", style="yellow"))


def _tree(found: Lineage) -> Tree:
    tree = Tree(Text("token ", style="cyan").append_text(plain(found.jti)), guide_style="dim")
    for branch in _tops(found):
        _add(tree, branch)
    return tree


def _tops(found: Lineage) -> list[Branch]:
    return [*found.uses] if found.root is None else [found.root]


def _add(tree: Tree, branch: Branch) -> None:
    line = told_line(branch.found)
    jti = branch.found.record.jti
    if jti:
        line.append("  → token ").append_text(plain(jti))
    below = tree.add(line)
    withdrawal = branch.withdrawal
    if withdrawal is not None:
        record = withdrawal.record
        told = f" {record.time} by {record.client_id or 'somebody'} ({record.event_id})"
        below.add(Text("✖ withdrawn", style="bold red").append_text(plain(told)))
    elif branch.is_withdrawn_with_ancestor:
        below.add(Text("✖ withdrawn with its ancestor", style="bold red"))
    for one in branch.branches:
        _add(below, one)


def _members(found: Lineage) -> dict[str, Any]:
    tops = [_branch(one) for one in _tops(found)]
    return {"jti": found.jti, "is_cut": found.is_cut, "derived": tops}


def _branch(branch: Branch) -> dict[str, Any]:
    record = branch.found.record
    return {
        "event_id": record.event_id,
        "time": record.time,
        "decision": record.decision,
        "client_id": record.client_id,
        "resource": record.resource,
        "jti": record.jti,
        "sentence": sentence(record),
        "withdrawn_at": None if branch.withdrawal is None else branch.withdrawal.record.time,
        "withdrawn_with_ancestor": branch.is_withdrawn_with_ancestor,
        "derived": [_branch(one) for one in branch.branches],
    }
