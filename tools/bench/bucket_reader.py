"""A reader of the bucket benchmarks: ours, webdataset or a bare client; run by bucket.py in a process of its own.

Takes a specification as JSON on stdin; prints seconds, samples and its own counts as one line of JSON.
Effects: requests; nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from typing import Any

from bucket_child import anonymous_bytes

Spec = dict[str, Any]
Told = dict[str, Any]


def drain(samples: Iterable[object], begin: float, slow_s: float = 0.0) -> Told:
    """Read to the end; return how many there were, and the seconds to the first one and to the end."""
    count, first, cpu = 0, 0.0, time.process_time()
    for _ in samples:
        if not count:
            first = time.perf_counter() - begin
        count += 1
        if slow_s:
            time.sleep(slow_s)
    epoch_s = time.perf_counter() - begin
    return {"samples": count, "first_s": first, "epoch_s": epoch_s, "cpu_s": time.process_time() - cpu}


# ---- ours


def ours(spec: Spec) -> Told:
    """Read epochs of our stream; `policy`, `read`, `cache`, … are its options."""
    import seta_stream
    from seta_stream import SetaStream
    from seta_stream.read.options import Cache, Reading

    if spec.get("workers"):
        import torch  # noqa: F401  (an import is not what is timed)

        from seta_stream.adapters.torch import SetaDataset
    imported = anonymous_bytes()
    options = dict(spec.get("options", {}), read=Reading(**spec.get("read", {})))
    kind, arguments = spec["policy"]
    options["policy"] = getattr(seta_stream, kind)(**arguments)
    with tempfile.TemporaryDirectory(dir=spec.get("scratch")) as scratch:
        if "cache_bytes" in spec:
            options["cache"] = Cache(spec.get("cache_folder") or scratch, spec["cache_bytes"])
        begin = time.perf_counter()
        if spec.get("workers"):
            stream = SetaDataset(spec["urls"], batch_size=spec["batch"], **options)
        else:
            stream = SetaStream(spec["urls"], batch_size=spec["batch"], **options)
        told: Told = {"open_s": time.perf_counter() - begin, "imported_bytes": imported, "epochs": []}
        with contextlib.closing(stream):
            for epoch in spec.get("epochs", [1]):
                told["epochs"].append(one_epoch(stream, epoch, spec))
    return told


def one_epoch(stream: Any, epoch: int, spec: Spec) -> Told:
    """Read one epoch; where the policy asks for losses, record some for all samples afterwards."""
    begin = time.perf_counter()
    stream.set_epoch(epoch)
    workers, select_s = spec.get("workers", 0), time.perf_counter() - begin
    begin = time.perf_counter()
    row = {"select_s": select_s} | drain(
        _loaded(stream, workers, spec["batch"]) if workers else stream, begin, spec.get("slow_s", 0.0)
    )
    inner = stream.stream if workers else stream
    stats = inner.stats
    row |= {name: getattr(stats, name) for name in ("bytes_total", "bytes_needed", "bytes_fetched", "requests")}
    row |= {name: getattr(stats, name) for name in ("total", "selected", "left_out", "wait_s", "cache_hits", "retries")}
    assert row["samples"] == stats.selected - stats.left_out, row
    if spec.get("record"):
        inner.record(*losses_of(inner))
    return row


def losses_of(stream: Any) -> tuple[Any, Any]:
    """Return all ids, and losses that hang on the samples' keys alone: the same ones after a repack."""
    import numpy as np

    corpus = stream.reader.corpus
    keys = [int(key) for shard in range(len(corpus.table.urls)) for key in corpus.index(shard).keys]
    losses = np.random.default_rng(0).exponential(size=max(keys) + 1)
    return np.arange(len(keys)), losses[np.array(keys)]


def _loaded(dataset: Any, workers: int, batch: int) -> Iterable[object]:
    """Yield samples out of torch's DataLoader, which is asked for lists: nothing is stacked."""
    from torch.utils.data import DataLoader

    for samples in DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=list):
        yield from samples


# ---- webdataset


def webdataset(spec: Spec) -> Told:
    """Read the `webdataset` package's way: curl, or fsspec's file objects; half of it is dropped after reading."""
    import webdataset as wds

    workers = spec.get("workers", 0)
    if workers:
        import torch.utils.data  # noqa: F401
    if spec.get("opener") == "fsspec":
        import fsspec

        wds.gopen_schemes["http"] = lambda url, mode, _: fsspec.open(url, mode, block_size=8 << 20).open()
    begin = time.perf_counter()
    dataset = wds.WebDataset(spec["urls"], shardshuffle=False, empty_check=False)
    if spec.get("half"):
        dataset = dataset.select(is_kept)
    told: Told = {"open_s": time.perf_counter() - begin}
    begin = time.perf_counter()
    samples = _loaded(dataset, workers, spec["batch"]) if workers else dataset
    told["epochs"] = [drain(samples, begin)]
    return told


def is_kept(sample: dict[str, Any]) -> bool:
    """Keep about half, by a hash of the key."""
    return bool(zlib.crc32(sample["__key__"].encode()) & 1)


# ---- a bare client


def bare(spec: Spec) -> Told:
    """Fetch byte ranges through obstore, a number of them at once, and drop them."""
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(spec["url"], client_options={"allow_http": True})
    spans = iter([(path, start, stop) for path, start, stop in spec["spans"]])
    fetched = 0
    first = 0.0
    begin, cpu = time.perf_counter(), time.process_time()

    async def fetch() -> None:
        nonlocal fetched, first
        for path, start, stop in spans:
            data = await store.get_range_async(path, start=start, end=stop)
            first = first or time.perf_counter() - begin
            assert len(data) == stop - start, (len(data), start, stop)
            fetched += len(data)

    async def fetch_all() -> None:
        await asyncio.gather(*(fetch() for _ in range(spec["in_flight"])))

    asyncio.run(fetch_all())
    row = {"samples": spec["samples"], "first_s": first, "epoch_s": time.perf_counter() - begin}
    row["cpu_s"] = time.process_time() - cpu
    return {"open_s": 0.0, "epochs": [row | {"bytes_fetched": fetched, "requests": len(spec["spans"])}]}


READERS = {"ours": ours, "webdataset": webdataset, "bare": bare}


def main() -> None:
    spec = json.load(sys.stdin)
    told = READERS[spec["reader"]](spec)
    told["rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(told), flush=True)
    if spec["reader"] == "bare":
        # obstore 0.12 aborts one process in twenty that ends right after its last request: its threads still hold
        # Python objects. See PyO3/pyo3-async-runtimes issue 40.
        os._exit(0)


if __name__ == "__main__":
    main()
