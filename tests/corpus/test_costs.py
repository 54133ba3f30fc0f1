"""What scanning costs: counted by hand, compared with a naive count, and told in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.corpus.costs import (
    PAYS,
    PRICES,
    READ_BYTES,
    SPAN_BYTES,
    Cost,
    Estimate,
    Link,
    Spacing,
    Team,
    cheaper,
    count_hops,
    hops_per_byte,
    scan_costs,
)

PHOTOS = Spacing([80_384, 1024] * 8, [512] * 16)
"""An image of 79,872 bytes and a label of one block, each behind a header."""
CAPTIONS = Spacing([1024] * 64, [512] * 64)
NARROW = Link(first_byte_s=0.02, bytes_per_s=50e6, total_bytes_per_s=100e6)
WIDE = Link(first_byte_s=0.02, bytes_per_s=50e6)


@pytest.mark.parametrize(
    ("read_bytes", "hops"),
    [
        # Header alone: each member is a hop.
        (512, 16),
        (1024, 16),
        # A label's header, its block, and the next image's header: two members a hop, after the first image.
        (1536, 9),
        (4096, 9),
        # Not until a read spans an image does it see more.
        (80_384, 9),
        (80_896, 8),
        (1 << 21, 1),
    ],
)
def test_hops_are_counted_from_header_to_header(read_bytes: int, hops: int) -> None:
    """A label and the header behind it come with one read; the counts are those of a hand-drawn shard."""
    assert count_hops(PHOTOS, read_bytes) == hops


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40)), min_size=1, max_size=40),
    st.integers(1, 64).map(lambda blocks: blocks * 256),
)
def test_counting_agrees_with_a_walk(members: list[tuple[int, int]], read_bytes: int) -> None:
    """Whatever the sizes, extension headers among them, the count is that of hopping along block by block."""
    heads = [512 * head for head, _ in members]
    strides = [512 * (head + body) for head, body in members]
    at = position = hops = 0
    while at < len(members):
        hops += 1
        seen = position + max(read_bytes, heads[at])
        while at < len(members) and position + heads[at] <= seen:
            position += strides[at]
            at += 1
    assert count_hops(Spacing(strides, heads), read_bytes) == hops


def test_a_long_read_takes_its_length_in_bytes() -> None:
    """Reads longer than what is known of a shard are not taken to see all of it at once."""
    assert hops_per_byte(CAPTIONS, 1 << 20) == 1 / (1 << 20)
    assert hops_per_byte(PHOTOS, 4096) == 9 / PHOTOS.total


def test_large_bodies_are_hopped_over_and_small_ones_read() -> None:
    """Of many shards with 8 MB videos, hops take less time; of captions, reading whole does, on any link."""
    videos = Spacing([8 << 20, 1024] * 8, [512] * 16)
    facts = {"shards": 150, "total_bytes": 1_200_000_000_000, "largest_bytes": 8_000_000_000}
    for link in (WIDE, NARROW):
        best = cheaper(*scan_costs(videos, link, **facts))
        assert (best.way, best.read_bytes) == ("hops", 2048)
        assert best.requests == pytest.approx(1_200_000_000_000 / (videos.total / 9))
        assert cheaper(*scan_costs(CAPTIONS, link, **facts)).way == "whole"


def test_what_the_link_gives_decides_about_photos() -> None:
    """The same photos: hops through a narrow link, whole through a wide one, whole where few shards are there."""
    many = {"shards": 128, "total_bytes": 128 * 400_000_000, "largest_bytes": 400_000_000}
    assert cheaper(*scan_costs(PHOTOS, NARROW, **many)).way == "hops"
    assert cheaper(*scan_costs(PHOTOS, WIDE, **many)).way == "whole"
    one = {"shards": 1, "total_bytes": 400_000_000, "largest_bytes": 400_000_000}
    hops, whole = scan_costs(PHOTOS, NARROW, **one)
    assert cheaper(hops, whole) is whole
    # One shard's hops wait for each other: as many times 20 ms, and a little for the bytes.
    assert hops.seconds == pytest.approx(hops.requests * (0.02 + hops.read_bytes / 50e6))
    assert whole.seconds == pytest.approx(4.0)


def test_a_sparse_read_is_preferred_where_there_is_little_between_them() -> None:
    """Within 5 % the way that fetches less is taken; one that fetches as much is no hop."""
    whole = Cost("whole", SPAN_BYTES, 100, 1e9, 1.0, 10.0)
    assert cheaper(Cost("hops", 4096, 1e5, 4e8, 1.0, 10.5), whole).way == "hops"
    assert cheaper(Cost("hops", 4096, 1e5, 4e8, 1.0, 10.6), whole).way == "whole"
    assert cheaper(Cost("hops", 4096, 1e5, 9e8, 1.0, 5.0), whole).way == "whole"


@given(
    st.lists(st.integers(2, 4000), min_size=1, max_size=32),
    st.integers(1, 300),
    st.integers(1 << 20, 1 << 40),
    st.integers(1, 8),
)
def test_costs_are_whole_and_sane(strides: list[int], shards: int, total: int, processes: int) -> None:
    """Positive times, no more bytes than there are, a request a shard at least; more processes never cost much more."""
    spacing = Spacing([512 * stride for stride in strides], [512] * len(strides))
    facts = {"shards": shards, "total_bytes": total, "largest_bytes": -(-total // shards)}
    costs = scan_costs(spacing, WIDE, **facts, processes=processes)
    for cost, alone in zip(costs, scan_costs(spacing, WIDE, **facts), strict=True):
        assert cost.seconds > 0
        assert cost.fetched <= total
        assert cost.requests >= shards
        assert cost.seconds <= alone.seconds / PAYS
    assert costs[0].read_bytes in READ_BYTES


def test_prices_are_those_of_the_report() -> None:
    """Both rooms cite the same figures."""
    from seta_stream.report.prices import STORES

    names = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
    told = {name: (STORES[store].per_1000_requests, STORES[store].per_gb) for name, store in names.items()}
    assert told == PRICES


def estimate(cost: Cost | None, **facts: object) -> str:
    """Return the line of an estimate."""
    plain = {"shards": 150, "of": 150, "shard_bytes": 1_200_000_000_000, "place": "s3://b/t", "protocol": "s3"}
    return str(Estimate(**{**plain, **facts}, cost=cost))  # type: ignore[arg-type]


def test_what_it_takes_is_told_in_a_line() -> None:
    """How many, how large, where, how, how much, how long, what it costs; and that it may be interrupted."""
    assert estimate(Cost("hops", 4096, 300_000.4, 1.23e9, 9, 237)) == (
        "Indexing 150 shards (1.2 TB) on s3://b/t: 300,000 reads of headers, 1.2 GB to fetch, about 4 minutes and "
        "$0.12 ($0.10 more if the bytes leave the store's region). Interrupted, it goes on where it stopped."
    )
    assert estimate(Cost("whole", SPAN_BYTES, 12, 24e6, 1, 0.4), shards=1, of=1, shard_bytes=24e6, place="https://h/d",
                    protocol="https") == (
        "Indexing 1 shard (24.0 MB) on https://h/d: read whole in 12 requests, 24.0 MB to fetch, about 1 second. "
        "Interrupted, it goes on where it stopped."
    )  # fmt: skip
    few = estimate(Cost("whole", SPAN_BYTES, 2, 999, 1, 7300), shards=3, shard_bytes=999.4e9, protocol="gs")
    assert few.startswith("Indexing 3 of 150 shards (999.4 GB) on s3://b/t: read whole in 2 requests, 1.0 KB to fetch")
    assert "about 2 hours and less than $0.01." in few
    assert estimate(None, place="/data", protocol="file") == (
        "Indexing 150 shards (1.2 TB) on /data. Interrupted, it goes on where it stopped."
    )
    assert Estimate(1, 1, 1, "/data", "file", None).dollars is None


def test_who_shares_the_work_is_told() -> None:
    """The processes, and the machines where they are several; nobody else where one does all."""
    for team, told in [
        (Team(), "s3://b/t: 9 reads"),
        (Team(8, 8, 1), "s3://b/t, shared by 8 processes: 9 reads"),
        (Team(1024, 8, 128), "s3://b/t, shared by 1,024 processes on 128 machines: 9 reads"),
    ]:
        assert told in estimate(Cost("hops", 4096, 9, 9e3, 9, 9), team=team)


def test_a_team_divides_what_there_is() -> None:
    """A machine's part is rounded up, and the cost of all is what their parts make."""
    assert [Team(6, 2, 3).here(count) for count in (0, 1, 3, 4, 9)] == [0, 1, 1, 2, 3]
    cost = Cost("hops", 4096, 10, 1e6, 3.0, 5.0)
    assert cost.of_all(Team(6, 2, 3)) == Cost("hops", 4096, 30, 3e6, 9.0, 5.0)
    assert cost.of_all(Team()) == cost
