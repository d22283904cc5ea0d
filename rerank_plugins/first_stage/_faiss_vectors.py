"""Parts of a dense index in FAISS: a graph, or compressed codes."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rerank_plugins._cpus import limit_threads
from rerank_plugins._progress import progress
from rerank_plugins._threads import fork_safe_lock
from rerank_plugins.errors import IndexDamagedError
from rerank_plugins.first_stage._vectors import ExactVectors, IndexKind, Keys, Metric, Vectors

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
# Bytes; twice faiss's own limit (precomputed_table_max_bytes).
_LARGEST_TABLE: Final = 1 << 32
# Rows that are indexed between two steps of the progress bar.
_CHUNK: Final = 10_000

_READING: Final = fork_safe_lock()


class FaissVectors(ExactVectors):
    """A FAISS index over rows; it is never changed once it is here.

    Attributes:
        index: FAISS's.
        mapped: Whether FAISS reads it from the disk: such an index must not be changed.
    """

    def __init__(
        self, owners: Keys, index: Any, metric: Metric, largest_norm: float, *, mapped: bool = False
    ) -> None:
        self.index = index
        self.mapped = mapped
        super().__init__(owners, self._raw(), metric, largest_norm)

    def _raw(self) -> Vectors:
        """The vectors, as far as they are kept."""
        raise NotImplementedError

    @classmethod
    def empty(cls, dimension: int, metric: Metric, count: int) -> Any:
        """A FAISS index of the kind, for about ``count`` rows."""
        raise NotImplementedError

    @classmethod
    def built(cls, rows: ExactVectors) -> Self:
        """An index of these rows."""
        index = cls.empty(rows.vectors.shape[1], rows.metric, len(rows))
        if not index.is_trained:
            index.train(rows.vectors)
            index.set_direct_map_type(_faiss().DirectMap.Array)
        _fill(index, rows.vectors)
        return cls(rows.owners, index, rows.metric, rows.largest_norm)

    def extended(self, rows: ExactVectors) -> Self:
        """A copy with more rows, whose keys must be above all that are here."""
        index = self._copied()
        _fill(index, rows.vectors)
        owners = np.concatenate([self.owners, rows.owners])
        largest = max(self.largest_norm, rows.largest_norm)
        return type(self)(owners, index, self.metric, largest)

    def spread(self, query: Vectors, kept: NDArray[np.bool_] | None) -> tuple[int, float, float]:
        """Same as in `ExactVectors`, for a sample: not every score is computed."""
        return self.sampled(query, kept)

    def write(self, out: BinaryIO) -> None:
        """Writes faiss's own format.

        Through Python's file, because faiss passes over the errors of closing its own.

        Raises:
            OSError: If the system refuses.
        """
        failed: list[OSError] = []

        def write(data: bytes) -> int:
            try:
                return out.write(data)
            except OSError as error:
                failed.append(error)
                raise

        try:
            _faiss().write_index(self.index, _faiss().PyCallbackIOWriter(write))
        except Exception:
            if failed:
                raise failed[0] from None
            raise

    @classmethod
    def read(
        cls, path: Path, owners: Keys, dimension: int, metric: Metric, largest_norm: float
    ) -> Self:
        """The index that `write` wrote, mapped from the disk.

        Raises:
            IndexDamagedError: If the file is not of such an index.
        """
        index = _read(path)
        expected = cls.empty(dimension, metric, len(owners))
        if (
            type(index) is not type(expected)
            or index.d != dimension
            or index.metric_type != expected.metric_type
            or index.ntotal != len(owners)
            or not index.is_trained
        ):
            raise IndexDamagedError(
                f"{path.name} must hold a {cls.kind} index of {len(owners)} vectors of "
                f"{dimension} numbers, but holds {type(index).__name__} of "
                f"{index.ntotal} of {index.d}"
            )
        return cls(owners, index, metric, largest_norm, mapped=True)

    def _copied(self) -> Any:
        faiss = _faiss()
        if self.mapped:  # faiss ends the process when a mapped index is changed
            return faiss.deserialize_index(faiss.serialize_index(self.index))
        return faiss.clone_index(self.index)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"index": _faiss().serialize_index(self.index), "mapped": False}
        del state["vectors"]  # a part of the index
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.index = _faiss().deserialize_index(state["index"])
        self.vectors = self._raw()

    def _seen(self, k: int, kept: NDArray[np.bool_] | None) -> tuple[int, int, Any]:
        """How many rows to ask for, how many passages may come, and faiss's filter."""
        rows = len(self) if kept is None else int(np.count_nonzero(kept))
        passages = rows
        if self.several:
            owners = self.owners if kept is None else self.owners[kept]
            passages = int(np.count_nonzero(np.diff(owners, prepend=-1)))
        wanted = max(_SEEN_SEARCHING, math.ceil(k * rows / max(passages, 1)))
        chosen = None
        if kept is not None:
            chosen = _faiss().IDSelectorBitmap(np.packbits(kept, bitorder="little"))
        return min(wanted, rows), min(k, passages), chosen

    def _found(self, query: Vectors, seen: int, how: Any) -> Keys:
        rows = self.index.search(query[np.newaxis], seen, params=how)[1][0]
        return np.unique(self.owners[rows[rows >= 0]])


