"""What reading costs, as commands are told it: a store's list price, or the user's own.

Takes arguments; gives a Price. No effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from seta_stream.cli.options import number_option

if TYPE_CHECKING:
    from seta_stream.report.prices import Price

STORES: Final = ("s3", "gcs", "azure", "none")
"""By report.prices; named here too, so that --help need not wait for numpy."""

Command = TypeVar("Command", bound=Callable[..., Any])


def price_options(*more: str, default: str, help: str) -> Callable[[Command], Command]:  # noqa: A002  (click's name)
    """Give a command --store and the two prices, as `store`, `price_per_gb` and `price_per_1000_requests`.

    Args:
        more: choices of --store besides the stores.
        default: of --store.
        help: on --store.
    """
    choices: Sequence[str] = (*more, *STORES)

    def with_prices(command: Command) -> Command:
        command = number_option(
            "--price-per-1000-requests", help="Dollars for a thousand reads, instead of the list price."
        )(command)
        command = number_option("--price-per-gb", help="Dollars for 2^30 bytes, instead of the list price.")(command)
        return click.option("--store", type=click.Choice(choices), default=default, show_default=True, help=help)(
            command
        )

    return with_prices


def price_of(listed: Price, per_gb: float | None, per_1000_requests: float | None) -> Price:
    """Return the list price, with what is given in its place."""
    from seta_stream.report.prices import Price  # noqa: PLC0415  (numpy; --help need not wait for it)

    if per_gb is None and per_1000_requests is None:
        return listed
    per_gb = listed.per_gb if per_gb is None else per_gb
    per_1000_requests = listed.per_1000_requests if per_1000_requests is None else per_1000_requests
    told = f"as given, ${per_gb:g} per GB and ${per_1000_requests:g} per 1,000 requests"
    return Price(per_gb, per_1000_requests, told)
