"""The reranker as LangChain's document compressor, and as its cross-encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import ConfigDict, SkipValidation
from typing_extensions import TypedDict, Unpack

from rerank_plugins._adapters import (
    DETAILS,
    RELEVANCE_SCORE,
    Detail,
    as_reranker,
    check_details,
    named,
)
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_iterable, check_threshold, check_top_n
from rerank_plugins.candidates import Ranking
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain._documents import (
    candidates_of,
    check_documents,
    document_of,
    reranked,
    without_repeats,
)
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.models.loading import ModelOptions
from rerank_plugins.reranking.reranker import Reranker


class CrossEncoderCompressor(BaseDocumentCompressor):
    """Reorders retrieved documents by a cross-encoder's relevance scores.

    Works wherever LangChain takes a compressor (``ContextualCompressionRetriever``,
    ``DocumentCompressorPipeline``), or called by hand::

        compressor = CrossEncoderCompressor(top_n=3)
        best = compressor.compress_documents(documents, "متى يفتح المتحف؟")

    What leaves are copies, with ``id`` and metadata as they came and, in the metadata,
    ``relevance_score`` (a float, higher is better; on every document, also when scoring
    failed and the first-stage order was kept) and the ``details``:

    - ``relevance_scale``: ``probability``, ``logit``, or ``first_stage`` for a kept order
      (``small_model`` where that is a cascade's): the score then stands for the place alone;
    - ``relevance_span``: characters of the ``page_content`` that the score comes from,
      ``[start, end]``; none where it comes from metadata alone;
    - ``retrieval_score`` and ``retrieval_rank``: what the first stage gave; the score only
      when it is known;
    - ``rerank_rank``, from 1, and ``rerank_model``.

    A ``retrieval_score`` that documents bring along (our retrievers write it) is taken for
    the first stage's score if the documents are of one list, found for this query (see
    ``retrieval_list``); models that blend it with their own, as the bundled one does, use it.

    Args:
        reranker: A `Reranker`, or a name that `load_reranker` takes.
        model: The name, when there is no ``reranker``.
        top_n: How many documents to keep; None for the reranker's own choice.
        score_threshold: Drop documents that score lower; None for the reranker's own choice.
        metadata_fields: Metadata to score with the text, such as ``("title",)``; it goes
            before the text. Documents without the field are scored by what they have.
        separator: Between those fields and the text.
        details: Which of the details to write.
        prefix: Goes before the names of the details; ``relevance_score`` keeps its name,
            which other integrations share.
        **options: Any `load_reranker` option, without a ready `Reranker`: ``device``,
            ``precision``, ``scale``, ``on_error``, ``long_passages``, ``deduplicate`` ...

    Raises:
        InvalidInputError: If an option is invalid.
        UnknownModelError: If no model has that name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: SkipValidation[Reranker]
    top_n: SkipValidation[int | None]
    score_threshold: SkipValidation[float | None]
    metadata_fields: tuple[str, ...]
    separator: str
    details: tuple[Detail, ...]
    prefix: str

    def __init__(
        self,
        *,
        reranker: Reranker | str | Path | None = None,
        model: str | Path = BUNDLED,
        top_n: int | None = None,
        score_threshold: float | None = None,
        metadata_fields: Iterable[str] = (),
        separator: str = "\n",
        details: Iterable[Detail] = DETAILS,
        prefix: str = "",
        **options: Unpack[ModelOptions],
    ) -> None:
        if isinstance(metadata_fields, str):
            raise InvalidInputError(
                "metadata_fields must be a list of names, but got the string "
                f"{metadata_fields!r}: put it in a list"
            )
        fields: dict[str, Any] = {
            "reranker": as_reranker(type(self), reranker, model, options),
            "top_n": check_top_n(top_n),
            "score_threshold": check_threshold(score_threshold),
            "metadata_fields": tuple(check_iterable("metadata_fields", metadata_fields)),
            "separator": separator,
            "details": check_details(details),
            "prefix": prefix,
        }
        super().__init__(**fields)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [*named(self.reranker, self.top_n)]

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: int | None = None,
    ) -> list[Document]:
        """Copies of the most relevant documents, best first.

        Args:
            documents: In first-stage order, best first. One that our retrievers found for several
                queries counts once.
            query: Non-blank text.
            callbacks: The rerank step reports to them as a separate run.
            top_n: For this call, in place of the compressor's own.

        Raises:
            InvalidInputError: If the query is blank, or an element is not a Document.
            RerankPluginsError: If loading or scoring failed and ``on_error`` is ``raise``.
        """
        given = self._given(query, without_repeats(documents), top_n)
        return self._step().invoke(given, self._config(given, callbacks))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: int | None = None,
    ) -> list[Document]:
        """`compress_documents` that leaves the event loop free."""
        given = self._given(query, without_repeats(documents), top_n)
        return await self._step().ainvoke(given, self._config(given, callbacks))

    def rerank(
        self,
        documents: Iterable[Document | str | Mapping[str, Any]],
        query: str,
        *,
        top_n: int | None = None,
    ) -> list[dict[str, Any]]:
        """Where the best documents stand in the list given, and their scores.

        Args:
            documents: Documents, plain texts, or dicts with a ``text`` or ``page_content``
                (and ``metadata``, where they have some).
            query: Non-blank text.
            top_n: For this call, in place of the compressor's own.

        Returns:
            Best first: ``{"index": position in documents, "relevance_score": score}``.

        Raises:
            InvalidInputError: If the query is blank, or an element has no text.
            RerankPluginsError: If loading or scoring failed and ``on_error`` is ``raise``.
        """
        given = self._given(query, map(document_of, check_iterable("documents", documents)), top_n)
        ranking = self.reranker.rerank(**self._asked(given))
        return [{"index": item.candidate.key, RELEVANCE_SCORE: item.score} for item in ranking]

    def _given(self, query: str, documents: Iterable[Document], top_n: int | None) -> _Given:
        return {
            "query": query,
            "documents": check_documents(documents),
            "top_n": self.top_n if top_n is None else top_n,
        }

    def _config(self, given: _Given, callbacks: Callbacks | None) -> RunnableConfig:
        shown = {
            "rerank_model": self.reranker.model,
            "rerank_candidates": len(given["documents"]),
        }
        return {"callbacks": callbacks, "metadata": shown}

    def _step(self) -> Runnable[_Given, list[Document]]:
        """Reranking as a runnable, so that it is a separate run in traces."""
        return RunnableLambda(self._run, self._arun, name="rerank")

    def _run(self, given: _Given) -> list[Document]:
        return self._documents(given, self.reranker.rerank(**self._asked(given)))

    async def _arun(self, given: _Given) -> list[Document]:
        # Ten thousand documents take a tenth of a second to read and to copy: not in the loop.
        asked = await in_thread(self._asked, given)
        ranking = await self.reranker.arerank(**asked)
        return await in_thread(self._documents, given, ranking)

    def _asked(self, given: _Given) -> dict[str, Any]:
        """What the reranker is called with."""
        query, documents = given["query"], given["documents"]
        return {
            "query": query,
            "passages": candidates_of(documents, query, self.metadata_fields, self.separator),
            "top_n": given["top_n"],
            "score_threshold": self.score_threshold,
        }

    def _documents(self, given: _Given, ranking: Ranking) -> list[Document]:
        return reranked(given["documents"], ranking, self.details, self.prefix)


class _Given(TypedDict):
    """What goes into the rerank step, as traces show it."""

    query: str
    documents: list[Document]
    top_n: int | None


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
