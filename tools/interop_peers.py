"""Compares `seta-stream convert` with the tools whose formats it reads and writes, on random shards.

The tools live in environments of their own, whose folders are given (docs/formats/interop.md says how to make them):

    python tools/interop_peers.py --energon ENV --dali ENV --webshart ENV [--seeds 20]

For Energon, `.tar.idx` and the tables of `index.sqlite` must be those of `energon prepare`, and its reader must give
every sample; for DALI, its own reader, without a GPU, must give every member from our index; the indexes of all of them
must become the index that a scan gives.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from seta_stream.cli.convert import convert_shards
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.scanning import scan_shard

DIALECTS = {
    "ustar": (tarfile.USTAR_FORMAT, 1),
    "gnu": (tarfile.GNU_FORMAT, 1),
    "pax": (tarfile.PAX_FORMAT, 1),
    "pax-always": (tarfile.PAX_FORMAT, 1.5),
}

READ_ENERGON = """
import sys
from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.itar_reader import ShardInfosITarReader, SqliteITarEntryReader
from megatron.energon.flavors.webdataset.metadata import WebdatasetMeta
import hashlib, json
root = EPath(sys.argv[1])
meta = WebdatasetMeta.from_config(path=root, split_part="train")
reader = ShardInfosITarReader(root, meta.shards)
by_key = SqliteITarEntryReader(root)
out = []
for number in range(len(reader)):
    sample = reader[number]
    again = by_key[sample["__key__"]]
    parts = {name: hashlib.sha1(value).hexdigest() for name, value in sample.items() if not name.startswith("__")}
    assert parts == {name: hashlib.sha1(again[name]).hexdigest() for name in parts}
    out.append([sample["__key__"], parts])
print(json.dumps(out))
"""

READ_DALI = """
import hashlib, json, sys
import numpy as np
from nvidia.dali import fn, pipeline_def
shard, index, fields, count = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def pipeline():
    places = {"paths": [shard], "index_paths": [index]}
    return tuple(fn.readers.webdataset(**places, ext=fields, missing_component_behavior="empty"))
made = pipeline()
made.build()
digests = lambda: [hashlib.sha1(np.array(part[0]).tobytes()).hexdigest() for part in made.run()]
print(json.dumps([digests() for _ in range(count)]))
"""


def make(folder: Path, seed: int) -> list[Path]:
    """Write a shard in each dialect, with folders, notes and names without a field among the samples."""
    rng = random.Random(seed)
    shards = []
    for number, (dialect, (layout, mtime)) in enumerate(DIALECTS.items()):
        path = folder / f"{dialect}.tar"
        shards.append(path)
        with tarfile.open(path, "w", format=layout) as tar:  # type: ignore[call-overload]

            def add(name: str, data: bytes | None) -> None:
                info = tarfile.TarInfo(name)
                info.mtime = mtime  # noqa: B023  (called in this turn alone)
                info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                info.size = len(data or b"")
                tar.addfile(info, io.BytesIO(data or b""))

            for sample in range(rng.randint(1, 60)):
                key = f"{rng.choice(['', 'd/'])}{number}_{sample:04d}"
                key += "n" * 130 if rng.random() < 0.1 and layout != tarfile.USTAR_FORMAT else ""
                if rng.random() < 0.1:
                    add(f"{key}_folder", None)
                if rng.random() < 0.05:
                    add(f"__note{sample}__", rng.randbytes(rng.randint(0, 900)))
                for field in rng.choice([["jpg", "txt"], ["JPG", "txt"], ["jpg", "txt", "cls"], ["jpg"]]):
                    add(f"{key}.{field}", rng.randbytes(rng.choice([0, 1, 511, 512, 513, 3000])))
                    if rng.random() < 0.05:
                        add(f"other/README{sample}", b"hi")
            if rng.random() < 0.5:
                add("LAST", b"end")
    return shards


def run(*command: object, **options: object) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


def same_as_scans(shards: list[Path], source: str, folder: Path) -> None:
    """Read foreign indexes and compare what comes of them with scans, byte for byte."""
    for whole in (False, True):
        out = folder / f"ours-{whole}"
        summary = convert_shards(list(map(str, shards)), source=source, to="seta", out=str(out), whole=whole)
        assert not summary.failed, summary.failed
        for shard in shards:
            found = ShardIndex.from_bytes((out / f"{shard.name}.seta-index").read_bytes())
            assert found.to_bytes() == scan_shard(str(shard)).to_bytes(), (source, whole, shard)
        shutil.rmtree(out)


def tables(path: Path) -> list[object]:
    """Return the rows of Energon's tables, and the names of what the file holds."""
    with sqlite3.connect(path) as base:
        rows = [base.execute(f"SELECT * FROM {table}").fetchall() for table in ("samples", "sample_parts")]
        return [*map(sorted, rows), sorted(base.execute("SELECT type, name FROM sqlite_master").fetchall())]


