"""`seta-stream convert` reads and writes the formats of other tools, replaces nobody's files, and says what it did."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from seta_stream.cli.convert import command, convert_shards
from seta_stream.corpus import interop_writing
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.interop_writing import layout
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import ArgumentError
from seta_stream.store import store_for


def write(path: Path, names: list[str], size: int = 3) -> Path:
    """Write a shard of members of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two shards of two samples, one of them in a folder of its own."""
    write(tmp_path / "shards" / "t-0.tar", ["0a.JPG", "0a.txt", "0b.jpg", "0b.txt"])
    write(tmp_path / "shards" / "more" / "t-1.tar", ["1a.jpg", "1a.txt", "1b.jpg", "1b.txt"])
    return tmp_path / "shards"


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(command, [str(word) for word in arguments])


def told(*arguments: object) -> dict[str, Any]:
    """Run the command with --json, which succeeds, and return what it says."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def files(folder: Path) -> set[str]:
    """Return the paths of all files in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


NOTES = {f".nv-meta/{name}" for name in (".info.json", "dataset.yaml", "index.sqlite", "index.uuid", "split.yaml")}


def test_a_corpus_becomes_a_data_set_of_energon(folder: Path) -> None:
    """Offsets beside the shards, notes in the folder that all lie in, names in capitals as they stand in the tar."""
    summary = told(folder / "**/*.tar", "--to", "energon")
    assert (summary["shards"], summary["converted"], summary["written"]) == (2, 2, 2)
    assert (summary["samples"], summary["members"], summary["failed"]) == (4, 8, {})
    assert summary["sources"] == {"scan": 2}
    assert files(folder) == {"t-0.tar", "more/t-1.tar", "t-0.tar.idx", "more/t-1.tar.idx"} | NOTES
    info = json.loads((folder / ".nv-meta/.info.json").read_text())
    assert info["shard_counts"] == {"more/t-1.tar": 2, "t-0.tar": 2}
    assert (folder / "t-0.tar.idx").read_bytes() == b"".join(n.to_bytes(8, "little") for n in (0, 2048, 4096))
    with sqlite3.connect(folder / ".nv-meta/index.sqlite") as base:
        parts = base.execute("SELECT part_name FROM sample_parts WHERE tar_file_id = 1").fetchall()
        assert parts == [("JPG",), ("txt",), ("jpg",), ("txt",)]
    base.close()


def test_back_again_it_is_the_index_of_a_scan(folder: Path, tmp_path: Path) -> None:
    """Energon's and DALI's files, read again, give ours byte for byte, and a stream opens with them."""
    shards = [folder / "t-0.tar", folder / "more" / "t-1.tar"]
    for kind in ("energon", "dali"):
        assert told(*shards, "--to", kind)["converted"] == 2
        for check in ("sample", "all"):
            out = tmp_path / f"{kind}-{check}"
            summary = told(*shards, "--from", kind, "--to", "seta", "--out", out, "--check", check)
            assert summary["sources"] == {kind: 2}
            assert summary["headers"] == 8
            for shard in shards:
                written = (out / f"{shard.name}.seta-index").read_bytes()
                assert written == scan_shard(str(shard)).to_bytes()
        assert open_corpus(list(map(str, shards)), index=str(out)).table.total == 4


def test_the_best_index_that_agrees_is_used(folder: Path) -> None:
    """auto passes over what does not agree, says so on stderr, and scans where nothing does."""
    (folder / "t-0.tar.idx").write_bytes(b"short")
    assert told(folder / "t-0.tar", "--to", "dali")["written"] == 1
    result = run(folder / "t-0.tar", folder / "more" / "t-1.tar", "--to", "seta")
    assert result.exit_code == 0, result.output
    assert "Note: Cannot use" in result.stderr
    assert "t-0.tar.idx: it has 5 bytes" in result.stderr
    lines = result.stdout.splitlines()
    assert any("dali" in line and "1" in line for line in lines)
    assert any("the shards, scanned" in line and "1" in line for line in lines)
    assert "2 of 2 shards, 4 samples, 8 members" in result.stdout
    assert ShardIndex.from_bytes((folder / "t-0.tar.seta-index").read_bytes()).samples == 2


def test_nobodys_files_are_replaced_unasked(folder: Path) -> None:
    """A foreign file of the same name stops that shard with exit status 1; --overwrite replaces it; twice is once."""
    shards = str(folder / "**/*.tar")
    for to, name in (("energon", "t-0.tar.idx"), ("dali", "t-0.idx"), ("seta", "t-0.tar.seta-index")):
        (folder / name).write_bytes(b"theirs")
        result = run(shards, "--to", to, "--json")
        assert result.exit_code == 1
        summary = json.loads(result.stdout)
        assert summary["converted"] == 1
        assert "another file is there. Pass --overwrite" in summary["failed"][str(folder / "t-0.tar")]
        assert (folder / name).read_bytes() == b"theirs"
        assert not (folder / ".nv-meta/.info.json").exists()
        assert told(shards, "--to", to, "--overwrite")["converted"] == 2
        assert told(shards, "--to", to)["written"] == 0
        assert told(shards, "--to", to)["converted"] == 2
        for path in folder.glob(".nv-meta/*"):
            path.unlink()


def test_notes_of_energon_are_not_replaced_unasked(folder: Path) -> None:
    """What Energon or its user wrote stays; how samples become values is the user's, whatever was asked for."""
    shards = str(folder / "**/*.tar")
    meta = folder / ".nv-meta"
    meta.mkdir()
    (meta / "dataset.yaml").write_text("mine")
    for name in ("split.yaml", "index.sqlite", ".info.json"):
        (meta / name).write_text("theirs")
        result = run(shards, "--to", "energon")
        assert result.exit_code == 1
        assert f"Error: Cannot write {meta / name}: another file is there" in result.stderr
        assert (meta / name).read_text() == "theirs"
        (meta / name).unlink()
    (meta / "split.yaml").write_text("theirs")
    (meta / "index.sqlite").write_text("theirs")
    assert told(shards, "--to", "energon", "--overwrite")["converted"] == 2
    assert (meta / "dataset.yaml").read_text() == "mine"
    assert "theirs" not in (meta / "split.yaml").read_text()
    assert told(shards, "--to", "energon")["failed"] == {}
    assert files(folder) >= NOTES
    assert not [name for name in files(folder) if ".seta-" in name]


