"""``broker serve``: the command that runs a broker until it is told to stop."""

import os
import sys
from pathlib import Path

import rich_click as click

from broker.cli.descriptors import STANDARD_OUTPUT, fill_standard_descriptors
from broker.cli.inputs import config_option, settings_from
from broker.cli.stop import Misconfigured, Stop
from broker.config.problems import printable
from broker.logs import configure_logs
from broker.policy.problems import PolicyLoadError
from broker.serving import AddressUnavailable, loading
from broker.serving import serve as run_broker
from broker.state.database import StateRefused


@click.command()
@config_option()
def serve(config: Path) -> None:
    """
    Start the broker and run it until it is told to stop (SIGTERM, or Ctrl-C).

    SIGHUP reads clients, resources, issuers and policies again; what is not good is refused as a
    whole, and what was in force stays.
    """
    missing = fill_standard_descriptors()
    with loading():
        settings = settings_from(config)
    if STANDARD_OUTPUT in missing and any(one.kind == "stdout" for one in settings.audit.sinks):
        raise Misconfigured("audit.sinks: one is of type stdout, and standard output is closed")
    configure_logs(level=settings.log.level, style=settings.log.format)
    try:
        status = run_broker(settings, dict(os.environ), drain_delay=settings.drain_delay)
    except PolicyLoadError as error:
        problems = (printable(f"{settings.policies}/{problem}") for problem in error.problems)
        raise Misconfigured("\n".join(problems)) from None
    except (AddressUnavailable, StateRefused) as error:
        raise Stop(str(error)) from None
    sys.exit(status)
