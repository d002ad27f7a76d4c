"""``broker policy explain``: what policy would say to a request that nobody has made."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click
from rich.tree import Tree

from broker.cli.hypothesis import Supposition, suppose
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import console, echo_json, output_option, plain
from broker.cli.stop import Negative
from broker.endpoints.target import candidate_scopes
from broker.model import PolicyQuery, Relation, Scope, ScopeExplanation, Verdict
from broker.policy.cedar import CedarPolicyEngine
from broker.policy.problems import PolicyLoadError

_STYLES = {Verdict.PERMIT: "bold green", Verdict.ERROR: "bold white on red"}


@click.command()
@click.option("--client", required=True, help="The client that would ask.")
@click.option("--resource", required=True, help="The resource it would ask for.")
@click.option("--subject", required=True, help="Whom it would ask for, as tokens name them.")
@click.option("--issuer", help="Who vouches for the subject; the only issuer registered if unset.")
@click.option(
    "--scope", "scopes", multiple=True, help="A scope asked for; all if unset. Repeatable."
)
@click.option(
    "--subject-scope", "subject_scopes", multiple=True, help="A scope the token has. Repeatable."
)
@click.option("--subject-audience", help="The audience of the subject token.")
@click.option(
    "--relation",
    type=click.Choice([relation.value for relation in Relation]),
    default=Relation.AUDIENCE.value,
    show_default=True,
    help="Why the client may present the token: it owns the audience, was issued it, ...",
)
@click.option(
    "--chain-depth", type=click.IntRange(1, 5), default=1, help="Actors in the new token."
)
@click.option("--acr", help="The context class of the user's login.")
@click.option("--auth-age", type=click.IntRange(0), help="Seconds since the user's login.")
@click.option("--policies", type=click.Path(path_type=Path), help="Ask these policies instead.")
@config_option()
@output_option("tree", "json")
def explain(policies: Path | None, config: Path, output: str, **supposed: Any) -> None:
    """
    Ask policy about a request that nobody has made: what it would say, which policies decide, and the
    least that would have to be otherwise.

    Clients, resources and issuers are those of the settings. Nothing is issued or recorded.
    """
    settings = settings_from(config)
    query = suppose(settings, Supposition(**supposed), now=int(time.time()))
    candidates = candidate_scopes(
        tuple(scope.name for scope in query.scopes), query.resource, query.delegation
    )
    try:
        engine = CedarPolicyEngine.load(policies or settings.policies)
    except PolicyLoadError as error:
        raise Negative("\n".join(map(str, error.problems))) from None
    explained = engine.explain(query)
    underivable = [scope for scope in query.scopes if scope not in candidates.scopes]
    _print(query, explained, underivable=underivable, output=output)
    barred = {scope.name for scope in underivable}
    if not any(one.verdict is Verdict.PERMIT and one.scope not in barred for one in explained):
        raise Negative("Nothing would be granted.")


def _print(
    query: PolicyQuery,
    explained: Sequence[ScopeExplanation],
    *,
    underivable: Sequence[Scope],
    output: str,
) -> None:
    missing = {scope.name: sorted(scope.derives_from) for scope in underivable}
    if output == "json":
        scopes = [{**asdict(one), "missing_any_of": missing.get(one.scope)} for one in explained]
        echo_json({"client": query.client.client_id, "scopes": scopes})
        return
    client, subject = query.client.client_id, query.delegation.subject.sub
    title = f"{client} for {subject} at {query.resource.resource}"
    tree = Tree(plain(title, "bold"))
    for one in explained:
        _add_scope(tree, one, missing=missing.get(one.scope))
    console().print(tree)


def _add_scope(tree: Tree, one: ScopeExplanation, *, missing: Sequence[str] | None) -> None:
    label = plain(f"{one.scope}  ")
    branch = tree.add(label.append_text(plain(one.verdict, _STYLES.get(one.verdict, "bold red"))))
    if missing is not None:
        sentence = f"not derivable: the subject token has none of {', '.join(missing)}"
        branch.add(plain(sentence, "red"))
    for policy in one.policies:
        branch.add(plain(f"by {policy.policy_id}  {policy.file}:{policy.line}"))
    for miss in one.nearest_misses:
        place = f"{miss.policy.file}:{miss.policy.line}"
        near = branch.add(plain(f"{miss.policy.policy_id}  {place}: {miss.change}", "yellow"))
        for condition in miss.failed_conditions:
            near.add(plain(condition, "dim"))
    for error in one.errors:
        branch.add(plain(error, "red"))