def energon(env: Path, shards: list[Path], folder: Path) -> None:
    """Compare with `energon prepare`, and read by Energon what we wrote."""
    theirs, ours = folder / "theirs", folder / "ours"
    for place in (theirs, ours):
        place.mkdir()
        for shard in shards:
            shutil.copy(shard, place)
    prepare = ("--non-interactive", "--split-ratio", "1,0,0", "--num-workers", "1", "--sample-type", "CrudeWebdataset")
    run(env / "bin/energon", "prepare", theirs, *prepare)
    summary = convert_shards([f"{ours}/*.tar"], to="energon")
    assert not summary.failed, summary.failed
    for shard in shards:
        name = f"{shard.name}.idx"
        assert (theirs / name).read_bytes() == (ours / name).read_bytes(), name
    for name in (".info.json", "dataset.yaml"):
        assert (theirs / ".nv-meta" / name).read_bytes() == (ours / ".nv-meta" / name).read_bytes(), name
    assert tables(theirs / ".nv-meta/index.sqlite") == tables(ours / ".nv-meta/index.sqlite")
    read = [json.loads(run(env / "bin/python", "-c", READ_ENERGON, place)) for place in (theirs, ours)]
    assert read[0] == read[1]
    assert len(read[1]) == summary.samples
    same_as_scans([theirs / shard.name for shard in shards], "energon", folder)
    (theirs / ".nv-meta/index.sqlite").unlink()
    same_as_scans([theirs / shard.name for shard in shards], "energon", folder)


def dali(env: Path, shards: list[Path], folder: Path) -> None:
    """Read by DALI what we wrote, and read what its tool wrote."""
    import hashlib

    out = folder / "dali"
    summary = convert_shards(list(map(str, shards)), to="dali", out=str(out))
    assert not summary.failed, summary.failed
    fields = ["jpg", "JPG", "txt", "cls"]
    empty = hashlib.sha1(b"").hexdigest()
    for shard in shards:
        index, data = scan_shard(str(shard)), shard.read_bytes()
        place = out / f"{shard.stem}.idx"
        read = json.loads(run(env / "bin/python", "-c", READ_DALI, shard, place, ",".join(fields), index.samples))
        for sample, parts in enumerate(read):
            members = range(index.first_member[sample], index.first_member[sample + 1])
            wanted = sorted(
                hashlib.sha1(data[index.member_offset[m] : index.member_offset[m] + index.member_size[m]]).hexdigest()
                for m in members
                if index.member_size[m]
            )
            assert sorted(part for part in parts if part != empty) == wanted, (shard, sample)
        run(env / "bin/wds2idx", shard, shard.with_suffix(".idx"))
    same_as_scans(shards, "dali", folder)


def member_lists(env: Path, shards: list[Path], folder: Path) -> None:
    """Read what hfutils and webshart wrote."""
    script = "import sys; from hfutils.index import tar_create_index as t\nfor p in sys.argv[1:]: t(p, silent=True)"
    run(env / "bin/python", "-c", script, *shards)
    same_as_scans(shards, "webshart", folder)
    for shard in shards:
        shard.with_suffix(".json").unlink()
    script = (
        "import sys, webshart; folder = sys.argv[1]; "
        "webshart.MetadataExtractor().extract_metadata(source=folder, destination=folder, max_workers=1)"
    )
    run(env / "bin/python", "-c", script, f"{shards[0].parent}/")
    same_as_scans(shards, "webshart", folder)


def main() -> None:
    """Run all that an environment is given for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("energon", "dali", "webshart"):
        parser.add_argument(f"--{name}", type=Path, metavar="ENV")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    for seed in range(options.seeds):
        for name, compare in (("energon", energon), ("dali", dali), ("webshart", member_lists)):
            env = getattr(options, name)
            if env is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                shards_folder = Path(folder) / "shards"
                shards_folder.mkdir()
                compare(env.absolute(), make(shards_folder, seed), Path(folder))
            print(f"seed {seed}: {name} agrees", flush=True)


if __name__ == "__main__":
    main()
