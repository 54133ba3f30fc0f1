"""Times the header scan against the standard library's tarfile on a caption corpus that is made on the fly.

    python tools/bench/scan.py [--samples 300000] [--pairs 3] [--pax]

Ours: open, scan, group into samples, build the index and its file. tarfile: iterate over the headers alone. Both on
the same file in the page cache, in turns; printed are the median seconds of each and the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

from seta_stream.corpus.scanning import scan_shard


def write_captions(path: Path, samples: int, *, pax: bool) -> None:
    """Write samples of a caption of about 100 bytes and a JSON record; `pax` as webdataset's TarWriter leaves them."""
    caption = "a caption of about a hundred bytes, as it comes with a photograph on the web, the number is {:09d}"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT if pax else tarfile.USTAR_FORMAT) as tar:
        for number in range(samples):
            record = f'{{"id": {number}, "width": 640, "height": 480}}'
            for field, text in (("txt", caption.format(number)), ("json", record)):
                info = tarfile.TarInfo(f"{number:09d}.{field}")
                info.size = len(text)
                info.mtime = 1.5 if pax else 0
                tar.addfile(info, io.BytesIO(text.encode()))


def seconds_of_tarfile(path: Path) -> float:
    """Return the time that tarfile takes to iterate over all members."""
    gc.collect()
    started = time.perf_counter()
    with tarfile.open(path, "r:") as tar:
        for _ in tar:
            tar.members = []
    return time.perf_counter() - started


def seconds_of_ours(path: Path) -> tuple[float, int, int]:
    """Return the time from the path to the index file's bytes, the file's size and that of its keys."""
    gc.collect()
    started = time.perf_counter()
    index = scan_shard(str(path))
    data = index.to_bytes()
    return time.perf_counter() - started, len(data), len(index.packed_keys)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--pax", action="store_true", help="a PAX header before every member, as webdataset writes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.tar"
        write_captions(path, options.samples, pax=options.pax)
        print(f"{options.samples:,} samples of 2 members, {path.stat().st_size / 1e6:,.0f} MB, {options.pairs} pairs")
        ours, theirs = [], []
        for _ in range(options.pairs):
            theirs.append(seconds_of_tarfile(path))
            seconds, index_bytes, key_bytes = seconds_of_ours(path)
            ours.append(seconds)
    ratio = statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
    print(f"tarfile  {statistics.median(theirs):7.2f} s")
    print(f"ours     {statistics.median(ours):7.2f} s   (scan, group, index and its file)")
    print(f"ratio    {ratio:7.1f}")
    print(
        f"index    {index_bytes / options.samples:7.2f} bytes per sample, of which compressed keys "
        f"{key_bytes / options.samples:.2f}"
    )


if __name__ == "__main__":
    main()
