"""EfficientTrain: which stage when, what a picture becomes, and how a stream follows its progress."""

from __future__ import annotations

import gzip
import io
import math
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_corpora import Member, write_tar

from seta_stream import DynamicRandom, Full, Reading, SeTa, SetaStream, SetaStreamWarning
from seta_stream.errors import ArgumentError, CheckpointError, DecodeError
from seta_stream.read.curriculum import CROP_TRIES, EfficientTrain, Stage, middle, random_crop
from seta_stream.read.images import dct_scale, read_square

SMALL = [(8, 0), (16, 1), (24, 2)]
"""Three stages of equal compute; their shares of the samples are as 9 : 9/4 : 1, so they end at 36/49, 45/49 and 1."""

MakePictures = Callable[..., list[str]]


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return a smooth picture that a number decides."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (9 + number % 5) + number), np.cos(y / 7 + number), np.sin((x + y) / 11)]
    return Image.fromarray((np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def make_pictures(tmp_path: Path) -> MakePictures:
    """Make shards of small JPEGs and labels; the samples with these numbers hold no picture."""

    def make(shards: int, samples: int, *, bad: tuple[int, ...] = (), name: str = "pictures") -> list[str]:
        paths = []
        for shard in range(shards):
            members: list[Member] = []
            for number in range(shard * samples, (shard + 1) * samples):
                data = b"no picture" if number in bad else encoded(picture(number))
                members += [(f"{number:06d}.jpg", data), (f"{number:06d}.cls", str(number % 7).encode())]
            paths.append(str(write_tar(tmp_path / f"{name}-{shard}.tar", members)))
        return paths

    return make


def decoded(curriculum: EfficientTrain, progress: float, field: str, data: bytes, number: int = 0) -> Any:
    return curriculum.at(progress).for_sample(seed=1, epoch=2, number=number)(field, data)


# ---- stages


def test_published_stages_by_hand() -> None:
    """Ten stages of equal compute: a stage lasts as (224/resolution)², 49/9 twice, 49/25 four times, 1 four times."""
    curriculum = EfficientTrain()
    lengths = [49 / 9] * 2 + [49 / 25] * 4 + [1] * 4
    whole = 98 / 9 + 196 / 25 + 4
    assert whole == pytest.approx(22.72888889)
    end = 0.0
    for number, (length, side) in enumerate(zip(lengths, [96] * 2 + [160] * 4 + [224] * 4, strict=True)):
        begin, end = end, end + length / whole
        assert curriculum.stage(begin + 1e-6) == Stage(side, number)
        assert curriculum.stage(end - 1e-6) == Stage(side, number)
        assert curriculum.spent(begin) == pytest.approx(number / 10, abs=1e-6)
        assert curriculum.spent((begin + end) / 2) == pytest.approx((number + 0.5) / 10, abs=1e-6)
    assert curriculum.stage(0.239538) == Stage(96, 0)
    assert curriculum.stage(0.239539) == Stage(96, 1)
    assert curriculum.stage(0.479078) == Stage(160, 2)
    assert curriculum.stage(0.824013) == Stage(224, 6)
    assert (curriculum.stage(0.0), curriculum.stage(1.0), curriculum.stage(1.5)) == (
        (96, 0, 1),
        (224, 9, 1),
        (224, 9, 1),
    )
    assert curriculum.spent(1.0) == pytest.approx(1.0)
    assert curriculum.relative_compute == pytest.approx(10 / whole)
    assert curriculum.relative_compute == pytest.approx(0.44, abs=0.001)


def test_own_stages() -> None:
    """Stages may be pairs, of equal compute, or triples; a bound belongs to the stage that it begins."""
    assert EfficientTrain(stages=SMALL).stage(36 / 49 - 1e-6).resolution == 8
    assert EfficientTrain(stages=SMALL).stage(36 / 49).resolution == 16
    halves = EfficientTrain(stages=[(32, 3), (32, 5.5)])
    assert [halves.stage(p).magnitude for p in (0, 0.4999, 0.5, 1)] == [3, 3, 5.5, 5.5]
    assert halves.relative_compute == 1
    # A quarter of the compute at half the side is 4 of 7 samples: 4·1/4 + 3 = 4 of 7 samples' compute.
    mostly_large = EfficientTrain(stages=((10, 0, 1), (20, 1, 3)))
    assert [mostly_large.stage(p).resolution for p in (0.571, 0.572)] == [10, 20]
    assert mostly_large.relative_compute == pytest.approx(4 / 7)
    assert mostly_large.spent(4 / 7) == pytest.approx(0.25)
    assert mostly_large == EfficientTrain(stages=[Stage(10, 0, 1), Stage(20, 1, 3)])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stages": []}, r"stages=\[\]\): give \(resolution, magnitude\)"),
        ({"stages": [96, 160]}, r"stages=\[96, 160\]\): give \(resolution, magnitude\)"),
        ({"stages": [(0, 1)]}, "pixels of a side, a strength"),
        ({"stages": [(96.5, 1)]}, "pixels of a side, a strength"),
        ({"stages": [(96, -1)]}, "pixels of a side, a strength"),
        ({"stages": [(96, 1, 0)]}, "a part of the run's compute"),
        ({"stages": [(96, 1, 1, 1)]}, "a part of the run's compute"),
        ({"mode": "CMYK"}, r"EfficientTrain\(mode='CMYK'\) is not possible: choose one of 'RGB', 'L', 'RGBA'"),
        ({"output": "torch"}, "choose one of 'uint8', 'pil'"),
        ({"crop": "random"}, "choose one of 'center', 'random-resized'"),
        ({"num_epochs": 0}, r"num_epochs=0\): give a whole number, 1 or more"),
        ({"num_epochs": 3.0}, "give a whole number, 1 or more"),
        ({"scale": (0.5, 0.2)}, r"scale=\(0.5, 0.2\)\): give \(least, most\) shares of the area"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], text: str) -> None:
    """Each setting that cannot be is named with what would fit."""
    with pytest.raises(ArgumentError, match=text):
        EfficientTrain(**options)


