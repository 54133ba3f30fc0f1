"""Lightning: a data module whose epochs are selected from the losses of the ones before.

Takes the options of SetaStream; gives a LightningDataModule. Effects: those of the stream; Lightning's checkpoints hold
the position in the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack

from seta_stream.errors import ArgumentError, MissingExtraError

try:
    import torch

    try:
        from lightning.pytorch import LightningDataModule
    except ModuleNotFoundError:  # the same code under its older name
        from pytorch_lightning import LightningDataModule  # type: ignore[assignment]
except ImportError as error:
    raise MissingExtraError.of("SetaDataModule", "lightning", error) from error

from seta_stream.adapters.epochs import EpochLoader, check_loader_options, state_of_all
from seta_stream.adapters.torch import SetaDataset
from seta_stream.options import StreamOptions
from seta_stream.policies import Full, as_policy

AHEAD: Final = 2
"""Lightning has trained on the first batch when it asks for the third: it fetches one ahead."""


class SetaDataModule(LightningDataModule):
    """The training samples of SetaStream for a Lightning Trainer, in one process or, under DDP, in many.

    Call `self.trainer.datamodule.update(batch["__index__"], losses)` in each training_step, and return what it gives.
    Each epoch is selected as Lightning begins it; the last is committed when `fit` ends. A checkpoint of Lightning's
    holds the position, and `fit(ckpt_path=…)` goes on with the very next batch.

    Validation is Lightning's own: give a subclass a `val_dataloader` method.

    Epochs have different lengths, and Lightning asks for a length once: the loader has none. So `limit_train_batches`
    and `val_check_interval` are numbers of batches (or 1.0), and `trainer.estimated_stepping_batches` knows nothing:
    `datamodule.dataset.steps(epochs)` does.

    Args:
        urls: as for SetaStream.
        batch_size: samples per step of each process.
        loader: options of the DataLoader, as {"num_workers": 4, "persistent_workers": True}; with a "collate_fn" it
            gets lists of samples, else the batches are stacked as SetaDataset(batches=True) does.
        options: the other options of SetaStream.

    Raises:
        ArgumentError: `loader` names an option that follows from the dataset.

    Source:
        lightning/pytorch/loops/fit_loop.py (setup_data) and training_epoch_loop.py (on_run_start) of Lightning 2.6: a
        length would bound all later epochs (`CombinedLoader.limits`), and after a resume in the middle of an epoch
        be compared with the batches of the whole epoch.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        batch_size: int,
        loader: Mapping[str, Any] | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        super().__init__()
        check_loader_options(loader or {})
        self._urls, self._batch_size, self._options = urls, batch_size, options
        self._loader_options = dict(loader or {})
        self._dataset: SetaDataset | None = None
        self._epochs: EpochLoader | None = None
        self._is_open = self._is_loaded = False

    @property
    def dataset(self) -> SetaDataset:
        """The dataset of the run: for `stats`, `steps()` and `progress`. There is one from `setup("fit")` on.

        Raises:
            ArgumentError: before.
        """
        if self._dataset is None:
            raise ArgumentError(
                "SetaDataModule has no dataset yet: Lightning makes it in fit(), once its processes know each other. "
                "Use it from the module's own setup() or configure_optimizers() on."
            )
        return self._dataset

    def update(self, ids: torch.Tensor, loss: torch.Tensor, **recorded: torch.Tensor) -> torch.Tensor:
        """Record a batch's losses and return the mean of weight × loss, as SetaDataset.update does."""
        return self.dataset.update(ids, loss, **recorded)

    # ---- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Make the dataset, in every process, when the strategy has connected them.

        Raises:
            ArgumentError: checkpoints will be saved that nothing could go on from.
        """
        if stage != "fit":
            return
        saves = self.trainer is not None and self.trainer.checkpoint_callbacks
        policy = as_policy(self._options.get("policy", Full()))
        if saves and self._options.get("state") is None and getattr(policy, "needs_losses", True):
            raise ArgumentError(
                "Lightning saves checkpoints, and the losses that later epochs are selected from would live in memory "
                "only: give SetaDataModule state= a folder, or Trainer enable_checkpointing=False."
            )
        self._dataset = SetaDataset(
            self._urls, batch_size=self._batch_size, batches="collate_fn" not in self._loader_options, **self._options
        )
        self._epochs, self._is_open, self._is_loaded = None, True, False

    def train_dataloader(self) -> EpochLoader:
        """Return the loader, one for all epochs: each iteration is the next epoch."""
        if self._epochs is None:
            size = self._batch_size if "collate_fn" in self._loader_options else None
            self._epochs = EpochLoader(
                self.dataset, self._loader_options, batch_size=size, first=self._first_epoch, ahead=AHEAD
            )
        return self._epochs

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run, for Lightning's checkpoint; nothing when the run has ended, and is committed.

        Lightning calls it in every process and saves the first one's, once all have kept their losses.
        """
        if not self._is_open:
            return {}
        return state_of_all(self.dataset)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was made, in every process."""
        if self._is_open:
            self.dataset.load_state_dict(state_dict)
            self._is_loaded = True

    def teardown(self, stage: str) -> None:
        """Commit the last epoch."""
        if stage == "fit":
            self._end(None)

    def on_exception(self, exception: BaseException) -> None:
        """Commit nothing, and keep the losses recorded so far aside."""
        self._end(exception)

    def _end(self, error: BaseException | None) -> None:
        if self._epochs is not None:
            self._epochs.close()
        if self._is_open and self._dataset is not None:
            self._is_open = False
            self._dataset.__exit__(type(error) if error is not None else None, error, None)

    def _first_epoch(self) -> int | None:
        """Return None where a position was loaded; else what Lightning says, which goes on after a run that ended."""
        if self._is_loaded or self.trainer is None:
            return None
        return self.trainer.current_epoch
