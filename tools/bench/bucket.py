"""Epochs from a bucket: ours, webdataset, MosaicML Streaming and a bare client, on one server.

    python tools/bench/bucket.py [--profile latency limited] [--corpus photos] [--section epochs small memory flight]
        [--runs 3] [--quick] [--mosaic-python /tmp/mosaic/bin/python]

The server is nginx on the loopback. `latency`: 20 ms to the first byte and 50 MB/s per connection; `limited`: 20 ms,
and 100 MB/s over all connections together. Every reader is a process of its own that reads to the end; runs take
turns, the order of turns is reversed from run to run, and ratios are medians of the ratios within a run. Requests and
bytes are the server's count (of the last epoch alone, by the stream's, where a reader has several). What is to hold is
printed with PASS or FAIL, and the exit code is 1 where anything fails.
How to make an interpreter for MosaicML Streaming is written in tools/bench/bucket_mosaic.py.
"""

from __future__ import annotations

import argparse
import sys

from _common import CORPORA, WORK
from bucket_results import Checks
from bucket_sections import SECTIONS, Session
from bucket_server import PROFILES, serving

DEFAULT_MOSAIC = "/tmp/mosaic/bin/python"


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=["latency", "limited"])
    parser.add_argument("--corpus", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--case", nargs="+", help="only cases whose names contain one of these words")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="six shards of each corpus")
    parser.add_argument("--mosaic-python", default=DEFAULT_MOSAIC, help="an interpreter with mosaicml-streaming")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = arguments_of(argv)
    checks = Checks()
    WORK.mkdir(parents=True, exist_ok=True)
    for profile in arguments.profile:
        with serving(WORK, PROFILES[profile]) as bucket:
            session = Session(bucket, profile, arguments, checks)
            for section in arguments.section:
                SECTIONS[section](session)
    checks.show()
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
