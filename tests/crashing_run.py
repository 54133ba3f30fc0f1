"""A run that is made to be killed: trains, saves checkpoints, logs every step, and goes on where it was.

Called as: python crashing_run.py SHARDS STATE FOLDER EPOCHS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from seta_stream import SeTa, SetaStream


def main(pattern: str, state: str, folder: Path, epochs: int) -> None:
    checkpoint = folder / "checkpoint.json"
    with (
        SetaStream(pattern, policy=SeTa(num_epochs=epochs, target=0.5), state=state, batch_size=10, seed=4) as stream,
        (folder / "log").open("a") as log,
    ):
        start = 0
        if checkpoint.exists():
            saved = json.loads(checkpoint.read_text())
            stream.load_state_dict(saved)
            start = saved["epoch"]
        for epoch in range(start, epochs):
            if epoch != stream.epoch:
                stream.set_epoch(epoch)
            for batch in stream.batches():
                ids = batch["__index__"]
                log.write(f"{epoch} {stream.position - 1} {ids.tolist()}\n")
                log.flush()
                stream.record(ids, (ids * 37 % 101 + epoch) / 10 + 0.1)
                if stream.position % 3 == 0:
                    temporary = checkpoint.with_suffix(".new")
                    temporary.write_text(json.dumps(stream.state_dict()))
                    temporary.replace(checkpoint)
    values = stream.session.memory.losses.values
    np.save(folder / "losses.npy", values)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
