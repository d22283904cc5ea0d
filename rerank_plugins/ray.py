"""Ray Data: many queries reranked by a pool of workers, resumable, on one machine or many.

::

    import ray
    from rerank_plugins.ray import rerank_dataset

    questions = ray.data.read_parquet("candidates/")   # query_id, query, candidates
    rerank_dataset(questions, "reranked/", model="embedded", top_n=10, workers=4)
    ray.data.read_parquet("reranked/")                 # query_id, ids, scores, ...

Where the workers run is Ray's own business: ``ray.init()`` for this machine,
``ray.init("auto")`` or ``ray job submit`` for a cluster.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rerank_plugins import errors
from rerank_plugins._adapters import as_reranker
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError, MissingDependencyError, RerankPluginsError
from rerank_plugins.models.catalog import EMBEDDED
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.local import LocalScorer

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import ray.data
    from filelock import FileLock, Timeout
    from ray import cloudpickle
except ImportError as error:
    raise MissingDependencyError(
        "rerank_plugins.ray needs Ray Data and pyarrow: pip install 'rerank-plugins[ray]'"
    ) from error

__all__ = ["OUTPUT_SCHEMA", "RerankedDataset", "rerank_dataset"]

logger = logging.getLogger(__name__)

OUTPUT_SCHEMA: Final = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("logits", pa.list_(pa.float64()), nullable=False),
        pa.field("scale", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("candidates", pa.int64(), nullable=False),
        pa.field("truncated", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""One row a query; ids, scores and logits run in parallel, best first.

``scale``, ``model``, ``candidates``, ``truncated`` and ``error`` are those of a `Ranking`; a
logit is null where the model did not score.
"""

_INPUT: Final = ("query_id", "query", "candidates")
_SETTINGS: Final = b"rerank_plugins"
_FAILURE: Final = "failure"
_WORKER_SCHEMA: Final = pa.schema(
    [field.with_nullable(True) for field in OUTPUT_SCHEMA]  # noqa: FBT003  (pyarrow's signature)
    + [pa.field(_FAILURE, pa.list_(pa.string()))]
)


@dataclass(frozen=True, slots=True)
class RerankedDataset:
    """What `rerank_dataset` has done.

    Attributes:
        output: The folder of the Parquet files.
        written: Queries that this call reranked and wrote.
        found: Queries that were in the folder before.
    """

    output: Path
    written: int
    found: int


def rerank_dataset(
    dataset: ray.data.Dataset,
    output: str | Path,
    *,
    reranker: Reranker | str | Path | None = None,
    model: str | Path = EMBEDDED,
    top_n: int | None = None,
    workers: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    batch_size: int = 16,
    queries_per_file: int = 256,
    **options: Any,
) -> RerankedDataset:
    """Reranks the candidates of every query of a dataset and writes Parquet files.

    Call it again after a crash, or with a larger dataset: queries that are in the folder
    already are skipped. A worker that dies is replaced by Ray and its batch is done again. The
    caller's process alone writes, each file whole or not at all (temporary file, fsync,
    rename), so no query is lost or written twice; what the workers need not share is a disk.

    Args:
        dataset: Rows of ``query_id`` (unique text or whole number), ``query`` (text) and
            ``candidates`` (a list of ``{"id": ..., "text": ..., "score": ...}``, best first;
            the score may be null or missing). Other columns are passed over.
        output: Folder on this machine for the files; made when it is not there.
        reranker: Ready, or a name that `load_reranker` takes; None for ``model``. Each worker
            loads the model for itself, so a local folder must be there on every machine.
        model: A name that `load_reranker` takes.
        top_n: How many candidates to keep; None for the reranker's own number, or all.
        workers: How many, or (least, most) for a pool that grows and shrinks.
        num_cpus: Cores that Ray keeps for a worker; it runs as many torch threads.
        num_gpus: GPUs for a worker; may be a part of one.
        batch_size: Queries that a worker reranks together, and that are done again when it
            dies.
        queries_per_file: Queries to a file; as many at most are done again after a crash of
            the caller.
        **options: Those of `load_reranker`: ``scale``, ``device``, ``long_passages`` ...

    Returns:
        How much was written and where. The rows follow `OUTPUT_SCHEMA`, in no particular
        order; ids are text, whole numbers too.

    Raises:
        InvalidInputError: An option or a row breaks its rule, an id comes twice, the folder
            has a damaged file or results of another model or other settings, or another call
            is writing there.
        RerankPluginsError: The model could not be had, or scoring failed on a worker.
    """
    if not isinstance(dataset, ray.data.Dataset):
        raise InvalidInputError(
            f"dataset must be a ray.data.Dataset, but got {type(dataset).__name__}; "
            "ray.data.from_items() makes one of a list of rows"
        )
    work = as_reranker(rerank_dataset, reranker, model, options)
    if top_n is not None:
        check_count("top_n", top_n)
    pool = _pool(workers)
    check_count("batch_size", batch_size, minimum=1)
    check_count("queries_per_file", queries_per_file, minimum=1)
    _check_columns(dataset)
    settings = _settings(work, top_n)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        done = set(_done(folder, settings))
        found = len(done)
        reranked = (
            dataset.select_columns(list(_INPUT))
            .map_batches(_without(done), batch_format="pyarrow")
            # Small blocks: an even load, and little to do again when a worker dies.
            .repartition(target_num_rows_per_block=batch_size)
            .map_batches(
                _Worker,
                fn_constructor_args=(_pickled(work), top_n),
                batch_format="pyarrow",
                batch_size=batch_size,
                compute=pool,
                num_cpus=num_cpus,
                num_gpus=num_gpus or None,
            )
        )
        written = 0
        for table in _progress(_tables(reranked, queries_per_file)):
            _check_unique(table, done)
            path = _write(table, folder, settings)
            written += table.num_rows
            logger.info("%d queries reranked, %d in %s", written, table.num_rows, path)
    return RerankedDataset(output=folder, written=written, found=found)