# ---- pictures


@pytest.mark.parametrize(("resolution", "scale"), [(96, 2), (160, 2), (187, 2), (188, 1), (93, 4), (46, 8), (20, 8)])
def test_jpegs_are_decoded_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch, resolution: int, scale: int) -> None:
    """What is resized is a half, quarter or eighth of 500 × 375 where that suffices; the outcome is that of all."""
    data = encoded(picture(3, (500, 375)), quality=90)
    resized, real = [], Image.Image.resize

    def spy(self: Image.Image, *rest: Any) -> Image.Image:
        resized.append(self.size)
        return real(self, *rest)

    monkeypatch.setattr(Image.Image, "resize", spy)
    reduced = read_square(data, resolution, "RGB", middle)
    assert resized == [(math.ceil(500 / scale), math.ceil(375 / scale))]
    monkeypatch.undo()
    whole = Image.open(io.BytesIO(data)).resize((resolution, resolution), Image.Resampling.BICUBIC, (62, 0, 437, 375))
    assert reduced.size == (resolution, resolution)
    difference = np.abs(np.asarray(reduced).astype(int) - np.asarray(whole)).mean()
    assert difference < 2.5  # the waves reach from 28 to 228; at an eighth little is left to resize
    assert (difference == 0) == (scale == 1)


@settings(max_examples=200, deadline=None)
@given(
    left=st.integers(0, 300),
    top=st.integers(0, 300),
    size=st.tuples(*[st.integers(1, 3000)] * 2),
    side=st.integers(1, 500),
)
def test_a_reduced_crop_is_never_too_small(left: int, top: int, size: tuple[int, int], side: int) -> None:
    """The scale leaves the crop `side` pixels each way, and the next one would not."""
    box = (left, top, left + size[0], top + size[1])
    scale = dct_scale(box, side)
    assert scale in {1, 2, 4, 8}
    assert scale == 1 or min(size) / scale >= side
    assert scale == 8 or min(size) / (2 * scale) < side


