"""PyTorch: a small network learns the first letter of word images, and later epochs read fewer of them.

    python examples/torch_training.py

Needs torch, Pillow and matplotlib (its fonts): pip install 'seta-stream[demo]'
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset
from seta_stream.demo.fonts import find_fonts
from seta_stream.demo.lexicon import Lexicon
from seta_stream.demo.shards import make_corpus
from seta_stream.demo.words import WordMaker

EPOCHS = 5
BATCH = 64


def network() -> torch.nn.Module:
    """Grey pictures of 32 × 96 pixels → one number per letter."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, stride=2, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 5, stride=2, padding=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 8 * 24, 26),
    )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # for a network this small more threads only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        maker = WordMaker(3_000, seed=0, lexicon=Lexicon(seed=0, size=500), fonts=find_fonts()[:4])
        corpus = make_corpus(maker, folder, shard_samples=750, jobs=1, progress=False)
        train(corpus.pattern, str(Path(folder) / "state"))


def train(urls: str, state: str) -> None:
    dataset = SetaDataset(
        urls, batch_size=BATCH, batches=True, policy=SeTa(num_epochs=EPOCHS, target=0.5), state=state, decode="l8"
    )
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with dataset:  # after an exception nothing is committed
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)  # commits the losses so far, then selects
            right = 0
            for batch in loader:
                pictures = batch["jpg"].unsqueeze(1).float() / 255
                letters = torch.tensor([ord(word[0]) - ord("a") for word in batch["txt"]])
                scores = model(pictures)
                loss = torch.nn.functional.cross_entropy(scores, letters, reduction="none")
                optimizer.zero_grad()
                dataset.update(batch["__index__"], loss).backward()
                optimizer.step()
                right += int((scores.argmax(1) == letters).sum())
            stats = dataset.stats
            read = f"{stats.samples:,} samples, {stats.bytes_fetched:,} bytes"
            print(f"epoch {epoch}: {read}, {right / stats.samples:.0%} of them right")


if __name__ == "__main__":
    main()
