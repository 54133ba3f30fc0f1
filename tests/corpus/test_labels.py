"""Groups of samples by what the index knows."""

from __future__ import annotations

import tarfile

import pytest
from small_corpora import write_tar

from seta_stream.corpus import labels
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.labels import label_samples
from seta_stream.errors import CorpusError


@pytest.fixture
def corpus(tmp_path):
    one = [("cat/a.jpg", b"1"), ("cat/a.txt", b"1"), ("dog/b.jpg", b"1"), ("c.txt", b"1")]
    write_tar(tmp_path / "x-0.tar", one)
    write_tar(tmp_path / "x-1.tar", [("dog/d.jpg", b"1"), ("dog/d.txt", b"1"), ("pets/cat/e.jpg", b"1")])
    return open_corpus(str(tmp_path / "x-{0..1}.tar"))


ROWS = {
    "folder": ("folder", ["cat", "dog", ".", "dog", "pets/cat"]),
    "shard": ("shard", ["x-0.tar"] * 3 + ["x-1.tar"] * 2),
    "fields": ("fields", ["jpg+txt", "jpg", "txt", "jpg+txt", "jpg"]),
    "callable": (lambda url, key: (url[-5], len(key)), ["('0', 5)", "('0', 5)", "('0', 1)", "('1', 5)", "('1', 10)"]),
}


@pytest.mark.parametrize("row", ROWS)
def test_samples_are_labelled_by_the_index(corpus, row):
    """By hand, in corpus order; names stand in the order in which they first come."""
    by, expected = ROWS[row]
    names, codes = label_samples(corpus, by)
    assert [names[code] for code in codes.tolist()] == expected
    assert names == tuple(dict.fromkeys(expected))


@pytest.mark.parametrize("row", ROWS)
def test_a_process_labels_its_shards_alone(corpus, row, monkeypatch):
    """The parts are those of the whole, and no other shard's index is read."""
    by, expected = ROWS[row]
    asked = []
    plain = corpus.index
    monkeypatch.setattr(corpus, "index", lambda shard: asked.append(shard) or plain(shard))
    for shards, samples in [(range(1), expected[:3]), (range(1, 2), expected[3:]), (range(2), expected)]:
        names, codes = label_samples(corpus, by, shards)
        assert [names[code] for code in codes.tolist()] == samples
        assert names == tuple(dict.fromkeys(samples))
        assert asked == ([] if by == "shard" else list(shards))
        asked.clear()
    for empty in (range(0), range(1, 1), range(2, 2)):
        names, codes = label_samples(corpus, by, empty)
        assert (names, codes.dtype.name, codes.tolist()) == ((), "uint16", [])


def test_too_many_groups_are_refused(corpus, monkeypatch):
    """A group per sample is a mistake, and is told as one."""
    monkeypatch.setattr(labels, "MAX_GROUPS", 2)
    with pytest.raises(CorpusError, match=r"more than 2 groups \(at 'c' in .*x-0.tar\).*coarser by="):
        label_samples(corpus, lambda url, key: key)


def test_a_failing_callable_is_named_with_its_sample(corpus):
    """And with what it raised."""
    with pytest.raises(CorpusError, match=r"group of sample 'c' in .*x-0.tar: by= raised IndexError"):
        label_samples(corpus, lambda url, key: key.split("/")[1])


def test_shards_of_one_base_name_are_different_groups(tmp_path):
    """As clean/0.tar and noisy/0.tar: their URLs are the names."""
    urls = []
    for folder in ("clean", "noisy"):
        (tmp_path / folder).mkdir()
        urls.append(str(write_tar(tmp_path / folder / "0.tar", [(f"{folder}.txt", b"1")])))
    assert label_samples(open_corpus(urls), "shard")[0] == tuple(urls)


def test_names_can_be_kept_whatever_the_keys_are(tmp_path):
    """Keys need not be UTF-8, and a callable may give anything."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("café/1.txt"))
    corpus = open_corpus(str(path))
    assert label_samples(corpus, "folder")[0] == ("caf\\xe9",)
    assert label_samples(corpus, lambda url, key: "a\x1fb")[0] == ("a\\x1fb",)
