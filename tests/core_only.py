"""Uses the whole of an installation without extras, and prints what came of it as JSON.

Run by test_shipping.py, in an empty folder, with the Python of an environment that holds the wheel and what it needs.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

HEAVY = ("torch", "jax", "sklearn", "joblib", "fsspec", "rich", "click")
URLS = "train-{00000..00002}.tar"
POLICY = "seta(num_epochs=9, target=0.5)"

WORKS: dict[str, tuple[str, ...]] = {
    "index": ("index", URLS, "--json"),
    "score": ("score", URLS, "--model", "core_model:losses", "--state", "st", "--decode", "basic", "--json"),
    "inspect": ("inspect", "st"),
    "simulate": ("simulate", "st", "--json"),
    "report": ("report", "st", "-o", "report.html"),
    "watch": ("watch", "st", "--once"),
    "verify": ("verify", URLS, "--state", "st", "--decode", "basic"),
    "repack": ("repack", URLS, "--to", "new", "--order", "loss", "--state", "st"),
    "export losses": ("export", "st", "--to", "losses.csv"),
    "export selection": ("export", "st", "--to", "selection.json", "--policy", POLICY),
    "export shards": ("export", "st", "--shards", "subset", "--policy", POLICY),
    "import": ("import", "losses.csv", URLS, "--state", "st2"),
    "convert": ("convert", URLS, "--to", "dali"),
}
"""What needs no extra; each uses what those before it wrote."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "demo": ("demo",),
    "plot": ("inspect", "st", "--png", "run.png"),
    "parquet": ("export", "st", "--to", "losses.parquet"),
    "image": ("score", URLS, "--model", "core_model:losses", "--state", "st3", "--decode", "pil", "--on-error", "skip"),
    "s3": ("verify", "s3://bucket/a.tar"),
    "gcs": ("verify", "gs://bucket/a.tar"),
    "azure": ("verify", "az://bucket/a.tar"),
    "http": ("verify", "http://127.0.0.1:1/a.tar"),
    "dask": ("index", URLS, "--force", "--backend", "dask"),
    "ray": ("index", URLS, "--force", "--backend", "ray"),
    "spark": ("index", URLS, "--force", "--backend", "spark"),
}
"""The extra that each of these needs."""

ADAPTERS = {
    "torch": "torch",
    "webdataset": "webdataset",
    "jax": "jax",
    "mpi": "mpi",
    "lightning": "lightning",
    "huggingface": "huggingface",
    "accelerate": "huggingface",
}


def main() -> None:
    import seta_stream

    told: dict[str, Any] = {"file": seta_stream.__file__, "heavy": [name for name in HEAVY if name in sys.modules]}
    write_corpus()
    told["works"] = {name: run(*words) for name, words in WORKS.items()}
    told["trains"] = train()
    told["extras"] = {name: run(*words) for name, words in EXTRAS.items()}
    told["adapters"] = {name: why_not(name) for name in ADAPTERS}
    sys.stdout.write(json.dumps(told) + "\n")


def write_corpus() -> None:
    for shard in range(3):
        with tarfile.open(f"train-{shard:05d}.tar", "w") as tar:
            for sample in range(40):
                for field, data in (("txt", f"text {sample}".encode()), ("cls", b"1"), ("jpg", b"no picture")):
                    member = tarfile.TarInfo(f"{shard:02d}{sample:06d}.{field}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    Path("core_model.py").write_text(
        "import numpy as np\ndef losses(batch):\n    return np.arange(len(batch['cls']))\n"
    )


def run(*words: str) -> tuple[int, str]:
    """Run a command of the console script; returns (exit code, all that it printed)."""
    from click.testing import CliRunner

    from seta_stream.cli import main as command

    done = CliRunner().invoke(command, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return -1, f"{type(done.exception).__name__}: {done.exception}"
    return done.exit_code, done.output


def train() -> list[int]:
    """Train for three epochs; returns how many samples each had."""
    import numpy as np

    from seta_stream import SeTa, SetaStream

    counts = []
    with SetaStream(URLS, policy=SeTa(num_epochs=3, target=0.5), state="run", batch_size=8, decode="basic") as stream:
        for epoch in range(3):
            stream.set_epoch(epoch)
            seen = 0
            for batch in stream.batches():
                seen += len(batch["cls"])
                stream.record(batch["__index__"], np.asarray(batch["__index__"]) % 7)
            counts.append(seen)
    return counts


def why_not(adapter: str) -> str:
    import importlib

    try:
        importlib.import_module(f"seta_stream.adapters.{adapter}")
    except ImportError as error:
        return str(error)
    return "it is there"


if __name__ == "__main__":
    main()
