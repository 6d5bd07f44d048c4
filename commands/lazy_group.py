"""The group of all commands: a command is built, and its verb imported, only when it is used."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from commands.table import COMMANDS, GROUPS


class LazyGroup(TyperGroup):
    """Looks commands up in the table, so that `--help` and short commands start quickly."""

    words: tuple[str, ...] = ()
    """The words before a command of this group, e.g. `("corpus",)`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in this group, in the order of the table."""
        at = len(self.words)
        names = [words[at] for words in COMMANDS if words[:at] == self.words]
        return list(dict.fromkeys(names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or group of that name; None if there is none."""
        if cmd_name not in self.commands:
            words = (*self.words, cmd_name)
            if words in COMMANDS:
                self.commands[cmd_name] = _command(cmd_name, words)
            elif not self.words and cmd_name in GROUPS:
                self.commands[cmd_name] = _group(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The summaries, from the table alone."""
        rows = []
        for name in self.list_commands(ctx):
            entry = COMMANDS.get((*self.words, name))
            rows.append((name, GROUPS[name] if entry is None else entry.summary))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _command(name: str, words: tuple[str, ...]) -> Any:
    info = CommandInfo(name=name, callback=COMMANDS[words].build(), help=COMMANDS[words].help)
    return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)


def _group(name: str) -> LazyGroup:
    group = LazyGroup(name=name, help=GROUPS[name], no_args_is_help=True, rich_markup_mode=None)
    group.words = (name,)
    return group