def test_a_shard_that_fails_keeps_no_other_from_being_converted(folder: Path) -> None:
    """The others are converted and the exit status is 1; Energon's notes, which need all, are not written."""
    data = bytearray((folder / "t-0.tar").read_bytes())
    data[1030] ^= 1
    (folder / "t-0.tar").write_bytes(data)
    result = run(folder / "**/*.tar", "--to", "energon")
    assert result.exit_code == 1
    assert "1 of 2 shards, 2 samples" in result.stdout
    assert "Error: Cannot scan" in result.stderr
    assert "the block at byte 1024 is no tar header" in result.stderr
    assert "Traceback" not in result.output
    assert (folder / "more/t-1.tar.idx").exists()
    assert not (folder / ".nv-meta/.info.json").exists()


def test_a_key_of_two_shards_is_refused_for_energon(folder: Path) -> None:
    """Energon wants every key once; DALI and we do not."""
    write(folder / "t-2.tar", ["0a.jpg"])
    result = run(folder / "t-0.tar", folder / "t-2.tar", "--to", "energon")
    assert result.exit_code == 1
    assert "the key '0a' was there before" in result.stderr
    assert told(folder / "t-0.tar", folder / "t-2.tar", "--to", "dali")["converted"] == 2


def test_an_empty_shard(folder: Path) -> None:
    """Energon's notes leave it out, and DALI's format cannot say it."""
    write(folder / "empty.tar", ["README"])
    assert told(folder / "*.tar", "--to", "energon")["converted"] == 2
    assert json.loads((folder / ".nv-meta/.info.json").read_text())["shard_counts"] == {"t-0.tar": 2}
    result = run(folder / "*.tar", "--to", "dali")
    assert (result.exit_code, "the shard has no sample, and DALI refuses" in result.stderr) == (1, True)


def test_counts_of_wids_must_be_met(folder: Path, tmp_path: Path) -> None:
    """A shard whose samples are counted otherwise, or not at all, is not converted."""
    counts = tmp_path / "wids.json"
    shards = [folder / "t-0.tar", folder / "more/t-1.tar"]
    for first, text in (
        (2, ""),
        (3, "it has 2 samples, and the file of --counts counts 3"),
        (None, "does not list it"),
    ):
        listed = [{"url": "s3://b/t-1.tar", "nsamples": 2}]
        listed += [] if first is None else [{"url": "t-0.tar", "nsamples": first}]
        counts.write_text(json.dumps({"wids_version": 1, "shardlist": listed}))
        result = run(*shards, "--to", "dali", "--counts", counts, "--overwrite")
        assert result.exit_code == bool(text), result.output
        assert text in result.stderr
    counts.write_text("[]")
    result = run(*shards, "--to", "dali", "--counts", counts)
    assert (result.exit_code, "'{' was expected" in result.stderr) == (1, True)


