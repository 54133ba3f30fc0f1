"""The console script: one file per command, loaded when it is called."""

from __future__ import annotations

import importlib
from keyword import iskeyword

import click

from seta_stream.errors import SetaStreamError

COMMANDS = {
    "convert": "read other tools' indexes, compared with their shards, and write ours, Energon's or DALI's",
    "demo": "train a small recogniser on all samples and on half of them",
    "export": "write losses or a selection as Parquet, CSV or a shard list, or the selected samples as shards",
    "import": "begin a state with the losses of a Parquet or CSV file",
    "index": "index shards, so that their samples can be read by range",
    "inspect": "print and plot what a state folder holds",
    "repack": "write shards anew, samples of similar loss side by side inside each",
    "report": "write what a run kept, read and cost as one HTML page",
    "score": "give every sample a loss ahead of training, so that the first epoch can be pruned",
    "simulate": "replay a recorded or synthetic history under other policies: what would they save?",
    "verify": "compare shards, indexes and a state with each other, and build anew what can be",
    "watch": "show a run in the terminal while it trains",
}


class _Lazy(click.Group):
    """Loads a command's file only when it is asked for, and turns the package's errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        # A file cannot be called as a keyword.
        module = importlib.import_module(f"seta_stream.cli.{cmd_name}{'_' * iskeyword(cmd_name)}")
        command: click.Command = module.command
        command.short_help = COMMANDS[cmd_name]
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seta-stream")
def main() -> None:
    """Train on the samples that still teach, and pay, in bytes, decodes and steps, only for those."""
