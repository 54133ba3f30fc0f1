"""Word and photo corpora look as the issue says: real JPEGs, repeats, wrong labels, held-out words and fonts."""

from __future__ import annotations

import gc
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seta_stream.demo.extras import require
from seta_stream.demo.fonts import PILLOW_FONT, family_of, find_fonts, load_font, split_fonts
from seta_stream.demo.lexicon import Lexicon, is_held_out, zipf_ranks
from seta_stream.demo.photos import PhotoMaker
from seta_stream.demo.shards import make_corpus
from seta_stream.demo.words import HEIGHT, WIDTH, WordMaker
from seta_stream.errors import ArgumentError, MissingExtraError


@pytest.fixture(scope="module")
def fonts() -> tuple[str, ...]:
    return find_fonts()


@pytest.fixture(scope="module")
def maker(fonts: tuple[str, ...]) -> WordMaker:
    return WordMaker(1_500, 7, Lexicon(7, 5_000), fonts, meta=True)


@pytest.fixture(scope="module")
def facts(maker: WordMaker) -> list[tuple[bytes, str, dict[str, object]]]:
    """(jpg, txt, json) of every sample."""
    return [
        (jpg, txt.decode(), json.loads(meta)) for _, ((_, jpg), (_, txt), (_, meta)) in maker.make(0, maker.samples)
    ]


def test_pictures_are_grey_jpegs_of_the_promised_size(facts: list[tuple[bytes, str, dict[str, object]]]) -> None:
    """Every picture opens as a grey JPEG of 96 × 32, of 1 to 4 KB, about 2 KB on average."""
    for jpg, _, _ in facts[:200]:
        with Image.open(io.BytesIO(jpg)) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (WIDTH, HEIGHT))
    sizes = [len(jpg) for jpg, _, _ in facts]
    assert 1_500 <= np.mean(sizes) <= 2_500
    assert min(sizes) >= 800
    assert max(sizes) <= 4_096


def test_wrong_labels_have_their_share(facts: list[tuple[bytes, str, dict[str, object]]]) -> None:
    """About 3 % of labels differ from the picture's word, and exactly those are marked."""
    wrong = [label != meta["text"] for _, label, meta in facts]
    assert wrong == [meta["wrong"] for _, _, meta in facts]
    assert 0.015 <= np.mean(wrong) <= 0.05


def test_repeats_are_near_copies(facts: list[tuple[bytes, str, dict[str, object]]]) -> None:
    """Half of the samples show one of a few pictures again: alike, never equal."""
    repeats = [(jpg, meta["text"], meta["font"]) for jpg, _, meta in facts if meta["repeat"]]
    assert 0.45 <= len(repeats) / len(facts) <= 0.55
    copies = Counter((text, font) for _, text, font in repeats)
    assert np.mean(list(copies.values())) > 5
    (shown, count), *_ = copies.most_common(1)
    jpgs = [jpg for jpg, *rest in repeats if tuple(rest) == shown]
    assert len(set(jpgs)) == count
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(jpg)), dtype=float).ravel() for jpg in jpgs])
    assert np.median(np.corrcoef(pixels)) > 0.5


