"""Hugging Face: a Trainer that reads a SetaDataset and gives it the per-sample losses back.

Takes a SetaDataset and a function from outputs to losses; gives a transformers.Trainer. Effects: those of the dataset;
one file more in each of the Trainer's checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from seta_stream.errors import ArgumentError, CheckpointError, MissingExtraError

try:
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
    from typing_extensions import override
except ImportError as error:
    raise MissingExtraError.of("seta_stream.adapters.huggingface", "huggingface", error) from error

from seta_stream.adapters.epochs import EpochLoader, state_of_all
from seta_stream.adapters.torch import SetaDataset

STATE_FILE: Final = "seta_stream.json"
"""In each checkpoint folder: the position, and the steps planned for the run."""

IGNORED: Final = -100
"""The label of tokens that have no loss."""

SampleLosses = Callable[[Any, torch.Tensor], torch.Tensor]
"""(the model's outputs, the labels) → one loss per sample: float [samples]."""


def classification_losses(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of each sample: float32 [samples].

    Args:
        outputs: with `logits` [samples, classes].
        labels: int64 [samples].
    """
    return cross_entropy(outputs.logits.float(), labels, reduction="none")


def token_losses(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over the valid tokens of each sample: float32 [samples]; 0 where none is valid.

    For masked models, encoder-decoders and token classification, whose labels lie where their logits are.

    Args:
        outputs: with `logits` [samples, tokens, words].
        labels: int64 [samples, tokens]; −100 is no token.
    """
    return _per_token(outputs.logits, labels)


def causal_losses(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over the valid tokens of each sample, each predicted from those before it.

    Args:
        outputs: with `logits` [samples, tokens, words].
        labels: int64 [samples, tokens], the input itself; −100 is no token.
    """
    return _per_token(outputs.logits[:, :-1], labels[:, 1:])


def _per_token(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # axes: sample × token × word, and sample × token
    each = cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (labels != IGNORED).sum(1).clamp(min=1)


class SetaTrainer(Trainer):
    """A Trainer whose epochs are selected from the losses of the ones before.

    Give it `train_dataset=SetaDataset(...)`, made after the TrainingArguments (which connect the processes) and closed
    by you, as with a `with` block. The loader is not prepared by Accelerate: each process reads its own part of every
    step. `data_collator` gets lists of samples without their `__key__`, `__url__`, `__weight__` and `__index__`, and
    need not keep them; `remove_unused_columns` does not concern the training set.

    `num_train_epochs` counts epochs as selected; the learning rate's schedule gets the steps that are planned for the
    run. An epoch ends with its last whole group of `gradient_accumulation_steps` batches. After
    `train(resume_from_checkpoint=…)` the very next batch follows; `ignore_data_skip` is set then: nothing is to skip.

    Args:
        arguments, options: as for Trainer.
        sample_losses: (outputs, labels) → one loss per sample, as `causal_losses`, `token_losses`,
            `classification_losses`. Models that are no encoder-decoders are called without the labels.

    Raises:
        ArgumentError: the settings contradict each other; each says which to change.

    Source:
        transformers/trainer.py of 5.24: `_inner_training_loop` takes the first epoch's length for all, and counts
        epochs and batches to skip by it; `training_step` divides what compute_loss returns by the accumulated batches
        where `model_accepts_loss_kwargs` is False.
    """

    def __init__(self, *arguments: Any, sample_losses: SampleLosses, **options: Any) -> None:
        # The Trainer's own dozen of parameters, which differ by release.
        super().__init__(*arguments, **options)
        self.sample_losses = sample_losses
        self._planned: int | None = None  # steps of the run, as its first start planned them
        self._is_resumed = False
        self.model_accepts_loss_kwargs = False  # the mean is taken over the batch, and by update()
        check_trainer(self)
        self.add_callback(Positions(self))

    @property
    def seta(self) -> SetaDataset:
        """The training set."""
        dataset = self.train_dataset
        if not isinstance(dataset, SetaDataset):
            raise ArgumentError(
                f"SetaTrainer trains on a SetaDataset, and train_dataset is a {type(dataset).__name__}: use Trainer "
                "for it, or give SetaDataset(urls, batch_size=args.train_batch_size, ...).",
                expected=SetaDataset,
                found=type(dataset),
            )
        return dataset

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader over all epochs of the run: each iteration is the next epoch."""
        args, is_resumed = self.args, self._is_resumed
        self._is_resumed = False
        loader: Any = EpochLoader(  # what the Trainer asks of a DataLoader, it has
            self.seta,
            {
                "collate_fn": Collator(self.data_collator),
                "num_workers": args.dataloader_num_workers,
                "pin_memory": args.dataloader_pin_memory and args.device.type != "cpu",
                "persistent_workers": args.dataloader_persistent_workers,
                "prefetch_factor": args.dataloader_prefetch_factor,
            },
            batch_size=self.seta.stream.batch_size,
            first=lambda: None if is_resumed else 0,
            # A whole window is taken before its first batch is trained on.
            ahead=args.gradient_accumulation_steps,
            window=args.gradient_accumulation_steps,
            epochs=None if args.max_steps > 0 else int(args.num_train_epochs),
        )
        return loader  # type: ignore[no-any-return]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean of weight × loss, and record the losses; in evaluation what Trainer returns."""
        if "__index__" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        ids = inputs["__index__"]
        given = {name: value for name, value in inputs.items() if name != "__index__"}
        if "labels" not in given:
            raise ArgumentError(
                f'The batch has {", ".join(map(repr, given))} and no "labels": let data_collator make them, or give a '
                "subclass a compute_loss that calls self.seta.update(ids, losses).",
                expected="labels",
                found=list(given),
            )
        labels = given["labels"]
        if not getattr(getattr(self.model, "config", None), "is_encoder_decoder", False):
            del given["labels"]  # or the model would compute its mean loss too
        outputs = model(**given)
        loss = self.seta.update(ids, self.sample_losses(outputs, labels))
        return (loss, outputs) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the schedule over the steps that are planned; the Trainer's number counts full epochs."""
        if self._planned is None and self.args.max_steps <= 0:
            planned = self.seta.steps(int(self.args.num_train_epochs))
            self._planned = max(1, -(-planned // self.args.gradient_accumulation_steps))
        return super().create_scheduler(self._planned or num_training_steps, optimizer)

    def train(self, resume_from_checkpoint: str | bool | None = None, *arguments: Any, **options: Any) -> Any:
        """Train as Trainer does.

        Raises:
            CheckpointError: the checkpoint folder has no position of SetaDataset, or one of another run.
        """
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
        if folder:
            saved = read_state(str(folder))
            self.seta.load_state_dict(saved["dataset"])
            self._planned, self._is_resumed = saved["planned_steps"], True
            self.args.ignore_data_skip = True
        return super().train(folder or resume_from_checkpoint, *arguments, **options)

    def save_position(self, folder: Path, *, is_writing: bool) -> None:
        """Write the position into a checkpoint folder; called in every process, where one writes."""
        state = state_of_all(self.seta)
        if is_writing:
            draft = folder / f".{STATE_FILE}"
            draft.write_text(json.dumps({"dataset": state, "planned_steps": self._planned}))
            draft.replace(folder / STATE_FILE)


def check_trainer(trainer: SetaTrainer) -> None:
    """Refuse settings of a Trainer that contradict SetaDataset.

    Raises:
        ArgumentError: naming the setting to change.
    """
    args, dataset = trainer.args, trainer.seta
    config: Any = args.accelerator_config
    lost = "the losses it learns from would go elsewhere: give sample_losses="
    refused = [
        (config.dispatch_batches, "AcceleratorConfig(dispatch_batches=True)",
         "one process would read for all: give TrainingArguments(accelerator_config={'dispatch_batches': False})"),
        (config.split_batches, "AcceleratorConfig(split_batches=True)",
         "each process has batches of its own: give TrainingArguments(accelerator_config={'split_batches': False})"),
        (args.auto_find_batch_size, "auto_find_batch_size=True", "the plan needs one batch size: choose it"),
        (trainer.compute_loss_func is not None, "compute_loss_func=", lost),
        (args.label_smoothing_factor, f"label_smoothing_factor={args.label_smoothing_factor}", lost),
        (args.max_steps <= 0 and args.num_train_epochs % 1, f"num_train_epochs={args.num_train_epochs}",
         "epochs differ in length: give a whole number, or max_steps"),
        (dataset.is_batched, "SetaDataset(batches=True)",
         "data_collator takes single samples: leave batches out"),
    ]  # fmt: skip
    for is_wrong, what, why in refused:
        if is_wrong:
            raise ArgumentError(f"SetaTrainer cannot train with {what}, since {why}.", found=what)
    planned = dataset.stream.session.geometry.global_batch
    trained = trainer.get_total_train_batch_size(args) // args.gradient_accumulation_steps
    if planned != trained:
        raise ArgumentError(
            f"The Trainer takes {trained} samples a step and SetaDataset plans {planned}: give SetaDataset "
            "batch_size=args.train_batch_size, and make it after the TrainingArguments, which connect the processes.",
            expected=planned,
            found=trained,
        )
    is_kept = dataset.stream.session.memory.generations is not None
    saves = args.save_strategy != "no" and not args.save_only_model
    if saves and not is_kept and getattr(dataset.stream.policy, "needs_losses", True):
        raise ArgumentError(
            "The Trainer saves checkpoints, and the losses that later epochs are selected from live in memory only: "
            "give SetaDataset state= a folder, or TrainingArguments save_strategy='no' or save_only_model=True."
        )


def read_state(folder: str) -> dict[str, Any]:
    """Return what a checkpoint folder holds of ours.

    Raises:
        CheckpointError: nothing, or something else.
    """
    path = Path(folder) / STATE_FILE
    try:
        saved = json.loads(path.read_bytes())
        return {name: saved[name] for name in ("dataset", "planned_steps")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}): the checkpoint is not whole, or not of a "
            "SetaTrainer. Resume from an older one."
        ) from error


@dataclass(frozen=True)
class Collator:
    """Takes the ids out of samples, lets `inner` make a batch of the fields, and puts them back.

    Args:
        inner: list of dicts of fields → batch, as the Trainer's `data_collator`.
    """

    inner: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Return a batch with "__index__": int64 [samples]."""
        fields = [{name: value for name, value in one.items() if not name.startswith("__")} for one in samples]
        batch = self.inner(fields)
        batch["__index__"] = torch.from_numpy(np.asarray([one["__index__"] for one in samples], np.int64))
        return batch


class Positions(TrainerCallback):
    """Tells the Trainer where its epochs end, and keeps the position with its checkpoints.

    Args:
        trainer: whose callback this is.
    """

    def __init__(self, trainer: SetaTrainer) -> None:
        self._trainer = trainer

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> TrainerControl:
        """Correct the epoch that logs show, and end an epoch with its last window."""
        loader: EpochLoader = others["train_dataloader"]
        state.epoch = loader.done
        control.should_epoch_stop = control.should_epoch_stop or loader.is_epoch_over
        return control

    @override
    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> TrainerControl:
        """End the run with its last epoch, saved and evaluated as the Trainer does at its last step."""
        loader: EpochLoader = others["train_dataloader"]
        if not loader.is_over or control.should_training_stop:
            return control
        control.should_training_stop = True
        if args.save_strategy == "steps" and state.global_step % state.save_steps:
            control.should_save = True
        if args.eval_strategy == "steps" and state.global_step % state.eval_steps:
            control.should_evaluate = True
        return control

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Write the position into the checkpoint: every process tells it, one writes."""
        if not args.save_only_model:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self._trainer.save_position(folder, is_writing=args.should_save)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """End the workers."""
        others["train_dataloader"].close()
