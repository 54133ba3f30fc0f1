"""docs/frameworks.md: each framework trains a small network on pictures for three epochs, alone on one CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from block_corpora import decode_flat, history_of, write_pictures

from seta_stream import SeTa, SetaStream

ALONE = {
    "frameworks": ("PyTorch DDP", "Lightning", "Hugging Face Trainer", "Accelerate"),
    "tensorflow": ("TensorFlow",),  # brings its own SQLite, and lends it to the whole process
}
QUIET_LIGHTNING = 'accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False'
QUIET_TRAINER = 'use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no", save_strategy="no", '
REPLACE = {
    "torch.distributed.init_process_group()": 'torch.distributed.init_process_group("gloo", **ALONE)',
    'devices=2, strategy="ddp"': QUIET_LIGHTNING,
    '{"num_workers": 4}': '{"num_workers": 1}',
    "TrainingArguments(folder, ": f"TrainingArguments(folder, {QUIET_TRAINER}",
    "Accelerator()": "Accelerator(cpu=True)",
}
EPOCHS, BATCH = 3, 64


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    """What all frameworks share. Adapters are imported before the section that uses them: TensorFlow stays alone."""
    return {
        "decode": decode_flat, "epochs": EPOCHS, "folder": str(folder / "out"), "policy": SeTa(EPOCHS, target=0.5),
        "state": "runs/7", "urls": write_pictures(folder, samples=200),
    }  # fmt: skip


def torch_model() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(3 * 16 * 16, 3)


def loss_of(model: Any, batch: dict[str, Any]) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(model(batch["jpg"]), batch["cls"], reduction="none")


def trained(known: dict[str, Any]) -> None:
    """See that three epochs were committed, of whose samples every one gave its loss back, and begin another state."""
    epochs = history_of(known["state"])
    assert [one["epoch"] for one in epochs] == list(range(EPOCHS)), epochs
    assert all(one["recorded"] == one["samples"] > 0 for one in epochs), epochs
    assert all(one["selected"] < 500 for one in epochs[1:]), epochs
    known["state"] += "'"


def ddp(known: dict[str, Any]) -> None:
    import torch
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader

    from seta_stream.adapters.torch import SetaDataset

    def dataset(*given: Any, **options: Any) -> SetaDataset:
        return SetaDataset(*given, **{"decode": decode_flat, **options})  # the page leaves the decoder to the reader

    model = torch_model()
    known |= {
        "ALONE": {"store": torch.distributed.HashStore(), "rank": 0, "world_size": 1}, "DataLoader": DataLoader,
        "DistributedDataParallel": DistributedDataParallel, "SetaDataset": dataset, "loss_of": loss_of, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1), "torch": torch,
    }  # fmt: skip


def left(known: dict[str, Any]) -> None:
    trained(known)
    known["torch"].distributed.destroy_process_group()


def lightning(known: dict[str, Any]) -> None:
    import torch
    from lightning.pytorch import LightningModule, Trainer

    from seta_stream.adapters.lightning import SetaDataModule

    class Base(LightningModule):
        """With the layer and the optimizer that every Lightning model has."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch_model()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def module(*given: Any, **options: Any) -> SetaDataModule:
        return SetaDataModule(*given, decode=decode_flat, **options)

    known |= {"LightningModule": Base, "SetaDataModule": module, "Trainer": Trainer}


def hugging_face(known: dict[str, Any]) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

    from seta_stream.adapters.huggingface import SetaTrainer, causal_losses
    from seta_stream.adapters.torch import SetaDataset

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = torch.tensor([list(sample["txt"].encode().ljust(16)) for sample in samples])
        return {"input_ids": tokens, "labels": tokens.clone()}

    shape = {"vocab_size": 128, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    known |= {
        "SetaDataset": SetaDataset, "SetaTrainer": SetaTrainer, "TrainingArguments": TrainingArguments,
        "causal_losses": causal_losses, "collate": collate,
        "model": GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)),
    }  # fmt: skip


def accelerate(known: dict[str, Any]) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from seta_stream.adapters.accelerate import prepare_loader

    AcceleratorState._reset_state(reset_partial_state=True)  # the Trainer above left its own
    ddp(known)
    known |= {"Accelerator": Accelerator, "prepare_loader": prepare_loader}


def tensorflow(known: dict[str, Any]) -> None:
    import tensorflow as tf

    layer, optimizer = tf.keras.layers.Dense(3), tf.keras.optimizers.SGD(0.1)
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    @tf.function
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = cross_entropy(batch["cls"], layer(batch["jpg"]))
            mean = tf.reduce_mean(batch["__weight__"] * losses)
        optimizer.apply_gradients(zip(tape.gradient(mean, layer.weights), layer.weights, strict=True))
        return losses

    signature = {
        "jpg": tf.TensorSpec((None, 3 * 16 * 16), tf.float32), "cls": tf.TensorSpec((None,), tf.int64),
        "__index__": tf.TensorSpec((None,), tf.int64), "__weight__": tf.TensorSpec((None,), tf.float32),
    }  # fmt: skip
    options = {"policy": known["policy"], "state": known["state"], "batch_size": BATCH, "decode": decode_flat}
    known |= {"SIGNATURE": signature, "step": step, "stream": SetaStream(known["urls"], **options), "tf": tf}


def counted(known: dict[str, Any]) -> None:
    assert known["done"] == known["stream"].stats.steps
    known["stream"].close()
    trained(known)


BEFORE = {
    "PyTorch DDP": ddp,
    "Lightning": lightning,
    "Hugging Face Trainer": hugging_face,
    "Accelerate": accelerate,
    "TensorFlow": tensorflow,
}
AFTER = {
    "PyTorch DDP": left,
    "Lightning": trained,
    "Hugging Face Trainer": trained,
    "Accelerate": trained,
    "TensorFlow": counted,
}
