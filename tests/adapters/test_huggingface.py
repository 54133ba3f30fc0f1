"""SetaTrainer: transformers' own loop over selected epochs, with per-sample losses back and checkpoints anywhere."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_corpora import MakeCorpus
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from seta_stream import Full, SeTa
from seta_stream.adapters.huggingface import (
    SetaTrainer,
    causal_losses,
    classification_losses,
    token_losses,
)
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import ArgumentError, CheckpointError, LossError

BATCH, EPOCHS = 8, 4

pytestmark = [
    # This machine has two cores, and more workers than cores are no matter here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(5, 41)


def decode(field: str, data: bytes) -> Any:
    return int(data)


def loss_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids * 37 % 101).float() / 10 + 0.1


class Model(torch.nn.Module):
    """Scores that follow from the ids, so that every run selects alike, and weights that follow from the order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, numbers: torch.Tensor) -> Any:
        return SimpleNamespace(numbers=numbers, out=self.layer(self.drop(numbers[:, None].float() / 100)).squeeze(1))


def sample_losses(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    assert torch.equal(outputs.numbers, labels)
    learned = outputs.out**2
    return loss_of(labels) + learned - learned.detach()  # the value is the ids', the gradient the model's


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    assert sorted(samples[0]) == ["cls", "txt"]
    numbers = torch.tensor([sample["txt"] for sample in samples])
    return {"numbers": numbers, "labels": numbers.clone()}


class Watching(SetaTrainer):
    """Notes every batch by epoch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen: dict[int, list[list[int]]] = {}

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        ids = inputs["__index__"].tolist()
        assert inputs["numbers"].tolist() == ids
        self.seen.setdefault(self.seta.stream.epoch, []).append(ids)
        return super().compute_loss(model, inputs, *arguments, **options)


class StopAt(TrainerCallback):
    """Fails after so many steps of the run, as a machine would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.steps:
            raise RuntimeError("the machine stops")


def arguments_of(folder: Path, **options: Any) -> TrainingArguments:
    options = {"num_train_epochs": EPOCHS, "save_strategy": "no", "learning_rate": 1e-3} | options
    return TrainingArguments(
        str(folder / "out"), per_device_train_batch_size=BATCH, use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="epoch", **options,
    )  # fmt: skip


def dataset_of(shards: list[str], state: Path | None, **options: Any) -> SetaDataset:
    options = {"policy": SeTa(num_epochs=EPOCHS, target=0.4), "decode": decode, "seed": 2} | options
    return SetaDataset(shards, batch_size=BATCH, state=None if state is None else str(state), **options)


def train(shards: list[str], folder: Path, resume: Any = None, stop: int | None = None, **options: Any) -> Watching:
    """Train once, in the manner of the documentation."""
    arguments = arguments_of(folder, **options)
    stops = nullcontext() if stop is None else pytest.raises(RuntimeError, match="the machine stops")
    with stops, dataset_of(shards, folder / "s") as dataset:
        trainer = Watching(
            Model(), arguments, train_dataset=dataset, data_collator=collate, sample_losses=sample_losses,
            callbacks=[] if stop is None else [StopAt(stop)],
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture
def reference(shards: list[str], tmp_path: Path) -> dict[int, list[list[int]]]:
    """What a plain loop of torch sees."""
    seen: dict[int, list[list[int]]] = {}
    with dataset_of(shards, tmp_path / "reference") as dataset:
        loader = DataLoader(dataset, batch_size=BATCH)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                dataset.update(batch["__index__"], loss_of(batch["__index__"]))
                seen.setdefault(epoch, []).append(batch["__index__"].tolist())
    assert len(seen[1]) < len(seen[0])
    return seen


def flat(seen: dict[int, list[list[int]]]) -> list[list[int]]:
    return [batch for epoch in sorted(seen) for batch in seen[epoch]]


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_are_those_of_a_plain_loop(
    shards: list[str], tmp_path: Path, reference: dict[int, Any], workers: int
) -> None:
    """The very same batches; the log tells whole epochs; the rate comes down to zero with the last planned step."""
    trainer = train(shards, tmp_path, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0)
    assert trainer.seen == reference
    assert trainer.state.global_step == len(flat(reference))
    epochs = [line["epoch"] for line in trainer.state.log_history if "loss" in line]
    assert epochs == [1, 2, 3, 4]
    planned = trainer.seta.steps(EPOCHS)
    assert trainer.lr_scheduler.get_last_lr()[0] <= 1e-3 * (planned.margin + 1) / planned


def test_accumulated_batches(shards: list[str], tmp_path: Path, reference: dict[int, Any]) -> None:
    """An epoch ends with its last whole window, no gradient is carried over, and the mean is over the window."""
    trainer = train(shards, tmp_path, gradient_accumulation_steps=3)
    first = reference[0][: len(reference[0]) // 3 * 3]
    assert trainer.seen[0] == first
    assert len(first) < len(reference[0])
    assert all(len(batches) % 3 == 0 for batches in trainer.seen.values())
    assert trainer.state.global_step == len(flat(trainer.seen)) // 3
    logged = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    assert logged == pytest.approx(loss_of(torch.tensor(flat({0: first}))).mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("window", "step"), [(1, 7), (1, "end of the first epoch"), (1, "inside a later one"), (3, 4), (3, 8)], ids=str
)
def test_a_resumed_run_is_the_uninterrupted_one(
    shards: list[str], tmp_path: Path, reference: dict[int, Any], window: int, step: int | str
) -> None:
    """From a checkpoint at any step the very next batch follows, and the weights end the same, bit for bit."""
    named = {"end of the first epoch": len(reference[0]), "inside a later one": len(reference[0]) + 5}
    at = step if isinstance(step, int) else named[step]
    options = {"gradient_accumulation_steps": window}
    whole = train(shards, tmp_path / "whole", **options)
    saving = options | {"save_strategy": "steps", "save_steps": at}
    train(shards, tmp_path, stop=at + 1, **saving)
    after = train(shards, tmp_path, resume=True, **saving)
    assert flat(after.seen) == flat(whole.seen)[at * window :]
    assert after.state.global_step == whole.state.global_step
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, after.model.state_dict()[name]), name
    assert after.lr_scheduler.get_last_lr() == whole.lr_scheduler.get_last_lr()


def test_an_epochs_checkpoint_goes_on_with_the_next_epoch(
    shards: list[str], tmp_path: Path, reference: dict[int, Any]
) -> None:
    """save_strategy="epoch" holds the losses of its epoch, and a run that is over trains on nothing more."""
    stop = len(reference[0]) + len(reference[1]) + 2
    train(shards, tmp_path, stop=stop, save_strategy="epoch")
    after = train(shards, tmp_path, resume=True, save_strategy="epoch")
    assert after.seen == {2: reference[2], 3: reference[3]}
    again = train(shards, tmp_path, resume=True, save_strategy="epoch")
    assert again.seen == {}
    assert again.state.global_step == len(flat(reference))


def test_a_run_counted_in_steps(shards: list[str], tmp_path: Path, reference: dict[int, Any]) -> None:
    """max_steps takes as many epochs as it needs, resumed or not."""
    steps = len(flat(reference)) - 3
    whole = train(shards, tmp_path / "whole", max_steps=steps)
    assert flat(whole.seen) == flat(reference)[:steps]
    at = len(reference[0]) + 2
    train(shards, tmp_path, stop=at + 1, max_steps=steps, save_strategy="steps", save_steps=at)
    after = train(shards, tmp_path, resume=True, max_steps=steps)
    assert flat(after.seen) == flat(reference)[at:steps]


def test_the_end_is_saved_and_a_second_training_begins_anew(
    shards: list[str], tmp_path: Path, reference: dict[int, Any]
) -> None:
    """The last step has its checkpoint, as with Trainer; train() without a checkpoint starts at epoch 0."""
    arguments = arguments_of(tmp_path, save_strategy="steps", save_steps=1_000)
    with dataset_of(shards, tmp_path / "s") as dataset:
        trainer = Watching(
            Model(), arguments, train_dataset=dataset, data_collator=collate, sample_losses=sample_losses
        )
        trainer.train()
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"checkpoint-{len(flat(reference))}"]
        assert trainer.seen == reference
        trainer.seen.clear()
        trainer.train()
    assert trainer.seen == reference


def test_a_checkpoint_without_a_position_is_refused(shards: list[str], tmp_path: Path) -> None:
    """A folder of another Trainer, or one that was cut off, is named with what to do."""
    train(shards, tmp_path, stop=4, save_strategy="steps", save_steps=3)
    path = tmp_path / "out" / "checkpoint-3" / "seta_stream.json"
    assert json.loads(path.read_bytes())["dataset"]["step"] == 3
    path.write_text('{"dataset"')
    with pytest.raises(CheckpointError, match=r"seta_stream.json cannot be read \(JSONDecodeError.*not whole"):
        train(shards, tmp_path, resume=True)
    path.unlink()
    with pytest.raises(CheckpointError, match="Resume from an older one"):
        train(shards, tmp_path, resume=True)


def test_a_policy_without_losses_needs_no_state(shards: list[str], tmp_path: Path) -> None:
    """Full saves and resumes with losses in memory only."""
    options: dict[str, Any] = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 30}
    seen = []
    for resume in (None, True):
        with dataset_of(shards, None, policy=Full()) as dataset:
            trainer = Watching(
                Model(), arguments_of(tmp_path, **options), train_dataset=dataset, data_collator=collate,
                sample_losses=sample_losses, callbacks=[] if resume else [StopAt(31)],
            )  # fmt: skip
            if resume:
                trainer.train(resume_from_checkpoint=True)
            else:
                with pytest.raises(RuntimeError, match="the machine stops"):
                    trainer.train()
        seen.append(trainer.seen)
    assert seen[1][1][0] == seen[0][1][5]
    assert len(seen[1][1]) == 2 * 25 - 30


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accelerator_config": {"dispatch_batches": True}}, r"dispatch_batches=True\), since one process would read"),
        ({"accelerator_config": {"split_batches": True}}, r"split_batches=True\), since each process has batches"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size=True, since the plan needs one batch size"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1, since the losses it learns from"),
        ({"num_train_epochs": 2.5}, "num_train_epochs=2.5, since epochs differ in length"),
        ({"save_strategy": "epoch"}, "live in memory only: give SetaDataset state= a folder"),
    ],
    ids=str,
)
def test_settings_that_contradict_the_plan_are_refused(
    shards: list[str], tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    """Each is named, with the setting to change, before anything is trained."""
    with pytest.raises(ArgumentError, match=text):
        trainer_over(dataset_of(shards, None), tmp_path, **options)


def trainer_over(dataset: Any, folder: Path, more: dict[str, Any] | None = None, **options: Any) -> SetaTrainer:
    model = Model()
    model.config = SimpleNamespace(problem_type=None, use_cache=False, is_encoder_decoder=False)
    return SetaTrainer(
        model, arguments_of(folder, **options), train_dataset=dataset, data_collator=collate,
        sample_losses=sample_losses, **more or {},
    )  # fmt: skip


def test_other_datasets_and_batches_are_refused(shards: list[str], tmp_path: Path) -> None:
    """Another dataset, another batch size, ready batches, a second loss function, too long a window, no labels."""
    with pytest.raises(ArgumentError, match="trains on a SetaDataset, and train_dataset is a list"):
        trainer_over([1, 2], tmp_path)
    with pytest.raises(ArgumentError, match="takes 8 samples a step and SetaDataset plans 4: give SetaDataset"):
        trainer_over(SetaDataset(shards, batch_size=4), tmp_path)
    with pytest.raises(ArgumentError, match=r"SetaDataset\(batches=True\), since data_collator takes single samples"):
        trainer_over(SetaDataset(shards, batch_size=BATCH, batches=True), tmp_path)
    with pytest.raises(ArgumentError, match="compute_loss_func=, since the losses it learns from would go elsewhere"):
        trainer_over(dataset_of(shards, None), tmp_path, {"compute_loss_func": print})
    with pytest.raises(ArgumentError, match="The epoch has 25 batches and each step of the optimizer takes 26"):
        trainer_over(dataset_of(shards, None), tmp_path, gradient_accumulation_steps=26).train()
    trainer = trainer_over(dataset_of(shards, None), tmp_path)
    trainer.data_collator = lambda samples: {"numbers": torch.zeros(len(samples))}
    with pytest.raises(ArgumentError, match="The batch has 'numbers' and no \"labels\""):
        trainer.train()


def test_a_loss_that_goes_elsewhere_is_noticed(shards: list[str], tmp_path: Path) -> None:
    """A subclass that trains without update() ends at the second step."""

    class Silent(SetaTrainer):
        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            return model(inputs["numbers"]).out.mean()

    dataset = dataset_of(shards, None)
    trainer = Silent(
        Model(), arguments_of(tmp_path), train_dataset=dataset, data_collator=collate, sample_losses=sample_losses
    )
    with pytest.raises(LossError, match="1 batches were trained on and none of their losses came back"):
        trainer.train()


def text_batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    tokens = torch.randint(0, 50, (4, 12))
    labels = tokens.clone()
    labels[0, 5:] = labels[2, :3] = -100
    return tokens, labels


def test_losses_of_texts_are_those_of_the_model() -> None:
    """Text by text, a causal model's own loss; all −100 is 0; token_losses leaves labels where they are."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=1)).eval()
    tokens, labels = text_batch()
    with torch.no_grad():
        outputs = model(tokens)
        each = causal_losses(outputs, labels)
        own = [model(tokens[i : i + 1], labels=labels[i : i + 1]).loss for i in range(4)]
    assert each.tolist() == pytest.approx([value.item() for value in own])
    assert causal_losses(outputs, torch.full_like(labels, -100)).tolist() == [0] * 4
    shifted = token_losses(SimpleNamespace(logits=outputs.logits[:, :-1]), labels[:, 1:])
    assert shifted.tolist() == each.tolist()


def test_losses_of_classes_are_those_of_the_model() -> None:
    """Their mean is the model's own loss."""
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=3
    )
    model = BertForSequenceClassification(config).eval()
    tokens, labels = text_batch()[0], torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        outputs = model(tokens, labels=labels)
    assert classification_losses(outputs, labels).mean().item() == pytest.approx(outputs.loss.item())


