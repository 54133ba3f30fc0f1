"""A stream over a bucket uses other tools' indexes that lie beside the shards, where they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_corpora import write_tar

from seta_stream import SetaStream
from seta_stream.cli import main
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import SetaStreamWarning

BODY = 100_000


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two shards of 20 samples of 100 KB, with DALI's indexes beside them."""
    made = []
    for shard in range(2):
        members = [(f"{shard}{number:03d}.bin", bytes([number]) * BODY) for number in range(20)]
        made.append(write_tar(tmp_path / f"{shard}.tar", members))
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "*.tar"), "--to", "dali"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.glob("*.idx")) == ["0.idx", "1.idx"]
    return made


def test_an_index_beside_the_shards_spares_the_scan(
    shards: list[Path], http_server: Callable[..., Any], tmp_path: Path
) -> None:
    """The corpus is the one that a scan finds, for a part of the bytes; and it streams."""
    server = http_server(tmp_path)
    urls = [f"{server}/{path.name}" for path in shards]
    corpus = open_corpus(urls, progress=False)
    assert server.bytes < 0.5 * sum(path.stat().st_size for path in shards)
    scanned = open_corpus([str(path) for path in shards], progress=False)
    assert corpus.table.digests == scanned.table.digests
    samples = {sample["__key__"]: sample["bin"] for sample in SetaStream(urls)}
    assert samples == {f"{shard}{number:03d}": bytes([number]) * BODY for shard in range(2) for number in range(20)}


def test_an_index_that_lies_is_told_and_not_used(
    shards: list[Path], http_server: Callable[..., Any], tmp_path: Path
) -> None:
    """A size that its header denies: a warning, and the shard is scanned."""
    index = tmp_path / "0.idx"
    index.write_text(index.read_text().replace(str(BODY), str(BODY // 2), 1))
    server = http_server(tmp_path)
    with pytest.warns(SetaStreamWarning, match=r"0\.idx.*not used"):
        corpus = open_corpus([f"{server}/{path.name}" for path in shards], progress=False)
    assert corpus.table.digests == open_corpus([str(path) for path in shards], progress=False).table.digests


def test_an_index_made_on_disk_serves_in_the_bucket(
    shards: list[Path], http_server: Callable[..., Any], tmp_path: Path
) -> None:
    """Shards and indexes copied to another store: the index is checked against the shard, not made anew."""
    for index in tmp_path.glob("*.idx"):
        index.unlink()
    assert CliRunner().invoke(main, ["index", str(tmp_path / "*.tar")]).exit_code == 0
    server = http_server(tmp_path)
    urls = [f"{server}/{path.name}" for path in shards]
    corpus = open_corpus(urls, progress=False)
    assert server.bytes < 0.5 * sum(path.stat().st_size for path in shards)
    assert corpus.table.digests == open_corpus([str(path) for path in shards], progress=False).table.digests
    assert len(list(SetaStream(urls))) == 40


def test_an_index_of_other_content_does_not_serve(
    shards: list[Path], http_server: Callable[..., Any], tmp_path: Path
) -> None:
    """A shard of the same size whose names changed since it was indexed on disk is scanned."""
    assert CliRunner().invoke(main, ["index", str(tmp_path / "*.tar")]).exit_code == 0
    for index in tmp_path.glob("*.idx"):
        index.unlink()
    members = [(f"9{number:03d}.bin", bytes([number]) * BODY) for number in range(20)]
    write_tar(shards[0], members)
    server = http_server(tmp_path)
    corpus = open_corpus([f"{server}/{path.name}" for path in shards], progress=False)
    assert corpus.index(0).keys[0] == "9000"