def test_frequent_words_are_frequent(facts: list[tuple[bytes, str, dict[str, object]]]) -> None:
    """The first hundredth of the lexicon makes up more of the corpus than the last half."""
    words = Lexicon(7, 5_000).words()
    rank = {word: number for number, word in enumerate(words)}
    ranks = np.array([rank[str(meta["text"])] for _, _, meta in facts if not meta["repeat"]])
    assert 0.1 < np.mean(ranks < 50) < np.mean(ranks >= 50)


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path, maker: WordMaker) -> None:
    """Rendered in one process or two, the shards are the same; another seed gives others."""
    small = replace(maker, samples=300)
    for jobs in (1, 2):
        make_corpus(small, tmp_path / str(jobs), shard_samples=150, jobs=jobs, progress=False)
    for name in ("words-000000.tar", "words-000001.tar"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    other = next(iter(replace(small, seed=8).make(0, 1)))
    assert other.members != next(iter(small.make(0, 1))).members


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_what_was_made(tmp_path: Path, maker: WordMaker) -> None:
    """The webdataset package finds every sample, in order, with both members."""
    import webdataset as wds

    plain = replace(maker, samples=230, meta=False)
    made = make_corpus(plain, tmp_path, shard_samples=100, jobs=1, progress=False)
    samples = list(wds.WebDataset(made.pattern, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"{number:09d}" for number in range(230)]
    expected = list(plain.make(0, 230))
    assert [(sample["jpg"], sample["txt"]) for sample in samples] == [
        (jpg, txt) for _, ((_, jpg), (_, txt)) in expected
    ]
    # The package leaves shards open; their warnings must fall where they are ignored.
    gc.collect()


def test_held_out_words_are_never_seen() -> None:
    """No word of a training lexicon, of any seed, is in a held-out one; about one word in ten is held out."""
    training = Lexicon(0, 4_000).words()
    assert len(set(training)) == 4_000
    assert all(3 <= len(word) <= 8 and word.isalpha() and word.islower() for word in training)
    for seed in (0, 1):
        held_out = Lexicon(seed, 400, held_out=True).words()
        assert not set(held_out) & set(training)
        assert all(map(is_held_out, held_out))
    assert set("abcdefghijklmnopqrstuvwxyz") == set("".join(training))


def test_words_of_a_file(tmp_path: Path) -> None:
    """A user's list is lower-cased, freed of what cannot be used, and split like every other."""
    path = tmp_path / "words.txt"
    path.write_text("The\nthe\nof\nQUICK\nbrown\nfox-trot\nextraordinary\njumps\nover\nlazy\ndogs\n")
    usable = ["the", "quick", "brown", "jumps", "over", "lazy", "dogs"]
    seen = Lexicon(0, 100, file=str(path)).words()
    assert list(seen) == [word for word in usable if not is_held_out(word)]
    assert len(Lexicon(0, 2, file=str(path)).words()) == 2
    assert Lexicon(0, 2, file=str(path)).settings()["lexicon"] != "pseudo-words"


@pytest.mark.parametrize("size", [0, 2_000_000])
def test_impossible_vocabularies_are_refused(size: int) -> None:
    """A size that cannot be made is an error with the range."""
    with pytest.raises(ArgumentError, match=rf"A vocabulary of {size} words cannot be made: give 1 to 1000000"):
        Lexicon(0, size).words()


def test_useless_word_lists_are_refused(tmp_path: Path) -> None:
    """A list that is missing, or holds no usable word, is an error that says what is usable."""
    with pytest.raises(ArgumentError, match=r"Cannot read the words of .*none\.txt"):
        Lexicon(0, 10, file=str(tmp_path / "none.txt")).words()
    (tmp_path / "short.txt").write_text("a of 12345")
    with pytest.raises(ArgumentError, match=r"holds no training word: 0 of its 3 words have 3 to 8 letters"):
        Lexicon(0, 10, file=str(tmp_path / "short.txt")).words()


@pytest.mark.parametrize(("exponent", "share"), [(0.0, 0.1), (0.7, 0.43), (1.0, 0.66)])
def test_ranks_follow_the_law(exponent: float, share: float) -> None:
    """The first tenth of 1,000 words has the share that the law gives it, and no rank is out of range."""
    uniform = (np.arange(100_000) + 0.5) / 100_000
    ranks = zipf_ranks(uniform, 1_000, exponent)
    assert ranks.min() == 0
    assert ranks.max() == 999
    assert np.mean(ranks < 100) == pytest.approx(share, abs=0.07)


def test_fonts_hold_letters_and_are_split_by_family(fonts: tuple[str, ...]) -> None:
    """Symbol fonts are left out, Pillow's own font is in, and no family is on both sides of the split."""
    names = {Path(font).name for font in fonts}
    assert {"DejaVuSans.ttf", "STIXGeneral.ttf", "cmr10.ttf", PILLOW_FONT} <= names
    assert not {name for name in names if "Siz" in name or "NonUni" in name or "LastResort" in name}
    assert not {"cmsy10.ttf", "cmex10.ttf", "DejaVuSansDisplay.ttf"} & names
    for seed in range(5):
        seen, held_out = split_fonts(fonts, seed)
        assert seen
        assert held_out
        assert sorted(seen + held_out) == sorted(fonts)
        assert not {family_of(font) for font in seen} & {family_of(font) for font in held_out}


def test_own_fonts_are_added_and_useless_ones_refused(tmp_path: Path, fonts: tuple[str, ...]) -> None:
    """A folder of the user's adds its fonts, in depth; one without a usable font is an error with its path."""
    (tmp_path / "deep").mkdir()
    dejavu = next(font for font in fonts if font.endswith("DejaVuSans.ttf"))
    (tmp_path / "deep" / "own.ttf").write_bytes(Path(dejavu).read_bytes())
    (tmp_path / "deep" / "broken.ttf").write_bytes(b"no font")
    added = set(find_fonts(str(tmp_path))) - set(fonts)
    assert {Path(font).name for font in added} == {"own.ttf"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"No usable font under .*empty"):
        find_fonts(str(tmp_path / "empty"))


def test_one_family_cannot_be_split(fonts: tuple[str, ...]) -> None:
    """Fonts of a single family leave nothing to hold out: an error that counts them."""
    stix = tuple(font for font in fonts if "STIXGeneral" in font)
    with pytest.raises(ArgumentError, match=r"4 fonts of 1 family cannot be split"):
        split_fonts(stix, 0)


def test_missing_extras_name_the_pip_command() -> None:
    """A package that is not there is named, with the command that installs it."""
    require("This test", "PIL")
    with pytest.raises(
        MissingExtraError, match=r"This test needs no_such_module, .* pip install 'seta-stream\[demo\]'"
    ):
        require("This test", "PIL", "no_such_module")


def test_photos_have_the_promised_size() -> None:
    """Photos are 500 × 375 colour JPEGs of 60 to 100 KB with a class number, the same for the same seed."""
    maker = PhotoMaker(24, seed=5, classes=10)
    samples = list(maker.make(0, 24))
    assert samples[7] == next(iter(maker.make(7, 8)))
    for _, ((_, jpg), (extension, label)) in samples:
        assert 60_000 <= len(jpg) <= 100_000
        assert extension == "cls"
        assert int(label) in range(10)
        with Image.open(io.BytesIO(jpg)) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (500, 375))


def test_fonts_are_loaded_once(fonts: tuple[str, ...]) -> None:
    """The same name and size give the same object."""
    assert load_font(fonts[0], 26) is load_font(fonts[0], 26)
