"""SetaWebDataset against the webdataset package itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from small_corpora import MakeCorpus, write_tar

from seta_stream import SeTa, SetaStream
from seta_stream.adapters.webdataset import SetaWebDataset
from seta_stream.read.decode import IMAGE_KINDS

# The package leaves its files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_fluent_pipeline_is_the_same(make_corpus: MakeCorpus) -> None:
    """decode, to_tuple, map and batched give what webdataset gives, and the ids with it."""
    shards = make_corpus(3, 20)
    theirs = webdataset.WebDataset(shards, shardshuffle=False).decode().to_tuple("txt", "cls").batched(6)
    ours = SetaWebDataset(shards, batch_size=6, shuffle=False).decode().to_tuple("txt", "cls", "__index__").batched(6)
    for (texts, classes), (our_texts, our_classes, ids) in zip(theirs, ours, strict=True):
        assert our_texts == texts
        assert our_classes.tolist() == classes.tolist()
        assert ids.tolist() == [int(text) for text in texts]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_through_the_pipeline(make_corpus: MakeCorpus, tmp_path: Path, workers: int) -> None:
    """Losses go back by the ids that came through; later epochs read less; the copies of the pipeline are one run."""
    dataset = SetaWebDataset(
        make_corpus(4, 50), batch_size=10, policy=SeTa(num_epochs=4, target=0.5), state=str(tmp_path / "s")
    )
    pipeline = dataset.decode().to_tuple("cls", "__index__").batched(10)
    loader = torch.utils.data.DataLoader(pipeline, batch_size=None, num_workers=workers)
    sizes = []
    for epoch in range(4):
        pipeline.set_epoch(epoch)
        for classes, ids in loader:
            pipeline.update(ids, torch.as_tensor(classes).float() + 1)
        sizes.append(pipeline.stats.samples)
    assert sizes[0] == 200
    assert sum(sizes) < 480
    assert pipeline.state_dict()["epoch"] == 3
    assert 0.9 < pipeline.progress <= 1
    assert pipeline.steps(4) > 30
    dataset.close()


def picture_fields(rng: np.random.Generator) -> dict[str, bytes]:
    """Return one member of every kind that the decoders know."""
    pixels = rng.integers(0, 256, (12, 17, 3), np.uint8)
    fields: dict[str, bytes] = {"txt": "grüße".encode(), "cls": b"7", "json": b'{"a": [1, 2]}', "bin": b"\0\1"}
    for field, kind, mode in (("jpg", "JPEG", "RGB"), ("png", "PNG", "RGBA"), ("seg.png", "PNG", "L")):
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind)
        fields[field] = stream.getvalue()
    for field, array in (("npy", pixels), ("x.npy", np.float32(rng.random(5)))):
        stream = io.BytesIO()
        np.save(stream, array)
        fields[field] = stream.getvalue()
    stream = io.BytesIO()
    np.savez(stream, a=pixels)
    fields["npz"] = stream.getvalue()
    return fields


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return bool(a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, Image.Image):
        return a.mode == b.mode and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", ["basic", *IMAGE_KINDS])
def test_decoders_equal_webdatasets(tmp_path: Path, kind: str) -> None:
    """Every field that both decode has the same value, type and dtype."""
    rng = np.random.default_rng(1)
    members = [(f"{n}.{field}", data) for n in range(3) for field, data in picture_fields(rng).items()]
    shard = str(write_tar(tmp_path / "a.tar", members))
    handlers = [] if kind == "basic" else [kind]
    theirs = webdataset.WebDataset(shard, shardshuffle=False).decode(*handlers)
    ours = SetaStream(shard, shuffle=False, decode=kind)
    for one, two in zip(theirs, ours, strict=True):
        for field in set(one) - {"__key__", "__url__", "__local_path__"}:
            assert equal(one[field], two[field]), field