class GraphVectors(FaissVectors):
    """HNSW over the vectors as they are."""

    kind: ClassVar[IndexKind] = "hnsw"

    def _raw(self) -> Vectors:
        faiss = _faiss()
        held = faiss.downcast_index(self.index.storage)
        raw = faiss.rev_swig_ptr(held.get_xb(), held.ntotal * held.d)
        vectors: Vectors = raw.reshape(held.ntotal, held.d)
        return vectors

    @classmethod
    def empty(cls, dimension: int, metric: Metric, count: int) -> Any:  # noqa: ARG003
        """A FAISS index of the kind."""
        graph = _faiss().IndexHNSWFlat(dimension, _LINKS, _measure(metric))
        graph.hnsw.efConstruction = _SEEN_BUILDING
        return graph

    def nearest(self, query: Vectors, k: int, kept: NDArray[np.bool_] | None) -> Keys:
        """All that a walk through the graph saw; where few are allowed, from each of those."""
        seen, wanted, chosen = self._seen(k, kept)
        if kept is None or np.count_nonzero(kept) > _SELECTIVE * len(self):
            how = _faiss().SearchParametersHNSW(sel=chosen, efSearch=seen)
            keys = self._found(query, seen, how)
            if len(keys) >= wanted:
                return keys
        return super().nearest(query, k, kept)


class CodedVectors(FaissVectors):
    """IVF-PQ: a byte for each two numbers. The vectors themselves are not kept."""

    kind: ClassVar[IndexKind] = "ivfpq"

    def _raw(self) -> Vectors:
        return np.empty((0, self.index.d), dtype=np.float32)

    @classmethod
    def empty(cls, dimension: int, metric: Metric, count: int) -> Any:
        """A FAISS index of the kind, for about ``count`` rows."""
        lists = max(1, min(int(_LISTS_BY_ROOT * math.sqrt(count)), count // _LEARNT_FROM))
        # A byte for each two numbers, an eighth of the memory: with four the recall is poor.
        width = next(width for width in (2, 3, 1) if dimension % width == 0)
        faiss, measure = _faiss(), _measure(metric)
        coarse = faiss.IndexFlat(dimension, measure)
        return faiss.IndexIVFPQ(coarse, dimension, lists, dimension // width, 8, measure)

    def stored(self, rows: NDArray[Any]) -> Vectors:
        """The vectors that the codes of some rows stand for."""
        if not len(rows):
            return np.empty((0, self.index.d), dtype=np.float32)
        vectors: Vectors = self.index.reconstruct_batch(np.asarray(rows, dtype=np.int64))
        return vectors

    def nearest(self, query: Vectors, k: int, kept: NDArray[np.bool_] | None) -> Keys:
        """From the nearest lists, and where those have too few that are allowed, from all."""
        seen, wanted, chosen = self._seen(k, kept)
        lists = self.index.nlist
        keys = np.empty(0, dtype=np.int64)
        for visited in (min(_MOST_LISTS, max(lists // _SHARE_OF_LISTS, 16)), lists):
            how = _faiss().SearchParametersIVF(sel=chosen, nprobe=visited)
            keys = self._found(query, seen, how)
            if len(keys) >= wanted:
                break
        return keys


KINDS: Final[dict[str, type[FaissVectors]]] = {"hnsw": GraphVectors, "ivfpq": CodedVectors}


def _measure(metric: Metric) -> Any:
    faiss = _faiss()
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


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


def _fill(index: Any, vectors: Vectors) -> None:
    starts = range(0, len(vectors), _CHUNK)
    for start in progress(starts, desc="Indexing", unit=f" x {_CHUNK}", delay=1):
        index.add(np.ascontiguousarray(vectors[start : start + _CHUNK]))


@cache
def _faiss() -> Any:
    import faiss

    limit_threads(faiss, "omp_get_max_threads", "omp_set_num_threads")
    return faiss
