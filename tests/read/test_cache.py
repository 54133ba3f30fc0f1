"""The local cache: what is fetched, what is kept, what is served."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest
from cache_fakes import AHEAD, BLOCK, FakeShard, content, files_of, opened, parts, run_of, take
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.errors import ArgumentError, ReadError, SetaStreamWarning
from seta_stream.read.cache_file import CachedFile
from seta_stream.read.cache_format import name_of, place_of
from seta_stream.read.options import Cache


def test_missing_blocks_are_fetched_whole_and_once(tmp_path: Path) -> None:
    """Spans cost the blocks they lie in, clipped to the object's end; the second time nothing is asked for."""
    shard = FakeShard(content(10 * BLOCK + 100))
    _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=64 * BLOCK)
    spans = [(BLOCK + 10, 50), (10 * BLOCK - 1, 101)]
    assert take(file, spans) == parts(shard.data, spans)
    assert shard.asked == [(BLOCK, BLOCK), (9 * BLOCK, BLOCK + 100)]
    shard.forget()
    assert take(file, spans) == file.read_spans(spans) == parts(shard.data, spans)
    assert file.read(BLOCK, BLOCK) == shard.data[BLOCK : 2 * BLOCK]
    assert shard.asked == []


def test_neighbouring_blocks_are_one_request(tmp_path: Path) -> None:
    """Blocks of all spans of a call are merged into runs, the one that is wanted first at first."""
    shard = FakeShard(content(20 * BLOCK))
    cache, (file,) = opened(run_of(tmp_path, shard), shard, ahead=256 * BLOCK)
    take(file, [(15 * BLOCK, 10), (3 * BLOCK, 10), (2 * BLOCK, BLOCK), (BLOCK + 5, 10)])
    assert shard.asked == [(15 * BLOCK, BLOCK), (BLOCK, 3 * BLOCK)]
    assert cache.run_bytes == 8 * BLOCK


