"""Loss weights on a device: looked up by id, without waiting for it.

Takes the weights that a rank knows; gives tensors. Effects: memory on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from seta_stream.plan.weights import Weights

_NOWHERE: Final = -(1 << 62)


class DeviceWeights:
    """The lookup of `Weights` for ids that lie on a device.

    Which ids are wrong cannot be told without waiting for the device, so those of samples that another rank reads have
    the weight 0 here; `Weights.of` refuses them.

    Args:
        weights: of the epoch that is set.
        device: where the ids lie.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._source, self._device = weights, device
        # The last place, which −1 means too, holds 0: for every id that has no other.
        table = np.append(np.nan_to_num(weights.table, nan=0.0), np.float32(0))
        self._table = torch.from_numpy(table).to(device)
        self._bounds: torch.Tensor | None = None
        self._shift: torch.Tensor | None = None
        if not weights.is_by_id:
            self._bounds = torch.from_numpy(weights.first_id.copy()).to(device)
            # What is added to an id gives its place; before and after the corpus, and where none is held, far below 0.
            shift = np.where(weights.base >= 0, weights.base - weights.first_id[:-1], _NOWHERE)
            self._shift = torch.from_numpy(np.concatenate([[_NOWHERE], shift, [_NOWHERE]])).to(device)

    def is_of(self, weights: Weights, device: torch.device) -> bool:
        """Say whether it was made of these weights, for this device."""
        return self._source is weights and self._device == device

    def of(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the weights of ids: float32 [ids], 0 for the id −1 and where this rank knows none."""
        places = ids
        if self._bounds is not None and self._shift is not None:
            places = ids + self._shift[torch.searchsorted(self._bounds, ids, right=True)]
        return self._table[places.clamp(-1, len(self._table) - 1)]
