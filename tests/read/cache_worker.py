"""A process that uses a cache, for tests that kill it, fill its disk or run several at once.

python cache_worker.py FOLDER SHARDS SIZE [MAX_BYTES]: reads every shard once, whole; prints a line per shard, and the
warnings given, as JSON. The "bucket" gives content(SIZE, shard number).
"""

from __future__ import annotations

import json
import sys
import warnings

from cache_fakes import FakeShard, content, opened, run_of, take


def tell(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    folder, shards, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    max_bytes = int(sys.argv[4]) if len(sys.argv) > 4 else None
    bucket = [FakeShard(content(size, seed), url=f"fake://bucket/{seed}.tar") for seed in range(shards)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cache, files = opened(run_of(folder, *bucket, max_bytes=max_bytes, block=65536), *bucket, ahead=1 << 20)
        for number, (shard, file) in enumerate(zip(bucket, files, strict=True)):
            right = take(file, [(0, size)]) == [shard.data] == file.read_spans([(0, size)])
            tell(shard=number, right=right, asked=shard.asked_bytes)
    cache.close()
    tell(told=[str(one.message) for one in told])


if __name__ == "__main__":
    main()