def collate_tokens(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    tokens = torch.tensor([[sample["txt"] % 50, sample["txt"] // 50, sample["cls"]] for sample in samples])
    return {"input_ids": tokens, "labels": tokens.clone()}


def test_evaluation_is_the_trainers_own(shards: list[str], tmp_path: Path) -> None:
    """A real model, evaluated each epoch on an ordinary set: its own mean loss, which no policy sees."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=4, n_embd=8, n_layer=1, n_head=1))
    held = [{"txt": number, "cls": 3} for number in range(5)]
    options: dict[str, Any] = {"eval_strategy": "epoch", "num_train_epochs": 2, "remove_unused_columns": False}
    with dataset_of(shards, tmp_path / "s") as dataset:
        trainer = SetaTrainer(
            model, arguments_of(tmp_path, **options), train_dataset=dataset, eval_dataset=held,
            data_collator=collate_tokens, sample_losses=causal_losses,
        )  # fmt: skip
        trainer.train()
        assert dataset.stats.recorded == dataset.stats.samples
    told = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    with torch.no_grad():
        own = model(**collate_tokens(held)).loss.item()
    assert told[-1] == pytest.approx(own)
    assert len(told) == 2


def test_a_plain_trainer_would_count_wrongly(shards: list[str], tmp_path: Path) -> None:
    """Why SetaTrainer is there: Trainer's own loader is prepared by Accelerate, which check_loader refuses."""
    from seta_stream.adapters.accelerate import check_loader

    trainer = Trainer(Model(), arguments_of(tmp_path), train_dataset=dataset_of(shards, None), data_collator=collate)
    with pytest.raises(ArgumentError, match=r"DataLoaderConfiguration\(dispatch_batches=False\)"):
        check_loader(trainer.get_train_dataloader())
