"""Checkpoints of unknown trust: read, compared, and loaded into a stream that reads on from there.

An input that begins with "{" is one as JSON; else its bytes are changes of a right one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from fuzz.editing import edited
from fuzz.folders import scratch
from fuzz.making import refusing, tar
from seta_stream import SeTa, SetaStream
from seta_stream.checkpoint import Checkpoint

ROOT = scratch("checkpoints")
(ROOT / "x.tar").write_bytes(tar([(f"{number}.txt", b"%d" % number) for number in range(12)]))
(ROOT / "pending").write_bytes(b"a file that no checkpoint may name")
COST = 10
POLICY = SeTa(num_epochs=4, prune_ratio=0.1, num_group=2, window_scale=1.0, delta=0.9)


def stream() -> SetaStream:
    """Return a stream of the corpus with a state."""
    return SetaStream(str(ROOT / "x.tar"), policy=POLICY, batch_size=2, state=str(ROOT / "state"))


def _right() -> list[dict[str, object]]:
    found = []
    with stream() as one:
        one.set_epoch(0)
        for _, batch in zip(range(2), one.batches(2), strict=False):
            one.record(batch["__index__"], [1.0, 2.0])
            found.append(one.state_dict())
        one.set_epoch(1)
        found.append(one.state_dict(step=1))
    return found


RIGHT = _right()


def seeds() -> Iterator[bytes]:
    """Give checkpoints of three positions, and a few changes."""
    for one in RIGHT:
        yield json.dumps(one).encode()
    yield b"\0" + bytes(range(60))
    yield b"\1\x05\x03\x09\x07\x03\x17"


def one(data: bytes) -> None:
    """Load one, and read a few samples."""
    if data[:1] == b"{":
        try:
            plain = json.loads(data)
        except (ValueError, RecursionError):
            return
    else:
        plain = edited(RIGHT[data[0] % len(RIGHT) if data else 0], data[1:31])
    with refusing():
        Checkpoint.from_plain(plain).digest()
        with stream() as reader:
            reader.load_state_dict(plain)
            for _, _ in zip(range(3), reader, strict=False):
                pass
            reader.state_dict()
