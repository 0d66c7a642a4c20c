"""Text to vectors: one abstract method per model (`Embedder.embed_batch`), everything else derived.

`load` finds a model by name. Importing this package loads no model and no heavy library.

A provider is one small file: behind HTTP a `remote.RemoteEmbedder` (`openai`, `cohere`, `ollama` ...), of another library in
this process a `library.LibraryEmbedder`.

How a vector comes about: `embed` cleans the texts (lone surrogates, blanks), sorts them by length, hands batches to the
model's `embed_batch`, and checks and normalises what comes back. `Cached` keeps results between runs; `Fallback` lets
a local model serve while a remote one is down, under its own name, so that vectors of two models never mix.
"""

from headwater.embed.cache import Cached, VectorCache
from headwater.embed.embedder import Embedder, Kind, unit_rows
from headwater.embed.external import ExternalEmbedder
from headwater.embed.fallback import Fallback
from headwater.embed.lookup import load

__all__ = ["Cached", "Embedder", "ExternalEmbedder", "Fallback", "Kind", "VectorCache", "load", "unit_rows"]
