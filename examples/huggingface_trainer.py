"""Hugging Face Trainer: a small language model learns words from tar shards, and later epochs read fewer of them.

    python examples/huggingface_trainer.py        (or, in two processes, torchrun --nproc-per-node 2 ...)

Needs transformers: pip install 'seta-stream[huggingface]'
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from seta_stream import SeTa
from seta_stream.adapters.huggingface import SetaTrainer, causal_losses
from seta_stream.adapters.torch import SetaDataset
from seta_stream.demo.lexicon import Lexicon

EPOCHS, BATCH, LETTERS = 5, 40, 16


def write_shard(path: Path, words: list[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, word in enumerate(words):
            member = tarfile.TarInfo(f"{number:06d}.txt")
            member.size = len(word)
            tar.addfile(member, io.BytesIO(word.encode()))


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return letters as tokens, 1 … 26, padded; padding has no loss. The samples' ids are put in afterwards."""
    tokens = torch.zeros(len(samples), LETTERS, dtype=torch.long)
    for row, sample in zip(tokens, samples, strict=True):
        letters = torch.tensor([ord(letter) - 96 for letter in sample["txt"][:LETTERS]])
        row[: len(letters)] = letters
    return {"input_ids": tokens, "labels": tokens.masked_fill(tokens == 0, -100)}


def main() -> None:
    torch.set_num_threads(1)  # for a network this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as own:
        args = TrainingArguments(
            f"{own}/out", per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, learning_rate=3e-3,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
            ddp_find_unused_parameters=False,
        )  # connects the processes, so it comes before the dataset  # fmt: skip
        shared = [own]
        if args.world_size > 1:
            dist.broadcast_object_list(shared)  # process 0's folder, for all
        words = Lexicon(seed=0, size=4_000).words()
        for shard in range(4) if args.process_index == 0 else ():
            write_shard(Path(own) / f"words-{shard}.tar", list(words[shard::4]))
        if args.world_size > 1:
            dist.barrier()
        policy, urls = SeTa(num_epochs=EPOCHS, target=0.5), f"{shared[0]}/words-{{0..3}}.tar"
        with SetaDataset(urls, batch_size=BATCH, policy=policy, state=f"{shared[0]}/state", decode="basic") as dataset:
            shape = {"vocab_size": 27, "n_positions": LETTERS, "n_embd": 32, "n_layer": 1, "n_head": 2}
            model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
            trainer = SetaTrainer(
                model, args, train_dataset=dataset, data_collator=collate, sample_losses=causal_losses
            )
            trainer.train()  # resume_from_checkpoint=True goes on where the last checkpoint was made
        for line in Path(f"{own}/state/history.jsonl").read_text().splitlines() if args.process_index == 0 else ():
            read = json.loads(line)["facts"]  # by all processes
            print(f"epoch {read['epoch']}: {read['samples']:,} samples, {read['bytes_fetched']:,} bytes")


if __name__ == "__main__":
    main()
