"""Vectors on disk, read through a memory map and compared piece by piece.

A stored vector fits float16 (`Space.accept`), so files hold float16: half the disk and page cache of float32, and nothing is
lost. NumPy widens float16 at 3 ns a component, six times slower than the integer operations of `_widen`, which leave
the same bits; with them a scan of scattered rows costs as much as over float32, since half the memory is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headwater.errors import DamageError
from headwater.vectors.space import Floats, Ints, Space

_SIGN_AND_VALUE = np.uint32(0x8FFFE000).view(np.int32)
_BIAS = np.float32(2.0**112)
"""Between the exponents of float16 and float32."""
_ROWS = 1024
_HALVED_FROM = 32_768
"""Rows from which a scan is done in two halves beside each other: 120,000 scattered ones take 40 ms on one core, 24 on two."""
_MOST_CLOSENESS = 16_777_216
"""Numbers of closeness kept at once when many queries scan many vectors: 64 MiB."""


class Stored:
    """`(n, d)` vectors of a file, float16 or (older segments) float32. The file may be deleted while this is in use."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError, and DamageError for anything but a matrix of floats."""
        mapped = np.load(path, mmap_mode="r")
        if mapped.ndim != 2 or mapped.dtype not in (np.float16, np.float32):
            raise DamageError(f"{path.name} is not a matrix of vectors")
        self.shape: tuple[int, int] = mapped.shape
        plain = np.asarray(mapped)
        self._rows: npt.NDArray[Any] = plain if plain.dtype == np.float32 else plain.view(np.int16)

    def rows(self, positions: Ints) -> Floats:
        """The vectors at positions, `(n, d)` float32."""
        found = np.empty((len(positions), self.shape[1]), np.float32)
        for start in range(0, len(positions), _ROWS):
            at = positions[start : start + _ROWS]
            found[start : start + _ROWS] = self._float32(self._rows[at], None)
        return found

    def block(self, start: int, stop: int) -> Floats:
        """The vectors from `start` up to `stop`, float32."""
        return self._float32(self._rows[start:stop], None)

    def buffer(self) -> Floats:
        """Room for the rows that are compared at once, for callers that compare many short stretches."""
        return np.empty((min(_ROWS, self.shape[0]), self.shape[1]), np.float32)

    def closeness(
        self, space: Space, weights: Floats | None, start: int, stop: int, queries: Floats, buffer: Floats | None = None
    ) -> Floats:
        """`(m, stop - start)` closeness of neighbouring rows; `weights` are those of all rows, None to compute them."""
        near = np.empty((len(queries), stop - start), np.float32)

        def compare(begin: int, end: int) -> None:
            wide = self.buffer() if buffer is None else buffer
            for first in range(start + begin, start + end, _ROWS):
                last = min(first + _ROWS, start + end)
                part = self._float32(self._rows[first:last], wide)
                factor = space.weights(part) if weights is None else weights[first:last]
                near[:, first - start : last - start] = space.closeness(part, factor, queries)

        if buffer is None:
            _halved(compare, stop - start)
        else:
            compare(0, stop - start)
        return near

    def closeness_at(self, space: Space, weights: Floats | None, positions: Ints, queries: Floats) -> Floats:
        """`(m, n)` closeness of the rows at positions, fastest where these ascend."""
        size = min(_ROWS, len(positions))
        near = np.empty((len(queries), len(positions)), np.float32)

        def compare(begin: int, end: int) -> None:
            wide = np.empty((size, self.shape[1]), np.float32)
            gathered = wide if self._rows.dtype == np.float32 else np.empty((size, self.shape[1]), np.int16)
            for start in range(begin, end, _ROWS):
                at = positions[start : min(start + _ROWS, end)]
                taken = np.take(self._rows, at, axis=0, out=gathered[: len(at)], mode="clip")
                part = self._float32(taken, wide)
                factor = space.weights(part) if weights is None else weights[at]
                near[:, start : start + len(at)] = space.closeness(part, factor, queries)

        _halved(compare, len(positions))
        return near

    def _float32(self, rows: npt.NDArray[Any], buffer: Floats | None) -> Floats:
        """Rows as they are, or widened into the buffer."""
        if rows.dtype == np.float32:
            return rows
        return widen(rows, np.empty(rows.shape, np.float32) if buffer is None else buffer[: len(rows)])


def _halved(compare: Callable[[int, int], None], rows: int) -> None:
    """Compare that many rows, many of them in two halves beside each other: NumPy lets go of the interpreter."""
    if rows < _HALVED_FROM or (os.cpu_count() or 1) < 2:
        compare(0, rows)
        return
    half = rows // (2 * _ROWS) * _ROWS
    with ThreadPoolExecutor(1, "scan") as other:
        first = other.submit(compare, 0, half)
        compare(half, rows)
        first.result()


def together(rows: int) -> int:
    """How many queries may scan that many rows at once."""
    return max(1, _MOST_CLOSENESS // max(rows, 1))


def widen(half: npt.NDArray[np.int16], into: Floats) -> Floats:
    """Finite float16 bits as float32: shift the sign and the value into place, clear what lies between, mend the exponent."""
    bits = into.view(np.int32)
    np.copyto(bits, half)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_VALUE, out=bits)
    np.multiply(into, _BIAS, out=into)
    return into