@pytest.mark.parametrize("size", [(41, 33), (17, 200), (129, 65), (8, 8), (25, 500)])
def test_odd_sizes_keep_their_place(size: tuple[int, int]) -> None:
    """Where the picture's size is no multiple of the scale, a crop still shows the part that it names."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    ramp = Image.fromarray(np.stack([x * 255 // width, y * 255 // height, x * 0], -1).astype(np.uint8))
    data = encoded(ramp, quality=98, subsampling=0)
    for side in (1, 2, 3, 5, 8):
        box = middle(width, height)
        square = np.asarray(read_square(data, side, "RGB", middle)).astype(float)
        wanted = (np.arange(side) + 0.5) / side
        assert np.abs(square[:, :, 0].mean(0) - (box[0] + wanted * (box[2] - box[0])) * 255 / width).max() < 24
        assert np.abs(square[:, :, 1].mean(1) - (box[1] + wanted * (box[3] - box[1])) * 255 / height).max() < 24


def test_grey_comes_from_the_jpeg_itself() -> None:
    """mode="L" takes a JPEG's brightness without its colours, and is what converting gives but for rounding."""
    data = encoded(picture(5, (200, 100)), quality=95)
    grey = np.asarray(read_square(data, 90, "L", middle)).astype(int)
    converted = Image.open(io.BytesIO(data)).convert("L").resize((90, 90), Image.Resampling.BICUBIC, (50, 0, 150, 100))
    assert np.abs(grey - np.asarray(converted)).max() <= 3


def test_every_kind_of_field() -> None:
    """JPEG, PNG with palette or alpha, gzipped; other fields as "basic" does; arrays can be written to."""
    curriculum = EfficientTrain(stages=SMALL)
    image = picture(1)
    rows = {
        "jpg": encoded(image),
        "jpeg.gz": gzip.compress(encoded(image)),
        "left.png": encoded(image, "PNG"),
        "webp": encoded(image, "WEBP", lossless=True),
        "png": encoded(image.convert("P"), "PNG"),
        "mask.png": encoded(image.convert("RGBA"), "PNG"),
    }
    wanted = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, (5, 0, 35, 30))).astype(int)
    for field, data in rows.items():
        value = decoded(curriculum, 0.8, field, data)
        assert (value.shape, value.dtype, value.flags.writeable) == ((16, 16, 3), np.uint8, True)
        assert np.abs(value.astype(int) - wanted).mean() < (12 if field == "png" else 4), field
    assert decoded(curriculum, 0, "cls", b"4") == 4
    assert decoded(curriculum, 0, "txt.gz", gzip.compress(b"a")) == "a"
    assert decoded(curriculum, 0, "xyz", b"a") == b"a"
    pil = decoded(EfficientTrain(stages=SMALL, output="pil", mode="L"), 1.0, "jpg", rows["jpg"])
    assert (pil.size, pil.mode) == ((24, 24), "L")
    assert decoded(EfficientTrain(stages=SMALL, mode="RGBA"), 0, "mask.png", rows["mask.png"]).shape == (8, 8, 4)


def test_truncated_jpegs_are_refused_at_any_scale() -> None:
    """Half a file is an error, reduced or not: never a picture with a grey half."""
    data = encoded(picture(2, (400, 400)), quality=95)
    for side in (40, 390):
        with pytest.raises(OSError, match="truncated"):
            read_square(data[: len(data) // 2], side, "RGB", middle)


# ---- draws


def test_random_crops_lie_inside_and_are_spread() -> None:
    """Share and shape of ten thousand crops lie in their ranges and fill them; corners reach every edge."""
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << 32, (10_000, 2 * CROP_TRIES + 2), dtype=np.uint32)
    boxes = np.array([random_crop(row, (0.08, 1.0), 500, 375) for row in words])
    left, top, right, bottom = boxes.T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 500, 375)
    area, ratio = (right - left) * (bottom - top) / (500 * 375), (right - left) / (bottom - top)
    assert 0.078 < area.min() < 0.085
    assert 0.98 < area.max() <= 1
    # A share a of shape r fits where a ≤ 0.75 r; with log r uniform its mean is (E[(.75r)²] − .08²) / 2(E[.75r] − .08).
    assert area.mean() == pytest.approx(0.4318, abs=0.01)
    assert 0.74 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.35


