"""Columns of the results, and how ids are read."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from rerank_plugins.errors import InvalidInputError

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
"""One row per query; ids, scores and logits are parallel lists, best first.

``scale``, ``model``, ``candidates``, ``truncated`` and ``error`` are those of a `Ranking`; a
logit is null if the model did not score that candidate.
"""


FAILURE: Final = "failure"
WORKER_SCHEMA: Final = pa.schema(
    [field.with_nullable(True) for field in OUTPUT_SCHEMA]  # noqa: FBT003  (pyarrow's signature)
    + [pa.field(FAILURE, pa.list_(pa.string()))]
)


def query_ids(batch: pa.Table) -> pa.ChunkedArray:
    """The ids as text."""
    ids = batch.column("query_id")
    if ids.null_count:
        raise InvalidInputError("query_id must not be null, but a row has no query_id")
    if not can_be_ids(ids.type):
        raise InvalidInputError(f"query_id must be text or a whole number, but it is {ids.type}")
    return ids.cast(pa.string())


def can_be_ids(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_integer(kind))
