"""A sealed segment open for reading: one directory, checked by hashes, renamed into place and never written again.

seg-<name>/ids.npy                      (n,) int64, the passage of each row
           vectors.npy                  (n, d) float16, read by exact scans through a memory map
           weights.npy                  (n,) float32, cosine only
           axes.npy, narrow.npy         in large ones: a narrow copy of the vectors, for choosing among many candidates
           chroma/                      hnsw: the Chroma database over them
           centroids.npy, bounds.npy    ivf: cells (c, d), and where the rows of each begin (c + 1,)
           manifest.json                settings, and bytes and sha256 of every other file; the catalogue's copy is what counts

Nothing is read that was not hashed before. Ids, weights and cells are hashed at once, vectors before the first search, and
the graph in the background while searches are exact scans, so that the first answer does not wait for it (Chroma ends the
process when it loads a torn one). What is wrong with vectors ends the segment; what is wrong with its graph, cells, weights or
narrow copy is a `flaw`: it is searched exactly until it is built anew. So is one of another metric than is wanted now.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np

from headwater.errors import DamageError, StorageError
from headwater.vectors import chroma, files
from headwater.vectors.cells import Cells
from headwater.vectors.narrow import FILES as NARROW
from headwater.vectors.narrow import Narrow
from headwater.vectors.shape import SegmentRow, Shape, read_manifest
from headwater.vectors.space import Floats, Ints, Space, nearest
from headwater.vectors.stored import Stored, together
from headwater.vectors.tail import Bools, Lookup

_MOST_FAILURES = 3
_AT_ONCE_BYTES = 33_554_432
"""Of a graph that is checked by the search that first needs it: as long as an exact scan would take."""


class Segment:
    """An immutable segment. Changes to which members are hidden come from one thread at a time; searches from any."""

    def __init__(self, home: Path, row: SegmentRow, space: Space, clients: chroma.Clients, shape: Shape) -> None:
        """Reads and checks the ids; raises DamageError where they, or the manifest, are not as they were sealed."""
        self.row = row
        self.name = row.name
        self.directory = home / row.name
        self._space, self._clients, self._shape = space, clients, shape
        self._renewing = False
        self._manifest = read_manifest(row)
        if self._manifest.dimension != space.dimension:
            raise self._damage(f"its vectors have {self._manifest.dimension} components, not {space.dimension}")
        self._hash("ids.npy")
        self._ids: Ints = np.load(self.directory / "ids.npy")
        self._lookup = Lookup(self._ids, lasting=True)
        self._alive: Bools = np.ones(len(self._ids), np.bool_)
        self._dead = self._failures = 0
        self._vectors: Stored | None = None
        self._narrow: Narrow | None = None
        self._vectors_lock, self._graph_lock = threading.Lock(), threading.Lock()
        self._graph_checked = self._graph_open = self._stopped = False
        self._warming: threading.Thread | None = None
        self._flaw: str | None = None
        self._weights = self._load_weights()
        self._cells = self._load_cells()

    @property
    def dead(self) -> int:
        """Members that were removed since the segment was sealed."""
        return self._dead

    @property
    def ids(self) -> Ints:
        """All members, removed ones too."""
        return self._ids

    @property
    def kind(self) -> str:
        """What it was built as."""
        return self._manifest.kind

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return self._manifest.bytes

    @property
    def recall(self) -> float:
        """Recall@10 when it was built."""
        return self._manifest.recall

    @property
    def flaw(self) -> str | None:
        """What is wrong with its weights, graph, cells or narrow copy; it is searched exactly then."""
        return self._flaw

    def configure(self, shape: Shape) -> None:
        """Want other settings from now on."""
        self._shape = shape

    def renew(self) -> None:
        """Want it built anew although nothing is wrong with it."""
        self._renewing = True

    @property
    def outdated(self) -> bool:
        """Whether it was built for other settings than those wanted now."""
        return self._renewing or self._manifest.metric != self._space.metric or self._manifest.built != self._shape.built

    @property
    def ready(self) -> bool:
        """Whether searches use all that was built, as they do once that has been checked."""
        return self._vectors is not None and (self._graph_open or not self._has_graph)

    @property
    def narrow(self) -> bool:
        """Whether it has a narrow copy that may be used."""
        return self._narrow is not None and self._flaw is None

    def holds(self, ids: Ints) -> Bools:
        """`(n,)`: which ids are members, removed ones too."""
        return self._lookup.positions(ids) >= 0

    def hide(self, ids: Ints) -> None:
        """Leave members out of every result; unknown ids are ignored. One writer at a time."""
        self._set(ids, False)

    def show(self, ids: Ints) -> None:
        """Undo `hide`."""
        self._set(ids, True)

    def living(self, ids: Ints) -> Bools:
        """`(n,)`: which ids are members and not removed."""
        at = self._lookup.positions(ids)
        return (at >= 0) & self._alive[at]

    def rows(self, ids: Ints) -> tuple[Bools, Floats]:
        """Which ids are living members, and the vectors of those, in order."""
        vectors, living = self._checked(), self.living(ids)
        return living, vectors.rows(self._lookup.positions(ids[living]))

    def warm(self) -> None:
        """Check all files and answer one query, so that the first search need not wait. Raises DamageError only where the
        segment cannot be searched at all."""
        vectors = self._checked()
        if self._has_graph and self._check_graph():
            self._graph_open = self._propose(self._space.queries(vectors.block(0, 1)), min(2, len(self._ids))) is not None

    def nearest(self, queries: Floats, k: int, among: Ints | None, ef: int) -> tuple[list[tuple[Ints, Floats]], bool]:
        """For each of `(m, d)` queries the ids and closeness of the k nearest living members, and whether that is exact.

        Chroma proposes (`ef` candidates or more), the vector file decides: closeness is computed as everywhere else.
        Removed members are made up for by asking for more. Large k are exact scans, and so is `among`, unless it is so many
        that the narrow copy chooses those which are compared. Raises DamageError.
        """
        vectors = self._checked()
        if among is not None:
            return self._among(vectors, queries, k, self._lookup.found(among))
        living = len(self._ids) - self._dead
        if self._cells is not None and self._flaw is None and living > k:
            n_probe = self._shape.ivf.n_probe
            found = [
                self._cells.nearest(self._ids, vectors, self._weights, self._alive, query, k, n_probe) for query in queries
            ]
            return [(ids, near) for ids, near, _ in found], all(complete for *_, complete in found)
        if self._has_graph and living > k and self._graph_may_answer():
            proposed = self._candidates(queries, k, ef, living)
            if proposed is not None:
                pairs = zip(queries, proposed, strict=True)
                return [self._scan(vectors, query[None], k, at)[0] for query, at in pairs], False
        return self._scan(vectors, queries, k, None), True

    def retire(self) -> None:
        """Close and delete: running searches finish on what they hold, later ones see DamageError or exact results."""
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Let go of the database; the directory stays."""
        self._stopped = True
        if (warming := self._warming) is not None:
            warming.join()
        self._clients.close(self.directory / "chroma")

    # ------------------------------------------------------------------ checking

    def _checked(self) -> Stored:
        """The vectors, hashed against the manifest once in a process; DamageError."""
        if (vectors := self._vectors) is not None:
            return vectors
        with self._vectors_lock:
            if self._vectors is None:
                self._hash("vectors.npy")
                vectors = Stored(self.directory / "vectors.npy")
                if vectors.shape != (len(self._ids), self._space.dimension):
                    raise self._damage("vectors.npy has another shape than the manifest says")
                self._narrow = self._load_narrow()
                self._vectors = vectors
            return self._vectors

    @property
    def _has_graph(self) -> bool:
        usable = self._manifest.kind == "hnsw" and self._manifest.metric == self._space.metric
        return usable and self._flaw is None

    def _graph_may_answer(self) -> bool:
        """Whether Chroma may be asked. A large graph is checked and loaded in the background from the first time on."""
        if self._graph_open:
            return True
        if sum(self._manifest.files[name][0] for name in self._graph_files) <= _AT_ONCE_BYTES:
            self._graph_open = self._check_graph()
            return self._graph_open
        with self._vectors_lock:
            if self._warming is None and not self._stopped:
                self._warming = threading.Thread(target=self._warm_quietly, name=f"check {self.name}", daemon=True)
                self._warming.start()
        return False

    def _warm_quietly(self) -> None:
        try:
            self.warm()
        except DamageError:
            return  # the directory has gone: whoever removed it knows

    @property
    def _graph_files(self) -> list[str]:
        return [name for name in self._manifest.files if name.startswith("chroma/")]

    def _check_graph(self) -> bool:
        with self._graph_lock:
            for name in () if self._graph_checked else self._graph_files:
                wrong = files.wrong(self.directory, name, self._manifest.files, lambda: self._stopped)
                if self._stopped:
                    return False
                if wrong is not None:
                    self._flaw = self._damage(wrong).args[0]
                    return False
            self._graph_checked = True
            return True

    def _load_weights(self) -> Floats | None:
        if self._space.metric != "cosine" or "weights.npy" not in self._manifest.files:
            return None
        try:
            self._hash("weights.npy")
            weights: Floats = np.load(self.directory / "weights.npy")
        except (DamageError, OSError, ValueError) as error:
            self._flaw = str(error)  # every scan computes them
            return None
        return weights

    def _load_cells(self) -> Cells | None:
        if self._manifest.kind != "ivf" or self._manifest.metric != self._space.metric:
            return None
        try:
            self._hash("centroids.npy")
            self._hash("bounds.npy")
            return Cells(self.directory, self._space, len(self._ids))
        except (DamageError, OSError, ValueError) as error:
            self._flaw = str(error)
            return None

    def _load_narrow(self) -> Narrow | None:
        if not set(NARROW) <= set(self._manifest.files) or self._manifest.metric != self._space.metric:
            return None
        try:
            for name in NARROW:
                self._hash(name)
            return Narrow(self.directory, self._space, len(self._ids))
        except (DamageError, OSError, ValueError) as error:
            self._flaw = str(error)
            return None

    def _hash(self, name: str) -> None:
        if (wrong := files.wrong(self.directory, name, self._manifest.files, lambda: False)) is not None:
            raise self._damage(wrong)

    def _damage(self, what: str) -> DamageError:
        return DamageError(f"segment {self.name}: {what}; it is rebuilt from the log, and searched exactly meanwhile")

    # ------------------------------------------------------------------ searching

    def _candidates(self, queries: Floats, k: int, ef: int, living: int) -> list[Ints] | None:
        """Positions of at least k living members for each query; None where Chroma is not the one to ask."""
        ask = min(len(self._ids), max(ef, k + 2 + 2 * -(-k * self._dead // max(living, 1))))
        while ask <= chroma.MOST_IDS:
            proposed = self._propose(queries, ask)
            if proposed is None:
                return None
            found = [self._at(ids) for ids in proposed]
            if ask == len(self._ids) or all(len(at) >= k for at in found):
                return found
            ask = min(len(self._ids), ask * 4)
        return None

    def _propose(self, queries: Floats, ask: int) -> list[Ints] | None:
        """Candidates by Chroma; None where it cannot answer now (no disk, no file handles): its files were right, so only
        a failure that lasts is damage."""
        wanted = self._shape.hnsw.ef_search
        ef_search = None if wanted == self._manifest.ef_search else wanted
        try:
            found = self._clients.query(self.directory / "chroma", queries, ask, ef_search=ef_search)
        except StorageError:
            return None
        except DamageError as error:
            if not self.directory.exists():
                raise
            self._failures += 1
            if self._failures > _MOST_FAILURES:
                self._flaw = str(error)
            return None
        self._failures = 0
        return found

    def _at(self, ids: Ints) -> Ints:
        at = self._lookup.found(ids)
        return at[self._alive[at]] if self._dead else at

    def _among(self, vectors: Stored, queries: Floats, k: int, positions: Ints) -> tuple[list[tuple[Ints, Floats]], bool]:
        """The k nearest of the living rows at ascending positions, and whether all of them were compared."""
        if self._narrow is None or self._flaw is not None:
            return self._scan(vectors, queries, k, positions), True
        positions = positions[self._alive[positions]] if self._dead else positions
        chosen = [self._narrow.foremost(self._weights, positions, query, k) for query in queries]
        if all(len(few) == len(positions) for few in chosen):
            return self._scan(vectors, queries, k, positions), True
        pairs = zip(queries, chosen, strict=True)
        return [self._scan(vectors, query[None], k, few)[0] for query, few in pairs], False

    def _scan(self, vectors: Stored, queries: Floats, k: int, positions: Ints | None) -> list[tuple[Ints, Floats]]:
        """The k nearest of the living rows at ascending positions, of all living rows where None."""
        number = len(self._ids) if positions is None else len(positions)
        if len(queries) > (few := together(number)):
            parts = [self._scan(vectors, queries[i : i + few], k, positions) for i in range(0, len(queries), few)]
            return [found for part in parts for found in part]
        if positions is None:
            ids, near = self._ids, vectors.closeness(self._space, self._weights, 0, len(self._ids), queries)
            if self._dead:
                near[:, ~self._alive] = -np.inf
        else:
            positions = positions[self._alive[positions]] if self._dead else positions
            ids, near = self._ids[positions], vectors.closeness_at(self._space, self._weights, positions, queries)
        return [nearest(ids, row, k) for row in near]

    def _set(self, ids: Ints, alive: bool) -> None:
        at = self._lookup.found(ids)
        changed = int((self._alive[at] != alive).sum())
        self._alive[at] = alive
        self._dead += -changed if alive else changed
