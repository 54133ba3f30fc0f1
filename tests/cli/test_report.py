"""`seta-stream report`: a run of real epochs as a page, with the samples that it is about."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from small_corpora import write_tar

from seta_stream import InfoBatch, SeTa, SetaStream
from seta_stream.cli import cards, main
from seta_stream.errors import DecodeError, SetaStreamWarning
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.report.html_text import percent
from seta_stream.store import store_for

NASTY = '<script>alert("1")</script>\u202e'


def picture(number: int, *, size: tuple[int, int] = (400, 200), kind: str = "JPEG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 40 + number if mode == "L" else (40 + number, 90, 20, 128)[: len(mode)]).save(file, kind)
    return file.getvalue()


def make_corpus(folder: Path) -> list[str]:
    """Write two sources of 30 samples, each a picture and a text of its id; sample i's text says so."""
    urls = []
    for at, source in enumerate(("books", "web")):
        (folder / source).mkdir(parents=True)
        for shard in range(2):
            members = []
            for place in range(15):
                number = 30 * at + 15 * shard + place
                members += [
                    (f"{number:03d}.jpg", picture(number)),
                    (f"{number:03d}.txt", f"text {number} {NASTY}".encode()),
                ]
            urls.append(str(write_tar(folder / source / f"t-{shard}.tar", members)))
    return urls


def train(urls: list[str], state: str, epochs: int = 3, **options) -> None:
    """Record the id as the loss, as SetaStream is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)
        with SetaStream(urls, policy=InfoBatch(epochs), state=state, batch_size=5, **options) as stream:
            for epoch in range(epochs):
                stream.set_epoch(epoch)
                for batch in stream.batches(5):
                    ids = np.asarray(batch["__index__"])
                    stream.record(ids, ids + 1.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A state of three epochs over two sources."""
    train(make_corpus(tmp_path / "data"), str(tmp_path / "state"))
    return tmp_path


