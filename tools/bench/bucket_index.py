"""Indexing a corpus over HTTP: hops from header to header against reading the shards whole, and what was foretold.

    python tools/bench/bucket_index.py [--corpora photos,words,captions] [--profiles latency,limited] [--runs 3]

nginx serves each corpus under a profile (20 ms to the first byte and 50 MB/s per connection; or 100 MB/s in all). Each
way runs alone and from nothing, in a process of its own; printed are the median wall seconds from the first request of
the scan to the last index, the requests and bytes that the server counted (those of the probe among them), and what the
model foretold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from _common import WORK, corpus, show
from bucket_server import PROFILES, Bucket, serving

CHILD = """
import json, sys, tempfile, time, resource
from seta_stream.corpus.building import Task, build
from seta_stream.corpus.folders import Folders
from seta_stream.corpus.probing import foresee
urls, way, folder, jobs = json.loads(sys.argv[1])
tasks = [Task(n, url, info, f"{folder}/{n}", None, must_write=True)
         for n, (url, info) in enumerate(zip(urls, Folders(None).infos(urls)))]
began = time.perf_counter()
plan, estimate = foresee(tasks, len(tasks), way=way, jobs=jobs)
probed = time.perf_counter()
busy = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
samples = sum(built.header.samples for built in build(tasks, None, plan))
print(json.dumps({"probe_s": probed - began, "seconds": time.perf_counter() - probed, "samples": samples,
                  "way": estimate.cost.way, "read_bytes": estimate.cost.read_bytes, "processes": plan.processes,
                  "told": str(estimate), "requests": estimate.cost.requests, "fetched": estimate.cost.fetched,
                  "foretold_s": estimate.cost.seconds,
                  "busy_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - busy,
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def run(bucket: Bucket, names: list[str], way: str | None, jobs: int | None = None) -> dict[str, Any]:
    """Index once; return what the child and the server say."""
    bucket.count()
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps([[f"{bucket.url}/{name}" for name in names], way, folder, jobs])
        done = subprocess.run([sys.executable, "-c", CHILD, asked], check=True, capture_output=True, text=True)
    count = bucket.count()
    facts: dict[str, Any] = json.loads(done.stdout)
    facts["served"], facts["sent"] = count.shard_requests, count.shard_bytes
    return facts


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", default="photos,words,captions")
    parser.add_argument("--profiles", default="latency,limited")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for profile in options.profiles.split(","):
        rows = []
        for name in options.corpora.split(","):
            names = [shard.rpartition("/")[2] for shard in corpus(name)]
            with serving(WORK / name, PROFILES[profile]) as bucket:
                for way in ("hops", "whole", None):
                    runs = [run(bucket, names, way) for _ in range(options.runs)]
                    rows.append([name, way or f"chosen: {runs[0]['way']}", *_figures(runs)])
        told = ["wall s", "foretold s", "requests", "foretold", "MB sent", "foretold", "CPU s", "probe s", "RSS MB"]
        show(f"Indexing over HTTP, {PROFILES[profile]}", ["corpus", "way", *told], rows)


def _figures(runs: list[dict[str, Any]]) -> list[str]:
    def median(name: str) -> float:
        return statistics.median(run[name] for run in runs)

    return [
        f"{median('seconds'):.2f}",
        f"{median('foretold_s'):.2f}",
        f"{median('served'):,.0f}",
        f"{median('requests'):,.0f}",
        f"{median('sent') / 1e6:,.1f}",
        f"{median('fetched') / 1e6:,.1f}",
        f"{median('busy_s'):.2f}",
        f"{median('probe_s'):.2f}",
        f"{median('memory') / 1e6:,.0f}",
    ]


if __name__ == "__main__":
    main()
