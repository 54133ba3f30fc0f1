"""The readers of the bucket benchmarks, as specifications: name → what bucket_reader.py or bucket_mosaic.py is told.

Takes a corpus on a server; gives specifications. Effects: a converted copy for MosaicML Streaming, made once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import WORK
from bucket_child import run_reader

from seta_stream.corpus.index import ShardIndex
from seta_stream.read.spans import plan_spans

HERE = Path(__file__).resolve().parent
Spec = dict[str, Any]

BATCH = 64
FULL = ("DynamicRandom", {"prune_ratio": 0.0})
HALF = ("DynamicRandom", {"prune_ratio": 0.5})
FIELDS = {"captions": ("txt", "json"), "words": ("jpg", "txt"), "photos": ("jpg", "cls")}


@dataclass(frozen=True)
class Corpus:
    """One corpus as a server shows it.

    Args:
        name: one of the three.
        shards: the files.
        samples: in all of them.
        url: of the server, which serves WORK.
    """

    name: str
    shards: Sequence[str]
    samples: int
    url: str

    @property
    def urls(self) -> list[str]:
        """The shards' URLs."""
        return [self.url + self.target(shard) for shard in self.shards]

    @property
    def index(self) -> str:
        """Folder of the indexes of the shards as the server shows them: their versions are its ETags."""
        return str(WORK / f"{Path(self.shards[0]).parent.name}-index")

    def target(self, shard: str) -> str:
        """Return a shard's path on the server."""
        return "/" + str(Path(shard).relative_to(WORK))


def index_over(corpus: Corpus) -> None:
    """Index the shards through the server: what a user does once."""
    command = [sys.executable, "-m", "seta_stream.cli", "index", *corpus.urls, "--out", corpus.index]
    subprocess.run(command, check=True, capture_output=True)


def ours(corpus: Corpus, policy: tuple[str, dict[str, Any]], **more: Any) -> Spec:
    """Return one epoch of our stream over the server, by its defaults but for `more`."""
    fixed = {"reader": "ours", "urls": corpus.urls, "policy": policy, "batch": BATCH}
    return fixed | {"options": {"index": corpus.index}} | more


def over_s3(spec: Spec, corpus: Corpus) -> Spec:
    """Return our stream's case over s3://, so through obstore: the server answers its reads as an open bucket does."""
    urls = ["s3:/" + corpus.target(shard) for shard in corpus.shards]
    storage = {"anon": True, "endpoint_url": corpus.url, "client_kwargs": {"region_name": "us-east-1"}}
    return spec | {"urls": urls, "options": spec.get("options", {}) | {"storage_options": storage}}


def in_order(spec: Spec) -> Spec:
    """Return our stream's case without shuffling."""
    return spec | {"options": spec.get("options", {}) | {"shuffle": False}}


def webdataset(corpus: Corpus, **more: Any) -> Spec:
    """Return one epoch of webdataset over the server; half=True drops half after reading."""
    return {"reader": "webdataset", "urls": corpus.urls, "batch": BATCH} | more


def mosaic(corpus: Corpus, python: str, **more: Any) -> Spec:
    """Return one epoch of MosaicML Streaming on its converted copy, on the same server, by its S3 client."""
    remote = f"s3://{mosaic_copy(corpus, python).name}"
    fixed = {"reader": "mosaic", "python": python, "do": "read", "url": corpus.url, "remote": remote}
    return fixed | {"scratch": str(WORK), "batch": BATCH} | more


def mosaic_copy(corpus: Corpus, python: str) -> Path:
    """Return a folder with the corpus in the MDS format."""
    folder = WORK / f"mosaic-{corpus.name}-{corpus.samples}"
    if not (folder / "index.json").exists():
        spec = {"reader": "mosaic", "do": "convert", "shards": list(corpus.shards), "out": str(folder)}
        told = run_reader([python, str(HERE / "bucket_mosaic.py")], spec | {"fields": FIELDS[corpus.name]}, 0).told
        assert told["samples"] == corpus.samples, (told, corpus.samples)
    return folder


def mosaic_works(python: str) -> str | None:
    """Say why MosaicML Streaming cannot be measured with an interpreter; None where it can."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import bucket_mosaic; bucket_mosaic.import_streaming()"
    try:
        subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return str(error.stderr.strip().splitlines()[-1])
    return None


def bare(corpus: Corpus, in_flight: int, span_bytes: int, *, half: bool = False) -> Spec:
    """Return the same extents through a bare client: nothing is planned, cut or kept in order while it runs.

    Args:
        corpus: what is read.
        in_flight: requests at once.
        span_bytes: a request is no longer.
        half: read half of the samples, drawn at random, with a twentieth of waste.
    """
    max_waste = 0.05 if half else 0.0
    chosen = np.random.default_rng(0)
    spans = []
    kept = 0
    for shard in corpus.shards:
        index = ShardIndex.from_bytes(Path(f"{shard}.seta-index").read_bytes(), shard)
        starts, stops = index.extent_start, index.extent_stop
        if half:
            mask = chosen.random(len(starts)) < 0.5
            starts, stops = starts[mask], stops[mask]
        kept += len(starts)
        found = plan_spans(starts, stops, max_waste=max_waste, max_span_bytes=span_bytes)
        path = corpus.target(shard).lstrip("/")
        spans += [(path, a, b) for a, b in zip(found.starts.tolist(), found.stops.tolist(), strict=True)]
    return {"reader": "bare", "url": corpus.url, "spans": spans, "in_flight": in_flight, "samples": kept}


def command_of(spec: Spec) -> list[str]:
    """Return the command that runs a specification."""
    if spec["reader"] == "mosaic":
        return [spec["python"], str(HERE / "bucket_mosaic.py")]
    return [sys.executable, str(HERE / "bucket_reader.py")]
