"""Shards and states lie anywhere: every command takes paths, patterns, lists and the URLs of several stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import Result
from command_runs import EACH, about, called, prepare, run
from servers import S3Endpoint, WebServer

from seta_stream.cli.ending import FOUND

SAMPLES = 2 * EACH


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, a list of them, a run, a table of losses, a model."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    (folder / "list.txt").write_text("data/t-0.tar\n# the other\ndata/t-1.tar\n")
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """The same, in the working folder."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")
    Path("out").mkdir()


@pytest.fixture
def memory() -> Iterator[Callable[[str], str]]:
    """Copy a folder to memory; returns its URL."""
    store = fsspec.filesystem("memory")

    def copied(folder: str) -> str:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                store.pipe_file(f"/every/{path}", path.read_bytes())
        return f"memory://every/{folder}"

    yield copied
    store.rm("/every", recursive=True)


@pytest.fixture
def bucket(s3_server: S3Endpoint, s3_bucket: str) -> Callable[[str], list[str]]:
    """Copy a folder to S3; returns its URL and the options that a command takes."""
    store = fsspec.filesystem("s3", **s3_server.options, skip_instance_cache=True)
    Path("s3.json").write_text(json.dumps(s3_server.options))

    def copied(folder: str) -> list[str]:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                store.pipe_file(f"{s3_bucket}/{path}", path.read_bytes())
        return [f"{s3_bucket}/{folder}", "--options-file", "s3.json"]

    return copied


def all_is_told(command: str, found: Result) -> None:
    """Hold that a command came to its end and tells of every sample; verify may say that an index was only copied."""
    assert found.exit_code in ({0, FOUND} if command == "verify" else {0}), found.output
    told = json.loads(found.stdout)
    assert told["samples"] == SAMPLES
    assert all(one["kind"].startswith("index-") for one in told.get("findings", ()))


SPELLED = {
    "a path each, as a shell expands a glob": ["data/t-0.tar", "data/t-1.tar"],
    "braces": ["data/t-{0..1}.tar"],
    "a glob": ["data/t-*.tar"],
    "a list": ["list.txt"],
    "several of these": ["data/t-{0..0}.tar", "data/*1.tar"],
    "a file: URL": ["file://{here}/data/t-{{0..1}}.tar"],
}


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("command", about("urls"))
def test_shards_by_any_spelling(command, spelled, here):
    """All of them name the same two shards."""
    urls = [url.format(here=Path.cwd()) if "{here}" in url else url for url in SPELLED[spelled]]
    found = run(*called(command, *urls), "--json")
    all_is_told(command, found)


@pytest.mark.parametrize("command", about("urls"))
def test_shards_in_memory(command, here, memory):
    """As a pattern under a URL."""
    found = run(*called(command, f"{memory('data')}/t-*.tar"), "--json")
    all_is_told(command, found)


@pytest.mark.parametrize("command", about("urls"))
def test_shards_in_a_bucket(command, here, bucket):
    """With options from a file."""
    folder, *options = bucket("data")
    found = run(*called(command, f"{folder}/t-{{0..1}}.tar"), *options, "--json")
    all_is_told(command, found)


@pytest.mark.parametrize("command", about("urls"))
def test_shards_of_a_web_server(command, here, http_server: Callable[..., WebServer]):
    """By braces: a web server lists nothing."""
    server = http_server(Path("data"))
    found = run(*called(command, f"{server.url}/t-{{0..1}}.tar"), "--json")
    all_is_told(command, found)


@pytest.mark.parametrize("command", about("state"))
def test_states_in_memory(command, here, memory):
    """A STATE is a URL, too."""
    found = run(*called(command, memory("run")), "--json")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("command", about("state"))
def test_states_in_a_bucket(command, here, bucket):
    """With options from a file."""
    folder, *options = bucket("run")
    found = run(*called(command, folder), *options, "--json")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(
    "call",
    [
        ["verify", "data/*.tar", "--state"],
        ["repack", "data/*.tar", "--to", "out/new", "--state"],
        ["score", "data/*.tar", "--model", "block_losses:losses", "--state"],
        ["import", "losses.csv", "data/*.tar", "--state"],
    ],
)
def test_states_in_a_bucket_beside_files(call, here, bucket, s3_bucket):
    """Shards on a disk, and the state in a bucket with options of its own."""
    folder, _, _ = bucket("run")
    is_new = call[0] in {"score", "import"}
    options = json.loads(Path("s3.json").read_text())
    pairs = [part for key, value in options.items() for part in ("--state-option", f"{key}={json.dumps(value)}")]
    done = run(*call, f"{s3_bucket}/new" if is_new else folder, *pairs, "--json")
    assert done.exit_code == 0, done.output
