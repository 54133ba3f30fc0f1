"""Groups of samples by what the index knows."""

from __future__ import annotations

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
    "folder": ("folder", ["cat", "dog", "", "dog", "pets/cat"]),
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


def test_too_many_groups_are_refused(corpus, monkeypatch):
    """A group per sample is a mistake, and is told as one."""
    monkeypatch.setattr(labels, "MAX_GROUPS", 2)
    with pytest.raises(CorpusError, match=r"more than 2 groups \(at 'c' in .*x-0.tar\).*coarser by="):
        label_samples(corpus, lambda url, key: key)


def test_a_failing_callable_is_named_with_its_sample(corpus):
    """And with what it raised."""
    with pytest.raises(CorpusError, match=r"group of sample 'c' in .*x-0.tar: by= raised IndexError"):
        label_samples(corpus, lambda url, key: key.split("/")[1])
