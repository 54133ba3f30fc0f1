"""The options that SetaStream takes, and their checks. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from seta_stream.collective import Collective, OneProcess
from seta_stream.errors import ArgumentError
from seta_stream.plan.lanes import divisors
from seta_stream.policies import Policy, Rule
from seta_stream.policies.runs import Runs, Unit
from seta_stream.read.decode import Decode
from seta_stream.read.options import Cache, Reading

DEFAULT_WIDTH: Final = 8
DEFAULT_RUN_BYTES: Final = 256 << 10
"""Of a run, with `unit="run"`: docs/policies.md tells what longer and shorter ones read and cost."""

CHOICES: Final = {"on_error": ("raise", "skip"), "losses": ("exact", "latest"), "unit": ("sample", "run")}

SHARED: Final = (
    "urls", "index", "policy", "state", "batch_size", "lanes", "seed", "shuffle", "drop_last", "unit", "losses",
    "run_bytes",
)  # fmt: skip
"""What every process of a run must be given alike."""


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


def check_choices(**options: str) -> None:
    """Refuse an option whose value is none of its CHOICES.

    Raises:
        ArgumentError: naming the option, its value and its choices.
    """
    for name, value in options.items():
        if value not in CHOICES[name]:
            raise ArgumentError(
                f"{name}={value!r} is not possible: choose one of {', '.join(map(repr, CHOICES[name]))}.",
                expected=CHOICES[name],
                found=value,
            )


def check_fields(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the fields wanted, as indexes name them; None for all.

    Raises:
        ArgumentError: one text was given for a tuple of them.
    """
    if isinstance(fields, str):
        raise ArgumentError(f"fields={fields!r} is one text: give a tuple of field names, as fields=({fields!r},).")
    return None if fields is None else tuple(field.lower() for field in fields)


def shares(policy: Policy, state: str | None) -> bool:
    """Say whether the processes of a run have something to share: losses, or a state."""
    return state is not None or bool(getattr(policy, "needs_losses", True))


def check_world(
    collective: Collective | None, world: int | None, rank: int | None, *, shares: bool
) -> tuple[Collective, int, int]:
    """Return (the collective, rank, world) of a stream.

    Args:
        collective, world, rank: as given.
        shares: whether losses, or a state, have to be shared.

    Raises:
        ArgumentError: they contradict each other, or there is no collective where one is needed.
    """
    if collective is not None:
        found = (collective.rank, collective.world)
        if rank not in (None, found[0]) or world not in (None, found[1]):
            raise ArgumentError(
                f"rank={rank}, world={world} contradict the collective, which is process {found[0]} of {found[1]}: "
                "leave them out.",
                expected=found,
                found=(rank, world),
            )
        return collective, *found
    size = 1 if world is None else world
    if not _is_count(size):
        raise ArgumentError(f"world={world!r} is no number of processes: give 1 or more.", found=world)
    number = 0 if rank is None and size == 1 else rank
    if number is None or not hasattr(number, "__index__") or not 0 <= number < size:
        raise ArgumentError(
            f"rank={rank} is outside the world of {size}: give this process's number, 0 … {size - 1}.",
            expected=f"0 … {size - 1}",
            found=rank,
        )
    if size > 1 and shares:
        raise ArgumentError(
            f"world={size} without a collective: losses and the state are shared by all processes, which must be able "
            "to talk. Give collective=TorchCollective(), JaxCollective() or MPICollective() of seta_stream.adapters "
            "(SetaDataset does where torch.distributed is initialised), or a policy without losses and no state=.",
            expected="a collective",
            found=size,
        )
    return OneProcess(), int(number), int(size)


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


def check_batch(
    batch_size: int | None, lanes: tuple[int, int] | None, world: int = 1, *, drop_last: bool
) -> tuple[int, int, int]:
    """Return (rows, width, samples per row of a step) of a run that starts here.

    Args:
        batch_size: samples per step and rank; None means 1.
        lanes: (rows, lanes per row), as given.
        world: ranks.
        drop_last: as given.

    Raises:
        ArgumentError: for sizes that are not positive, or rows that do not divide the step.
    """
    if batch_size is not None and not _is_count(batch_size):
        raise ArgumentError(f"batch_size={batch_size!r} is no number of samples: give 1 or more, or None.")
    if lanes is not None and not (len(lanes) == 2 and all(map(_is_count, lanes))):
        raise ArgumentError(f"lanes={lanes!r} are (rows, lanes per row), both 1 or more.")
    rows, width = lanes if lanes is not None else (world, DEFAULT_WIDTH)
    step = (1 if batch_size is None else int(batch_size)) * world
    if step % rows:
        fitting = divisors(step)
        raise ArgumentError(
            f"lanes={lanes!r} cut a step of {step} samples into {rows} rows, which do not fit: choose rows from "
            f"{fitting}.",
            expected=fitting,
            found=rows,
        )
    if not drop_last and world != 1:
        raise ArgumentError(
            f"drop_last=False gives the last step fewer samples, which {world} processes cannot share equally: leave "
            "it out, or read in one process (world=1).",
            expected=1,
            found=world,
        )
    if not drop_last and rows != 1:
        raise ArgumentError(f"drop_last=False needs one row, and lanes={lanes!r} have {rows}.")
    return rows, width, step // rows
