"""``broker config check``: everything that is wrong with the settings, or what is in force."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from broker.cli.inputs import config_option, wrong_settings
from broker.cli.output import echo_json, output_option
from broker.cli.stop import Misconfigured
from broker.config import ConfigError, Problem, Settings, load_settings
from broker.config.problems import printable
from broker.config.shown import shown
from broker.policy.named import known_names, slips
from broker.policy.problems import Problem as PolicyProblem
from broker.policy.tables import Findings
from broker.policy.tables import check as check_policies


class _Representer(RoundTripRepresenter):
    """Writes what is off as ``null``, and not as nothing."""


_Representer.add_representer(
    type(None), lambda here, _: here.represent_scalar("tag:yaml.org,2002:null", "null")
)


@click.command()
@config_option()
@output_option("text", "json")
def check(config: Path, output: str) -> None:
    """
    Check the settings, the files they name and the policies, and print what is in force.

    All problems are told at once. Secrets are masked. Nothing is started or written.
    """
    try:
        settings = load_settings(config, os.environ)
    except ConfigError as error:
        if output == "json":
            echo_json({"problems": [_members(problem) for problem in error.problems]})
            sys.exit(Misconfigured.exit_code)
        raise wrong_settings(config, error) from None
    found = check_policies(settings.policies)
    faults = [f"{settings.policies}/{fault}" for fault in found.problems]
    _print(settings, faults, output=output)
    for remark in (*found.remarks, *_slips(settings, found)):
        click.echo(printable(f"{settings.policies}/{remark}"), err=True)
    if faults:
        raise Misconfigured("\n".join(faults))
    click.echo(f"{config}: the settings and the policies can be put in force.", err=True)


def _slips(settings: Settings, found: Findings) -> list[PolicyProblem]:
    """The names in policies that look like ones that are registered, and are not."""
    if found.policies is None:
        return []
    known = known_names(settings.clients, settings.resources, settings.authorization_servers)
    return list(slips(found.policies, known))


def _print(settings: Settings, faults: Sequence[str], *, output: str) -> None:
    if output == "json":
        echo_json({"problems": faults, "settings": shown(settings)})
        return
    yaml = YAML(pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.dump(shown(settings), sys.stdout)


def _members(problem: Problem) -> dict[str, str | int]:
    return {
        "file": problem.mark.source,
        "line": problem.mark.line,
        "column": problem.mark.column,
        "path": problem.path,
        "sentence": problem.sentence,
        "suggestion": problem.suggestion,
    }
