"""One training run of the demo: every epoch a plain torch DataLoader loop over a SetaDataset.

Takes shards, a policy and an untrained model; gives the trained one, and what the run cost. Effects: reads the shards,
writes the losses to the state folder where there is one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from seta_stream import Full, SeTa, SetaStream
from seta_stream.adapters.torch import SetaDataset
from seta_stream.demo.model import Recogniser
from seta_stream.demo.words import HEIGHT, WIDTH
from seta_stream.stats import Stats

PEAK_RATE: Final = 5e-3
WARM_UP: Final = 0.15
WEIGHT_DECAY: Final = 0.01
GRADIENT_NORM: Final = 5.0
EVALUATION_BATCH: Final = 250


def decode(field: str, data: bytes) -> NDArray[np.uint8] | str:
    """Return a picture as uint8 [rows, columns] of its own memory, as torch wants it, or a text."""
    if field != "jpg":
        return data.decode()
    with Image.open(BytesIO(data)) as picture:
        return np.array(picture)


def learning_rate(done: float) -> float:
    """Return the rate after a share `done` of the run: up to PEAK_RATE in a line, then down to zero by a cosine.

    Driven by the samples that the run will see, so that a run on half of them still comes down to zero.
    """
    if done < WARM_UP:
        return PEAK_RATE * (0.05 + 0.95 * done / WARM_UP)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP))))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took: samples trained on, images decoded, bytes and requests read, wall seconds."""

    samples: int = 0
    decoded: int = 0
    bytes_read: int = 0
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What both runs share.

    Attributes:
        epochs: passes over the corpus.
        batch_size: samples per step.
        seed: decides the order, and what SeTa draws.
        workers: DataLoader worker processes; 0 reads in this one.
    """

    epochs: int
    batch_size: int
    seed: int
    workers: int = 0


def warm_up(urls: Sequence[str], batch_size: int) -> None:
    """Index the shards and take one step on noise, so that the first run does not pay for what both need."""
    SetaStream(list(urls)).close()
    model = Recogniser()
    optimizer = _optimizer(model)
    pictures = torch.randint(0, 256, (batch_size, HEIGHT, WIDTH), dtype=torch.uint8)
    model.losses(pictures, ["seta"] * batch_size).mean().backward()  # type: ignore[no-untyped-call]  # see train
    optimizer.step()


def _optimizer(model: Recogniser) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)


def train(
    model: Recogniser,
    urls: Sequence[str],
    policy: Full | SeTa,
    options: RunOptions,
    *,
    state: str | None = None,
    advance: Callable[[int, int, float], None] | None = None,
) -> Cost:
    """Train the model in place and return the cost.

    Args:
        model: starts as it is.
        urls: the shards.
        policy: what each epoch reads.
        options: see there.
        state: folder of the losses and the history; None keeps them in memory.
        advance: told of every step: epoch, samples of the step, mean loss.
    """
    start = time.monotonic()
    size = options.batch_size
    cost = Cost()
    optimizer = _optimizer(model)
    model.train()
    with SetaDataset(
        list(urls), policy=policy, state=state, batch_size=size, seed=options.seed, decode=decode
    ) as dataset:
        loader = DataLoader(dataset, batch_size=size, num_workers=options.workers)
        # Tells dataset.progress how long the run is.
        dataset.steps(options.epochs)
        for epoch in range(options.epochs):
            dataset.set_epoch(epoch)
            for batch in loader:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(dataset.progress)
                losses = model.losses(batch["jpg"], batch["txt"])
                loss = dataset.update(batch["__index__"], losses)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
                torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
                optimizer.step()
                if advance is not None:
                    advance(epoch, len(losses), float(loss.detach()))
            cost = _add(cost, dataset.stats)
    return replace(cost, seconds=time.monotonic() - start)


def _add(cost: Cost, epoch: Stats) -> Cost:
    """Return the cost with an epoch's counts added."""
    return Cost(
        samples=cost.samples + epoch.samples,
        decoded=cost.decoded + epoch.decoded,
        bytes_read=cost.bytes_read + epoch.bytes_fetched,
        requests=cost.requests + epoch.requests,
    )


def accuracy(model: Recogniser, urls: Sequence[str]) -> float:
    """Return the share of pictures whose whole word the model reads right, over all samples of the shards."""
    right = total = 0
    model.eval()
    stream = SetaStream(list(urls), decode=decode, shuffle=False, drop_last=False)
    for batch in stream.batches(EVALUATION_BATCH):
        found = model.read(torch.from_numpy(batch["jpg"]))
        right += sum(word == label for word, label in zip(found, batch["txt"], strict=True))
        total += len(found)
    stream.close()
    return right / total