def test_crops_by_hand() -> None:
    """Middle words give half the range: area .54, shape 1, in the middle; a strip keeps its middle."""
    half = np.full(2 * CROP_TRIES + 2, 1 << 31, np.uint32)
    # sqrt(0.54 · 100 · 100) = 73.48; (100 − 73 + 1) / 2 = 14
    assert random_crop(half, (0.08, 1.0), 100, 100) == (14, 14, 87, 87)
    assert random_crop(half, (1.0, 1.0), 100, 100) == (0, 0, 100, 100)
    assert random_crop(half, (0.9, 1.0), 10, 400) == (0, 193, 10, 206)  # 10 / (3/4) = 13 high
    assert random_crop(half, (0.9, 1.0), 400, 10) == (193, 0, 206, 10)  # 10 · 4/3 = 13 wide
    assert middle(500, 375) == (62, 0, 437, 375)
    assert middle(1, 9) == (0, 4, 1, 5)


def test_draws_are_a_samples_own() -> None:
    """Crop and augmentation depend on seed, epoch and id alone; all pictures of a sample share them."""
    seen: list[tuple[float, float]] = []

    def augment(image: Any, magnitude: float, random: np.random.Generator) -> Any:
        seen.append((magnitude, float(random.random())))
        return image

    data = encoded(picture(1, (120, 90)), "PNG")
    decoder = EfficientTrain(stages=SMALL, crop="random-resized", augment=augment).at(0.8)

    def draw(seed: int, epoch: int, number: int, field: str = "png") -> tuple[bytes, float]:
        square = decoder.for_sample(seed, epoch, number)(field, data)
        assert seen[-1][0] == 1
        return square.tobytes(), seen[-1][1]

    first = draw(0, 0, 5)
    assert draw(0, 0, 5) == first == draw(0, 0, 5, "right.png")
    for other in (draw(1, 0, 5), draw(0, 1, 5), draw(0, 0, 6), draw(0, 0, 5 + (1 << 40))):
        assert other[0] != first[0]
        assert other[1] != first[1]
    np.random.seed(0)  # noqa: NPY002  (the global generator must not matter)
    assert draw(0, 0, 5) == first


def test_an_augmentation_keeps_the_size() -> None:
    """One that does not is an error that names both sizes."""
    curriculum = EfficientTrain(stages=SMALL, augment=lambda image, _magnitude, _random: image.resize((9, 7)))
    with pytest.raises(ArgumentError, match=r"returned a picture of \(9, 7\) pixels for one of \(8, 8\)"):
        decoded(curriculum, 0, "jpg", encoded(picture(0)))


# ---- streams


def sides(samples: Any) -> list[int]:
    return [len(sample["jpg"]) for sample in samples]


