"""Commands that are imported when they are called, so that help and completion answer at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import rich_click as click

from broker.cli.page import tell
from broker.cli.stop import Stop


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that is not imported yet: where it is, as ``module:name``, and its line in the help."""

    target: str
    summary: str

    def load(self) -> click.Command:
        """The command itself."""
        module, _, name = self.target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


class LazyGroup(click.RichGroup):
    """
    A group whose commands are listed by their summaries and imported one at a time.

    ``verbs`` are the commands by name, in the order of the help.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._verbs, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What the help shows of a command; ``resolve_command`` gives the command that runs."""
        verb = self._verbs.get(cmd_name)
        if verb is None:
            return super().get_command(ctx, cmd_name)
        return click.RichCommand(name=cmd_name, help=verb.summary)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        verb = self._verbs.get(name or "")
        return name, command if verb is None else verb.load(), rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Stop as stop:
            tell(str(stop))
            ctx.exit(stop.exit_code)
