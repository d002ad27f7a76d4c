"""A delegation drawn for a terminal: who acts for whom, and below each the tokens that it was shown."""

from rich.text import Text
from rich.tree import Tree

from broker.audit.telling.chain import Chain, Handed, Step
from broker.audit.telling.sentence import LIMITS
from broker.audit.telling.words import duration
from broker.drawing import labelled, visible


def chain_tree(chain: Chain) -> Tree | None:
    """The tree of a delegation, or ``None`` for one without steps. Every value is harmless text."""
    if not chain.steps:
        return None
    first, *others = chain.steps
    tree = Tree(_step(first), guide_style="dim")
    branch = tree
    for step in others:
        branch = branch.add(_step(step))
        for handed in step.handed:
            branch.add(_handed(handed))
    return tree


def _step(step: Step) -> Text:
    return labelled(step.kind.value, step.name, visible(step.note))


def _handed(handed: Handed) -> Text:
    what = "assertion" if handed.is_assertion else "token"
    if handed.is_refused:
        line = Text("✖ refused ", style="bold red")
    else:
        line = Text(f"↑ {what} {visible(handed.jti or 'without an id')} ", style="green")
    parts = [_scopes(handed), _lifetime(handed)]
    return line.append(" · ".join(part for part in parts if part), "dim")


def _scopes(handed: Handed) -> str:
    if handed.scopes is None:
        return f"asked for {_listed(handed.asked)}" if handed.asked else ""
    shown = _listed(handed.scopes) if handed.scopes else "no scopes"
    return f"{shown}, not {_listed(handed.dropped)}" if handed.dropped else shown


def _lifetime(handed: Handed) -> str:
    if handed.lifetime is None:
        return ""
    left = f"{duration(handed.lifetime)} left"
    if not handed.limit:
        return left
    return f"{left}, limited by {LIMITS.get(handed.limit) or visible(handed.limit)}"


def _listed(scopes: tuple[str, ...]) -> str:
    return " ".join(map(visible, scopes))
