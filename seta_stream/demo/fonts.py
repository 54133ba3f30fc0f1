"""The fonts that words are set in: those that matplotlib and Pillow bring, and a folder of the user's.

Takes a folder or nothing; gives names of fonts, and fonts ready to draw with. Reads font files.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seta_stream.demo.extras import require
from seta_stream.demo.lexicon import ALPHABET
from seta_stream.demo.randomness import NumberedRandom
from seta_stream.errors import ArgumentError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

PILLOW_FONT: Final = "pillow:default"
FONT_SUFFIXES: Final = frozenset({".ttf", ".otf", ".ttc"})
HELD_OUT_SHARE: Final = 0.2

# TeX's symbol fonts: their glyphs at a to z differ from each other, and none is a letter.
_SYMBOL_FONTS: Final = frozenset({"cmsy10.ttf", "cmex10.ttf"})


def find_fonts(folder: str | None = None) -> tuple[str, ...]:
    """Return the fonts that hold the letters a to z, sorted: matplotlib's and Pillow's, and those under `folder`.

    Args:
        folder: searched in depth for .ttf, .otf and .ttc files.

    Returns:
        Paths, and "pillow:default" for the font inside Pillow.

    Raises:
        ArgumentError: nothing usable under `folder`.
    """
    require("Rendering words", "PIL", "matplotlib")
    import matplotlib as mpl  # noqa: PLC0415  (an extra; its data folder is what is wanted)

    fonts = _fonts_under(Path(mpl.get_data_path()) / "fonts" / "ttf")
    if folder is not None:
        own = _fonts_under(Path(folder))
        if not own:
            raise ArgumentError(
                f"No usable font under {folder}: .ttf, .otf and .ttc files that hold the letters a to z were looked "
                "for. Check the path.",
                found=folder,
            )
        fonts = fonts + own
    return (*fonts, PILLOW_FONT)


def _fonts_under(folder: Path) -> tuple[str, ...]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FONT_SUFFIXES)
    return tuple(str(path.absolute()) for path in files if path.name not in _SYMBOL_FONTS and _has_letters(str(path)))


def _has_letters(name: str) -> bool:
    """Say whether a font draws 26 different letters: one without them draws 26 times the same box."""
    try:
        font = load_font(name, 28)
        return len({bytes(font.getmask(letter, mode="L")) for letter in ALPHABET}) == len(ALPHABET)
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=512)
def load_font(name: str, size: int) -> FreeTypeFont | ImageFont:
    """Return a font ready to draw with; the same object for the same name and size."""
    from PIL import ImageFont  # noqa: PLC0415  (an extra)

    if name == PILLOW_FONT:
        return ImageFont.load_default(size)
    # Pseudo-words need no shaping, and the basic layout is several times as fast.
    return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)


def family_of(name: str) -> str:
    """Return a font's family: "DejaVu Sans" for its bold and oblique faces too."""
    from PIL.ImageFont import FreeTypeFont  # noqa: PLC0415  (an extra)

    font = load_font(name, 28)
    return (font.getname()[0] or name) if isinstance(font, FreeTypeFont) else name


def split_fonts(fonts: tuple[str, ...], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (fonts to train on, fonts held out): whole families, so that no sibling of a held-out font is seen.

    Raises:
        ArgumentError: fewer than two families.
    """
    families = sorted({family_of(font) for font in fonts})
    if len(families) < 2:
        raise ArgumentError(
            f"{len(fonts)} fonts of {len(families)} family cannot be split into seen and held-out ones: give a folder "
            "with at least two families.",
            expected="at least 2 families",
            found=len(families),
        )
    count = min(len(families) - 1, max(1, round(len(families) * HELD_OUT_SHARE)))
    order = NumberedRandom(seed, "held-out fonts").at(0).permutation(len(families))
    held_out = {families[number] for number in order[:count]}
    seen = tuple(font for font in fonts if family_of(font) not in held_out)
    return seen, tuple(font for font in fonts if family_of(font) in held_out)
