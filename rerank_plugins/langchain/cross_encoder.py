"""CrossEncoderModel: the models of this library for LangChain's own CrossEncoderReranker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langchain_core.cross_encoders import BaseCrossEncoder
from typing_extensions import Unpack

from rerank_plugins._adapters import as_reranker
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.models.loading import ModelOptions
from rerank_plugins.reranking.reranker import Reranker


class CrossEncoderModel(BaseCrossEncoder):
    """Scores (query, passage) pairs.

    For code that takes a ``BaseCrossEncoder``, such as ``CrossEncoderReranker`` of
    langchain-classic. That class throws the scores away; `CrossEncoderCompressor` keeps them.

    Args:
        reranker: A `Reranker` without a score threshold, or a name that `load_reranker` takes.
        model: The name, when there is no ``reranker``.
        **options: Any `load_reranker` option, without a ready `Reranker`.

    Raises:
        InvalidInputError: If an option is invalid, or there is a score threshold: every
            pair must get a score.
        UnknownModelError: If no model has that name.
    """

    def __init__(
        self,
        *,
        reranker: Reranker | str | Path | None = None,
        model: str | Path = BUNDLED,
        **options: Unpack[ModelOptions],
    ) -> None:
        self.reranker = as_reranker(type(self), reranker, model, options)
        if self.reranker.score_threshold is not None:
            raise InvalidInputError(
                "every pair must get a score, so score_threshold must be None, but got "
                f"{self.reranker.score_threshold!r}"
            )

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score per pair, in the order given, on the reranker's scale.

        Raises:
            InvalidInputError: If a query is blank, or a text is not a string.
            RerankPluginsError: If loading or scoring failed.
        """
        rankings = self.reranker.rerank_many(
            [query for query, _ in text_pairs], [[passage] for _, passage in text_pairs], top_n=1
        )
        return [ranking[0].score for ranking in rankings]