class _Worker:
    """Lives in a Ray actor and holds the model."""

    def __init__(self, pickled: bytes, top_n: int | None) -> None:
        self.reranker: Reranker = cloudpickle.loads(pickled)
        self.top_n = top_n

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The results; or one row with the error, whose class Ray would not bring home."""
        try:
            rows = self._rows(batch)
        except RerankPluginsError as error:
            known = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
            failed = {field.name: None for field in _WORKER_SCHEMA}
            rows = [failed | {_FAILURE: [known.__name__, str(error)]}]
        return pa.Table.from_pylist(rows, schema=_WORKER_SCHEMA)

    def _rows(self, batch: pa.Table) -> list[dict[str, Any]]:
        ids = _query_ids(batch).to_pylist()
        queries = batch.column("query").to_pylist()
        listed = [
            _candidates(query_id, some)
            for query_id, some in zip(ids, batch.column("candidates").to_pylist(), strict=True)
        ]
        for query_id, query in zip(ids, queries, strict=True):
            if not isinstance(query, str) or not query.strip():
                raise InvalidInputError(
                    f"query must be text and not blank, but that of query_id {query_id!r} is "
                    f"{query!r}"
                )
        rankings = self.reranker.rerank_many(
            queries, [candidates for _, candidates in listed], top_n=self.top_n
        )
        return [
            _row(query_id, ranking, names)
            for query_id, ranking, (names, _) in zip(ids, rankings, listed, strict=True)
        ]


def _row(query_id: str, ranking: Ranking, names: list[str]) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "ids": [names[item.candidate.key] for item in ranking],
        "scores": [item.score for item in ranking],
        "logits": [item.logit for item in ranking],
        "scale": ranking.scale,
        "model": ranking.model,
        "candidates": ranking.candidates,
        "truncated": ranking.truncated,
        "error": ranking.error,
    }


def _candidates(query_id: str, given: object) -> tuple[list[str], list[Candidate]]:
    """Ids and candidates of one row."""
    names, candidates = [], []
    if not isinstance(given, list):
        raise InvalidInputError(
            f"candidates must be a list, but that of query_id {query_id!r} is "
            f"{type(given).__name__}"
        )
    for position, one in enumerate(given):
        where = f"candidate {position} of query_id {query_id!r}"
        if not isinstance(one, Mapping) or not isinstance(one.get("text"), str):
            raise InvalidInputError(f"{where} must have an id and a text, but got {one!r}")
        name, score = one.get("id"), one.get("score")
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise InvalidInputError(f"{where}: id must be text or a whole number, not {name!r}")
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise InvalidInputError(f"{where}: score must be a number or null, but got {score!r}")
        names.append(str(name))
        candidates.append(
            Candidate(
                key=position,
                text=one["text"],
                score=None if score is None else float(score),
                rank=position + 1,
            )
        )
    return names, candidates


def _query_ids(batch: pa.Table) -> pa.ChunkedArray:
    """The ids as text."""
    ids = batch.column("query_id")
    if ids.null_count:
        raise InvalidInputError("query_id must not be null, but it is in a row")
    if not _can_be_ids(ids.type):
        raise InvalidInputError(f"query_id must be text or a whole number, but it is {ids.type}")
    return ids.cast(pa.string())


def _can_be_ids(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_integer(kind))


def _without(done: Iterable[str]) -> Callable[[pa.Table], pa.Table]:
    """Drops the rows whose queries are done; a row with a bad id is left to the worker."""
    known = pa.array(sorted(done), type=pa.string())

    def skip(batch: pa.Table) -> pa.Table:
        ids = batch.column("query_id")
        if not len(known) or not _can_be_ids(ids.type):
            return batch
        return batch.filter(pc.invert(pc.is_in(ids.cast(pa.string()), value_set=known)))

    return skip


def _tables(reranked: ray.data.Dataset, rows: int) -> Iterator[pa.Table]:
    """The workers' results.

    Raises:
        RerankPluginsError: A worker met it.
    """
    for table in reranked.iter_batches(batch_size=rows, batch_format="pyarrow"):
        if not table.num_rows:  # may come without columns
            continue
        for failure in table.column(_FAILURE).drop_null():
            name, message = failure.as_py()
            raise getattr(errors, name)(message)
        yield table.select(OUTPUT_SCHEMA.names).cast(OUTPUT_SCHEMA)


def _progress(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, with a bar that counts queries when there is a terminal."""
    from tqdm import tqdm

    with tqdm(unit="query", disable=None) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)


