"""The options that SetaStream takes, and their checks. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from seta_stream.collective import Collective
from seta_stream.errors import ArgumentError, UnsupportedError
from seta_stream.policies import Policy, Rule
from seta_stream.policies.runs import Runs, Unit
from seta_stream.read.decode import Decode
from seta_stream.read.options import Cache, Reading

DEFAULT_WIDTH: Final = 8
DEFAULT_RUN_BYTES: Final = 256 << 10
"""Of a run, with `unit="run"`: docs/policies.md tells what longer and shorter ones read and cost."""


class StreamOptions(TypedDict, total=False):
    """The keyword options of SetaStream but `batch_size`, for adapters that hand them on; see its docstring."""

    policy: Policy | Callable[..., Rule] | str | Mapping[str, Any]
    state: str | None
    seed: int
    shuffle: bool
    drop_last: bool
    lanes: tuple[int, int] | None
    decode: str | Decode | None
    on_error: Literal["raise", "skip"]
    fields: Sequence[str] | None
    index: str | None
    losses: Literal["exact", "latest"]
    unit: Literal["sample", "run"]
    read: Reading
    cache: str | Cache | None
    storage_options: Mapping[str, Any] | None
    state_options: Mapping[str, Any] | None
    collective: Collective | None
    world: int | None
    rank: int | None


def check_choices(**options: tuple[object, Sequence[object]]) -> None:
    """Refuse an option whose value is none of its choices.

    Args:
        options: name=(value, choices).

    Raises:
        ArgumentError: naming the option, its value and its choices.
    """
    for name, (value, choices) in options.items():
        if value not in choices:
            raise ArgumentError(
                f"{name}={value!r} is not possible: choose one of {', '.join(map(repr, choices))}.",
                expected=tuple(choices),
                found=value,
            )


def check_one_process(collective: Any, world: int | None, rank: int | None) -> None:
    """Refuse several processes, which this release does not train yet.

    Raises:
        UnsupportedError: for a world over 1.
        ArgumentError: for a rank that the world does not have.
    """
    size = collective.world if collective is not None else world if world is not None else 1
    if size != 1:
        raise UnsupportedError(
            f"world={size}: this release trains in one process. Start one process (its DataLoader may have workers), "
            "or read with world=1 in each and no pruning.",
            expected=1,
            found=size,
        )
    if rank not in (None, 0):
        raise ArgumentError(f"rank={rank} is outside the world of 1 process: leave it out.", expected=0, found=rank)


def runs_asked(unit: Unit, run_bytes: int, mean_bytes: float) -> Runs:
    """Return how a stream decides for neighbouring samples together.

    Args:
        unit: as given.
        run_bytes: of Reading; 0 is DEFAULT_RUN_BYTES where runs are decided, else no runs.
        mean_bytes: of a sample of the corpus.
    """
    return Runs.of(unit, run_bytes or (DEFAULT_RUN_BYTES if unit == "run" else 0), mean_bytes)


def _is_count(value: object) -> bool:
    """Say whether a value is a whole number of 1 or more, Python's or numpy's."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and operator.index(value) >= 1


def check_seed(seed: int) -> int:
    """Return the seed.

    Raises:
        ArgumentError: it is no integer that fits in 64 bits.
    """
    if not hasattr(seed, "__index__") or not -(2**63) <= operator.index(seed) < 2**63:
        raise ArgumentError(f"seed={seed!r} is no integer of 64 bits: give one from −2^63 to 2^63 − 1.")
    return operator.index(seed)


def check_batch(batch_size: int | None, lanes: tuple[int, int] | None, *, drop_last: bool) -> tuple[int, int, int]:
    """Return (rows, width, samples per row of a step).

    Raises:
        ArgumentError: for sizes that are not positive, or rows that do not divide the batch.
    """
    if batch_size is not None and not _is_count(batch_size):
        raise ArgumentError(f"batch_size={batch_size!r} is no number of samples: give 1 or more, or None.")
    if lanes is not None and not (len(lanes) == 2 and all(map(_is_count, lanes))):
        raise ArgumentError(f"lanes={lanes!r} are (rows, lanes per row), both 1 or more.")
    rows, width = lanes if lanes is not None else (1, DEFAULT_WIDTH)
    batch_size = None if batch_size is None else int(batch_size)
    batch = batch_size or 1
    if batch % rows:
        fitting = [r for r in range(1, batch + 1) if batch % r == 0]
        raise ArgumentError(
            f"lanes={lanes!r} cut a step of {batch} samples into {rows} rows, which do not fit: choose rows from "
            f"{fitting}.",
            expected=fitting,
            found=rows,
        )
    if not drop_last and rows != 1:
        raise ArgumentError(f"drop_last=False needs one row, and lanes={lanes!r} have {rows}.")
    return rows, width, batch // rows
