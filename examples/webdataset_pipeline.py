"""webdataset: its fluent pipeline, with SetaWebDataset in the place of WebDataset.

A bag of words learns to tell long captions from short ones; captions of middle length are the hard ones.

    python examples/webdataset_pipeline.py

Needs webdataset and torch: pip install 'seta-stream[webdataset]'
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.webdataset import SetaWebDataset
from seta_stream.demo.captions import CaptionMaker
from seta_stream.demo.shards import make_corpus

EPOCHS = 6
BATCH = 100
WORDS = 4_096


def prepare(sample: tuple[str, int]) -> tuple[torch.Tensor, float, int]:
    """Return the words' numbers, whether the caption is long, and the sample's id."""
    caption, index = sample
    words = caption.split()
    return torch.tensor([zlib.crc32(word.encode()) % WORDS for word in words]), float(len(words) > 13), index


def collate(samples: list[tuple[torch.Tensor, float, int]]) -> tuple[Any, ...]:
    """Pack a batch; the ids travel with it."""
    words, long, ids = zip(*samples, strict=True)
    offsets = torch.tensor([0, *map(len, words[:-1])]).cumsum(0)
    return torch.cat(words), offsets, torch.tensor(long), torch.tensor(ids)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for a model this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(CaptionMaker(10_000, seed=0), folder, shard_samples=2_500, jobs=1, progress=False)
        train(corpus.pattern, str(Path(folder) / "state"))


def train(urls: str, state: str) -> None:
    dataset = SetaWebDataset(urls, batch_size=BATCH, policy=SeTa(num_epochs=EPOCHS, target=0.5), state=state)
    pipeline = dataset.decode().to_tuple("txt", "__index__").map(prepare).batched(BATCH, collation_fn=collate)
    loader = DataLoader(pipeline, batch_size=None, num_workers=2)
    bag = torch.nn.EmbeddingBag(WORDS, 1, mode="sum")
    bias = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([*bag.parameters(), bias], lr=0.02)
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)  # commits the losses so far, then selects
        right = 0
        for words, offsets, long, ids in loader:
            scores = bag(words, offsets).squeeze(1) + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, long, reduction="none")
            optimizer.zero_grad()
            dataset.update(ids, loss).backward()
            optimizer.step()
            right += int(((scores > 0) == (long > 0.5)).sum())
        stats = dataset.stats
        read = f"{stats.samples:,} samples, {stats.bytes_fetched:,} bytes"
        print(f"epoch {epoch}: {read}, {right / stats.samples:.0%} of them right")
    dataset.close()


if __name__ == "__main__":
    main()
