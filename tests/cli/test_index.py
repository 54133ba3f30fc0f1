"""`seta-stream index` writes indexes that a stream finds, says what it did, and names mistakes without a traceback."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from servers import S3Endpoint, WebServer

from seta_stream.cli.index import command
from seta_stream.corpus.index import read_header
from seta_stream.corpus.indexing import open_corpus


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with two shards of two samples; the user's cache folder is elsewhere and empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "shards"
    out.mkdir()
    for shard in range(2):
        with tarfile.open(out / f"t-{shard}.tar", "w") as tar:
            for name in ("a.jpg", "a.txt", "b.jpg", "b.txt"):
                info = tarfile.TarInfo(f"{shard}{name}")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"abc"))
    return out


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(command, arguments)


def test_indexes_are_written_beside_the_shards(folder: Path, tmp_path: Path) -> None:
    """A stream then opens without building anything."""
    result = run(str(folder / "t-{0..1}.tar"))
    assert result.exit_code == 0, result.output
    assert "2 shards, 4 samples, 8 members" in result.stdout
    assert "2 indexed, 0 were up to date" in result.stdout
    assert read_header((folder / "t-1.tar.seta-index").read_bytes()).samples == 2
    assert open_corpus(str(folder / "*.tar")).table.total == 4
    assert not (tmp_path / "cache").exists()


def test_what_fits_is_left_alone_unless_forced(folder: Path) -> None:
    """The second run scans nothing; --force, a changed shard and a damaged index are scanned."""
    urls = str(folder / "*.tar")

    def indexed(*more: str) -> int:
        return int(json.loads(run(urls, "--json", *more).stdout)["indexed"])

    assert indexed() == 2
    assert indexed() == 0
    assert indexed("--force") == 2
    (folder / "t-0.tar").touch()
    assert indexed() == 1
    (folder / "t-1.tar.seta-index").write_bytes(b"rubbish")
    assert indexed() == 1


def test_json_and_another_folder(folder: Path, tmp_path: Path) -> None:
    """--json prints one object with every figure; --out leaves the shards' folder as it is."""
    result = run(
        str(folder / "t-0.tar"), str(folder / "t-1.tar"), "--out", str(tmp_path / "idx"), "--jobs", "1", "--json"
    )
    facts = json.loads(result.stdout)
    assert facts["shards"] == facts["indexed"] == 2
    assert (facts["samples"], facts["members"], facts["bytes"]) == (4, 8, 20480)
    written = sorted((tmp_path / "idx").iterdir())
    assert [path.name for path in written] == ["t-0.tar.seta-index", "t-1.tar.seta-index"]
    assert facts["index_bytes"] == sum(path.stat().st_size for path in written)
    assert len(list(folder.iterdir())) == 2
    assert open_corpus(str(folder / "*.tar"), index=str(tmp_path / "idx")).table.total == 4
    assert not (tmp_path / "cache").exists()


