"""Times the commands around training, each as a process of its own, from its start to its end.

    python tools/bench/tools.py [--corpus words] [--runs 3] [--clusters]

One corpus, warm, and the state of two epochs of it. Beside each command stands what it is to be compared with, run in
turn with it: scoring with plain reading through the same batches, verifying with indexing, new shards with `cp`.
Printed are the median seconds, the median of the paired ratios, the peak memory of the process (its children apart),
and sizes per sample. `--clusters` adds scoring with a model that computes for 0.1 ms a sample, on one and two
processes of this machine and on a Dask and a Ray cluster of two that are started for it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _common import CORPORA, corpus, median_ratio, show, warm

from seta_stream import SeTa, SetaStream

WATCHED = """
import atexit, pathlib, sys
told = lambda: pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
atexit.register(lambda: print("peak", told(), file=sys.stderr))
from seta_stream.cli import main
main(prog_name="seta-stream")
"""
COMMAND = [sys.executable, "-c", WATCHED]
"""`seta-stream`, which tells its peak memory at its end; what the kernel tells of a child has its parent's in it."""
MODELS = '''
import time
import numpy as np

def lengths(batch):
    """One loss per sample, for next to nothing."""
    return np.fromiter((len(key) for key in batch["__key__"]), np.float32)

def busy(batch):
    """The same, after 0.1 ms of a processor per sample."""
    end = time.process_time() + 1e-4 * len(batch["__key__"])
    while time.process_time() < end:
        pass
    return lengths(batch)
'''
READ = """
import sys
from seta_stream import SetaStream
with SetaStream(sys.argv[1:], shuffle=False, drop_last=False) as stream:
    samples = sum(len(batch["__key__"]) for batch in stream.batches(256))
"""


@dataclass
class Case:
    """A command, and what it is compared with.

    Args:
        argv: the command.
        fresh: what is removed before each run.
        beside: the other command; None for none.
        size: a file whose bytes are told.
    """

    argv: list[str]
    fresh: list[Path] = field(default_factory=list)
    beside: list[str] | None = None
    size: Path | None = None


def timed(argv: list[str], folder: Path) -> tuple[float, int]:
    """Return a command's seconds, and the peak of its memory in KiB if it tells it."""
    begin = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv[:4])} … ended with {done.returncode}: {done.stderr}")
    return took, int(done.stderr.rpartition("peak ")[2].split()[0]) if "peak " in done.stderr else 0


def measure(name: str, case: Case, folder: Path, runs: int, samples: int) -> list[str]:
    """Return the row of a case."""
    own: list[float] = []
    other: list[float] = []
    peak = 0
    for _ in range(runs):
        if case.beside is not None:
            shutil.rmtree(folder / "beside", ignore_errors=True)
            (folder / "beside").mkdir()
            other.append(timed(case.beside, folder)[0])
        for path in case.fresh:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        took, memory = timed(case.argv, folder)
        own.append(took)
        peak = max(peak, memory)
    return [
        name,
        f"{statistics.median(own):.2f}",
        f"{statistics.median(other):.2f}" if other else "",
        f"{median_ratio(own, other):.2f}" if other else "",
        f"{peak * 1024 / 1e6:.0f}",
        f"{case.size.stat().st_size / samples:.2f}" if case.size is not None else "",
    ]


def train(shards: list[str], state: Path) -> None:
    """Leave the state of two epochs, the second one half as long."""
    rng = np.random.default_rng(0)
    policy = SeTa(num_epochs=4, target=0.5)
    with SetaStream(shards, policy=policy, state=str(state), batch_size=256) as stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in stream.batches():
                stream.record(batch["__index__"], rng.gamma(2.0, 0.5, len(batch["__index__"])))


def cases(shards: list[str], folder: Path) -> dict[str, Case]:
    """Return what is measured."""
    state, new = folder / "state", folder / "new"
    score = [*COMMAND, "score", *shards, "--state", str(new), "--model", "bench_models:lengths"]
    table, rows, subset = folder / "losses.parquet", folder / "losses.csv", folder / "subset"
    index = [*COMMAND, "index", *shards, "--out", str(folder / "beside"), "--jobs", "1"]
    export = [*COMMAND, "export", str(state)]
    return {
        "score, a model that costs nothing, beside plain reading": Case(
            [*score, "--jobs", "1"], [new], [sys.executable, "-c", READ, *shards]
        ),
        "verify, with the state, beside index": Case(
            [*COMMAND, "verify", *shards, "--state", str(state), "--jobs", "1"], beside=index
        ),
        "export to Parquet": Case([*export, "--to", str(table)], [table], size=table),
        "export to CSV": Case([*export, "--to", str(rows)], [rows], size=rows),
        "import from Parquet": Case([*COMMAND, "import", str(table), *shards, "--state", str(new)], [new]),
        "export half as new shards, beside cp of all": Case(
            [*export, "--shards", str(subset), "--jobs", "1"], [subset], ["cp", *shards, str(folder / "beside")]
        ),
        "report, with 24 samples": Case([*COMMAND, "report", str(state), "-o", str(folder / "report.html")]),
    }


def clusters(shards: list[str], folder: Path) -> dict[str, Case]:
    """Return the busy model on one process, and on two of each kind."""
    new = folder / "new"
    score = [*COMMAND, "score", *shards, "--state", str(new), "--model", "bench_models:busy"]
    alone = [*COMMAND, "score", *shards, "--state", "beside/state", "--model", "bench_models:busy", "--jobs", "1"]
    kinds = {"local": [], "dask": ["--backend", "dask"], "ray": ["--backend", "ray"]}
    return {
        f"score, busy, two processes ({kind}), beside one": Case([*score, *more, "--jobs", "2"], [new], alone)
        for kind, more in kinds.items()
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, default="words")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clusters", action="store_true")
    options = parser.parse_args()
    shards = corpus(options.corpus)
    warm(shards)
    samples = CORPORA[options.corpus][0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bench_models.py").write_text(MODELS)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        train(shards, folder / "state")
        chosen = cases(shards, folder) | (clusters(shards, folder) if options.clusters else {})
        rows = [measure(name, case, folder, options.runs, samples) for name, case in chosen.items()]
    columns = ["command", "s", "beside it, s", "ratio", "peak MB", "bytes/sample"]
    show(f"{options.corpus}: {samples:,} samples, {len(shards)} shards, {options.runs} runs", columns, rows)


if __name__ == "__main__":
    main()
