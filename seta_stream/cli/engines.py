"""Where a command's work runs: --backend, --address and --jobs, which arrive as one Engine.

Takes arguments; gives the Engine. No effects.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from seta_stream.cli.options import count_option

_BACKENDS: Final = ("local", "dask", "ray", "spark")


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --backend, --address and --jobs; together they arrive as its argument `engine`."""

    @click.option(
        "--backend",
        type=click.Choice(_BACKENDS),
        default="local",
        show_default=True,
        help="Where the work runs: processes of this machine, or a cluster.",
    )
    @click.option(
        "--address", metavar="ADDRESS", help="Of the cluster, as tcp://host:8786; one of this machine without."
    )
    @count_option("--jobs", help="Processes; as many as pay by default.")
    @functools.wraps(command)
    def with_engine(*args: Any, backend: Any, address: str | None, jobs: int | None, **choices: Any) -> Any:
        from seta_stream.errors import ArgumentError  # noqa: PLC0415  (beside the next)
        from seta_stream.jobs import Engine  # noqa: PLC0415  (multiprocessing; --help need not wait for it)

        try:
            engine = Engine(backend, address, jobs)
        except ArgumentError as error:
            raise click.UsageError(error.message) from error
        return command(*args, engine=engine, **choices)

    return with_engine
