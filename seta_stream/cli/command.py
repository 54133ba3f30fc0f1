"""What a command is here: one that ends as every other does; and the group of them, each loaded when it is asked for.

Takes what click's classes take. Effects: those of `ending`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from seta_stream.cli.ending import closed_pipes_told, ending, warnings_told


class Command(click.Command):
    """A command whose errors are messages.

    Args:
        resumes: what to tell whoever interrupts it; None where there is nothing to say.
    """

    def __init__(self, *args: Any, resumes: str | None = None, **options: Any) -> None:
        options.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **options)
        self.resumes = resumes

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as a program, and end with its exit code; without `standalone_mode`, what is raised is the caller's."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        with ending(as_json="--json" in given):
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse, which prints where --help is asked for."""
        with closed_pipes_told():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run."""
        _bear_any_text()
        try:
            with closed_pipes_told(), warnings_told(as_json=bool(ctx.params.get("as_json"))):
                result = super().invoke(ctx)
                sys.stdout.flush()  # here, where a closed pipe or a full disk is still told
        except KeyboardInterrupt as interrupt:
            if self.resumes is not None:
                interrupt.add_note(self.resumes)
            raise
        return result


class Commands(Command, click.Group):
    """A group whose commands are files, each loaded only when it is asked for.

    Args:
        files: names of commands with a line about each. The command x is `command` in seta_stream.cli.x; where x is a
            keyword, which names no module, in x_.
    """

    def __init__(self, *args: Any, files: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._files = files

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Return every name."""
        return sorted(self._files)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (likewise)
        """Return a command; None where there is none of that name."""
        if cmd_name not in self._files:
            return None
        module = import_module(f"seta_stream.cli.{cmd_name}{'_' * iskeyword(cmd_name)}")
        command: click.Command = module.command
        command.short_help = self._files[cmd_name]
        return command


def _bear_any_text() -> None:
    """Let stdout take characters that its encoding lacks: names of files can hold any bytes, and bars are drawn."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
