"""The vector index of one topic and model: an exact tail and sealed segments, searched as one.

The catalogue (in the log) is the truth; everything here is rebuilt from it. Searches take no lock: they read `_view`, one
attribute that changes hold of a tail and segments are swapped in as a whole. `_write` orders adds and removals, `_change` the
swaps, `_maintenance` the building. What is to be built is decided in `due.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headwater.config import Metric
from headwater.errors import DamageError, StorageError, UsageError
from headwater.vectors.building import Building
from headwater.vectors.chroma import Clients
from headwater.vectors.counting import Blocks, Catalogue, Counts, Neighbours, Progress, SegmentCount, Why
from headwater.vectors.due import Due, next_due
from headwater.vectors.files import sweep
from headwater.vectors.segment import Segment
from headwater.vectors.shape import Hnsw, Ivf, Kind, Shape
from headwater.vectors.space import Floats, Ints, Space, as_ids, nearest
from headwater.vectors.tail import Tail

_FEW = 4096


@dataclass(frozen=True, slots=True)
class _View:
    tail: Tail
    segments: tuple[Segment, ...]


class VectorIndex:
    """Vectors by id, found by nearness. Thread-safe; `maintain` is called now and then from a worker thread.

    `directory` belongs to this index alone; None keeps everything in the tail. `kind` says how segments are searched: `hnsw`
    (a graph, by Chroma), `ivf` (the nearest of coarse cells, little memory) or `flat` (every vector, exactly, little memory);
    segments that were built for another kind or other settings answer until `maintain` has built them anew. `clients` may
    be shared between indexes; `builder_nice` is the builder's priority (19 is the lowest: on a machine without idle time it
    hardly gets on).
    """

    def __init__(
        self,
        directory: Path | None,
        catalogue: Catalogue,
        *,
        dimension: int,
        metric: Metric,
        hnsw: Hnsw,
        kind: Kind = "hnsw",
        ivf: Ivf | None = None,
        seal_at: int,
        max_segments: int,
        clients: Clients | None = None,
        builder_nice: int = 19,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space = Space(dimension, metric)
        self.shape = Shape(kind, hnsw, ivf or Ivf())
        self._directory, self._catalogue = directory, catalogue
        self._seal_at, self._max_segments = seal_at, max_segments
        self._builder_nice, self._clock = builder_nice, clock
        self._clients = clients or Clients()
        self._write, self._change, self._maintenance = threading.Lock(), threading.Lock(), threading.Lock()
        self._view = _View(Tail(self.space), ())
        self._problems: dict[str, str] = {}
        self._compared: set[str] = set()
        self._damaged: set[str] = set()
        self._built = self._rebuilt = 0
        self._work: _Work | None = None
        self._closed = False

    def open(self) -> None:
        """Load the tail, open the segments and remove what no catalogue row names; what is in both counts as tail.

        A segment whose vectors are damaged is dropped: its members are searched in the tail until `maintain` seals them again.
        """
        segments: list[Segment] = []
        for row in self._catalogue.segments():
            try:
                if self._directory is None:
                    raise DamageError(f"segment {row.name}: this index has no directory; it is searched in memory")
                segments.append(Segment(self._directory, row, self.space, self._clients, self.shape))
            except (DamageError, OSError, ValueError) as error:
                self._problems[row.name] = str(error)
                self._damaged.add(row.name)
        if self._problems:
            self._catalogue.drop_segments(list(self._problems))
        tail = Tail(self.space)
        for ids, rows in self._usable(self._catalogue.tail()):
            tail.add(ids, rows)
            for segment in segments:
                segment.hide(ids)
        self._view = _View(tail, tuple(segments))
        if self._directory is not None and self._directory.exists():
            sweep(self._directory, {segment.name for segment in segments})

    def add(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Make vectors findable at once. An id that is present keeps its vector; a removed one comes back with it.

        All are added or none: raises UsageError for a bad vector (see `Space.accept`) or unequal lengths.
        """
        wanted, rows = as_ids(ids), self.space.accept(vectors)
        if len(wanted) != len(rows):
            raise UsageError(f"{len(wanted)} ids came with {len(rows)} vectors")
        if not (wanted[1:] > wanted[:-1]).all():
            wanted, first = np.unique(wanted, return_index=True)
            rows = rows[first]
        with self._write:
            view = self._view
            here = view.tail.now.lookup.positions(wanted) >= 0
            for segment in view.segments:
                if wanted.size and wanted.min() <= segment.row.max_id:
                    held = segment.holds(wanted) & ~here
                    segment.show(wanted[held])
                    wanted, rows, here = wanted[~held], rows[~held], here[~held]
            view.tail.add(wanted, rows)

    def remove(self, ids: npt.ArrayLike) -> None:
        """Hide vectors at once; they are physically gone after the next rewrite. Unknown ids are ignored."""
        unwanted = as_ids(ids)
        with self._write:
            view = self._view
            view.tail.remove(unwanted)
            for segment in view.segments:
                segment.hide(unwanted)

    def vectors(self, ids: npt.ArrayLike) -> Floats:
        """`(n, d)` stored vectors in the order of `ids`; a row of NaN for an id that is unknown or removed."""
        wanted = as_ids(ids)
        while True:
            view = self._view
            rows = np.full((len(wanted), self.space.dimension), np.nan, np.float32)
            now = view.tail.now
            at = now.lookup.positions(wanted)
            here = np.flatnonzero(at >= 0)
            here = here[now.alive[at[here]]]
            rows[here] = now.rows(at[here])
            try:
                for segment in view.segments:
                    found, held = segment.rows(wanted)
                    rows[found] = held
            except DamageError as error:
                self._fall_back(segment, error)
                continue
            return rows

    def search(self, vector: npt.ArrayLike, k: int, *, among: npt.ArrayLike | None = None, ef: int | None = None) -> Neighbours:
        """The k nearest to `(d,)`; with `among` the nearest of those ids, exactly unless they are tens of thousands (`narrow`).
        Raises UsageError for a bad vector.

        `ef` makes a graph look at more candidates than its settings say (never fewer than k, and for fewer it is without
        effect). One segment of a million vectors of 384 components takes about 1.7 ms for k = 10, 2 for 100, 6 for 400, 16 for
        1,600 and 36 for 4,000; above 8,192, with removed members earlier, it is scanned exactly (150 ms).
        """
        query = np.asarray(vector)
        if query.ndim != 1:
            raise UsageError("search takes one vector; search_many takes several")
        return self.search_many(query[None, :], k, among=among, ef=ef)[0]

    def search_many(
        self, vectors: npt.ArrayLike, k: int, *, among: npt.ArrayLike | None = None, ef: int | None = None
    ) -> list[Neighbours]:
        """The k nearest to each of `(m, d)`, in order; each result is the same as `search` gives."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if ef is not None and ef < 1:
            raise UsageError(f"ef must be at least 1, not {ef}")
        queries = self.space.queries(vectors)
        chosen = None if among is None else as_ids(among)
        more = ef if ef is not None and ef > self.shape.hnsw.ef_search else 0
        while True:
            view = self._view
            parts = [view.tail.now.nearest(queries, k, chosen)]
            exact = True
            try:
                for segment in view.segments:
                    found, proven = segment.nearest(queries, k, chosen, more)
                    parts.append(found)
                    exact = exact and proven
            except DamageError as error:
                self._fall_back(segment, error)
                continue
            return [self._merged([part[i] for part in parts], k, exact) for i in range(len(queries))]

    def maintain(self) -> bool:
        """One step of what is due: check, drop, seal, rewrite. True if something was done, so call again.

        Blocks for as long as a build takes; searches and adds go on. Raises DamageError or StorageError where a build
        failed (nothing is lost by it; it is due again at the next call, so wait before that).
        """
        with self._maintenance:
            if self._directory is None or self._closed:
                return False
            view = self._view
            for segment in view.segments:
                if segment.name not in self._compared:
                    self._compare(segment)
                    return True
            gone = [segment for segment in view.segments if segment.dead == len(segment.ids)]
            if gone:
                self._drop(gone)
                return True
            due = next_due(view.segments, view.tail.count, seal_at=self._seal_at, max_segments=self._max_segments)
            if due is not None:
                return self._build(due)
            if view.tail.dead > max(_FEW, view.tail.count):
                with self._write:
                    self._view = _View(view.tail.without(np.empty(0, np.int64)), view.segments)
                return True
            self._mended()
            return False

    def configure(self, *, kind: Kind, hnsw: Hnsw, ivf: Ivf) -> None:
        """Want other settings from now on. What segments depend on when built takes effect as `maintain` builds them anew."""
        with self._change:
            self.shape = Shape(kind, hnsw, ivf)
            for segment in self._view.segments:
                segment.configure(self.shape)

    def renew(self) -> None:
        """Have `maintain` build every segment anew from the log; each answers until its successor does."""
        with self._change:
            for segment in self._view.segments:
                segment.renew()

    def cleanse(self) -> int:
        """Build segments with removed members anew now, what is being built as well; each answers until its successor does. How
        many such members there were; their vectors are in no file any more. Raises as `maintain` does, and StorageError where
        the index is closed."""
        with self._maintenance:  # once a build under way has ended: it may have begun with vectors that were removed since
            worn = [segment for segment in self._view.segments if segment.dead]
            for segment in worn:
                segment.renew()
        while any(segment in self._view.segments for segment in worn):
            if not self.maintain():
                raise StorageError("segments with removed vectors are still there: the index was closed meanwhile; try again")
        return sum(segment.dead for segment in worn)

    @property
    def counts(self) -> Counts:
        """What the index holds now."""
        view = self._view
        tail = view.tail.count
        segments = tuple(_count(one) for one in view.segments)
        flaws = {one.name: one.flaw for one in view.segments if one.flaw is not None}
        return Counts(
            vectors=tail + sum(one.living for one in segments),
            tail=tail,
            dead=view.tail.dead + sum(one.dead for one in segments),
            segments=segments,
            problems=(*self._problems.values(), *flaws.values()),
            built=self._built,
            rebuilt=self._rebuilt,
            damaged=len(self._damaged | flaws.keys()),
        )

    @property
    def progress(self) -> Progress | None:
        """The segment that is being built; None while there is none."""
        work = self._work
        return None if work is None else work.progress(self.shape.kind, self._clock())

    def close(self) -> None:
        """Stop a running build and let go of the databases. Safe to call twice."""
        self._closed = True
        if (work := self._work) is not None:
            work.building.cancel()
        with self._maintenance:
            for segment in self._view.segments:
                segment.close()

    def _merged(self, parts: list[tuple[Ints, Floats]], k: int, exact: bool) -> Neighbours:
        ids = np.concatenate([ids for ids, _ in parts])
        ids, near = nearest(ids, np.concatenate([near for _, near in parts]), k)
        scores, distances = self.space.measures(near)
        return Neighbours(ids, scores, distances, exact)

    def _mended(self) -> None:
        """Forget damaged segments: their members are in the tail for good, or sealed again."""
        for name in [name for name in self._problems if name != "vectors"]:
            del self._problems[name]

    def _usable(self, blocks: Blocks) -> Blocks:
        """Vectors of the log, checked. Bad ones (another program wrote them) are left out, and that is said."""
        for ids, vectors in blocks:
            try:
                yield ids, self.space.accept(vectors)
            except UsageError as error:
                self._problems["vectors"] = f"some stored vectors cannot be used: {error}"
                for i in range(len(ids)):
                    with suppress(UsageError):
                        yield ids[i : i + 1], self.space.accept(vectors[i])

    def _fall_back(self, segment: Segment, error: DamageError) -> None:
        """Serve a damaged segment's members from the tail. Does nothing where the segment was replaced meanwhile."""
        with self._change:
            if segment not in self._view.segments:
                return
            members = list(self._usable(self._catalogue.members(segment.name)))
            self._catalogue.drop_segments([segment.name])
            with self._write:
                view = self._view
                for ids, rows in members:
                    hidden = segment.holds(ids) & ~segment.living(ids)
                    view.tail.add(ids[~hidden], rows[~hidden])
                self._view = _View(view.tail, tuple(one for one in view.segments if one is not segment))
                self._problems[segment.name] = str(error)
                self._damaged.add(segment.name)
        segment.retire()

    def _compare(self, segment: Segment) -> None:
        """Check a segment's files, and hide the members that the log has let go of since it was sealed."""
        try:
            segment.warm()
        except DamageError as error:
            self._fall_back(segment, error)
            return
        if segment.flaw is not None:
            self._damaged.add(segment.name)
        gone = self._catalogue.gone(np.sort(segment.ids))
        with self._write:
            segment.hide(gone)
        self._compared.add(segment.name)

    def _drop(self, segments: list[Segment]) -> None:
        with self._change:
            self._catalogue.drop_segments([segment.name for segment in segments])
            with self._write:
                view = self._view
                self._view = _View(view.tail, tuple(one for one in view.segments if one not in segments))
        for segment in segments:
            segment.retire()

    def _build(self, due: Due) -> bool:
        """Build one segment from the members of the sources, or from the tail where there are none, and swap it in."""
        assert self._directory is not None
        building = Building(self._directory, self.space, self.shape, nice=self._builder_nice)
        work = self._work = _Work(building, due.why, self._clock())
        try:
            if self._closed:
                return False
            ids = building.write(self._members(due.sources))
            if not len(ids):
                building.discard()
                return False
            work.stage = "build"
            building.run()
            work.stage = "install"
            row = building.finish(ids)
            made = Segment(self._directory, row, self.space, self._clients, self.shape)
            made.warm()
            if made.flaw is not None:
                raise DamageError(made.flaw)
            with self._change:
                if not self._catalogue.commit_segment(row, ids, [one.name for one in due.sources]):
                    made.retire()
                    return False
                self._swap(made, due)
        except (DamageError, StorageError):
            building.discard()
            if self._closed:
                return False
            raise
        finally:
            self._work = None
        for segment in due.sources:
            segment.retire()
        return True

    def _members(self, sources: Sequence[Segment]) -> Blocks:
        """What the log holds of the sources, without what was removed here and what cannot be used."""
        streams = [self._catalogue.members(one.name) for one in sources] or [self._catalogue.tail()]
        for stream in streams:
            for ids, rows in self._usable(stream):
                stays = ~self._hidden(ids, self._view)
                yield ids[stays], rows[stays]

    def _hidden(self, ids: Ints, view: _View) -> npt.NDArray[np.bool_]:
        """Which ids were removed and not added again; an id not seen here yet is not."""
        now = view.tail.now
        at = now.lookup.positions(ids)
        known = at >= 0
        living = known.copy()
        living[known] = now.alive[at[known]]
        for segment in view.segments:
            known |= segment.holds(ids)
            living |= segment.living(ids)
        return known & ~living

    def _swap(self, made: Segment, due: Due) -> None:
        with self._write:
            view = self._view
            made.hide(made.ids[self._hidden(made.ids, view)])
            here = view.tail.now.lookup.positions(made.ids) >= 0
            tail = view.tail.without(made.ids) if here.any() else view.tail
            stay = tuple(one for one in view.segments if one not in due.sources)
            self._damaged.update(one.name for one in due.sources if one.flaw is not None)
            self._view = _View(tail, (*stay, made))
            self._compared.add(made.name)
            self._built += 1
            if due.why in ("damage", "settings") or (not due.sources and self._problems.keys() - {"vectors"}):
                self._rebuilt += 1
            if not due.sources:
                self._mended()


@dataclass(slots=True)
class _Work:
    """The segment in the making, for whoever asks how far it is."""

    building: Building
    why: Why
    began: float
    stage: str = "write"

    def progress(self, kind: str, now: float) -> Progress:
        building, elapsed = self.building, round(now - self.began, 1)
        if self.stage == "write":
            return Progress(kind, self.why, "write", building.count, 0, elapsed)
        if self.stage == "build":
            return Progress(kind, self.why, "build", building.done, building.count, elapsed)
        return Progress(kind, self.why, "install", building.count, building.count, elapsed)


def _count(segment: Segment) -> SegmentCount:
    living, dead = len(segment.ids) - segment.dead, segment.dead
    due: Why | None = "damage" if segment.flaw is not None else "settings" if segment.outdated else None
    return SegmentCount(
        segment.name, living, dead, segment.bytes, segment.recall, segment.kind, segment.ready, due, segment.narrow
    )
