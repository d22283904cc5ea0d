"""Ray Data: many queries reranked by a pool of workers, resumable, on one machine or many.

::

    import ray
    from rerank_plugins.ray import rerank_dataset

    questions = ray.data.read_parquet("candidates/")   # query_id, query, candidates
    rerank_dataset(questions, "reranked/", model="bundled", top_n=10, workers=4)
    ray.data.read_parquet("reranked/")                 # query_id, ids, scores, ...

Ray decides where the workers run: ``ray.init()`` for this machine, ``ray.init("auto")`` or
``ray job submit`` for a cluster.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rerank_plugins import errors
from rerank_plugins._adapters import as_reranker
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError, MissingDependencyError
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.checkpoint import read_checkpoint
from rerank_plugins.scoring.local import LocalScorer

try:
    import filelock  # noqa: F401
    import pyarrow as pa
    import ray.data
    from ray import cloudpickle
except ImportError as error:
    raise MissingDependencyError(
        "rerank_plugins.ray needs Ray Data and pyarrow: pip install 'rerank-plugins[ray]'"
    ) from error

from rerank_plugins.ray._files import alone_in, done_in, write
from rerank_plugins.ray._schema import FAILURE, OUTPUT_SCHEMA
from rerank_plugins.ray._worker import Worker, without

__all__ = ["OUTPUT_SCHEMA", "RerankedDataset", "rerank_dataset"]

logger = logging.getLogger(__name__)

_INPUT: Final = ("query_id", "query", "candidates")


@dataclass(frozen=True, slots=True)
class RerankedDataset:
    """Result of `rerank_dataset`.

    Attributes:
        output: The folder of the Parquet files.
        written: Number of queries that this call reranked and wrote.
        found: Number of queries that were in the folder already.
    """

    output: Path
    written: int
    found: int


def rerank_dataset(
    dataset: ray.data.Dataset,
    output: str | Path,
    *,
    reranker: Reranker | str | Path | None = None,
    model: str | Path = BUNDLED,
    top_n: int | None = None,
    workers: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    batch_size: int = 16,
    queries_per_file: int = 256,
    **options: Any,
) -> RerankedDataset:
    """Reranks the candidates of every query of a dataset and writes Parquet files.

    Rerun the same call to resume after a crash, or with a larger dataset: queries that are
    already in the folder are skipped. Ray replaces a worker that dies, and its batch is done
    again. Only the calling process writes, each file atomically (temporary file, fsync,
    rename), so no query is lost or written twice, and workers need no shared disk.

    Args:
        dataset: Rows of ``query_id`` (unique text or whole number), ``query`` (text) and
            ``candidates`` (a list of ``{"id": ..., "text": ..., "score": ...}``, best first;
            the score may be null or missing). Other columns are ignored.
        output: Folder on this machine for the files; created if missing.
        reranker: Ready, or a name that `load_reranker` takes; None for ``model``. Each worker
            loads its own copy, so a local folder must exist on every machine.
        model: A name that `load_reranker` takes.
        top_n: Number of candidates to keep; None for the reranker's own setting.
        workers: Number of workers, or (minimum, maximum) for an autoscaling pool.
        num_cpus: Cores reserved per worker, which runs as many torch threads.
        num_gpus: GPUs per worker; may be fractional.
        batch_size: Queries per batch; a batch is repeated if its worker dies.
        queries_per_file: Queries per file; at most this many are repeated after a crash of the
            calling process.
        **options: Those of `load_reranker`: ``scale``, ``device``, ``long_passages`` ...

    Returns:
        How much was written, and where. Rows follow `OUTPUT_SCHEMA`, in no particular order;
        ids are always text.

    Raises:
        InvalidInputError: If an option or a row is invalid, an id is not unique, the folder has a
            damaged file or results with another model or other settings, or another call is
            writing there.
        RerankPluginsError: If the model could not be loaded, or scoring failed on a worker.
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
    with alone_in(folder):
        done = set(done_in(folder, settings))
        found = len(done)
        reranked = (
            dataset.select_columns(list(_INPUT))
            .map_batches(without(done), batch_format="pyarrow")
            # Small blocks: an even load, and little to repeat if a worker dies.
            .repartition(target_num_rows_per_block=batch_size)
            .map_batches(
                Worker,
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
            path = write(table, folder, settings)
            written += table.num_rows
            logger.info("%d queries reranked, %d in %s", written, table.num_rows, path)
    return RerankedDataset(output=folder, written=written, found=found)


def _tables(reranked: ray.data.Dataset, rows: int) -> Iterator[pa.Table]:
    """The workers' results.

    Raises:
        RerankPluginsError: If a worker raised it.
    """
    for table in reranked.iter_batches(batch_size=rows, batch_format="pyarrow"):
        if not table.num_rows:  # may come without columns
            continue
        for failure in table.column(FAILURE).drop_null():
            name, message = failure.as_py()
            raise getattr(errors, name)(message)
        yield table.select(OUTPUT_SCHEMA.names).cast(OUTPUT_SCHEMA)


def _progress(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, with a progress bar on a terminal."""
    from tqdm import tqdm

    with tqdm(unit="query", disable=None) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)


def _check_unique(table: pa.Table, done: set[str]) -> None:
    """Adds the ids of a table to those that are done."""
    for query_id in table.column("query_id").to_pylist():
        if query_id in done:
            raise InvalidInputError(
                f"query_id must be unique in the dataset, but {query_id!r} occurs twice"
            )
        done.add(query_id)


def _settings(reranker: Reranker, top_n: int | None) -> str:
    """The settings that decide the results, as JSON, stored in each file."""
    names = ("scale", "score_threshold", "first_stage_weight", "deduplicate", "on_error")
    settings = {name: getattr(reranker, name) for name in names}
    settings["top_n"] = reranker.top_n if top_n is None else top_n
    settings["model"] = reranker.model
    scorer = getattr(reranker.scorer, "scorer", reranker.scorer)
    if isinstance(scorer, LocalScorer):
        settings["revision"] = scorer.settings.revision
        # Fine-tuned weights may lie under the name of the old ones. Nothing is downloaded for
        # this: on the Hub, the revision identifies the weights.
        folder = Path(scorer.settings.source)
        settings["weights"] = read_checkpoint(folder).fingerprint() if folder.is_dir() else None
    return json.dumps(settings, ensure_ascii=False)


def _pickled(reranker: Reranker) -> bytes:
    try:
        return bytes(cloudpickle.dumps(reranker))
    except Exception as error:
        raise InvalidInputError(
            f"the reranker is sent to the workers by pickle, but {type(reranker.scorer).__name__} "
            f"cannot be pickled ({error}); give a model's name, or a scorer that loads on first use"
        ) from error


def _check_columns(dataset: ray.data.Dataset) -> None:
    columns = dataset.columns() or []
    missing = [name for name in _INPUT if name not in columns]
    if columns and missing:
        raise InvalidInputError(
            f"the dataset must have the columns {list(_INPUT)}, but {missing} are missing from "
            f"{columns}; rename them with rename_columns()"
        )


def _pool(workers: int | tuple[int, int]) -> ray.data.ActorPoolStrategy:
    if isinstance(workers, tuple):
        if len(workers) != 2:
            raise InvalidInputError(
                f"workers must be a number or (minimum, maximum), not {workers!r}"
            )
        least, most = (check_count("workers", one, minimum=1) for one in workers)
        if least > most:
            raise InvalidInputError(f"workers must be (minimum, maximum), but got {workers!r}")
        return ray.data.ActorPoolStrategy(min_size=least, max_size=most)
    return ray.data.ActorPoolStrategy(size=check_count("workers", workers, minimum=1))
