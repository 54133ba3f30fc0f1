"""The console script: one file per command, loaded when it is called."""

from __future__ import annotations

import click

from seta_stream.cli.command import Commands
from seta_stream.cli.options import installed_version

COMMANDS = {
    "completion": "print what makes a shell complete these commands",
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


@click.group(cls=Commands, files=COMMANDS)
@click.version_option(installed_version(), prog_name="seta-stream")
def main() -> None:
    """Train on the samples that still teach, and pay, in bytes, decodes and steps, only for those.

    \b
    Examples:
        seta-stream index "/data/train-{00000..00149}.tar"
        seta-stream index --help
        eval "$(seta-stream completion bash)"

    Every command exits with 0 when it is done, 1 when it could not be, and 2 when the command line is wrong; verify
    with 3 when it found something. With --json, stdout holds one JSON document, and an error is one on stderr.
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
