"""EfficientTrain++: pictures whose resolution, and augmentation, grow with the run's progress.

Takes progress, a sample's bytes, and the numbers that its draws depend on; gives squares. Pure but for Pillow.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from seta_stream.draws import WORD_RANGE, WordSource
from seta_stream.errors import ArgumentError
from seta_stream.read.decode import IMAGE_FIELDS, FieldDecode, basic, unzipped
from seta_stream.read.images import Box, read_square

Augment = Callable[[Any, float, np.random.Generator], Any]
"""(Pillow image, magnitude, a sample's own random numbers) → Pillow image."""

MODES: Final = ("RGB", "L", "RGBA")
CROP_TRIES: Final = 10
CROP_RATIO: Final = (3 / 4, 4 / 3)
"""Width over height of a random crop, as everywhere since Inception."""


class Stage(NamedTuple):
    """A part of the run.

    Attributes:
        resolution: pixels of a side.
        magnitude: of the augmentation; RandAugment's 0 … 10.
        compute: its part of the run's compute, in proportion to the other stages'.
    """

    resolution: int
    magnitude: float
    compute: float = 1.0


PUBLISHED: Final = tuple(Stage(96 if n < 2 else 160 if n < 6 else 224, n) for n in range(10))
"""Ten stages of equal compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientTrain:
    """Decodes pictures at a resolution that grows with the run's progress: `decode=EfficientTrain(...)`.

    Every sample is still used; early ones cost less. With the published stages a run takes 0.44 of the compute of the
    same samples at full resolution, and JPEGs are decoded no larger than their stage needs. All samples of a step have
    one resolution. Fields that are no pictures are decoded as "basic" does.

    Args:
        num_epochs: length of the run; the policy's where it has one.
        stages: (resolution, magnitude) or (resolution, magnitude, compute), in order.
        mode: "RGB", "L" or "RGBA".
        output: "uint8" for arrays [resolution, resolution(, channels)], "pil" for Pillow images.
        crop: "center", the largest square in the middle; "random-resized", a random part of random shape, which a
            sample draws anew each epoch and the same for any number of workers.
        scale: least and most share of the picture's area that a random crop has.
        augment: (Pillow image, magnitude, numpy.random.Generator) → Pillow image of the same size; takes its random
            numbers from the generator, which is a sample's own.

    Raises:
        ArgumentError: a setting is impossible.
    Source:
        Wang et al., EfficientTrain++, TPAMI 2024 (arXiv 2405.08768), and github.com/LeapLabTHU/EfficientTrain. Theirs
        augments at 224 pixels and reduces then (Lanczos); we reduce first, which is what saves the decoding. Theirs
        makes the learning rate follow compute: `spent(progress)`.
    """

    num_epochs: int | None = None
    stages: Sequence[Stage | tuple[int, float] | tuple[int, float, float]] = PUBLISHED
    mode: Literal["RGB", "L", "RGBA"] = "RGB"
    output: Literal["uint8", "pil"] = "uint8"
    crop: Literal["center", "random-resized"] = "center"
    scale: tuple[float, float] = (0.08, 1.0)
    augment: Augment | None = None

    def __post_init__(self) -> None:
        choices = (("mode", MODES), ("output", ("uint8", "pil")), ("crop", ("center", "random-resized")))
        for name, possible in choices:
            if getattr(self, name) not in possible:
                raise ArgumentError(
                    f"EfficientTrain({name}={getattr(self, name)!r}) is not possible: choose one of "
                    f"{', '.join(map(repr, possible))}.",
                    expected=possible,
                    found=getattr(self, name),
                )
        if self.num_epochs is not None and not _is_count(self.num_epochs):
            raise ArgumentError(f"EfficientTrain(num_epochs={self.num_epochs!r}): give a whole number, 1 or more.")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ArgumentError(f"EfficientTrain(scale={self.scale!r}): give (least, most) shares of the area, 0 … 1.")
        object.__setattr__(self, "stages", _checked(self.stages))

    @property
    def relative_compute(self) -> float:
        """The run's compute over that of the same samples at the highest resolution: 0.44 as published."""
        stages, lengths = self._stages, _lengths(self._stages)
        highest = max(stage.resolution for stage in stages)
        return sum(length * (stage.resolution / highest) ** 2 for length, stage in zip(lengths, stages, strict=True))

    def stage(self, progress: float) -> Stage:
        """Return the stage at a share of the run's samples, 0 … 1; a bound belongs to the stage that it begins."""
        return self._stages[self._number(progress)]

    def spent(self, progress: float) -> float:
        """Return the share of the run's compute that is spent at a share of its samples: what theirs cosines follow."""
        stages, bounds = self._stages, _bounds(self._stages)
        number = self._number(progress)
        begin, end = (0.0, *bounds)[number], bounds[number]
        part = min(max(progress - begin, 0.0) / max(end - begin, 1e-9), 1.0)
        total = sum(stage.compute for stage in stages)
        return (sum(stage.compute for stage in stages[:number]) + part * stages[number].compute) / total

    def at(self, progress: float) -> StageDecoder:
        """Return the decoder of the stage at a share of the run's samples."""
        return StageDecoder(self, self.stage(progress))

    @property
    def _stages(self) -> tuple[Stage, ...]:
        return cast("tuple[Stage, ...]", self.stages)  # __post_init__ made them so

    def _number(self, progress: float) -> int:
        return min(bisect_right(_bounds(self._stages), round(progress, 9)), len(self._stages) - 1)


@dataclass(frozen=True, slots=True)
class StageDecoder:
    """Decodes the samples of one stage.

    Args:
        settings: of the whole run.
        stage: the one.
    """

    settings: EfficientTrain
    stage: Stage

    def for_sample(self, seed: int, epoch: int, number: int) -> FieldDecode:
        """Return what decodes the fields of one sample; all its pictures get the same draws."""
        return partial(self._decode, (seed, epoch, number))

    def _decode(self, place: tuple[int, int, int], field: str, data: bytes) -> Any:
        stem, _, extension = field.rpartition(".")
        if extension == "gz":
            return self._decode(place, stem, unzipped(data))
        if extension not in IMAGE_FIELDS:
            return basic(field, data)
        crop_of: Callable[[int, int], Box] = middle
        if self.settings.crop == "random-resized":
            crop_of = partial(random_crop, _words("crop", place, 2 * CROP_TRIES + 2), self.settings.scale)
        image: Any = read_square(data, self.stage.resolution, self.settings.mode, crop_of)
        if self.settings.augment is not None:
            random = np.random.Generator(np.random.Philox(key=_words("augment", place, 4).view(np.uint64)))
            image = self.settings.augment(image, self.stage.magnitude, random)
        return image if self.settings.output == "pil" else self._array(image)

    def _array(self, image: Any) -> NDArray[np.uint8]:
        """Return uint8 [resolution, resolution(, channels)].

        Raises:
            ArgumentError: the augmentation changed the size, so that a step could not be stacked.
        """
        array = np.array(image)  # a copy: torch wants arrays that can be written to
        side = self.stage.resolution
        if array.shape[:2] != (side, side):
            raise ArgumentError(
                f"augment= returned a picture of {array.shape[1::-1]} pixels for one of {(side, side)}: it must keep "
                "the size, or a step could not be stacked.",
                expected=(side, side),
                found=array.shape[1::-1],
            )
        return array


def middle(width: int, height: int) -> Box:
    """Return the largest square in the middle."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def random_crop(words: NDArray[np.uint32], scale: tuple[float, float], width: int, height: int) -> Box:
    """Return a random part of random shape; where none of ten fits, the middle with the nearest shape.

    Args:
        words: uint32 [22], what is drawn.
        scale: least and most share of the area; uniform between.
        width, height: of the picture.

    Source:
        Inception's crop as torchvision.transforms.RandomResizedCrop draws it, from counter-based words.
    """
    shares = words.astype(np.float64) / WORD_RANGE
    least, most = map(math.log, CROP_RATIO)
    # axes: try × (area, shape)
    for area, shape in shares[: 2 * CROP_TRIES].reshape(CROP_TRIES, 2).tolist():
        pixels = width * height * (scale[0] + area * (scale[1] - scale[0]))
        ratio = math.exp(least + shape * (most - least))
        wide, high = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = (shares[-2:] * (width - wide + 1, height - high + 1)).astype(int).tolist()
            return left, top, left + wide, top + high
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    wide, high = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _words(purpose: str, place: tuple[int, int, int], count: int) -> NDArray[np.uint32]:
    """Return random words of one sample in one epoch: uint32 [count]."""
    seed, epoch, number = place
    return WordSource(seed, purpose, epoch).words(number, count)


@lru_cache(maxsize=64)
def _lengths(stages: tuple[Stage, ...]) -> tuple[float, ...]:
    """Return each stage's share of the run's samples: its compute over that of one of its samples."""
    lengths = [stage.compute / stage.resolution**2 for stage in stages]
    whole = sum(lengths)
    return tuple(length / whole for length in lengths)


@lru_cache(maxsize=64)
def _bounds(stages: tuple[Stage, ...]) -> tuple[float, ...]:
    """Return where each stage ends, as a share of the run's samples; rounded, so that sums do not decide."""
    return tuple(round(end, 9) for end in accumulate(_lengths(stages)))


def _checked(stages: Any) -> tuple[Stage, ...]:
    """Return the stages as such.

    Raises:
        ArgumentError: there is none, or one is impossible.
    """
    try:
        checked = tuple(Stage(*stage) for stage in stages)
        good = all(
            _is_count(resolution) and magnitude >= 0 and 0 < compute < math.inf
            for resolution, magnitude, compute in checked
        )
    except TypeError:
        checked, good = (), False
    if not (checked and good):
        raise ArgumentError(
            f"EfficientTrain(stages={stages!r}): give (resolution, magnitude) or (resolution, magnitude, compute) for "
            "each, as [(96, 0), (224, 9)]: pixels of a side, a strength, a part of the run's compute.",
            found=stages,
        )
    return checked


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
