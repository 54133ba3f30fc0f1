"""Small corpora and runs for the code of the pages: pictures with a label and a caption, and states with losses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_corpora import Member, write_tar

from seta_stream import SeTa, SetaStream
from seta_stream.read.decode import decoder

CLASSES = 3
NUMBERS = 3 * 16 * 16
"""Of a picture."""
rgb8 = decoder("rgb8")


def decode_channels(field: str, data: bytes) -> Any:
    """Decode pictures as float32 [3, 16, 16], other fields as usual: what most pages call `decode`."""
    value = rgb8(field, data)
    return np.moveaxis(value, 2, 0).astype(np.float32) / 255 if field == "jpg" else value


def decode_flat(field: str, data: bytes) -> Any:
    """Decode pictures as float32 [768], other fields as usual."""
    value = rgb8(field, data)
    return value.reshape(-1).astype(np.float32) / 255 if field == "jpg" else value


def picture(number: int, *, side: int = 16) -> bytes:
    """Return a JPEG of noise; there are sixteen of them."""
    noise = np.random.default_rng(number % 16).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def write_pictures(folder: Path, *, shards: int = 4, samples: int = 40, name: str = "train", digits: int = 5) -> str:
    """Write shards of jpg, cls and txt members as name-00000.tar and so on; return their brace pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [picture(number) for number in range(16)]
    for shard in range(shards):
        members: list[Member] = []
        for number in range(shard * samples, (shard + 1) * samples):
            members.append((f"{number:06d}.jpg", pictures[number % 16]))
            members.append((f"{number:06d}.cls", str(number % CLASSES).encode()))
            members.append((f"{number:06d}.txt", f"caption {number}".encode()))
        write_tar(folder / f"{name}-{shard:0{digits}d}.tar", members)
    first, last = "0" * digits, f"{shards - 1:0{digits}d}"
    return str(folder / f"{name}-{{{first}..{last}}}.tar")


def trained(urls: str, state: Path, *, epochs: int = 3, of: int = 6) -> str:
    """Train nothing, with losses that follow from the ids and fall; return the state."""
    with SetaStream(urls, policy=SeTa(num_epochs=of, target=0.5), state=str(state), batch_size=10) as stream:
        for epoch in range(epochs):
            stream.set_epoch(epoch)
            for batch in stream.batches():
                ids = batch["__index__"]
                stream.record(ids, (0.1 + ids * 37 % 101 / 20) / (1 + epoch))
    return str(state)


def history_of(state: Path | str) -> list[dict[str, object]]:
    """Return the facts of each epoch that a run committed."""
    return [json.loads(line)["facts"] for line in (Path(state) / "history.jsonl").read_text().splitlines()]