def test_a_pickle_is_never_loaded(folder: Path) -> None:
    """Asked for, wids' index is refused with the reason and the way round; found, it is noted."""
    (folder / "t-0.tar.index").write_bytes(b"\x80\x04cbuiltins\nexec\n(S'raise SystemExit(3)'\ntR.")
    result = run(folder / "t-0.tar", "--from", "wids", "--to", "seta")
    assert result.exit_code == 1
    assert "is a Python pickle: loading one runs whatever code it holds, so it is never loaded" in result.stderr
    assert "`seta-stream index` makes an index" in result.stderr
    result = run(folder / "t-0.tar", "--to", "seta")
    assert result.exit_code == 0
    assert "Note: " in result.stderr
    assert "is a Python pickle" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["none-*.tar", "--to", "seta"], 1, "nothing matches it"),
        (["none.tar", "--to", "seta"], 1, "there is no such file"),
        (["a.tar"], 2, "Missing option '--to'"),
        (["a.tar", "--to", "wids"], 2, "'wids' is not one of"),
        (["a.tar", "--to", "seta", "--check", "none"], 2, "'none' is not one of"),
        (["a.tar", "--to", "seta", "--option", "key"], 2, "write KEY=VALUE"),
        (["a.tar", "--to", "seta", "--counts", "none.json"], 1, "there is no such file"),
        (["a.tar", "b.tar", "--from", "dali", "--to", "seta"], 1, "no index of dali lies beside it. Check --from"),
        (["a.tar", "--from", "energon", "--to", "seta"], 1, "it has 7 bytes, where whole numbers of 8"),
        (["a.tar", "a.tgz", "--to", "dali"], 1, "Rename one shard, or convert them into different folders"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, text: str
) -> None:
    """A mistake ends with its exit status and the message, without a traceback."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.tar", "b.tar", "a.tgz"):
        write(tmp_path / name, [f"{name[0]}.txt"])
    Path("a.tar.idx").write_bytes(b"garbage")
    result = run(*arguments)
    assert (result.exit_code, "Traceback" in result.output) == (status, False)
    assert text in result.stderr


def test_many_notes_are_cut_short(tmp_path: Path) -> None:
    """Ten are printed, and how many there are besides; --json has all."""
    for number in range(12):
        write(tmp_path / f"{number:02d}.tar", [f"{number}.txt"])
        (tmp_path / f"{number:02d}.tar.idx").write_bytes(b"short")
    result = run(tmp_path / "*.tar", "--to", "seta")
    assert result.stderr.count("Note: Cannot use") == 10
    assert "Note: … and 2 more; --json lists all." in result.stderr
    assert len(told(tmp_path / "*.tar", "--to", "seta", "--out", tmp_path / "out")["notes"]) == 0  # ours lie there now


def test_a_closed_folder_is_named(folder: Path, tmp_path: Path) -> None:
    """The message says which file could not be written, and to choose another folder."""
    (tmp_path / "file").write_bytes(b"")
    for to in ("dali", "energon", "seta"):
        result = run(folder / "t-0.tar", "--to", to, "--out", tmp_path / "file")
        assert result.exit_code == 1
        assert "Cannot write" in result.stderr
        assert "Choose another folder with --out" in result.stderr


def test_in_a_bucket(s3_bucket: str, s3_server: Any, tmp_path: Path) -> None:
    """Shards in S3 become a data set of Energon there, and its files become ours; options are passed on."""
    options = s3_server.options
    store = store_for(s3_bucket, options)
    for name in ("a", "b"):
        store.write(
            f"{s3_bucket}/set/{name}.tar", write(tmp_path / f"{name}.tar", [f"{name}.jpg", f"{name}.txt"]).read_bytes()
        )
    url = f"{s3_bucket}/set/{{a,b}}.tar"
    given = [f"--option={key}={value}" for key, value in options.items()]
    assert told(url, "--to", "energon", *given)["written"] == 2
    assert store.names(f"{s3_bucket}/set") == [".nv-meta", "a.tar", "a.tar.idx", "b.tar", "b.tar.idx"]
    (tmp_path / "index.sqlite").write_bytes(store.read(f"{s3_bucket}/set/.nv-meta/index.sqlite"))
    with sqlite3.connect(tmp_path / "index.sqlite") as base:
        assert base.execute("SELECT count(*) FROM sample_parts").fetchone() == (4,)
    base.close()
    assert told(url, "--to", "energon", *given)["written"] == 0
    summary = told(url, "--from", "energon", "--to", "seta", "--out", tmp_path / "ours", *given)
    assert (summary["converted"], summary["samples"]) == (2, 2)
    assert (tmp_path / "ours/a.tar.seta-index").read_bytes() == scan_shard(f"{s3_bucket}/set/a.tar", options).to_bytes()


def test_a_sqlite_file_too_large_for_one_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is refused before it is put, with the way round."""
    monkeypatch.setattr(interop_writing, "_OBJECT_LIMIT", 100)
    store_for("memory://b").write("memory://large/x.tar", write(tmp_path / "x.tar", ["a.txt"]).read_bytes())
    summary = convert_shards(["memory://large/x.tar"], to="energon")
    assert list(summary.failed) == ["memory://large"]
    assert "objects of 100 at most are put. Convert into a local folder with --out" in summary.failed["memory://large"]


def test_shards_of_two_buckets_have_no_folder_in_common() -> None:
    """Names in Energon's notes are paths from one folder; the message says what to do."""
    with pytest.raises(ArgumentError, match=r"s3://a/x\.tar and s3://b/x\.tar together: they have no common folder"):
        layout(["s3://a/x.tar", "s3://b/x.tar"], "energon", None)
    places = layout(["s3://a/d/x.tar", "s3://a/d/e/y.tar"], "energon", "/out")
    assert places.targets == ("/out/x.tar.idx", "/out/e/y.tar.idx")
    assert (places.names, places.root) == (("x.tar", "e/y.tar"), "/out")
