"""Vectors of one topic and model: an exact tail in memory and sealed Chroma segments on disk."""

from headwater.vectors.chroma import Clients
from headwater.vectors.index import Catalogue, Counts, Hnsw, Neighbours, SegmentRow, VectorIndex
from headwater.vectors.space import Space

__all__ = ["Catalogue", "Clients", "Counts", "Hnsw", "Neighbours", "SegmentRow", "Space", "VectorIndex"]
