"""What one call of record() brings, checked: ids and losses that can be kept.

Takes ids and losses in any array, of any framework; gives rounded finite float32 losses and their ids. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import LossError
from seta_stream.losses.histogram import round_losses

_ARRAY_CODES: Final = {int: "q", float: "d"}
_UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Recorded(NamedTuple):
    """What can be kept of one call.

    Args:
        ids: integers [n] of the corpus, none of them -1.
        losses: float32 [n], rounded and finite.
        others: what was recorded beside the losses, by name: [n] each.
        bad_losses: NaN and infinite losses that were refused.
    """

    ids: NDArray[Any]
    losses: NDArray[np.float32]
    others: dict[str, NDArray[Any]]
    bad_losses: int = 0


def check_recorded(
    ids: object,
    losses: object,
    recorded: Mapping[str, object],
    total: int,
    takes: Sequence[str],
    *,
    takes_means: bool,
) -> Recorded:
    """Return what a call of record() brings.

    Args:
        ids: integers [n] of any dtype that can count to the last id; -1 stands for no sample and is left out.
        losses: numbers [n] of any float dtype, one per id; or one for all, where `takes_means`.
        recorded: what else was given, by name.
        total: samples of the corpus.
        takes: the names that the policy's columns ask for.
        takes_means: whether one loss may stand for all.

    Raises:
        LossError: as LossTable.record tells.
    """
    id_array = _ids(ids, total)
    loss_array = _losses(losses)
    if takes_means and loss_array.shape == (1,):
        loss_array = np.repeat(loss_array, id_array.size)
    if id_array.shape != loss_array.shape:
        raise LossError(
            f"Cannot record losses: {shape_of(id_array)} ids came with {shape_of(loss_array)} losses. Give one loss "
            'per id: take the loss with reduction="none" and, for sequences, its mean per sample.',
            expected=id_array.shape,
            found=loss_array.shape,
        )
    others = _others(recorded, len(id_array), takes) if recorded else {}
    if not len(id_array):
        return Recorded(id_array, loss_array, others)
    # Seen as unsigned, -1 and all below lie beyond any id, so one comparison checks both ends.
    if np.maximum.reduce(id_array.view(_UNSIGNED[id_array.itemsize])) >= total:
        check_ids(id_array, total)
        id_array, loss_array, others = _only(id_array >= 0, id_array, loss_array, others)
    rounded, bad = round_losses(loss_array), 0
    finite = np.isfinite(rounded)
    if not np.logical_and.reduce(finite):
        bad = int(np.count_nonzero(~finite))
        id_array, rounded, others = _only(finite, id_array, rounded, others)
    return Recorded(id_array, rounded, others, bad)


def check_ids(ids: NDArray[Any], total: int) -> None:
    """Refuse ids that the corpus does not have; -1 is none and passes.

    Args:
        ids: integers [n].
        total: samples of the corpus.

    Raises:
        LossError: naming the first that is wrong.
    """
    outside = (ids < -1) | (ids >= total) if ids.dtype.kind == "i" else ids >= total
    if outside.any():
        wrong = int(ids[outside][0])
        raise LossError(
            f"Cannot record losses: id {wrong} is none of the corpus, whose ids run from 0 to {total - 1} "
            '(-1 is ignored). Pass the "__index__" of each sample as it came.',
            expected=total - 1,
            found=wrong,
        )


def _others(recorded: Mapping[str, object], count: int, takes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return what is recorded beside the losses as arrays [count]."""
    others = {}
    for name, given in recorded.items():
        if name not in takes:
            known = f"the policy asks for {', '.join(takes)}" if takes else "the policy asks for nothing"
            raise LossError(
                f"Cannot record {name}=: {known} beside the losses. Leave it out, or give the policy that uses it.",
                expected=takes,
                found=name,
            )
        others[name] = _array(given, name)
        if others[name].dtype.kind not in "biuf":
            raise LossError(
                f"Cannot record {name}=: it is {others[name].dtype}, and columns hold numbers. Pass integers, as "
                "the numbers of the classes.",
                expected="integers",
                found=str(others[name].dtype),
            )
        if others[name].shape != (count,):
            raise LossError(
                f"Cannot record {name}=: {shape_of(others[name])} values came with {count} ids. Give one per id.",
                expected=(count,),
                found=others[name].shape,
            )
    return others


def _only(
    usable: NDArray[np.bool_], ids: NDArray[Any], losses: NDArray[Any], extras: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
    return ids[usable], losses[usable], {name: values[usable] for name, values in extras.items()}


def _ids(given: object, total: int) -> NDArray[Any]:
    ids = _array(given, "ids")
    if not ids.size:
        return ids.astype(np.int64)
    kind = ids.dtype.kind
    if kind not in "iu":
        raise LossError(
            f"Cannot record losses: ids are {ids.dtype}, and only integers count samples exactly. Pass the "
            '"__index__" of each sample as it came (int64), apart from the losses.',
            expected="int64",
            found=str(ids.dtype),
        )
    if 1 << (8 * ids.itemsize - (kind == "i")) < total:
        raise LossError(
            f"Cannot record losses: ids are {ids.dtype}, which cannot count the corpus's {total} samples. "
            "Pass them as int64.",
            expected="int64",
            found=str(ids.dtype),
        )
    return ids if ids.dtype.isnative else ids.astype(ids.dtype.newbyteorder("="))


def _losses(given: object) -> NDArray[np.float32]:
    losses = _array(given, "losses")
    if losses.dtype == np.float32:  # false for the other byte order too
        return losses
    # Narrow floats that numpy does not know (bfloat16 by ml_dtypes) are of kind V, and convert.
    if losses.dtype.kind not in "fiu" and "float" not in losses.dtype.name:
        raise LossError(
            f"Cannot record losses: they are {losses.dtype}, not numbers. Pass one float per sample.",
            expected="float32",
            found=str(losses.dtype),
        )
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is counted as a bad loss
        return losses.astype(np.float32)


def _array(given: Any, what: str) -> NDArray[Any]:
    if isinstance(given, np.ndarray):
        return np.atleast_1d(given)
    if hasattr(given, "detach"):  # a torch tensor, known without importing torch
        tensor = given.detach().cpu()
        # bfloat16 and the narrower ones are unknown to numpy
        return np.atleast_1d((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    if isinstance(given, (list, tuple)) and given:
        if hasattr(given[0], "detach"):
            given = [value.item() for value in given]
        # Twice as fast as numpy, which looks at every element twice; what does not fit is left to numpy.
        code = _ARRAY_CODES.get(type(given[0]))
        if code is not None:
            with suppress(TypeError, OverflowError):
                return np.frombuffer(array(code, given), code)
    try:
        return np.atleast_1d(np.asarray(given))
    except (TypeError, ValueError) as error:
        raise LossError(
            f"Cannot record losses: {what} are a {type(given).__name__} that does not convert to an array ({error}). "
            "Pass a numpy array, a tensor or a flat list."
        ) from error


def shape_of(array: NDArray[Any]) -> str:
    """Return an array's shape for a message."""
    return " x ".join(map(str, array.shape))
