"""The webdataset package: its fluent pipeline over the samples that a policy selects.

Takes the options of SetaStream; gives a pipeline. Effects: those of the stream, in the main process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from seta_stream.errors import MissingExtraError

try:
    import torch
    import webdataset
    from webdataset.compat import FluidInterface
except ImportError as error:
    raise MissingExtraError.of("SetaWebDataset", "webdataset", error) from error

from seta_stream.adapters.torch import SetaDataset
from seta_stream.options import StreamOptions
from seta_stream.schedule import Steps
from seta_stream.stats import Stats


class SetaWebDataset(webdataset.DataPipeline, FluidInterface):  # type: ignore[misc]  # the package has no types
    """In the place of webdataset.WebDataset(urls): decode, map, to_tuple, batched and the others work as they do there.

    Samples are dicts of bytes, with "__index__" (the id) and "__weight__" beside the package's own keys: carry
    "__index__" through the pipeline, and give it to `update` with the losses.

    Args:
        urls: as for SetaStream.
        batch_size: samples per step: what `.batched()` is given.
        options: the other options of SetaStream.
    """

    def __init__(self, urls: str | Sequence[str], *, batch_size: int, **options: Unpack[StreamOptions]) -> None:
        self.source = SetaDataset(urls, batch_size=batch_size, **options)
        super().__init__(self.source)

    def set_epoch(self, epoch: int) -> None:
        """Commit the losses recorded so far and select what the epoch reads."""
        self.source.set_epoch(epoch)

    def update(self, ids: torch.Tensor | Sequence[int], loss: torch.Tensor, **recorded: torch.Tensor) -> torch.Tensor:
        """Record a step's losses and return the mean of weight × loss, as SetaDataset.update does."""
        return self.source.update(ids, loss, **recorded)

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the position as plain values."""
        return self.source.state_dict(step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.source.load_state_dict(state_dict)

    @property
    def stats(self) -> Stats:
        """Counts of the epoch that is set."""
        return self.source.stats

    def steps(self, epochs: int) -> Steps:
        """Return the steps of the run's first `epochs` epochs."""
        return self.source.steps(epochs)

    @property
    def progress(self) -> float:
        """Samples consumed over samples planned for the run, 0 … 1."""
        return self.source.progress

    def close(self) -> None:
        """Commit the last epoch."""
        self.source.close()