def test_runs_are_no_longer_than_a_span_may_be(tmp_path: Path) -> None:
    """A long stretch is cut, so that several requests share it and memory stays bounded."""
    shard = FakeShard(content(10 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=1 << 30, span=4 * BLOCK)
    assert take(file, [(0, 10 * BLOCK)]) == [shard.data]
    assert shard.asked == [(0, 4 * BLOCK), (4 * BLOCK, 4 * BLOCK), (8 * BLOCK, 2 * BLOCK)]


def test_a_last_block_of_padding_comes_along(tmp_path: Path) -> None:
    """The zeros at a tar's end lie in no sample: their block is fetched with the one before, so that all is there."""
    shard = FakeShard(content(9 * BLOCK + 10))
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    take(file, [(0, 8 * BLOCK)])
    assert shard.asked_bytes == 8 * BLOCK
    take(file, [(8 * BLOCK, BLOCK)])
    assert shard.asked_bytes == 9 * BLOCK + 10
    assert isinstance(file, CachedFile)
    assert file.holds_all


def test_blocks_on_their_way_are_not_asked_again(tmp_path: Path) -> None:
    """Two calls that want the same block, even through two handles, share one request."""
    shard = FakeShard(content(4 * BLOCK))
    cache, (file,) = opened(run_of(tmp_path, shard), shard)
    other = cache.wrap(shard, 0)
    first, second = file.ask([(10, 10)]), other.ask([(BLOCK - 5, 10)])
    assert shard.asked == [(0, BLOCK), (BLOCK, BLOCK)]
    assert bytes(second[0].result()) == shard.data[BLOCK - 5 : BLOCK + 5]
    assert bytes(first[0].result()) == shard.data[10:20]


def test_requests_under_way_are_bounded(tmp_path: Path) -> None:
    """However much is asked for, no more than `ahead_bytes` are under way and not stored."""
    shard = FakeShard(content(40 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=8 * BLOCK)
    answers = file.ask([(number * BLOCK, 10) for number in range(40)])
    assert shard.asked_bytes == 8 * BLOCK
    # The last one is wanted first: those before it make room.
    assert bytes(answers[-1].result()) == shard.data[39 * BLOCK : 39 * BLOCK + 10]
    waiting = [one for one in shard.answers if not one.is_waited_for]
    assert sum(one.length for one in waiting) <= 8 * BLOCK
    assert [bytes(one.result()) for one in answers] == [shard.data[n * BLOCK : n * BLOCK + 10] for n in range(40)]
    assert shard.asked_bytes == 40 * BLOCK


def test_given_up_spans_cancel_their_requests(tmp_path: Path) -> None:
    """A run that nobody waits for any more is cancelled, one that somebody still wants is not; what waits moves up."""
    shard = FakeShard(content(8 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=2 * BLOCK)
    kept, dropped, third = file.ask([(0, 10), (2 * BLOCK, 10), (4 * BLOCK, 10)])
    also = file.ask([(100, 10)])[0]
    assert shard.asked == [(0, BLOCK), (2 * BLOCK, BLOCK)]
    dropped.cancel()
    assert shard.asked[2:] == [(4 * BLOCK, BLOCK)]
    kept.cancel()
    assert [one.is_cancelled for one in shard.answers] == [False, True, False]
    assert bytes(also.result()) == shard.data[100:110]
    third.cancel()
    assert shard.answers[2].is_cancelled
    assert take(file, [(2 * BLOCK, 10)]) == [shard.data[2 * BLOCK : 2 * BLOCK + 10]]


def test_closing_gives_up_what_is_under_way(tmp_path: Path) -> None:
    """An epoch that is left in the middle leaves no request behind."""
    shard = FakeShard(content(8 * BLOCK))
    cache, (file,) = opened(run_of(tmp_path, shard), shard, ahead=2 * BLOCK)
    file.ask([(0, 10), (2 * BLOCK, 10), (4 * BLOCK, 10)])
    cache.close()
    file.close()
    assert [one.is_cancelled for one in shard.answers] == [True, True]
    assert shard.is_closed


def test_a_failed_request_fails_its_spans_alone(tmp_path: Path) -> None:
    """What the bucket refuses is raised to whoever wanted it, stored nowhere, and asked for again the next time."""
    shard = FakeShard(content(8 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    take(file, [(0, 10)])
    answers = file.ask([(5, 5), (BLOCK, 10)])
    shard.is_broken = True
    assert bytes(answers[0].result()) == shard.data[5:10]
    with pytest.raises(ReadError, match="the fake is broken"):
        answers[1].result()
    with pytest.raises(ReadError, match="the fake is broken"):
        file.read_spans([(2 * BLOCK, 10), (4 * BLOCK, 10)])
    shard.is_broken = False
    assert take(file, [(BLOCK, 10)]) == [shard.data[BLOCK : BLOCK + 10]]


def test_another_reader_finds_what_was_stored(tmp_path: Path) -> None:
    """A later epoch, and a later run, read what an earlier one fetched and ask for nothing."""
    shard = FakeShard(content(6 * BLOCK))
    run = run_of(tmp_path, shard)
    _, (file,) = opened(run, shard)
    take(file, [(0, 6 * BLOCK)])
    shard.forget()
    for later in (run, run_of(tmp_path, shard)):
        cache, (again,) = opened(later, shard)
        assert isinstance(again, CachedFile)
        assert again.holds_all
        assert again.is_near
        assert again.read_spans([(5, 4 * BLOCK)]) == [shard.data[5 : 5 + 4 * BLOCK]]
        assert cache.counts.take() == (0, 0, 1, 4 * BLOCK, 0, 0)
    assert shard.asked == []


def test_blocks_of_another_process_are_seen(tmp_path: Path) -> None:
    """What another process stores meanwhile is not fetched again, though the file was opened before."""
    shard = FakeShard(content(6 * BLOCK))
    _, (mine,) = opened(run_of(tmp_path, shard), shard)
    _, (other,) = opened(run_of(tmp_path, shard), shard)
    take(other, [(0, 3 * BLOCK)])
    shard.forget()
    assert take(mine, [(BLOCK, 10)]) == [shard.data[BLOCK : BLOCK + 10]]
    assert shard.asked == []
    take(other, [(0, 6 * BLOCK)])
    assert isinstance(mine, CachedFile)
    assert mine.holds_all


@pytest.mark.parametrize("change", ["version", "size", "url"])
def test_another_object_is_never_served(tmp_path: Path, change: str) -> None:
    """A changed object has another name, so its old blocks are not found."""
    old = FakeShard(content(6 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, old), old)
    take(file, [(0, 6 * BLOCK)])
    size = 6 * BLOCK + (change == "size")
    new = FakeShard(
        content(size, seed=1),
        url="fake://bucket/b.tar" if change == "url" else old.url,
        version="etag:2" if change == "version" else old.info.version,
    )
    _, (file,) = opened(run_of(tmp_path, new), new)
    assert take(file, [(0, size)]) == [new.data]
    assert new.asked_bytes == size


def test_counts_tell_the_rate_by_bytes(tmp_path: Path) -> None:
    """Hits and misses count what was wanted, `fetched` what the bucket gave: whole blocks."""
    shard = FakeShard(content(6 * BLOCK))
    cache, (file,) = opened(run_of(tmp_path, shard), shard)
    take(file, [(0, 10), (20, 10), (5 * BLOCK, 30)])
    assert cache.counts.take() == (2 * BLOCK, 2, 0, 0, 3, 50)
    take(file, [(0, 10), (BLOCK, 5)])
    file.read_spans([(1, 2), (3, 4)])
    assert cache.counts.take() == (BLOCK, 1, 3, 16, 1, 5)
    assert cache.counts.take() == (0, 0, 0, 0, 0, 0)


def test_unversioned_objects_are_not_kept(tmp_path: Path) -> None:
    """An object of which only the size is known could change unseen: it passes through, said once."""
    shard = FakeShard(content(BLOCK), version="size", url="https://user:secret@host/a.tar?X-Amz-Signature=abcdef")
    run = run_of(tmp_path, shard)
    with pytest.warns(SetaStreamWarning, match="is not cached: its store tells neither an ETag nor a time") as told:
        cache, (file,) = opened(run, shard)
    assert file is shard
    assert cache.wrap(shard, 0) is shard
    assert not any(word in str(told[0].message) for word in ("secret", "abcdef"))
    assert files_of(tmp_path) == []


def test_empty_objects_pass(tmp_path: Path) -> None:
    """An object of no bytes has no blocks, and a span of no bytes asks for none."""
    shard = FakeShard(b"")
    _, (file,) = opened(run_of(tmp_path, shard), shard)
    assert isinstance(file, CachedFile)
    assert file.holds_all
    assert take(file, [(0, 0)]) == [b""]
    other = FakeShard(content(BLOCK), version="etag:2")
    _, (file,) = opened(run_of(tmp_path, other), other)
    assert take(file, [(0, 0), (BLOCK, 0)]) == [b"", b""]
    assert other.asked == []


def test_names_tell_everything_apart() -> None:
    """URL, size, version and endpoint make the name; credentials do not enter it."""
    endpoints = (None, {"endpoint_url": "a"}, {"client_kwargs": {"endpoint_url": "b"}})
    names = [name_of("s3://b/k", 5, "etag:1", place_of(options)) for options in endpoints]
    others = [
        ("s3://b/k2", 5, "etag:1"),
        ("s3://b/k", 6, "etag:1"),
        ("s3://b/k", 5, "etag:2"),
        ("s3://b/ke", 5, "tag:1"),
    ]
    names += [name_of(*other, place_of(None)) for other in others]
    assert len(set(names)) == len(names)
    assert b"hidden" not in place_of({"key": "hidden", "secret": "hidden", "endpoint_url": "a", "token": "hidden"})


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Threads that read one shard at once all get its bytes, and every block is fetched once."""
    shard = FakeShard(content(64 * BLOCK))
    _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=4 * BLOCK)
    wrong: list[int] = []

    def read(thread: int) -> None:
        for number in range(64):
            offset = (number * 7 + thread * 13) % 64 * BLOCK + 1
            if file.read(offset, BLOCK - 2) != shard.data[offset : offset + BLOCK - 2]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert shard.asked_bytes == len(shard.data)


@settings(max_examples=60)
@given(data=st.data(), size=st.integers(1, 12 * BLOCK), ahead=st.sampled_from([1, 3 * BLOCK, 1 << 20]))
def test_whatever_is_asked_comes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, size: int, ahead: int
) -> None:
    """Any spans in any order, some given up, through any number of handles: the very bytes, each block at most once."""
    shard = FakeShard(content(size))
    cache, (file,) = opened(run_of(tmp_path_factory.mktemp("cache"), shard), shard, ahead=ahead)
    span = st.integers(0, size - 1).flatmap(lambda a: st.tuples(st.just(a), st.integers(0, size - a)))
    is_any_given_up = False
    for _ in range(data.draw(st.integers(1, 4))):
        spans = data.draw(st.lists(span, max_size=6))
        answers = (cache.wrap(shard, 0) if data.draw(st.booleans()) else file).ask(spans)
        for place in data.draw(st.permutations(range(len(spans)))):
            offset, length = spans[place]
            if data.draw(st.booleans()):
                assert bytes(answers[place].result()) == shard.data[offset : offset + length]
            else:
                answers[place].cancel()
                is_any_given_up = True
    assert is_any_given_up or shard.asked_bytes <= size


# ---- options


def test_cache_options() -> None:
    """A text or a path names a folder; the size is a number or left to the cache."""
    assert Cache.of(None) is None
    assert Cache.of("/a") == Cache.of(Path("/a")) == Cache.of("file:///a") == Cache("/a", None)
    assert Cache.of(Cache("/a", 1 << 30)) == Cache("/a", 1 << 30)
    with pytest.raises(ArgumentError, match="cache='s3://b/c' is no folder of this machine"):
        Cache("s3://b/c")
    with pytest.raises(ArgumentError, match="is no folder of this machine"):
        Cache("")
    with pytest.raises(ArgumentError, match="cache=5 is not possible: give a folder"):
        Cache.of(5)
    for wrong in (0, 1 << 20, True, 1e12, "1GB"):
        with pytest.raises(ArgumentError, match="max_bytes of a cache is a number of bytes, 16777216 at least"):
            Cache("/a", wrong)  # type: ignore[arg-type]


def test_a_quiet_life(tmp_path: Path) -> None:
    """Nothing is told while all is well, and the cache marks its folder for backup programs to leave out."""
    shard = FakeShard(content(BLOCK))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, (file,) = opened(run_of(tmp_path, shard), shard, ahead=AHEAD)
        take(file, [(0, BLOCK)])
    tag = tmp_path / "seta-cache-1" / "CACHEDIR.TAG"
    assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