def expected_sides(curriculum: EfficientTrain, consumed: int, batch: int, planned: int, run: int) -> list[int]:
    steps = range(0, planned, batch)
    return [curriculum.stage((consumed + start) / run).resolution for start in steps for _ in range(batch)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_step_has_one_resolution(make_pictures: MakePictures, threads: int) -> None:
    """Each step's pictures have the side that its progress says, also where one piece of decoding spans the stages."""
    shards = make_pictures(2, 60)
    curriculum = EfficientTrain(num_epochs=3, stages=SMALL)
    stream = SetaStream(shards, batch_size=8, decode=curriculum, read=Reading(decode_threads=threads))
    seen = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        seen += sides(stream)
    assert seen == [side for epoch in range(3) for side in expected_sides(curriculum, 120 * epoch, 8, 120, 360)]
    # By hand: 264.5 and 330.6 of 360 samples end the stages, and a step belongs to the stage in which it begins.
    assert [seen.count(side) for side in (8, 16, 24)] == [272, 64, 24]
    batches = list(stream.batches())
    assert {batch["jpg"].shape[0] for batch in batches} == {8}
    assert stream.stats.decoded == 120 * 2


def test_pruned_runs_follow_the_samples(make_pictures: MakePictures, tmp_path: Path) -> None:
    """With SeTa and DynamicRandom progress counts the samples consumed over those planned; each run ends at the end."""
    shards = make_pictures(2, 100)
    curriculum = EfficientTrain(num_epochs=5, stages=SMALL)
    policies = [SeTa(num_epochs=5, target=0.5), DynamicRandom(prune_ratio=0.5), SeTa(num_epochs=5, prune_ratio=0.1)]
    for number, policy in enumerate(policies):
        state = str(tmp_path / f"state-{number}")
        with SetaStream(shards, policy=policy, batch_size=5, decode=curriculum, state=state) as stream:
            last, seen = 0.0, []
            for epoch in range(5):
                stream.set_epoch(epoch)
                for batch in stream.batches():
                    # Handed out is consumed: progress before a step is where the last one ended.
                    assert batch["jpg"].shape[1] == curriculum.stage(last).resolution
                    last = stream.progress
                    seen.append(batch["jpg"].shape[1])
                    stream.record(batch["__index__"], (batch["__index__"] % 17 + 1.0) / (epoch + 1))
                # What an epoch leaves out is planned and never comes; the next one plans anew.
                last = _progress_of_the_next(stream, epoch + 1) if epoch < 4 else last
        assert last > 0.95
        assert (seen[0], seen[-1]) == (8, 24)
        assert set(seen) == {8, 16, 24}


def _progress_of_the_next(stream: SetaStream, epoch: int) -> float:
    stream.set_epoch(epoch)
    return stream.progress


def test_resuming_goes_on_at_the_same_resolution(make_pictures: MakePictures, tmp_path: Path) -> None:
    """From any step of an epoch the rest has the sides of an unbroken run, whatever losses were recorded since."""
    shards = make_pictures(2, 60)
    curriculum = EfficientTrain(stages=SMALL, crop="random-resized")
    policy = SeTa(num_epochs=4, prune_ratio=0.0, num_group=5, window_scale=0.6)

    def make(folder: Path) -> SetaStream:
        return SetaStream(shards, policy=policy, state=str(folder), batch_size=4, decode=curriculum, seed=3)

    def losses(ids: Any, epoch: int) -> Any:
        return (np.asarray(ids) * 37 % 101 + 1.0) * (1 + epoch * (np.asarray(ids) % 3))

    def rest(stream: SetaStream, epoch: int) -> list[tuple[int, bytes]]:
        seen = []
        for sample in stream:
            stream.record([sample["__index__"]], losses([sample["__index__"]], epoch))
            seen.append((sample["__index__"], sample["jpg"].tobytes()))
        return seen

    whole = make(tmp_path / "whole")
    wanted = []
    for epoch in range(4):
        whole.set_epoch(epoch)
        wanted.append(rest(whole, epoch))
    whole.close()
    assert {len(picture) for epoch in wanted for _, picture in epoch} == {8 * 8 * 3, 16 * 16 * 3, 24 * 24 * 3}
    stream = make(tmp_path / "broken")
    for epoch in range(3):
        stream.set_epoch(epoch)
        saved, course = {}, stream.session.board.course
        for step, batch in enumerate(stream.batches(), 1):
            stream.record(batch["__index__"], losses(batch["__index__"], epoch))
            saved[step] = stream.state_dict(step=step) if step % 3 == 0 else None
        stream.session.memory.close()  # as a killed process would leave it
        for step in [step for step, value in saved.items() if value is not None][-2:]:
            stream = make(tmp_path / "broken")
            stream.load_state_dict(saved[step] or {})
            assert stream.session.board.course == course
            assert rest(stream, epoch) == wanted[epoch][4 * step :], (epoch, step)
            if step != max(s for s, v in saved.items() if v is not None):
                stream.session.memory.close()
    stream.set_epoch(3)
    assert rest(stream, 3) == wanted[3]
    stream.close()


def test_substitutes_have_the_resolution_of_their_step(make_pictures: MakePictures) -> None:
    """Under on_error="skip" a neighbour is decoded for the step that it stands in, also from another stage's step."""
    bad = (3, 40, 41, 42, 85, 118)
    shards = make_pictures(2, 60, bad=bad)
    curriculum = EfficientTrain(num_epochs=1, stages=SMALL, crop="random-resized")

    def make(threads: int) -> SetaStream:
        reading = Reading(decode_threads=threads)
        return SetaStream(shards, batch_size=4, decode=curriculum, on_error="skip", read=reading)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)
        one = make(0)
        samples = list(one)
        assert sides(samples) == expected_sides(curriculum, 0, 4, 120, 120)
        stand_ins = [sample for sample in samples if sample["__index__"] == -1]
        assert len(stand_ins) == one.stats.skipped == len(bad)
        later = make(2)
        later.load_state_dict(one.state_dict(step=11))
        for again, sample in zip(later, samples[44:], strict=True):
            assert (again["__key__"], again["jpg"].tobytes()) == (sample["__key__"], sample["jpg"].tobytes())
    with pytest.raises(DecodeError, match="Cannot decode field 'jpg'"):
        list(SetaStream(shards, decode=curriculum))


