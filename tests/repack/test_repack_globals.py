"""Global PAX headers hold for all members behind them: they are kept where that can be, and refused where not."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import pytest
from repack_tars import Member, by_tarfile, by_webdataset, bytes_of, samples, tar_of, write

from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import UnsupportedError
from seta_stream.repack import repack

GROUP = {"gname": "team"}


def with_globals(*parts: tuple[dict[str, str], list[Member]]) -> bytes:
    """Return a tar whose parts each begin with a global header."""
    out = b"".join(_open_end(tar_of(members, tarfile.PAX_FORMAT, records)) for records, members in parts)
    return out + b"\0" * 1024


def _open_end(data: bytes) -> bytes:
    end = len(data)
    while data[end - 512 : end] == b"\0" * 512:
        end -= 512
    return data[:end]


def test_global_headers_at_the_front_hold_for_all(tmp_path: Path) -> None:
    """They stay at the front, also of shards that a shard is split into or that equal ones are joined to."""
    old = tmp_path / "old"
    urls = [write(old / f"t-{n}.tar", with_globals((GROUP, samples(keys)))) for n, keys in enumerate(["abcde", "fg"])]
    before = Counter(one for url in urls for one in by_tarfile(bytes_of(url)))
    for number, size in enumerate([{}, {"shard_samples": 2}, {"shard_samples": 100}]):
        repack(urls, str(tmp_path / f"{number}"), order="key", **size)  # type: ignore[arg-type]
        paths = sorted((tmp_path / f"{number}").glob("*.tar"))
        assert Counter(one for path in paths for one in by_tarfile(path.read_bytes())) == before
        assert all("team" in str(row) for path in paths for row in by_tarfile(path.read_bytes()))


def test_comments_and_repetitions_are_no_obstacle(tmp_path: Path) -> None:
    """A later global header that says nothing new may stand where it likes; a body may look like one."""
    looks_like = with_globals(({"uid": "7"}, samples("z")))
    members = [Member("a.tar", looks_like), Member("NESTED", looks_like), *samples("bc")]
    data = with_globals((GROUP, members), ({**GROUP, "comment": "x"}, samples("de")), ({"comment": "y"}, samples("f")))
    url = write(tmp_path / "old" / "t.tar", data)
    repack(url, str(tmp_path / "new"), order="key")
    found = by_tarfile((tmp_path / "new" / "t.tar").read_bytes())
    assert Counter(found) == Counter(by_tarfile(data))


@pytest.mark.parametrize("size", [{}, {"shard_samples": 2}])
def test_later_global_headers_are_refused(tmp_path: Path, size: dict[str, int]) -> None:
    """In another order it would hold for other members: shard and offset are named, and the way round."""
    data = with_globals(({"comment": "x"}, samples("abc")), (GROUP, samples("d")))
    url = write(tmp_path / "old" / "t.tar", data)
    with pytest.raises(
        UnsupportedError, match=r"a global PAX header at byte 7168 sets gname for all members"
    ) as caught:
        repack(url, str(tmp_path / "new"), order="key", **size)  # type: ignore[arg-type]
    assert (caught.value.shard, caught.value.offset, caught.value.found) == (url, 7168, ["gname"])


def test_joined_shards_must_agree_on_them(tmp_path: Path) -> None:
    """Two shards of different owners cannot be one shard; by themselves they can be repacked."""
    old = tmp_path / "old"
    urls = [write(old / f"t-{n}.tar", with_globals(({"gname": name}, samples(name)))) for n, name in enumerate("pq")]
    with pytest.raises(UnsupportedError, match=r"into one shard .*: their global PAX headers differ"):
        repack(urls, str(tmp_path / "new"), order="key", shard_samples=9)
    assert repack(urls, str(tmp_path / "other"), order="key").samples == 2


def test_a_global_header_that_nothing_follows_is_left_out(tmp_path: Path) -> None:
    """Of a shard whose only sample is a dropped one nothing is left, and tarfile reads that."""
    dropped = with_globals((GROUP, [Member("a.__bad__", b"yes")]))
    urls = [write(tmp_path / "old" / "t-0.tar", dropped), write(tmp_path / "old" / "t-1.tar", tar_of(samples("a")))]
    repack(urls, str(tmp_path / "new"), order="key")
    assert by_tarfile((tmp_path / "new" / "t-0.tar").read_bytes()) == []
    assert [one["__key__"] for one in by_webdataset((tmp_path / "new" / "t-1.tar").read_bytes())] == ["a"]
    assert scan_shard(str(tmp_path / "new" / "t-0.tar")).samples == 0


def test_a_size_for_all_members_is_refused(tmp_path: Path) -> None:
    """A global header that gives every member one size is nobody's intention."""
    url = write(tmp_path / "old" / "t.tar", with_globals(({"size": "5"}, [Member("a.txt", b"12345")])))
    with pytest.raises(UnsupportedError, match=r"at byte 0 gives every member the same size\. Write the shard again"):
        repack(url, str(tmp_path / "new"), order="key")
