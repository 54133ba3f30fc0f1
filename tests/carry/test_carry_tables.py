"""Losses out of a state and into another: the same bit for bit, by Parquet and by CSV, in bounded memory."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from carry_runs import remembered, train
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from small_corpora import MakeCorpus, write_tar

from seta_stream import UCB, Full, SetaStream
from seta_stream.carry import export_losses, import_losses, open_source
from seta_stream.carry import importing as importing_module
from seta_stream.carry import rows as rows_module
from seta_stream.carry import tables as tables_module
from seta_stream.carry.matching import ShardNames, hashes_of, positions
from seta_stream.carry.parcels import Parcels
from seta_stream.carry.rows import Chunk
from seta_stream.carry.spelling import spelled
from seta_stream.carry.tables import read_table, write_table
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import (
    ArgumentError,
    GenerationError,
    MissingExtraError,
    ReadError,
    SetaStreamWarning,
    StateError,
    StateLockedError,
)
from seta_stream.losses.generations import Generations
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable

UCB_POLICY = UCB()
BOTH = pytest.mark.parametrize("ending", [".csv", ".parquet"])


@pytest.fixture
def urls(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(3, 30)


@pytest.fixture
def state(urls, tmp_path) -> Path:
    """A run of two epochs by a policy that remembers more than the loss; the first five samples were never seen."""
    train(urls, tmp_path / "state", UCB_POLICY, skip=5)
    return tmp_path / "state"


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(urls):
    return open_corpus(urls).table


@BOTH
def test_out_and_in_again_is_the_same(urls, state, tmp_path, ending, monkeypatch):
    """Losses, ages and all that the policy remembers, bit for bit; chunks and groups end anywhere."""
    monkeypatch.setattr(rows_module, "CHUNK", 7)
    monkeypatch.setattr(tables_module, "CHUNK", 11)
    monkeypatch.setattr(tables_module, "GROUP_ROWS", 20)
    file = tmp_path / f"losses{ending}"
    done = export_losses(open_source(str(state)), file)
    assert (done.rows, done.samples, done.seen, done.epoch) == (90, 90, 85, 1)
    told = import_losses(file, urls, str(tmp_path / "new"))
    assert (told.rows, told.matched, told.unmatched, told.repeated, told.empty) == (90, 90, 0, 0, 5)
    assert (told.epoch, told.by, told.seen, told.columns) == (-1, "key", 85, tuple(sorted(told.columns)))
    table = table_of(urls)
    before = remembered(state, table.samples, table.digests, UCB_POLICY)
    after = remembered(tmp_path / "new", table.samples, table.digests, UCB_POLICY)
    assert set(before) > {"loss", "age"}
    for name, values in before.items():
        assert values.dtype == after[name].dtype
        assert values.tobytes() == after[name].tobytes(), name
    with SetaStream(urls, policy=UCB_POLICY, state=str(tmp_path / "new"), batch_size=2) as stream:
        stream.set_epoch(0)
        assert stream.stats.selected < 90


@BOTH
def test_rows_in_any_order_and_without_places(urls, state, tmp_path, ending):
    """As a data frame's user leaves them: sorted by loss, only url, key and loss, the corpus moved meanwhile."""
    file = tmp_path / "losses.csv"
    export_losses(open_source(str(state)), file)
    rows = sorted(lines(file), key=lambda row: row["loss"])
    plain = tmp_path / f"plain{ending}"
    if ending == ".csv":
        with plain.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["loss", "key", "url"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    else:
        numbers = [float(row["loss"] or "nan") for row in rows]
        columns = {"url": [row["url"] for row in rows], "key": [row["key"] for row in rows], "loss": numbers}
        parquet.write_table(pa.table(columns), plain)
    (tmp_path / "moved").mkdir()
    moved = [shutil.copy(url, tmp_path / "moved") for url in urls]
    told = import_losses(plain, moved, str(tmp_path / "new"))
    assert (told.matched, told.seen, told.columns) == (90, 85, ())
    table = table_of(urls)
    before = remembered(state, table.samples, table.digests)["loss"]
    after = remembered(tmp_path / "new", table.samples, table.digests)
    assert before.tobytes() == after["loss"].tobytes()
    assert set(after["age"][5:].tolist()) == {0}


def test_by_id(urls, state, tmp_path):
    """Where the file has no keys, or where that is asked for."""
    file = tmp_path / "losses.csv"
    export_losses(open_source(str(state), with_keys=False), file)
    assert list(lines(file)[0])[:4] == ["url", "index", "id", "loss"]
    told = import_losses(file, urls, str(tmp_path / "new"))
    assert (told.by, told.matched, told.seen) == ("id", 90, 85)
    export_losses(open_source(str(state)), file)
    assert import_losses(file, urls, str(tmp_path / "new2"), by="id").by == "id"
    table = table_of(urls)
    before = remembered(state, table.samples, table.digests)["loss"]
    for new in ("new", "new2"):
        assert before.tobytes() == remembered(tmp_path / new, table.samples, table.digests)["loss"].tobytes()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_of_no_sample(urls, tmp_path):
    """Counted, and the first named: another shard, another key, an id beyond the last."""
    names = [Path(url).name for url in urls]
    rows = [f"/old/{names[0]},00000001,1.5", "/old/other.tar,00000001,2", f"{urls[1]},nokey,3", f"{urls[1]},00000031,4"]
    file = write(tmp_path / "l.csv", "\n".join(["url,key,loss", *rows, *["x.tar,k,1"] * 7, ""]))
    told = import_losses(file, urls, str(tmp_path / "state"))
    assert (told.rows, told.matched, told.unmatched, told.seen) == (11, 2, 9, 2)
    assert told.examples[:2] == (
        "row 2 (key '00000001' in /old/other.tar)", f"row 3 (key 'nokey' in {urls[1]})",
    )  # fmt: skip
    assert len(told.examples) == 5
    file = write(tmp_path / "l.csv", "id,loss\n-1,1\n3,1\n90,2\n")
    told = import_losses(file, urls, str(tmp_path / "state2"))
    assert (told.matched, told.examples) == (1, ("row 1 (id -1)", "row 3 (id 90)"))


def test_rows_that_name_a_sample_twice(urls, tmp_path):
    """By id, the later one stays; losses that are not finite leave the sample as it is."""
    file = write(tmp_path / "l.csv", "id,loss,age\n3,1,4\n3,2,5\n4,nan,0\n5,inf,0\n6,1e39,0\n7,,0\n3,,1\n")
    told = import_losses(file, urls, str(tmp_path / "state"))
    assert (told.rows, told.matched, told.repeated, told.empty, told.seen) == (7, 7, 2, 5, 1)
    table = table_of(urls)
    after = remembered(tmp_path / "state", table.samples, table.digests)
    assert (after["loss"][3], after["age"][3]) == (2.0, 5)


def test_merging(urls, state, tmp_path):
    """Rows are laid over the newest generation, of its epoch and on its lineage; the others stay."""
    table = table_of(urls)
    before = remembered(state, table.samples, table.digests)
    file = write(tmp_path / "l.csv", "id,loss\n0,7.5\n50,8.5\n")
    told = import_losses(file, urls, str(state), merge=True)
    assert (told.epoch, told.seen) == (1, 86)
    after = remembered(state, table.samples, table.digests, UCB_POLICY)
    assert np.flatnonzero(after["loss"].view("u4") != before["loss"].view("u4")).tolist() == [0, 50]
    assert (after["loss"][0], after["loss"][50], after["age"][0]) == (7.5, 8.5, 0)
    kept = Generations(str(state)).kept()
    assert kept[-1].parent == kept[-2].name
    assert kept[-1].facts["imported_from"] == "l.csv"
    assert kept[-1].facts["consumed"] == kept[-2].facts["consumed"]
    assert Generations(str(state)).history()[-1]["generation"] == told.generation
    assert import_losses(file, urls, str(state), merge=True, epoch=4).epoch == 4
    with pytest.raises(ArgumentError, match="they are laid over those of epoch 4"):
        import_losses(file, urls, str(state), merge=True, epoch=3)


def test_columns_that_do_not_tell_of_all_samples(urls, state, tmp_path):
    """Nobody knows with what the others begin: they are left out, with a warning."""
    file = tmp_path / "losses.csv"
    export_losses(open_source(str(state)), file)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.warns(SetaStreamWarning, match="are not imported: 1 samples have no row"):
        told = import_losses(file, urls, str(tmp_path / "new"))
    assert (told.columns, told.seen) == ((), 84)


def test_an_epoch_for_the_losses(urls, tmp_path):
    """They stand for the end of one; the run goes on behind it."""
    file = write(tmp_path / "l.csv", "id,loss\n0,7.5\n")
    assert import_losses(file, urls, str(tmp_path / "state"), epoch=4).generation.startswith("gen-000004-")
    with pytest.raises(ArgumentError, match="the least is -1, before epoch 0"):
        import_losses(file, urls, str(tmp_path / "other"), epoch=-2)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.csv", "key,loss\n1,2\n", "it has no column 'url', and the corpus has 3 shards"),
        ("l.csv", "url,key\n1,2\n", "it needs the columns loss, and key"),
        ("l.csv", "id,loss,loss\n1,2,3\n", "loss stand there twice"),
        ("l.csv", "", "it has none"),
        ("l.csv", "id,loss\n", "it has no row"),
        ("l.csv", "id,loss\n1\n", "row 1 has 1 cells, and the header 2"),
        ("l.csv", "id,loss\n1,high\n", "column 'loss' holds something else than float32 numbers in rows 1 … 1"),
        ("l.csv", "id,loss\nx,1\n", "column 'id' holds something else than int64"),
        ("l.csv", "id,loss\n" + "9" * 30 + ",1\n", "column 'id' holds something else than int64"),
        ("l.csv", "id,loss\n900,1\n", "none of its 1 rows is of a sample of this corpus"),
        ("l.txt", "id,loss\n", "its ending tells no kind of table"),
        ("l.parquet", "no", "Cannot read"),
        ("l.csv", "id,loss\n1," + "1" * (1 << 21), "field larger than field limit"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_imported(urls, tmp_path, name, text, told):
    """Each is named with what to do, and nothing is committed."""
    with pytest.raises((ArgumentError, StateError, ReadError), match=told):
        import_losses(write(tmp_path / name, text), urls, str(tmp_path / "state"))
    assert Generations(str(tmp_path / "state")).kept() == []


def test_a_csv_that_is_no_text(urls, tmp_path):
    """Bytes that are no UTF-8."""
    (tmp_path / "l.csv").write_bytes(b"id,loss\n\xff,1\n")
    with pytest.raises(ReadError, match="codec can't decode"):
        import_losses(tmp_path / "l.csv", urls, str(tmp_path / "state"))


@pytest.mark.parametrize("column", ["id", "key"])
def test_a_parquet_file_with_empty_cells(urls, tmp_path, column):
    """Where a sample is not named, its loss cannot be given to any."""
    columns = {"url": [urls[0]] * 2, "key": ["1", "2"], "id": [1, 2], "loss": [1.0, 2.0]}
    columns[column][1] = None
    parquet.write_table(pa.table(columns), tmp_path / "l.parquet")
    with pytest.raises(ReadError, match=f"column '{column}' has empty cells"):
        import_losses(tmp_path / "l.parquet", urls, str(tmp_path / "state"))


def test_what_matching_needs(urls, tmp_path):
    """by= names a column that the file has."""
    with pytest.raises(ArgumentError, match="by key: it has no column 'key'"):
        import_losses(write(tmp_path / "l.csv", "id,loss\n1,1\n"), urls, str(tmp_path / "s"), by="key")


def test_a_state_with_losses_is_not_written_over(urls, state, tmp_path):
    """Unless they are merged; and merging needs some."""
    file = write(tmp_path / "l.csv", "id,loss\n0,7.5\n")
    with pytest.raises(StateError, match="it holds losses already"):
        import_losses(file, urls, str(state))
    with pytest.raises(StateError, match="it holds no losses"):
        import_losses(file, urls, str(tmp_path / "none"), merge=True)


def test_a_state_that_a_run_writes(urls, state, tmp_path):
    """Is its own."""
    holder = Generations(str(state))
    holder.lock()
    try:
        with pytest.raises(StateLockedError, match="Cannot write the state"):
            import_losses(write(tmp_path / "l.csv", "id,loss\n0,7.5\n"), urls, str(state), merge=True)
    finally:
        holder.close()


# ---- exporting


def test_the_columns_of_a_csv(urls, state, tmp_path):
    """As docs/exporting.md says; unseen samples have no loss."""
    export_losses(open_source(str(state)), tmp_path / "l.csv")
    rows = lines(tmp_path / "l.csv")
    assert [name.partition(":")[0] for name in rows[0]][:6] == ["url", "key", "index", "id", "loss", "age"]
    assert all(name.partition(":")[2] in {"float32", "uint8", "uint16", "int32"} for name in list(rows[0])[6:])
    assert (rows[0]["loss"], rows[0]["age"]) == ("", "255")
    assert (rows[35]["url"], rows[35]["key"], rows[35]["index"], rows[35]["id"]) == (urls[1], "00000035", "5", "35")


def test_the_columns_of_a_parquet_file(urls, state, tmp_path):
    """With Parquet's own types; an unseen sample's loss is null."""
    export_losses(open_source(str(state)), tmp_path / "l.parquet")
    table = parquet.read_table(tmp_path / "l.parquet")
    assert table.schema.field("loss").type == pa.float32()
    assert table.schema.field("age").type == pa.uint8()
    assert table.schema.field("url").type == table.schema.field("key").type == pa.string()
    assert table["loss"].null_count == 5
    assert table["url"].to_pylist()[::30] == urls


def test_an_older_generation(urls, tmp_path):
    """By epoch or by name; one that is not kept is told with those that are."""
    train(urls, tmp_path / "state", Full(), epochs=5)
    state = str(tmp_path / "state")
    source = open_source(state, epoch=3)
    assert export_losses(source, tmp_path / "l.csv").epoch == 3
    assert open_source(state, generation=source.generation.name).generation.epoch == 3
    with pytest.raises(GenerationError, match=r"of the end of epoch 0 from .*: kept are gen-000002"):
        open_source(state, epoch=0)
    with pytest.raises(GenerationError, match="is not in"):
        open_source(state, generation="gen-000000-00")


def test_states_that_hold_nothing(urls, state, tmp_path):
    """No losses; no shard table; losses of another corpus, or of a part of it."""
    with pytest.raises(StateError, match="there is no"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(StateError, match="There are no losses in"):
        open_source(str(tmp_path / "none"), urls=urls)
    other = write_tar(tmp_path / "other.tar", [("a.txt", b"1")])
    with pytest.raises(StateError, match="has none for any of the 1 shards"):
        export_losses(open_source(str(state), urls=[str(other)]), tmp_path / "l.csv")
    with pytest.warns(SetaStreamWarning, match="no usable losses for 1 of 4 shards"):
        done = export_losses(open_source(str(state), urls=[*urls, str(other)]), tmp_path / "l.csv")
    assert (done.rows, done.seen) == (91, 85)
    (state / "corpus").unlink()
    with pytest.raises(StateError, match="or its shards by --urls"):
        open_source(str(state))


def test_another_ending(state, tmp_path):
    """Before a file is begun."""
    with pytest.raises(ArgumentError, match=r"Cannot write rows to .*l\.xls: its ending tells no kind of table"):
        export_losses(open_source(str(state)), tmp_path / "l.xls")


def test_a_column_of_a_taken_name(urls, state, tmp_path, monkeypatch):
    """A policy's column that is called as one of the file's."""
    from seta_stream.carry import exporting
    from seta_stream.losses.columns import Column, latest

    monkeypatch.setattr(exporting, "columns_in", lambda source: [Column("weight", "float32", 0, latest)])
    with pytest.raises(ArgumentError, match="its policy remembers weight, and the file has a column of that name"):
        export_losses(open_source(str(state)), tmp_path / "l.csv")


@BOTH
def test_a_file_is_written_whole_or_not_at_all(state, tmp_path, ending, monkeypatch):
    """An error half way leaves the old file, and nothing beside it."""
    folder = tmp_path / "out"
    folder.mkdir()
    file = write(folder / f"l{ending}", "old")
    source = open_source(str(state))
    monkeypatch.setattr(rows_module, "CHUNK", 40)

    def fail(count):
        raise OSError(28, "No space left on device")

    with pytest.raises(ReadError, match="No space left on device"):
        export_losses(source, file, fail)
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert file.read_text() == "old"
    with pytest.raises(ReadError, match="Cannot write"):
        export_losses(source, tmp_path / "none" / f"l{ending}")


def test_without_pyarrow(state, tmp_path, monkeypatch):
    """The message has the command."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "seta-stream\[parquet\]", or name a .csv file'):
        export_losses(open_source(str(state)), tmp_path / "l.parquet")


def test_keys_that_are_no_text(tmp_path):
    """Bytes that are no UTF-8, quotes, commas and line ends survive; two samples of one key are told apart."""
    import tarfile

    names = ["\udcff,a.txt", 'q"uote.txt', "né.txt", "né/b.txt", "\udcff,a.txt"]
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    url = str(tmp_path / "a.tar")
    table = table_of(url)
    losses = LossTable(table.samples)
    losses.record(np.arange(5), [1, 2, 3, 4, 5])
    Generations(str(tmp_path / "state")).commit(0, losses, table, None, None, {})
    for ending in (".csv", ".parquet"):
        export_losses(open_source(str(tmp_path / "state"), urls=[url]), tmp_path / f"l{ending}")
        told = import_losses(tmp_path / f"l{ending}", url, str(tmp_path / f"new{ending}"))
        assert (told.matched, told.repeated) == (5, 0)
        assert remembered(tmp_path / f"new{ending}", table.samples, table.digests)["loss"].tolist() == [1, 2, 3, 4, 5]


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_every_loss_survives_a_csv(tmp_path_factory, values):
    """The text of a float32 gives that float32 again, whatever it is."""
    folder = tmp_path_factory.mktemp("csv")
    losses = round_losses(np.array(values, np.float32))
    chunk = Chunk("u", None, np.arange(len(losses)), np.arange(len(losses)), {"loss": losses})
    assert write_table(folder / "l.csv", [chunk]) == len(losses)
    found = np.concatenate([rows["loss"] for rows in read_table(folder / "l.csv")]).astype(np.float32)
    assert np.where(np.isnan(found), 0, found.view("u4")).tolist() == np.where(
        np.isnan(losses), 0, losses.view("u4")
    ).tolist()  # fmt: skip


@given(
    st.lists(st.sampled_from("abc"), max_size=8),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 9)), max_size=8),
)
def test_matching_by_key(keys, rows):
    """A place that holds the key is taken; else the n-th such row of a key is of the n-th sample of that key."""
    found = positions(hashes_of(keys), hashes_of([key for key, _ in rows]), np.array([at for _, at in rows], np.int64))
    turns: dict[str, int] = {}
    for (key, place), position in zip(rows, found.tolist(), strict=True):
        if 0 <= place < len(keys) and keys[place] == key:
            assert position == place
            continue
        own = [at for at, each in enumerate(keys) if each == key]
        turn = turns.get(key, 0)
        turns[key] = turn + 1
        assert position == (own[turn] if turn < len(own) else -1)


def test_shards_by_name():
    """The whole URL first; the file's name only where one shard has it."""
    names = ShardNames(["/a/x.tar", "/b/x.tar", "/a/y.tar"])
    assert names.numbers(["/b/x.tar", "/c/y.tar", "/c/x.tar", "y.tar", "z.tar"]).tolist() == [1, 2, -1, 2, -1]


def test_spelling():
    """ASCII and other text stay; bytes that are none are escaped."""
    assert [spelled(key) for key in ("a", "é", "\udcff")] == ["a", "é", "\\xff"]


@settings(max_examples=40)  # each opens 128 files
@given(st.lists(st.lists(st.integers(0, 300), max_size=20), max_size=6), st.integers(1, 400))
def test_parcels(parts, held_bytes):
    """Each shard's rows come together, ascending, in their own order, from memory or from files."""
    dtype = np.dtype([("shard", "<u4"), ("row", "<i8")])
    rows = []
    with Parcels(dtype, 301, held_bytes) as parcels:
        for part in parts:
            parcels.add(np.array([(shard, len(rows) + at) for at, shard in enumerate(part)], dtype))
            rows += part
        found = [(shard, got["row"].tolist()) for shard, got in parcels.by_shard()]
    assert found == [
        (shard, [at for at, each in enumerate(rows) if each == shard]) for shard in sorted(set(rows))
    ]  # fmt: skip


def test_a_state_in_a_bucket(urls, state, tmp_path):
    """Any fsspec URL; the shard table is left there too, so that the export of it needs no URLs."""
    export_losses(open_source(str(state)), tmp_path / "l.csv")
    told = import_losses(tmp_path / "l.csv", urls, "memory://carry/state")
    source = open_source("memory://carry/state")
    assert source.generation.name == told.generation
    assert export_losses(source, tmp_path / "again.csv").seen == 85
    first, second = (lines(tmp_path / name) for name in ("l.csv", "again.csv"))
    assert first == second
    assert importing_module.CORPUS_FILE == "corpus"


@pytest.mark.parametrize("dtype", ["float32", "bool_"])
def test_ids_are_integers(tmp_path, dtype):
    """Of float32, two ids above 2^24 are one."""
    path = tmp_path / "t.parquet"
    ids = pa.array(np.arange(4).astype(dtype))
    parquet.write_table(pa.table({"id": ids, "loss": pa.array([1.0, 2.0, 3.0, 4.0])}), path)
    with pytest.raises(ReadError, match=r"column 'id' holds (float|bool), which cannot name every sample"):
        list(read_table(path))
