"""`seta-stream completion`: what makes a shell complete commands, options, names of policies and paths.

Takes a shell's name; prints a script of click's. No other effects.
"""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from seta_stream.cli.command import Command

PROGRAM: Final = "seta-stream"
VARIABLE: Final = "_SETA_STREAM_COMPLETE"
"""By which click is asked for completions; its own name for this program."""
SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what makes SHELL complete commands, options, names of policies and paths.

    Put the line of your shell into the file that it reads when it starts: ~/.bashrc (bash 4.4 or newer), ~/.zshrc
    behind compinit, ~/.config/fish/config.fish.

    \b
    Examples:
        eval "$(seta-stream completion bash)"
        eval "$(seta-stream completion zsh)"
        seta-stream completion fish | source
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"This release of click knows no completion for {shell}.")
    click.echo(maker(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())