def test_progress_goes_on_where_nothing_tells(make_pictures: MakePictures) -> None:
    """A later epoch set at once counts those before as planned; past the end the last stage stays."""
    shards = make_pictures(1, 60)
    stream = SetaStream(shards, decode=EfficientTrain(num_epochs=10, stages=SMALL), batch_size=60)
    found = {}
    for epoch in (9, 0, 8, 7, 10, 12, 3):
        stream.set_epoch(epoch)
        found[epoch] = (stream.progress, set(sides(stream)))
    assert found == {
        0: (0.0, {8}), 3: (0.3, {8}), 7: (0.7, {8}), 8: (0.8, {16}), 9: (0.9, {16}), 10: (1.0, {24}), 12: (1.0, {24}),
    }  # fmt: skip


def test_the_length_of_the_run_must_be_known(make_pictures: MakePictures, tmp_path: Path) -> None:
    """Without num_epochs anywhere, or with two that differ, the stream is refused, and leaves the state free."""
    shards = make_pictures(1, 20)
    make = partial(SetaStream, shards, state=str(tmp_path / "state"))
    with pytest.raises(ArgumentError, match=r"the policy Full has no num_epochs. Give EfficientTrain\(num_epochs="):
        make(decode=EfficientTrain())
    with pytest.raises(
        ArgumentError, match="run has num_epochs=9 and EfficientTrain has num_epochs=8: leave the latter"
    ):
        make(policy=SeTa(num_epochs=9), decode=EfficientTrain(num_epochs=8))
    with pytest.raises(ArgumentError, match=r"decode=EfficientTrain is a class: give one made from it"):
        make(decode=EfficientTrain)
    make(policy=SeTa(num_epochs=9), decode=EfficientTrain(num_epochs=9)).close()
    assert make(policy=Full(), decode=EfficientTrain(num_epochs=2)).progress == 0


def test_a_checkpoint_knows_the_run(make_pictures: MakePictures) -> None:
    """The run's samples are in it; a damaged number is refused; streams with another decoder load it all the same."""
    shards = make_pictures(1, 20)
    stream = SetaStream(shards, batch_size=5, decode=EfficientTrain(num_epochs=4, stages=SMALL))
    saved = stream.state_dict(step=2)
    assert saved["run_samples"] == 80
    for wrong in ("80", -1, 80.0):
        with pytest.raises(CheckpointError, match="is damaged: its run has"):
            stream.load_state_dict({**saved, "run_samples": wrong})
    plain = SetaStream(shards, batch_size=5)
    plain.load_state_dict(saved)
    assert len(list(plain)) == 10
    stream.load_state_dict(plain.state_dict(step=3))
    assert len(list(stream)) == 5


class Alternating:
    """A staged decoder of a user: plain functions, new ones each time."""

    num_epochs = 2

    def at(self, progress: float) -> Callable[[str, bytes], Any]:
        return lambda field, _data: (round(progress, 6), field)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_users_own_stages(make_pictures: MakePictures, threads: int) -> None:
    """Anything with at(progress) is one; it is asked for each step."""
    stream = SetaStream(make_pictures(1, 20), decode=Alternating(), batch_size=4, read=Reading(decode_threads=threads))
    stream.set_epoch(1)
    seen = [sample["jpg"][0] for sample in stream]
    assert seen == [round(0.5 + 4 * step / 40, 6) for step in range(5) for _ in range(4)]
    assert all(a <= b for a, b in pairwise(seen))
