"""Rows as CSV and Parquet files, written and read a chunk at a time.

Takes chunks of rows; gives files, and back. Acts: reads and writes local files; alone of the package imports pyarrow.
docs/exporting.md tells the columns.
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.rows import CHUNK, Chunk
from seta_stream.carry.spelling import RESERVED
from seta_stream.errors import ArgumentError, MissingExtraError, ReadError
from seta_stream.losses.columns import DTYPES

GROUP_ROWS: Final = 1 << 17
"""Rows of a Parquet row group: what is held in memory."""

_NUMBERS: Final[dict[str, str]] = {
    "index": "int64", "id": "int64", "loss": "float32", "age": "uint8", "selected": "bool", "weight": "float32",
}  # fmt: skip

Rows = dict[str, Any]
"""A chunk that was read: arrays and lists [n] by name; "loss" is float64, NaN where it is empty."""


def write_table(path: Path, chunks: Iterable[Chunk]) -> int:
    """Write rows to a .csv or .parquet file, whole or not at all; return how many.

    Args:
        path: of the file; its ending says which kind.
        chunks: the rows.

    Raises:
        ArgumentError: another ending.
        MissingExtraError: pyarrow is not installed.
        ReadError: it cannot be written.
    """
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix.lower())
    if write is None:
        raise ArgumentError(
            f"Cannot write rows to {path}: its ending tells no kind of table. Name it .parquet or .csv.",
            expected=(".parquet", ".csv"),
            found=path.suffix,
        )
    with whole_file(path) as temporary:
        return write(temporary, iter(chunks))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes its place at the end, unless something is raised.

    Raises:
        ReadError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"Cannot write {path}: {error}. Name another file, or free space there.", found=str(error)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path) -> Iterator[Rows]:
    """Give the rows of a .csv or .parquet file, a chunk at a time.

    Raises:
        ArgumentError: another ending, or no column "loss".
        MissingExtraError: pyarrow is not installed.
        ReadError: it cannot be read, or a cell is no number.
    """
    read = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower())
    if read is None:
        raise ArgumentError(
            f"Cannot read rows from {path}: its ending tells no kind of table. Name it .parquet or .csv.",
            expected=(".parquet", ".csv"),
            found=path.suffix,
        )
    yield from read(path)


# ---- CSV


def _write_csv(path: Path, chunks: Iterator[Chunk]) -> int:
    written = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for chunk in chunks:
            if not written:
                keys = [] if chunk.keys is None else ["key"]
                own = [name if name in RESERVED else f"{name}:{each.dtype}" for name, each in chunk.columns.items()]
                writer.writerow(["url", *keys, "index", "id", *own])
            cells = [[chunk.url] * len(chunk), *([] if chunk.keys is None else [chunk.keys])]
            cells += [chunk.index.tolist(), chunk.ids.tolist(), *map(_cells, chunk.columns.values())]
            writer.writerows(zip(*cells, strict=True))
            written += len(chunk)
    return written


def _cells(column: NDArray[Any]) -> list[Any]:
    """Return a column's cells; the shortest text that gives the same float32 again, and nothing for NaN."""
    if column.dtype == np.bool_:
        return list(map(int, column.tolist()))
    if column.dtype != np.float32:
        cells: list[Any] = column.tolist()
        return cells
    texts: list[Any] = column.astype("U32").tolist()
    for place in np.flatnonzero(np.isnan(column)).tolist():
        texts[place] = ""
    return texts


def _read_csv(path: Path) -> Iterator[Rows]:
    with _reading(path), path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        names = next(reader, [])
        columns = [_column_of(name) for name in names]
        _check_columns(path, [name for name, _ in columns])
        row = 1
        while lines := list(islice(reader, CHUNK)):
            short = next((at for at, line in enumerate(lines) if len(line) != len(names)), None)
            if short is not None:
                raise ReadError(
                    f"Cannot read {path}: row {row + short} has {len(lines[short])} cells, and the header "
                    f"{len(names)}. Write the file again.",
                    expected=len(names),
                    found=len(lines[short]),
                )
            cells = zip(*lines, strict=True)
            yield {
                name: _parsed(path, name, dtype, texts, row)
                for (name, dtype), texts in zip(columns, cells, strict=True)
            }
            row += len(lines)


def _column_of(head: str) -> tuple[str, str]:
    """Return the name and dtype of a CSV column; a policy's tells its dtype behind a colon."""
    name, mark, dtype = head.strip().partition(":")
    if mark and dtype in DTYPES and name not in RESERVED:
        return name, dtype
    return head.strip(), _NUMBERS.get(head.strip(), "str")


