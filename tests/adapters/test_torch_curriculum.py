"""EfficientTrain under a DataLoader: one resolution per batch, the same for any workers, resumed or not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_corpora import Member, write_tar
from torch.utils.data import DataLoader

from seta_stream import DynamicRandom, Full, SeTa
from seta_stream.adapters.torch import SetaDataset
from seta_stream.read.curriculum import EfficientTrain

BATCH, EPOCHS = 8, 4
# Ends at 36/49, 45/49 and 1 of the run's samples.
STAGES = [(8, 0), (16, 1), (24, 2)]

pytestmark = [
    # This machine has two cores, and more workers than cores are the point here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def brighten(image: Image.Image, magnitude: float, random: np.random.Generator) -> Image.Image:
    """An augmentation that worker processes can be sent."""
    shift = int(random.integers(10)) + 10 * int(magnitude)
    return image.point([min(value + shift, 255) for value in range(256)] * 3)


CURRICULUM = EfficientTrain(stages=STAGES, crop="random-resized", augment=brighten)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    paths = []
    for shard in range(4):
        members: list[Member] = []
        for number in range(41):
            file = io.BytesIO()
            coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
            coarse.resize((40, 30), Image.Resampling.BICUBIC).save(file, "JPEG")
            members += [(f"{shard}-{number:03d}.jpg", file.getvalue()), (f"{shard}-{number:03d}.cls", b"1")]
        paths.append(str(write_tar(folder / f"{shard}.tar", members)))
    return paths


def losses(ids: torch.Tensor, epoch: int) -> torch.Tensor:
    return (ids * 37 % 101).float() * (1 + epoch * (ids % 3)) + 0.1


def loader_of(dataset: SetaDataset, workers: int, method: str | None = None) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
        persistent_workers=workers > 0,
    )


def batches(dataset: SetaDataset, loader: DataLoader[Any], epoch: int) -> Iterator[tuple[int, bytes]]:
    """Yield (side, ids and pixels) of an epoch's batches; stacking fails where a batch had two resolutions."""
    for batch in loader:
        _, height, width, channels = batch["jpg"].shape
        assert (height, channels) == (width, 3)
        yield height, batch["__index__"].numpy().tobytes() + batch["jpg"].numpy().tobytes()
        dataset.update(batch["__index__"], losses(batch["__index__"], epoch))


def run(shards: list[str], state: Path, policy: Any, workers: int, method: str | None) -> list[tuple[int, bytes]]:
    seen = []
    with SetaDataset(shards, batch_size=BATCH, policy=policy, state=str(state), decode=CURRICULUM, seed=2) as dataset:
        loader = loader_of(dataset, workers, method)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for side, content in batches(dataset, loader, epoch):
                # update() comes after this: progress is that of all steps before, and decides the resolution alone.
                assert side == CURRICULUM.stage(dataset.progress).resolution
                seen.append((side, content))
    return seen


POLICIES = [
    SeTa(num_epochs=EPOCHS, target=0.4),
    SeTa(num_epochs=EPOCHS, prune_ratio=0.1, num_group=5, window_scale=0.6),
]


@pytest.mark.parametrize("policy", POLICIES, ids=["target", "losses decide"])
def test_any_workers_give_the_same_pictures(shards: list[str], tmp_path: Path, policy: SeTa) -> None:
    """Under SeTa with 0 and 2 workers, by fork and spawn: each batch has its progress's resolution, bit for bit."""
    reference = run(shards, tmp_path / "0", policy, 0, None)
    sides = [side for side, _ in reference]
    assert set(sides) == {8, 16, 24}
    assert (sides[0], sides[-1]) == (8, 24)
    for workers, method in ((2, "fork"), (3, "fork"), (2, "spawn")):
        assert run(shards, tmp_path / f"{workers}-{method}", policy, workers, method) == reference


@pytest.mark.parametrize(("policy", "steps"), [(Full(), 80), (DynamicRandom(prune_ratio=0.5), 40)], ids=repr)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_without_update_goes_on_too(shards: list[str], policy: Any, steps: int, workers: int) -> None:
    """A policy without losses needs no update(): the samples read count as consumed, and resolution never falls."""
    curriculum = EfficientTrain(num_epochs=EPOCHS, stages=STAGES)
    dataset = SetaDataset(shards, batch_size=BATCH, policy=policy, decode=curriculum, batches=True)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    sides = []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        sides += [batch["jpg"].shape[1] for batch in loader]
    assert sides == sorted(sides)
    # 164 samples are 20 steps; 36/49 of 80 are 58.8 and 45/49 are 73.5.
    assert abs(len(sides) - steps) <= 4
    assert sides.count(8) == pytest.approx(len(sides) * 36 / 49, abs=2)
    assert sides.count(24) == pytest.approx(len(sides) * 4 / 49, abs=2)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 3)])
def test_resuming_in_mid_run(shards: list[str], tmp_path: Path, before: int, after: int) -> None:
    """A checkpoint taken while workers read ahead goes on with the very same pictures, on other workers."""
    policy = SeTa(num_epochs=EPOCHS, prune_ratio=0.0, num_group=5, window_scale=0.6)
    reference = run(shards, tmp_path / "reference", policy, 0, None)

    def make() -> SetaDataset:
        return SetaDataset(
            shards, batch_size=BATCH, policy=policy, state=str(tmp_path / "s"), decode=CURRICULUM, seed=2
        )

    dataset = make()
    seen: list[tuple[int, bytes]] = []
    loader = loader_of(dataset, before, "fork")
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for content in batches(dataset, loader, epoch):
            seen.append(content)
            if epoch == 2 and dataset.stream.position == 3:
                break
    saved = json.loads(json.dumps(dataset.state_dict()))
    dataset.stream.session.memory.close()  # as a killed process would leave it
    assert saved["step"] == 3
    assert seen.pop() == reference[len(seen)]  # this batch came, and the loop did not finish it
    again = make()
    again.load_state_dict(saved)
    loader = loader_of(again, after, "fork")
    rest = list(batches(again, loader, 2))
    again.set_epoch(3)
    rest += list(batches(again, loader, 3))
    assert {side for side, _ in rest} > {24}
    assert seen + rest == reference
    again.close()


@pytest.mark.parametrize("policy", POLICIES, ids=["target", "losses decide"])
def test_a_restart_without_a_checkpoint(shards: list[str], tmp_path: Path, policy: SeTa) -> None:
    """A run that starts anew for each epoch, from the state alone, counts what was consumed as one that goes on."""
    reference = run(shards, tmp_path / "reference", policy, 0, None)
    seen: list[tuple[int, bytes]] = []
    for epoch in range(EPOCHS):
        with SetaDataset(
            shards, batch_size=BATCH, policy=policy, state=str(tmp_path / "s"), decode=CURRICULUM, seed=2
        ) as dataset:
            dataset.set_epoch(epoch)
            assert dataset.stream.session.board.course.consumed == BATCH * len(seen)
            seen += list(batches(dataset, loader_of(dataset, 0), epoch))
    assert seen == reference
