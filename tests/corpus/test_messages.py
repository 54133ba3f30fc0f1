"""What processes tell each other of a corpus comes as it was said, small, and without what a file system is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.corpus.building import Task
from seta_stream.corpus.conditions import Plan, Step
from seta_stream.corpus.costs import Link
from seta_stream.corpus.index import IndexHeader
from seta_stream.corpus.interop import candidates
from seta_stream.corpus.messages import (
    News,
    pack_headers,
    pack_plan,
    pack_survey,
    unpack_headers,
    unpack_plan,
    unpack_survey,
)
from seta_stream.corpus.places import HOMES, Home, Homes, Place, cache_url
from seta_stream.corpus.surveying import Found, Survey
from seta_stream.store import ObjectInfo

SECRET = {"secret": "hidden-value"}
OPTIONS = {"key": "mine"}
STATE_OPTIONS = {"key": "mine-too"}

texts = st.text(st.characters(blacklist_categories=(), blacklist_characters="\0"), max_size=8).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)
sizes = st.integers(0, 1 << 60)
headers = st.builds(
    IndexHeader,
    shard_size=sizes,
    shard_version=texts,
    tar_size=sizes,
    seekable=st.booleans(),
    samples=sizes,
    members=sizes,
    extent_bytes=sizes,
    digest=st.binary(min_size=16, max_size=16),
)


def homes_of(urls: tuple[str, ...], state: str | None) -> Homes:
    return Homes(urls, index="s3://b/named", state=state, storage_options=SECRET, state_options=SECRET)


@given(
    st.lists(st.tuples(headers, st.lists(st.sampled_from(HOMES), max_size=4, unique=True), texts), max_size=6),
    st.booleans(),
)
def test_a_survey_comes_as_it_was_sent(rows: list[tuple[IndexHeader, list[Home], str]], has_state: bool) -> None:
    """A shard with places is found, one without is a task; places have the options of the one who reads."""
    state = "gs://c/run" if has_state else None
    urls = tuple(f"s3://b/{name}-{number}.tar" for number, (_, _, name) in enumerate(rows))
    found, tasks = {}, []
    for shard, (header, names, _) in enumerate(rows):
        lives_at = [name for name in names if has_state or name != "state"]
        if lives_at:
            places = tuple(homes_of(urls, state).place(shard, name) for name in lives_at)
            found[shard] = Found(header, places)
        else:
            info = ObjectInfo(header.shard_size, header.shard_version)
            tasks.append(Task(shard, urls[shard], info, "", SECRET, must_write=False))
    data = pack_survey(Survey(urls, found, tuple(tasks)), "s3://b/named", state)
    assert b"hidden-value" not in data
    known, homes = unpack_survey(data, OPTIONS, STATE_OPTIONS)
    assert (known.urls, homes.shards) == (urls, urls)
    assert list(known.found) == list(found)
    for shard, one in found.items():
        got = known.found[shard]
        assert [(place.url, place.home) for place in got.places] == [(place.url, place.home) for place in one.places]
        given_to = {"index": OPTIONS, "beside": OPTIONS, "cache": None, "state": STATE_OPTIONS}
        assert all(place.options is given_to[place.home] for place in got.places)
        names = ("shard_size", "shard_version", "seekable", "samples", "extent_bytes", "digest")
        assert [getattr(got.facts, name) for name in names] == [getattr(one.facts, name) for name in names]
    for task, sent in zip(known.tasks, tasks, strict=True):
        assert (task.shard, task.url, task.info) == (sent.shard, sent.url, sent.info)
        assert task.storage_options is OPTIONS
        assert task.place == homes.place(task.shard, "state" if has_state else "cache") or not has_state
        assert task.home == ("state" if has_state else "cache")
        assert not task.must_write


def test_an_index_in_the_state_is_written_with_the_options_of_the_state() -> None:
    """Also where they are none: those of the shards are not for it."""
    url = "s3://b/a.tar"
    sent = Survey((url,), {}, (Task(0, url, ObjectInfo(1, "v"), "", None, must_write=False),))
    for options in (STATE_OPTIONS, None):
        known, _ = unpack_survey(pack_survey(sent, None, "gs://c/run"), OPTIONS, options)
        assert known.tasks[0].target == "gs://c/run/index/a.tar.seta-index"
        assert known.tasks[0].place == Place(known.tasks[0].target, options or {}, None, "state")


def test_other_tools_indexes_are_told_by_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """That of our own in the cache folder is looked for in the folder of the one who reads."""
    url = "s3://b/t/a.tar"
    names = candidates(url)
    task = Task(0, url, ObjectInfo(1, "v"), "", None, must_write=False, foreign=(names[1], names[3]))
    data = pack_survey(Survey((url, url + "2"), {}, (task, replace(task, shard=1, foreign=()))), None, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    known, _ = unpack_survey(data, None, None)
    assert [(one.kind, one.url) for one in known.tasks[0].foreign] == [
        ("seta", cache_url(url)),
        ("dali", "s3://b/t/a.idx"),
    ]
    assert str(tmp_path / "other") in known.tasks[0].foreign[0].url
    assert known.tasks[1].foreign == ()


def test_a_large_survey_is_small() -> None:
    """About 150 bytes a shard, with long names."""
    count = 20_000
    urls = tuple(
        f"s3://bucket/corpora/captions/train/{number // 1000:04d}/train-{number:06d}.tar" for number in range(count)
    )
    header = IndexHeader(10**8, "etag:" + "a" * 32, 10**8, True, 1000, 2000, 99_000_000, bytes(16))
    place = Place("", None, None, "beside")
    found = {shard: Found(header, (place,)) for shard in range(0, count, 2)}
    info = ObjectInfo(10**8, "etag:" + "a" * 32)
    tasks = tuple(Task(shard, urls[shard], info, "", None, must_write=False) for shard in range(1, count, 2))
    data = pack_survey(Survey(urls, found, tasks), None, None)
    assert len(data) < 150 * count
    known, _ = unpack_survey(data, None, None)
    assert (len(known.found), len(known.tasks)) == (count // 2, count // 2)


@given(
    st.dictionaries(st.integers(0, 1 << 40), headers), st.dictionaries(st.integers(0, 9), st.binary()), st.booleans()
)
def test_headers_and_news_come_as_they_were_sent(
    sent: dict[int, IndexHeader], unwritten: dict[int, bytes], is_done: bool
) -> None:
    """All eight facts of each, whatever bytes a version holds."""
    assert unpack_headers(pack_headers(sent)) == sent
    news = News(sent, unwritten, is_done)
    assert News.from_bytes(news.to_bytes()) == news


@pytest.mark.parametrize("way", [None, "hops", "whole"])
def test_a_plan_comes_as_it_was_sent(way: Any) -> None:
    """For a machine with a number of processes of its own."""
    plan = Plan(Link(0.02, 1e7, 2e8), Step("whole", 4096, 3), way, 5, 8)
    assert unpack_plan(pack_plan(plan), 8) == plan
    assert unpack_plan(pack_plan(plan), 3) == replace(plan, ranks=3)