def _parsed(path: Path, name: str, dtype: str, texts: Sequence[str], row: int) -> Any:
    if dtype == "str":
        return list(texts)
    try:
        if dtype == "float32":
            # Through float64: a text that is the shortest of a float32 gives that float32 again.
            values = np.array([text or "nan" for text in texts], np.float64)
            return values if name == "loss" else values.astype(np.float32)
        return np.array(texts, np.int64 if dtype == "bool" else dtype)
    except (ValueError, OverflowError) as error:
        raise ReadError(
            f"Cannot read {path}: column {name!r} holds something else than {dtype} numbers in rows {row} … "
            f"{row + len(texts) - 1} ({error}). Mend the cell.",
            expected=dtype,
            found=str(error),
        ) from error


# ---- Parquet


def _write_parquet(path: Path, chunks: Iterator[Chunk]) -> int:
    pa, parquet = _arrow()
    written, held, writer = 0, [], None
    try:
        for chunk in chunks:
            held.append(_batch(pa, chunk))
            if sum(batch.num_rows for batch in held) >= GROUP_ROWS:
                writer = writer or parquet.ParquetWriter(path, held[0].schema, compression="zstd")
                writer.write_table(pa.Table.from_batches(held))
                held = []
            written += len(chunk)
        if held or writer is None:
            schema = held[0].schema if held else pa.schema([])
            writer = writer or parquet.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_batches(held, schema))
    finally:
        if writer is not None:
            writer.close()
    return written


def _batch(pa: Any, chunk: Chunk) -> Any:
    numbers = np.zeros(len(chunk), np.int32)
    columns = {"url": pa.DictionaryArray.from_arrays(numbers, pa.array([chunk.url])).cast(pa.string())}
    if chunk.keys is not None:
        columns["key"] = pa.array(chunk.keys, pa.string())
    columns |= {"index": pa.array(chunk.index), "id": pa.array(chunk.ids)}
    for name, column in chunk.columns.items():
        # An unseen sample has no loss, which Parquet can say.
        columns[name] = pa.array(column, from_pandas=True) if name == "loss" else pa.array(column)
    return pa.RecordBatch.from_pydict(columns)


def _read_parquet(path: Path) -> Iterator[Rows]:
    pa, parquet = _arrow()
    with _reading(path):
        try:
            file = parquet.ParquetFile(path)
            _check_columns(path, file.schema_arrow.names)
            wanted = [name for name in file.schema_arrow.names if _is_wanted(name, file.schema_arrow.field(name), pa)]
            for batch in file.iter_batches(batch_size=CHUNK, columns=wanted):
                yield {name: _values(path, name, batch.column(name), pa) for name in wanted}
        except pa.ArrowException as error:
            raise ReadError(f"Cannot read {path}: {error}. Write the file again.", found=str(error)) from error


def _is_wanted(name: str, field: Any, pa: Any) -> bool:
    """Say whether a column is read: ours, and those that can be a policy's."""
    return (
        name in RESERVED or str(field.type) in {"float", "uint8", "uint16", "int32"} or pa.types.is_floating(field.type)
    )


def _values(path: Path, name: str, column: Any, pa: Any) -> Any:
    if name in ("url", "key"):
        texts = column.cast(pa.string()).to_pylist()
        if None in texts:
            raise ReadError(f"Cannot read {path}: column {name!r} has empty cells. Mend them.", found=None)
        return texts
    if name in ("id", "index") and not pa.types.is_integer(column.type):
        raise ReadError(
            f"Cannot read {path}: column {name!r} holds {column.type}, which cannot name every sample. Write integers.",
            expected="int64",
            found=str(column.type),
        )
    if name == "loss":
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if column.null_count:
        raise ReadError(f"Cannot read {path}: column {name!r} has empty cells. Mend them.", found=None)
    dtype = _NUMBERS.get(name)
    values = column.to_numpy(zero_copy_only=False)
    return (
        values
        if dtype in (None, "bool")
        else column.cast(dtype.replace("float32", "float")).to_numpy(zero_copy_only=False)
    )


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415  (an extra)
        from pyarrow import parquet  # noqa: PLC0415  (likewise)
    except ImportError as error:
        raise MissingExtraError(
            'Parquet files need pyarrow: pip install "seta-stream[parquet]", or name a .csv file.'
        ) from error
    return pa, parquet


# ---- both


def _check_columns(path: Path, names: Sequence[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if "loss" not in names or not {"key", "id"} & {*names} or twice:
        told = f"{', '.join(sorted(twice))} stand there twice" if twice else f"it has {', '.join(names) or 'none'}"
        raise ArgumentError(
            f"Cannot import {path}: it needs the columns loss, and key (with url) or id, and {told}. `seta-stream "
            "export` writes such files.",
            expected=("url", "key", "id", "loss"),
            found=tuple(names),
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"Cannot read {path}: {error}.", found=str(error)) from error
