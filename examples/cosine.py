"""A cosine by dataset.progress: right for any policy, also where the losses decide how many samples are left.

    python examples/cosine.py

Needs torch: pip install 'seta-stream[torch]'
"""

from __future__ import annotations

import math
import tempfile
import zlib
from itertools import chain
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset
from seta_stream.demo.captions import CaptionMaker
from seta_stream.demo.shards import make_corpus

EPOCHS = 8
BATCH = 100
WORDS = 4_096
WARMUP = 0.05


def factor(progress: float) -> float:
    """Return the share of the peak rate: up over the first 5 % of the run's samples, then half a cosine to 0."""
    if progress < WARMUP:
        return progress / WARMUP
    return (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))) / 2


def bag_of(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the words' numbers, and where each caption's begin."""
    words = [[zlib.crc32(word.encode()) % WORDS for word in caption.split()] for caption in captions]
    return torch.tensor([*chain.from_iterable(words)]), torch.tensor([0, *map(len, words[:-1])]).cumsum(0)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for a model this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(CaptionMaker(10_000, seed=0), folder, shard_samples=2_500, jobs=1, progress=False)
        train(corpus.pattern, str(Path(folder) / "state"))


def train(urls: str, state: str) -> None:
    # Two of six groups: how many samples that is, the losses decide, so the steps cannot be told ahead.
    policy = SeTa(num_epochs=EPOCHS, prune_ratio=0.1, num_group=6, window_scale=2, delta=1.0)
    dataset = SetaDataset(urls, batch_size=BATCH, batches=True, policy=policy, state=state, decode="basic")
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    bag = torch.nn.EmbeddingBag(WORDS, 1, mode="sum")
    optimizer = torch.optim.Adam(bag.parameters(), lr=0.03)
    scheduler = LambdaLR(optimizer, lambda _step: factor(dataset.progress))  # the step's number does not matter
    with dataset:  # after an exception nothing is committed
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                scores = bag(*bag_of(batch["txt"])).squeeze(1)
                long = torch.tensor([float(len(caption.split()) > 13) for caption in batch["txt"]])
                loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, long, reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
                scheduler.step()
            stats, rate = dataset.stats, optimizer.param_groups[0]["lr"]
            read = f"{stats.samples:,} samples, {stats.bytes_fetched:,} bytes"
            print(f"epoch {epoch}: {read}, progress {dataset.progress:.2f}, then the rate is {rate:.2g}")


if __name__ == "__main__":
    main()