def test_a_cut_shard_is_warned_about(folder: Path) -> None:
    """The warning goes to stderr, without a source line, and the shard is indexed."""
    path = folder / "t-0.tar"
    path.write_bytes(path.read_bytes()[: 4 * 1024])
    result = run(str(path))
    assert result.exit_code == 0
    assert "Warning: " in result.stderr
    assert "Its 2 samples are whole" in result.stderr
    assert "site-packages" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none-*.tar"], "nothing matches it"),
        (["none.tar"], "there is no such file"),
        (["pipe:cat a.tar"], "is a WebDataset pipe"),
        (["{0..1.tar"], "a brace is not closed"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], text: str) -> None:
    """A user's mistake ends with exit code 1 and the message, without a traceback."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert text in result.stderr
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_damaged_shard_and_a_closed_folder_are_named(folder: Path, tmp_path: Path) -> None:
    """The message names shard and offset, or the folder that cannot be written."""
    (tmp_path / "file").write_bytes(b"")
    closed = run(str(folder / "t-0.tar"), "--out", str(tmp_path / "file"))
    assert (closed.exit_code, "Cannot write the index" in closed.stderr) == (1, True)
    data = bytearray((folder / "t-0.tar").read_bytes())
    data[1030] ^= 1
    (folder / "t-0.tar").write_bytes(data)
    damaged = run(str(folder / "t-0.tar"))
    assert damaged.exit_code == 1
    assert "t-0.tar: the block at byte 1024 is no tar header" in damaged.stderr


def options_of(server: S3Endpoint) -> list[str]:
    """Return the arguments that reach a server."""
    return [part for key, value in server.options.items() for part in ("--option", f"{key}={value}")]


def test_a_bucket_is_indexed_in_place(folder: Path, s3_server: S3Endpoint, s3_bucket: str) -> None:
    """Indexes lie beside the shards in the bucket, the cost is told, and the second run scans nothing."""
    for path in folder.glob("*.tar"):
        s3_server.put(f"{s3_bucket}/t/{path.name}", path.read_bytes())
    first = run(f"{s3_bucket}/t/*.tar", *options_of(s3_server))
    assert first.exit_code == 0, first.output
    assert f"Indexing 2 shards (20.5 KB) on {s3_bucket}/t: read whole in 2 requests" in first.stderr
    assert "less than $0.01. Interrupted, it goes on where it stopped." in first.stderr
    assert "2 indexed, 0 were up to date" in first.stdout
    again = run(f"{s3_bucket}/t/*.tar", *options_of(s3_server), "--json")
    assert json.loads(again.stdout)["indexed"] == 0
    assert again.stderr == ""
    corpus = open_corpus(f"{s3_bucket}/t/*.tar", storage_options=s3_server.options)
    assert corpus.index(1).keys == ["1a", "1b"]
    assert s3_server.options["secret"] not in first.output + again.output


@pytest.mark.parametrize("way", ["hops", "whole"])
def test_a_bucket_is_indexed_into_a_folder(
    way: str, folder: Path, tmp_path: Path, s3_server: S3Endpoint, s3_bucket: str
) -> None:
    """--out takes a local folder for shards in a bucket; options come from a file; the way can be chosen."""
    s3_server.put(f"{s3_bucket}/t-0.tar", (folder / "t-0.tar").read_bytes())
    (tmp_path / "options.json").write_text(json.dumps({**s3_server.options, "secret": "overridden"}))
    result = run(
        *(f"{s3_bucket}/t-0.tar", "--out", str(tmp_path / "idx"), "--way", way, "--json"),
        *("--option", f"secret={s3_server.options['secret']}", "--options-file", str(tmp_path / "options.json")),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["samples"] == 2
    assert [path.name for path in (tmp_path / "idx").iterdir()] == ["t-0.tar.seta-index"]


def test_a_web_server_needs_another_folder(folder: Path, tmp_path: Path, http_server: Callable[..., WebServer]) -> None:
    """That nothing can be written beside the shards is said before they are scanned; with --out it works."""
    server = http_server(folder)
    refused = run(f"{server}/t-{{0..1}}.tar?signature=abc")
    assert refused.exit_code == 1
    assert f"Cannot write an index beside {server}/t-0.tar: a web server takes no files. Give --out" in refused.stderr
    assert not server.served
    assert run(f"{server}/t-{{0..1}}.tar", "--out", str(tmp_path / "idx")).exit_code == 0
    assert open_corpus(f"{server}/t-{{0..1}}.tar", index=str(tmp_path / "idx")).table.total == 4
    assert not (tmp_path / "cache").exists()
    listed = run(f"{server}/t-*.tar", "--out", str(tmp_path / "idx"))
    assert (listed.exit_code, "a web server gives no list of its files" in listed.stderr) == (1, True)


def test_signed_urls_are_shards(folder: Path, tmp_path: Path, http_server: Callable[..., WebServer]) -> None:
    """A query is part of the URL, no pattern, and no part of the index's name."""
    url = f"{http_server(folder)}/t-0.tar?X-Signature=a/b"
    assert run(url, "--out", str(tmp_path / "idx")).exit_code == 0
    assert [path.name for path in (tmp_path / "idx").iterdir()] == ["t-0.tar.seta-index"]
    assert open_corpus(url, index=str(tmp_path / "idx")).table.total == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--option", "secret"], "write KEY=VALUE, as anon=true"),
        (["--option", "=secret"], "write KEY=VALUE, as anon=true"),
        (["--options-file", "{folder}/none"], "does not exist"),
        (["--options-file", "{folder}/text"], "is no JSON: write an object of options"),
        (["--options-file", "{folder}/list"], "holds no JSON object"),
    ],
)
def test_options_that_cannot_be_read(arguments: list[str], text: str, tmp_path: Path) -> None:
    """The message says how to write them and repeats no value, which may be a secret."""
    (tmp_path / "text").write_text('{"key": "secret"')
    (tmp_path / "list").write_text('["secret"]')
    result = run("s3://bucket/a.tar", *(argument.format(folder=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    # The message is wrapped at the terminal's width.
    assert text in " ".join(result.stderr.replace("│", " ").split())
    assert "secret" not in result.output
