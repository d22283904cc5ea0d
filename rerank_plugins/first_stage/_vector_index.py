"""Vectors in FAISS: exact, graph or compressed; the only place where a metric's sign is decided."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_plugins.errors import IndexDamagedError, InvalidInputError

Metric = Literal["cosine", "inner_product", "l2"]
IndexChoice = Literal["auto", "exact", "hnsw", "ivfpq"]
IndexKind = Literal["exact", "hnsw", "ivfpq"]
Vectors = NDArray[np.float32]

METRICS: Final = ("cosine", "inner_product", "l2")
INDEXES: Final = ("auto", "exact", "hnsw", "ivfpq")

# Where ``auto`` leaves one kind for the next: an exact search of so many vectors takes some
# milliseconds still, and a graph of so many holds some gigabytes.
EXACT_UP_TO: Final = 100_000
GRAPH_UP_TO: Final = 1_000_000
# HNSW (Malkov and Yashunin, 2018): links a node, and how many nodes are kept in sight while
# building and searching. Faiss's own 40 and 16 for the last two lose recall past 100,000.
_LINKS: Final = 32
_SEEN_BUILDING: Final = 200
_SEEN_SEARCHING: Final = 128
# IVF-PQ (Jegou, Douze and Schmid, 2011): a code of 8 bits needs 256 centroids, and faiss wants
# 39 vectors to learn each; faiss's guide advises 4 to 16 times the root of n lists.
_LEARNT_FROM: Final = 39
COMPRESSED_FROM: Final = 256 * _LEARNT_FROM
_LISTS_BY_ROOT: Final = 4
_SHARE_OF_LISTS: Final = 16
_MOST_LISTS: Final = 256
# A walk through a graph that may keep one node in ten costs more than scoring those it may.
_SELECTIVE: Final = 0.1
# Faiss sums in float32, in an order that differs with a vector's place in memory: scores this
# close, relative to the larger vectors at hand, may be one score.
_CLOSE: Final = 1e-5
# Bytes; twice faiss's own limit (precomputed_table_max_bytes).
_LARGEST_TABLE: Final = 1 << 32
# Rows that are indexed between two steps of the progress bar.
_CHUNK: Final = 10_000

_READING: Final = threading.Lock()


class VectorIndex:
    """FAISS's indexes behind one face; rows are numbered by key, from 0.

    Not safe to change while it is searched: the caller locks.
    """

    def __init__(self, dimension: int, metric: Metric, asked: IndexChoice) -> None:
        self.dimension = dimension
        self.metric: Metric = metric
        self.asked: IndexChoice = asked
        self.kind: IndexKind = self._kind_for(0)
        self.size = 0  # keys ever given
        self._largest_norm = 0.0
        self._mapped = False
        self._index = self._new(self.kind, 0)

    def add(self, vectors: Vectors) -> range:
        """Indexes more vectors, of shape (n, dimension); their keys.

        An index that outgrows its kind is built anew as the next.
        """
        self._own()
        # A build that was interrupted may have left rows that nobody knows of.
        first = self.size if self.kind == "exact" else max(self.size, self._index.ntotal)
        kind = self._kind_for(self._index.ntotal + len(vectors))
        if INDEXES.index(kind) > INDEXES.index(self.kind):
            old = self._rows(first)
            index = self._new(kind, len(old) + len(vectors))
            if kind == "ivfpq":
                # Zeros stand where vectors were removed; nothing is to be learnt from them.
                index.train(np.concatenate([old[old.any(axis=1)], vectors]))
                index.set_direct_map_type(_faiss().DirectMap.Array)
            _fill(index, old)
            _fill(index, vectors)
            self._index, self.kind = index, kind
        elif self.kind == "exact":
            keys = np.arange(first, first + len(vectors), dtype=np.int64)
            self._index.add_with_ids(vectors, keys)
        else:
            _fill(self._index, vectors)
        self.size = first + len(vectors)
        self._largest_norm = max(
            self._largest_norm, float(np.linalg.norm(vectors, axis=1).max(initial=0))
        )
        return range(first, self.size)

    def remove(self, keys: list[int]) -> None:
        """Frees the vectors where the kind can: a graph's links and codes' rows must stay."""
        if self.kind == "exact" and keys:
            self._own()
            self._index.remove_ids(np.asarray(keys, dtype=np.int64))

    def vectors(self, keys: list[int]) -> Vectors:
        """The vectors as they are stored, shape (number of keys, dimension)."""
        if not keys:
            return np.empty((0, self.dimension), dtype=np.float32)
        stored: Vectors = self._index.reconstruct_batch(np.asarray(keys, dtype=np.int64))
        return stored

    def find(self, query: Vectors, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Keys, in no order, that the best ``k`` allowed ones are among; 0 < k <= allowed."""
        selector = _faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        total = int(allowed.sum())
        if self.kind == "ivfpq":
            return self._find_compressed(query, k, selector, total)
        if self.kind == "hnsw":
            if total > _SELECTIVE * self._index.ntotal:
                keys = self._walk(query, k, selector, total)
                if len(keys) >= k:
                    return keys
            storage = _faiss().downcast_index(self._index.storage)
            return self._find_exact(storage, query, k, selector, total)
        return self._find_exact(self._index, query, k, selector, total)

    def scores(self, query: Vectors, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """The scores in float64, the same for the same vector wherever it is stored."""
        vectors = self._index.reconstruct_batch(keys).astype(np.float64)
        if self.metric == "l2":
            return np.asarray(-np.square(vectors - query).sum(axis=1))
        products = (vectors * query).sum(axis=1)
        return np.asarray(products.clip(-1, 1) if self.metric == "cosine" else products)

    def write(self, out: BinaryIO) -> None:
        """Writes faiss's own format.

        Through Python's file, because faiss passes over the errors of closing its own.

        Raises:
            OSError: The system refuses.
        """
        faiss = _faiss()
        failed: list[OSError] = []

        def write(data: bytes) -> int:
            try:
                return out.write(data)
            except OSError as error:
                failed.append(error)
                raise

        try:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))
        except Exception:
            if failed:
                raise failed[0] from None
            raise

    @property
    def settings(self) -> dict[str, Any]:
        """What `read` needs beside the file."""
        return {
            "dimension": self.dimension,
            "kind": self.kind,
            "size": self.size,
            "largest_norm": self._largest_norm,
        }

    @classmethod
    def read(
        cls, path: Path, told: Any, metric: Metric, asked: IndexChoice, live: NDArray[np.bool_]
    ) -> VectorIndex:
        """The index that `write` wrote, mapped from the disk.

        Args:
            path: Its file.
            told: Its `settings`.
            metric: As it was made with.
            asked: Likewise.
            live: Which keys have a passage.

        Raises:
            IndexDamagedError: The file is not of such an index.
        """
        faiss = _faiss()
        found = cls(told["dimension"], metric, asked)
        index = _read(path)
        expected = found._new(told["kind"], told["size"])
        rows = int(live.sum()) if told["kind"] == "exact" else told["size"]
        if (
            type(index) is not type(expected)
            or index.d != expected.d
            or index.metric_type != expected.metric_type
            or index.ntotal < rows
            or len(live) != told["size"]
            or not index.is_trained
        ):
            raise IndexDamagedError(
                f"{path.name} must hold a {told['kind']} index of {rows} vectors of "
                f"{told['dimension']} numbers, but holds {type(index).__name__} of "
                f"{index.ntotal} of {index.d}"
            )
        if told["kind"] == "exact":
            keys = np.sort(faiss.vector_to_array(index.id_map))
            if not np.array_equal(keys, np.flatnonzero(live)):
                raise IndexDamagedError(f"{path.name} must have the keys of the passages")
        found._index, found.kind, found._mapped = index, told["kind"], True
        found.size, found._largest_norm = told["size"], float(told["largest_norm"])
        return found

    def _kind_for(self, count: int) -> IndexKind:
        if self.asked == "auto":
            if count <= EXACT_UP_TO:
                return "exact"
            return "hnsw" if count <= GRAPH_UP_TO else "ivfpq"
        if self.asked == "ivfpq":
            return "ivfpq" if count >= COMPRESSED_FROM else "exact"
        return self.asked

    def _new(self, kind: IndexKind, count: int) -> Any:
        faiss, d = _faiss(), self.dimension
        measure = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        if kind == "exact":
            return faiss.IndexIDMap2(faiss.IndexFlat(d, measure))
        if kind == "hnsw":
            graph = faiss.IndexHNSWFlat(d, _LINKS, measure)
            graph.hnsw.efConstruction = _SEEN_BUILDING
            return graph
        lists = max(1, min(int(_LISTS_BY_ROOT * math.sqrt(count)), count // _LEARNT_FROM))
        # A byte for each two numbers, an eighth of the memory: with four the recall is poor.
        width = next(width for width in (2, 3, 1) if d % width == 0)
        return faiss.IndexIVFPQ(faiss.IndexFlat(d, measure), d, lists, d // width, 8, measure)

    def _own(self) -> None:
        """Reads a mapped index into memory: faiss ends the process when one is changed."""
        if self._mapped:
            faiss = _faiss()
            self._index = faiss.deserialize_index(faiss.serialize_index(self._index))
            self._mapped = False

    def _rows(self, size: int) -> Vectors:
        """All vectors by key, shape (size, dimension); zeros where one was removed."""
        faiss = _faiss()
        rows = np.zeros((size, self.dimension), dtype=np.float32)
        if self._index.ntotal:
            exact = self.kind == "exact"
            flat = faiss.downcast_index(self._index.index if exact else self._index.storage)
            keys = faiss.vector_to_array(self._index.id_map) if exact else np.arange(size)
            rows[keys] = flat.reconstruct_n(0, flat.ntotal)
        return rows

    def _walk(self, query: Vectors, k: int, selector: Any, total: int) -> NDArray[np.int64]:
        """All that a walk through the graph saw: the cut is made on exact scores, ties by key."""
        seen = min(max(_SEEN_SEARCHING, k), total)
        walk = _faiss().SearchParametersHNSW(sel=selector, efSearch=seen)
        keys: NDArray[np.int64] = self._index.search(query, seen, params=walk)[1][0]
        return keys[keys >= 0]

    def _find_compressed(
        self, query: Vectors, k: int, selector: Any, total: int
    ) -> NDArray[np.int64]:
        """From the nearest lists, and where those have too few that are allowed, from all."""
        seen = min(max(_SEEN_SEARCHING, k), total)
        lists = self._index.nlist
        for visited in (min(_MOST_LISTS, max(lists // _SHARE_OF_LISTS, 16)), lists):
            params = _faiss().SearchParametersIVF(sel=selector, nprobe=visited)
            keys: NDArray[np.int64] = self._index.search(query, seen, params=params)[1][0]
            keys = keys[keys >= 0]
            if len(keys) >= k:
                break
        return keys

    def _find_exact(
        self, exact: Any, query: Vectors, k: int, selector: Any, total: int
    ) -> NDArray[np.int64]:
        chosen = None
        if total < exact.ntotal:
            chosen = _faiss().SearchParameters(sel=selector)
        measured, found = exact.search(query, min(k + 1, total), params=chosen)
        if total > k:
            last, following = float(measured[0, k - 1]), float(measured[0, k])
            if self.metric == "l2":
                margin = _CLOSE * following
            else:
                margin = _CLOSE * float(np.linalg.norm(query)) * self._largest_norm
            if abs(last - following) <= margin:
                # Which of several equal scores faiss keeps is chance: take them all in.
                edge = following + margin if self.metric == "l2" else following - margin
                # Faiss leaves the edge itself out.
                away = np.float32(np.inf if self.metric == "l2" else -np.inf)
                beyond = float(np.nextafter(np.float32(edge), away))
                return np.asarray(exact.range_search(query, beyond, params=chosen)[2])
        return np.asarray(found[0, :k])


def _read(path: Path) -> Any:
    """Faiss's reading, mapped and bounded where this version of it can."""
    faiss = _faiss()
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        return faiss.read_index(str(path), flags)
    with _READING:
        # Nothing in a file is longer than the file, whatever a forged length says, but for
        # the table that faiss computes beside an IVF-PQ index.
        limit = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, _LARGEST_TABLE))
        try:
            return faiss.read_index(str(path), flags)
        finally:
            faiss.set_deserialization_vector_byte_limit(limit)


def check_dimension(vectors: Vectors, dimension: int) -> None:
    """Checks that vectors fit an index.

    Raises:
        InvalidInputError: They are longer or shorter.
    """
    if vectors.shape[1] != dimension:
        raise InvalidInputError(
            f"every embedding must have the same dimension, {dimension} here, "
            f"but one has {vectors.shape[1]}: was another model used to build the index?"
        )


def _fill(index: Any, vectors: Vectors) -> None:
    starts = range(0, len(vectors), _CHUNK)
    for start in tqdm(starts, desc="Indexing", unit=f" x {_CHUNK}", disable=None, delay=1):
        index.add(vectors[start : start + _CHUNK])


def _faiss() -> Any:
    import faiss

    return faiss
