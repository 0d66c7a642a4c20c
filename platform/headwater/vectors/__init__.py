"""Vectors of one topic and model: an exact tail in memory and sealed segments on disk."""

from headwater.vectors.chroma import Clients
from headwater.vectors.counting import Catalogue, Counts, Neighbours, Progress, SegmentCount
from headwater.vectors.index import VectorIndex
from headwater.vectors.shape import Hnsw, Ivf, Kind, SegmentRow
from headwater.vectors.space import Space

__all__ = [
    "Catalogue", "Clients", "Counts", "Hnsw", "Ivf", "Kind", "Neighbours", "Progress", "SegmentCount", "SegmentRow", "Space",
    "VectorIndex",
]  # fmt: skip
