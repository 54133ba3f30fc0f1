"""MosaicML Streaming in an interpreter of its own: converts a corpus, and reads one as bucket.py's readers do.

Takes a specification as JSON on stdin; prints one line of JSON. Effects: a folder in its MDS format, or
requests, a temporary folder, and Streaming's named shared memory, which is removed at the end.

It runs under `--mosaic-python`, which needs none of our packages. To make one:

    python3 -m venv /tmp/mosaic
    /tmp/mosaic/bin/pip install -c constraints.txt torch==2.13.0 "numpy<2.2" "transformers<5" "xxhash<4" \
        boto3 Brotli python-snappy zstd tqdm catalogue pillow
    /tmp/mosaic/bin/pip install --no-deps mosaicml-streaming==0.13.0
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
import types
from typing import Any


def import_streaming() -> Any:
    """Return the package. It imports torchvision for data sets of its own, and uses nothing of it here."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # transformers looks for it
    for name, member in (
        ("datasets", "VisionDataset"),
        ("datasets", "CIFAR10"),
        ("transforms.functional", "to_tensor"),
    ):
        setattr(sys.modules[f"torchvision.{name}"], member, type(member, (), {}))
    import streaming

    return streaming


def convert(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the samples of TAR shards as one MDS data set of bytes columns, uncompressed, in shards of 64 MiB."""
    streaming = import_streaming()
    count = 0
    columns = dict.fromkeys(spec["fields"], "bytes")
    with streaming.MDSWriter(out=spec["out"], columns=columns, compression=None) as writer:
        for shard in spec["shards"]:
            sample: dict[str, bytes] = {}
            with tarfile.open(shard) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    sample[member.name.partition(".")[2]] = file.read()
                    if len(sample) == len(columns):
                        writer.write(sample)
                        count += 1
                        sample = {}
    return {"samples": count}


def read(spec: dict[str, Any]) -> dict[str, Any]:
    """Read an epoch from a local copy that starts empty, fetched by Streaming's own S3 client."""
    os.environ |= {"S3_ENDPOINT_URL": spec["url"], "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    streaming = import_streaming()
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory(dir=spec["scratch"]) as local:
        begin = time.perf_counter()
        dataset = streaming.StreamingDataset(
            remote=spec["remote"], local=local, batch_size=spec["batch"], **spec.get("options", {})
        )
        told: dict[str, Any] = {"open_s": time.perf_counter() - begin}
        for stream in dataset.streams:
            # Forked workers would share the connection that fetched index.json, and wait a minute for answers that
            # another one has read.
            stream._downloader.clean_up()  # noqa: SLF001
        count, first, begin, cpu = 0, 0.0, time.perf_counter(), time.process_time()
        loader = DataLoader(dataset, batch_size=spec["batch"], num_workers=spec.get("workers", 0), collate_fn=list)
        for batch in loader:
            first = first or time.perf_counter() - begin
            count += len(batch)
        row = {"samples": count, "first_s": first, "epoch_s": time.perf_counter() - begin}
        told["epochs"] = [row | {"cpu_s": time.process_time() - cpu}]
        del loader, dataset
    clean_stale_shared_memory()
    return told


def main() -> None:
    spec = json.load(sys.stdin)
    told = {"convert": convert, "read": read}[spec["do"]](spec)
    told["rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.flush()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