def report(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def numbers(*arguments: object) -> dict:
    done = report(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_page_is_written(run):
    """With its place told; it holds epochs, both sources, and the samples, their texts escaped."""
    done = report(run / "state", "-o", run / "page.html", "--samples", 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"Report: {run / 'page.html'}\n"
    text = (run / "page.html").read_text("utf-8")
    for told in ("3 of 3 epochs", "60 samples in 4 shards", "InfoBatch(num_epochs=3", "books/t", "web/t",
                 r"text 59 &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;\u202e", "059"):  # fmt: skip
        assert told in text, told
    assert text.count("<script") == 1
    assert len(re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" width="160" height="80"', text)) == 6
    assert "Not everything could be read" not in text


def test_the_page_goes_into_the_working_folder(run, monkeypatch):
    """As report.html, where -o does not say."""
    monkeypatch.chdir(run)
    assert report("state").stdout == "Report: report.html\n"
    assert (run / "report.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_json_holds_the_numbers(run):
    """Epochs, totals, sources and samples, the hardest first; no page unless -o asks for one."""
    found = numbers(run / "state", "--samples", 2)
    assert not (run / "report.html").exists()
    assert [one["epoch"] for one in found["run"]["epochs"]] == [0, 1, 2]
    assert found["run"]["epochs"][0]["kept"] == 1.0
    assert found["run"]["planned"] == 3
    assert found["run"]["totals"]["requests"] > 3
    assert [(one["number"], one["loss"], one["key"]) for one in found["hardest"]] == [(59, 60, "059"), (58, 59, "058")]
    assert [one["number"] for one in found["easiest"]] == [0, 1]
    assert found["hardest"][0]["texts"] == {"txt": f"text 59 {NASTY}"}
    assert [(one["name"], one["samples"]) for one in found["sources"]] == [("books/t", 30), ("web/t", 30)]
    assert found["sources"][0]["mean"] == pytest.approx(15.5)
    assert found["notes"] == []
    again = numbers(run / "state", "--samples", 2, "-o", run / "page.html")
    assert again | {"made": found["made"]} == found
    assert (run / "page.html").exists()


def test_samples_are_told_apart_as_asked(run):
    """By shard, by the folder of the key, or by fields."""
    assert [one["samples"] for one in numbers(run / "state", "--by", "shard")["sources"]] == [15] * 4
    assert [one["name"] for one in numbers(run / "state", "--by", "folder")["sources"]] == ["."]
    assert [one["name"] for one in numbers(run / "state", "--by", "fields")["sources"]] == ["jpg+txt"]


def test_a_scored_run_prunes_its_first_epoch(tmp_path: Path) -> None:
    """Losses from before epoch 0 come without a rule; the page tells and draws what epoch 0 really kept of them."""
    urls = make_corpus(tmp_path / "data")
    state = str(tmp_path / "state")
    rows = "".join(f"{number},{number + 1.0}\n" for number in range(60))
    (tmp_path / "losses.csv").write_text("id,loss\n" + rows)
    done = CliRunner().invoke(main, ["import", str(tmp_path / "losses.csv"), *urls, "--state", state])
    assert done.exit_code == 0, done.stderr
    with SetaStream(urls, policy=SeTa(num_epochs=4, target=0.5, warm=True), state=state, batch_size=5) as stream:
        stream.set_epoch(0)
        for batch in stream.batches(5):
            stream.record(batch["__index__"], np.asarray(batch["__index__"]) + 1.0)
        kept = stream.stats.selected / 60
    assert 0.3 < kept < 0.7
    report(state, "-o", tmp_path / "page.html")
    (row,) = re.findall(r'<div class="row"><span>epoch 0</span>.*?</div>', (tmp_path / "page.html").read_text())
    assert f"<span>kept {percent(kept)}</span>" in row
    (opacity,) = {float(told) for told in re.findall(r'fill-opacity="([^"]*)"', row)}
    assert opacity == pytest.approx(kept, abs=0.06)


def test_by_class(tmp_path: Path) -> None:
    """A field's content is the class; a sample without the field is in none of them."""
    members = []
    for number in range(20):
        members.append((f"{number:02d}.txt", b"word"))
        if number % 4:
            members.append((f"{number:02d}.cls", f" {number % 4}\n".encode()))
    url = str(write_tar(tmp_path / "t.tar", members))
    train([url], str(tmp_path / "state"))
    rows = numbers(tmp_path / "state", "--by", "cls")["sources"]
    assert {one["name"]: one["samples"] for one in rows} == {"1": 5, "2": 5, "3": 5, "(none)": 5}
    # Sample i has the loss i + 1.
    assert {one["name"]: one["mean"] for one in rows} == {"1": 10, "2": 11, "3": 12, "(none)": 9}
    report(tmp_path / "state", "--by", "cls", "-o", tmp_path / "page.html")
    assert "Told apart by the content of their field cls" in (tmp_path / "page.html").read_text()
    done = report(tmp_path / "state", "--by", "png", "-o", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "No sample has a field 'png'. Name one that the samples have, as cls." in done.stderr


def test_by_what_is_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that differs from sample to sample is refused before it fills the memory."""
    monkeypatch.setattr("seta_stream.cli.classes.MAX_GROUPS", 7)
    url = str(write_tar(tmp_path / "t.tar", [(f"{number:02d}.txt", f"{number}".encode()) for number in range(20)]))
    train([url], str(tmp_path / "state"))
    done = report(tmp_path / "state", "--by", "txt", "-o", tmp_path / "page.html")
    assert "Field 'txt' holds more than 7 different values (at '07' in" in done.stderr


def test_money_and_power_are_what_is_given(run):
    """A list price, one's own, and watts; none for local files."""
    assert numbers(run / "state")["run"]["full_money"] is None
    listed = numbers(run / "state", "--store", "s3", "--watts", 3600)
    assert listed["costs"]["price"]["per_gb"] == 0.09
    assert listed["run"]["totals"]["kwh"] == pytest.approx(listed["run"]["totals"]["seconds"] / 1000)
    own = numbers(run / "state", "--price-per-gb", 2, "--price-per-hour", 3600)
    read = own["run"]["totals"]["bytes_fetched"] / (1 << 30) * 2
    assert own["run"]["totals"]["money"] == pytest.approx(read + own["run"]["totals"]["seconds"])
    requests = numbers(run / "state", "--store", "gcs", "--price-per-1000-requests", 1000)
    assert requests["costs"]["price"]["per_gb"] == 0.12
    assert requests["run"]["totals"]["money"] > requests["run"]["totals"]["requests"]


def test_a_corpus_that_is_gone_is_told(run):
    """The page is made all the same, and each card says why it is bare."""
    for shard in (run / "data").rglob("*.tar"):
        shard.unlink()
    found = numbers(run / "state", "--samples", 2)
    assert [one["number"] for one in found["hardest"]] == [59, 58]
    assert "there is no such file" in found["hardest"][0]["lacking"]
    assert [one["name"] for one in found["sources"]] == ["books/t", "web/t"]
    done = report(run / "state", "-o", run / "page.html")
    assert done.exit_code == 0
    assert "there is no such file" in (run / "page.html").read_text("utf-8")
    assert "could not be told apart" in report(run / "state", "--by", "folder", "-o", run / "page.html").stderr


def test_a_corpus_that_moved_is_named(run):
    """By --urls; sources and samples come from there."""
    (run / "data").rename(run / "moved")
    urls = [f"--urls={run}/moved/{name}/t-{{0..1}}.tar" for name in ("books", "web")]
    found = numbers(run / "state", "--samples", 1, *urls)
    assert (found["hardest"][0]["key"], found["hardest"][0]["lacking"]) == ("059", None)
    assert found["summary"]["seen"] == 60


def test_a_shard_that_was_replaced_is_told(run):
    """Its samples are others than those of the losses, and are not shown in their place."""
    write_tar(run / "data" / "web" / "t-1.tar", [("a.txt", b"x")] * 1)
    found = numbers(run / "state", "--samples", 1)
    assert "holds other samples than when its losses were recorded" in found["hardest"][0]["lacking"]
    assert found["easiest"][0]["lacking"] is None
    done = report(run / "state", "--by", "fields", "-o", run / "page.html")
    assert "the corpus is no longer the one that the losses are of. Name that one by --urls." in done.stderr


def test_a_damaged_sidecar_is_noted(run):
    """On stderr and on the page."""
    sidecar = next((run / "state" / "losses").glob("gen-000002-*/000003.losses"))
    sidecar.write_bytes(sidecar.read_bytes()[:-1])
    done = report(run / "state", "-o", run / "page.html")
    assert done.exit_code == 0
    assert "Note: 1 sidecars of generation gen-000002" in done.stderr
    assert "count as unseen" in (run / "page.html").read_text("utf-8")


def test_a_state_without_a_shard_table_or_history(run):
    """Losses alone make a page; the last epoch is told by its manifest."""
    (run / "state" / "corpus").unlink()
    (run / "state" / "history.jsonl").unlink()
    found = numbers(run / "state", "--samples", 1)
    assert found["hardest"][0]["lacking"] == "The state does not name its shards, so the sample cannot be read."
    assert (found["hardest"][0]["number"], found["sources"]) == (59, [])
    assert [one["epoch"] for one in found["run"]["epochs"]] == [2]
    assert "history.jsonl does not tell of the newest generation" in found["notes"][0]
    (run / "state" / "corpus").write_bytes(b"no table")
    assert any(str(run / "state" / "corpus") in note for note in numbers(run / "state")["notes"])


def test_compressed_shards_are_read(tmp_path):
    """In sequence, up to the sample."""
    members = [(f"{at}.txt", f"text {at}".encode()) for at in range(20)]
    url = write_tar(tmp_path / "t.tar.gz", members, mode="w:gz")
    train([str(url)], str(tmp_path / "state"), epochs=1)
    found = numbers(tmp_path / "state", "--samples", 2)
    assert [one["texts"]["txt"] for one in (*found["hardest"], *found["easiest"])] == [
        "text 19", "text 18", "text 0", "text 1",
    ]  # fmt: skip


def test_state_and_corpus_in_a_bucket(s3_server, s3_bucket, tmp_path):
    """With the options of both, and the store's list price; no secret gets into the page."""
    store = store_for(s3_bucket, s3_server.options)
    for at, path in enumerate(make_corpus(tmp_path / "data")):
        store.write(f"{s3_bucket}/train-{at}.tar", Path(path).read_bytes())
    urls = [f"{s3_bucket}/train-{at}.tar" for at in range(4)]
    train(urls, f"{s3_bucket}/run", epochs=2, storage_options=s3_server.options)
    (tmp_path / "s3.json").write_text(json.dumps(s3_server.options))
    found = numbers(f"{s3_bucket}/run", "--samples", 1, "--options-file", tmp_path / "s3.json")
    assert found["hardest"][0]["texts"] == {"txt": f"text 59 {NASTY}"}
    assert found["costs"]["price"]["per_gb"] == 0.09
    done = report(f"{s3_bucket}/run", "--options-file", tmp_path / "s3.json", "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert s3_server.options["secret"] not in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["/nowhere/state"], 1, "There are no losses in /nowhere/state: no generation is kept there. Give the folder"),
        ([], 2, "Missing argument 'STATE'"),
        (["x", "--samples", 51], 2, "is not in the range 0<=x<=50"),
        (["x", "--watts", -1], 2, "is not in the range x>=0"),
    ],
)
def test_what_cannot_be_reported(arguments, code, told):
    """One message, no traceback."""
    done = report(*arguments)
    assert done.exit_code == code
    assert told in done.output
    assert "Traceback" not in done.output


def test_a_place_that_cannot_be_written_is_told(run):
    """With what to give in its place."""
    (run / "file").touch()
    done = report(run / "state", "-o", run / "file" / "page.html")
    assert done.exit_code == 2
    assert f"there is no folder '{run / 'file'}' to write 'page.html' into." in done.output


def test_help_ends_with_an_example():
    """As every command's does."""
    assert "seta-stream report runs/7 -o report.html" in report("--help").output


class Digests:
    digests = (b"a" * 16,)


def test_few_and_equal_losses_are_in_one_list_each():
    """No sample is both hardest and easiest; of equal losses the lowest ids come first; unseen ones never."""
    table = LossTable([8])
    assert cards.extreme(table, 3) == ([], [])
    table.record([2, 3, 5], [1.0, 1.0, 1.0])
    assert cards.extreme(table, 3) == ([2, 3], [5])
    table.record([0, 1], [9.0, 0.5])
    assert cards.extreme(table, 2) == ([0, 2], [1, 3])
    assert cards.extreme(table, 0) == ([], [])


def test_losses_of_no_known_policy(tmp_path):
    """A state that this release knows only in part."""
    generations, table = Generations(str(tmp_path / "state")), LossTable([4])
    table.record([0, 1], [1.0, 2.0])
    generations.commit(0, table, Digests, None, None, {"policy": {"name": "Theirs", "x": 1}})
    generations.close()
    assert numbers(tmp_path / "state")["run"]["policy"] == "Theirs(x=1)"


@pytest.mark.parametrize(
    ("data", "size", "told"),
    [
        (b"plain", 5, "plain"), (b"\xff\xfe\x00", 3, "3 bytes"), (b"a\0b", 3, "3 bytes"), (b"", 0, ""),
        ("é".encode() * 512, 5000, "é" * 240 + "…"), (b"x" + "é".encode() * 511 + b"\xc3", 5000, "x" + "é" * 239 + "…"),
        (b"\xc3", 1, "1 bytes"),
    ],
)  # fmt: skip
def test_fields_in_words(data, size, told):
    """The beginning of a text, or how many bytes something else has."""
    assert cards.words(data, size) == told


@pytest.mark.parametrize(
    ("kind", "mode", "found"),
    [
        ("JPEG", "RGB", "png"),
        ("PNG", "RGBA", "png"),
        ("PNG", "L", "png"),
        ("GIF", "L", "png"),
        ("TIFF", "CMYK", "jpeg"),
    ],
)
def test_pictures_become_small(kind, mode, found):
    """Whatever their kind and mode; see-through ones stay so."""
    data, name, size = cards.small(picture(3, kind=kind, mode=mode))
    assert (name, size) == (found, (160, 80))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (160, 80)
        assert (image.mode == "RGBA") == (mode == "RGBA")


def test_pictures_that_cannot_be_shown():
    """No picture, too many pixels, too many bytes: told, not raised at the user."""
    with pytest.raises(DecodeError, match=r"The picture cannot be shown: UnidentifiedImageError"):
        cards.small(b"no picture")
    with pytest.raises(DecodeError, match=r"The picture has 9000 × 9000 pixels, too many for a report\."):
        cards.small(picture(0, size=(9000, 9000), kind="PNG", mode="L"))
    with pytest.raises(DecodeError, match=r"The picture in field 'jpg' has 33,554,433 bytes, too many for a report\."):
        cards._allowed("jpg", (32 << 20) + 1)


def test_a_broken_picture_leaves_its_text(tmp_path):
    """The card says what is wrong with it."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("a.jpg", b"broken"), ("a.txt", b"words"), ("b.bin", b"\0\1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    train([str(tmp_path / "t.tar")], str(tmp_path / "state"), epochs=1, drop_last=False)
    found = numbers(tmp_path / "state")
    (hard,), (easy,) = found["hardest"], found["easiest"]
    assert (hard["texts"], easy["texts"]) == ({"bin": "2 bytes"}, {"txt": "words"})
    assert "cannot be shown" in easy["lacking"]


def test_without_pillow_a_card_has_its_text(tmp_path, monkeypatch):
    """The report needs no extra: a picture that cannot be drawn says what would draw it."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("a.jpg", picture(0)), ("a.txt", b"words")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    train([str(tmp_path / "t.tar")], str(tmp_path / "state"), epochs=1, drop_last=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    (hard,) = numbers(tmp_path / "state")["hardest"]
    assert hard["texts"] == {"txt": "words"}
    assert "pip install 'seta-stream[image]'" in hard["lacking"]