def _check_unique(table: pa.Table, done: set[str]) -> None:
    """Takes the ids of a table into those that are done."""
    for query_id in table.column("query_id").to_pylist():
        if query_id in done:
            raise InvalidInputError(
                f"query_id must be unique in the dataset, but {query_id!r} comes twice"
            )
        done.add(query_id)


def _write(table: pa.Table, folder: Path, settings: str) -> Path:
    """One Parquet file, whole or not at all."""
    path = folder / f"part-{uuid.uuid4().hex}.parquet"
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(
            table.replace_schema_metadata({_SETTINGS: settings}), file, write_page_checksum=True
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name != "nt":  # Windows cannot open a folder to sync the rename
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return path


def _done(folder: Path, settings: str) -> Iterator[str]:
    """Ids of the queries in the folder; sweeps away what a crash left half written."""
    for leftover in folder.glob(".part-*.tmp"):
        leftover.unlink()
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["query_id"], page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(
                f"{path} must be a Parquet file of rerank_dataset, but cannot be read ({error}); "
                "delete it and its queries are reranked again"
            ) from error
        written = (table.schema.metadata or {}).get(_SETTINGS, b"{}").decode()
        if written != settings:
            raise InvalidInputError(
                f"a folder holds results of one reranker: {path} was written with {written}, but "
                f"this call has {settings}; give another folder"
            )
        yield from table.column("query_id").to_pylist()


def _settings(reranker: Reranker, top_n: int | None) -> str:
    """What decides the results, as JSON, to be kept in each file."""
    names = ("scale", "score_threshold", "first_stage_weight", "deduplicate", "on_error")
    settings = {name: getattr(reranker, name) for name in names}
    settings["top_n"] = reranker.top_n if top_n is None else top_n
    settings["model"] = reranker.model
    scorer = getattr(reranker.scorer, "scorer", reranker.scorer)
    if isinstance(scorer, LocalScorer):
        settings["revision"] = scorer.settings.revision
        # Weights that were trained on lie under the name of the old ones. What is on the Hub
        # is not fetched for this: a revision tells it.
        folder = Path(scorer.settings.source)
        settings["weights"] = read_checkpoint(folder).fingerprint() if folder.is_dir() else None
    return json.dumps(settings, ensure_ascii=False)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds a lock that the system lets go when the process ends, however it ends."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InvalidInputError(
            f"one call at a time can write to a folder, but another is writing to {folder}"
        ) from error


def _pickled(reranker: Reranker) -> bytes:
    try:
        return bytes(cloudpickle.dumps(reranker))
    except Exception as error:
        raise InvalidInputError(
            f"the reranker goes to the workers by pickle, but {type(reranker.scorer).__name__} "
            f"cannot ({error}); give a model's name, or a scorer that loads at first use"
        ) from error


def _check_columns(dataset: ray.data.Dataset) -> None:
    columns = dataset.columns() or []
    missing = [name for name in _INPUT if name not in columns]
    if columns and missing:
        raise InvalidInputError(
            f"the dataset must have the columns {list(_INPUT)}, but lacks {missing} among "
            f"{columns}; rename_columns() gives them their names"
        )


def _pool(workers: int | tuple[int, int]) -> ray.data.ActorPoolStrategy:
    if isinstance(workers, tuple):
        if len(workers) != 2:
            raise InvalidInputError(f"workers must be a number or (least, most), not {workers!r}")
        least, most = (check_count("workers", one, minimum=1) for one in workers)
        if least > most:
            raise InvalidInputError(f"workers must be (least, most), but got {workers!r}")
        return ray.data.ActorPoolStrategy(min_size=least, max_size=most)
    return ray.data.ActorPoolStrategy(size=check_count("workers", workers, minimum=1))
