"""CrossEncoderPostprocessor: the reranker as LlamaIndex's node postprocessor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import Unpack

from rerank_plugins._adapters import DETAILS, Detail, as_reranker, check_details, named
from rerank_plugins._threads import in_thread
from rerank_plugins._validation import check_threshold, check_top_n
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index._nodes import (
    check_nodes,
    checked_mode,
    query_text,
    to_candidates,
    to_nodes,
)
from rerank_plugins.models.catalog import BUNDLED
from rerank_plugins.models.loading import ModelOptions
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.reranking.scored import with_unread

dispatcher = get_dispatcher(__name__)


class CrossEncoderPostprocessor(BaseNodePostprocessor):
    """Reorders retrieved nodes by a cross-encoder's relevance scores.

    Works wherever LlamaIndex takes node postprocessors::

        index.as_query_engine(
            similarity_top_k=20, node_postprocessors=[CrossEncoderPostprocessor(top_n=5)]
        )

    What leaves are copies; ids, relationships and metadata stay as they came. Their ``score``
    is the relevance score, higher is better. It stands in the metadata too, as
    ``relevance_score``, beside the ``details``:

    - ``relevance_scale``: ``probability``, ``logit``, or ``first_stage`` for an order that
      was kept because scoring failed or time was short (``small_model`` where it is a
      cascade's): the score then stands for the place alone;
    - ``relevance_span``: characters of the node's own text that the score comes from,
      ``[start, end]``; none where it comes from metadata alone;
    - ``retrieval_score`` and ``retrieval_rank``: what came in; the score only when there
      was one;
    - ``rerank_rank``, from 1, and ``rerank_model``.

    Nodes that hold an image, audio or video and no text keep their order below the others, with
    ``relevance_scale`` ``first_stage``.

    None of these is in the text that embedders, LLMs or a next reranker read. They are in the
    ``hash`` of the copies, as all metadata is. The model is loaded at first use, and shared
    by all postprocessors of the same settings. The ``score`` that nodes bring along is the
    first stage's; models that blend it with their own, as the embedded one does, use it.

    ``top_n``, ``score_threshold`` and ``metadata_mode`` can be set at any time; for one call
    only, ``postprocessor.model_copy(update={"top_n": 3})`` costs nothing.

    Args:
        reranker: A `Reranker`, or a name that `load_reranker` takes. A postprocessor with a
            ready `Reranker` has no ``to_dict``.
        model: The name, when there is no ``reranker``.
        top_n: How many nodes to keep; None for the reranker's own choice.
        score_threshold: Drop nodes that score lower; None for the reranker's own choice.
        metadata_mode: Which metadata is scored with the text; ``EMBED`` scores what an
            embedding model would have read.
        details: Which of the details to write. With none of them, not even
            ``relevance_score`` is written, and the copies have the hash of their originals.
        prefix: Goes before the names of the details; ``relevance_score`` keeps its name.
        options: See ``**more_options``; what ``from_dict`` gives.
        callback_manager: For callbacks of the older kind; query engines set their own.
        **more_options: Those of `load_reranker`, when there is no ready `Reranker`:
            ``device``, ``precision``, ``scale``, ``on_error``, ``long_passages`` ...

    Raises:
        InvalidInputError: If an option is invalid.
        UnknownModelError: If no model has that name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str = Field(frozen=True)
    top_n: SkipValidation[int | None]
    score_threshold: SkipValidation[float | None]
    metadata_mode: MetadataMode
    details: tuple[Detail, ...]
    prefix: str
    options: dict[str, Any] = Field(frozen=True)
    reranker: SkipValidation[Reranker | None] = Field(frozen=True, exclude=True)
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        *,
        reranker: Reranker | str | Path | None = None,
        model: str | Path = BUNDLED,
        top_n: int | None = None,
        score_threshold: float | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        details: Iterable[Detail] = DETAILS,
        prefix: str = "",
        options: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
        **more_options: Unpack[ModelOptions],
    ) -> None:
        given = {**(options or {}), **more_options}
        used = as_reranker(type(self), reranker, model, given)
        settings: dict[str, Any] = {
            "model": used.model,
            "top_n": check_top_n(top_n),
            "score_threshold": check_threshold(score_threshold),
            "metadata_mode": checked_mode(metadata_mode),
            "details": check_details(details),
            "prefix": prefix,
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in given.items()
            },
            "reranker": reranker if isinstance(reranker, Reranker) else None,
        }
        if callback_manager is not None:
            settings["callback_manager"] = callback_manager
        super().__init__(**settings)
        self._reranker = used

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [*named(self._reranker, self.top_n)]

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized forms."""
        return "CrossEncoderPostprocessor"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Every setting; ``from_dict`` makes an equal postprocessor of it.

        Raises:
            InvalidInputError: If it was made with a ready `Reranker`.
        """
        if self.reranker is not None:
            raise InvalidInputError(
                "only a postprocessor made from a model's name can be written to a dict, but "
                "this one was given a Reranker: use model= and its options instead"
            )
        return super().to_dict(**kwargs)

    def __eq__(self, other: object) -> bool:
        """Same settings; callbacks do not count."""
        return (
            isinstance(other, CrossEncoderPostprocessor)
            and self.model_dump() == other.model_dump()
            and self.reranker is other.reranker
        )

    __hash__ = None  # type: ignore[assignment]

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = query_text(query_bundle)
        with self._reported(query, check_nodes(nodes)) as reranked:
            if nodes:  # a blank query finds none: then there is nothing to ask it of
                asked, media = self._asked(query, nodes)
                ranking = self._reranker.rerank(**asked)
                reranked.extend(self._stamped(ranking, media, nodes))
        return reranked

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = query_text(query_bundle)
        with self._reported(query, check_nodes(nodes)) as reranked:
            if nodes:
                # Thousands of nodes take a while to read and to copy: off the event loop with it.
                asked, media = await in_thread(self._asked, query, nodes)
                ranking = await self._reranker.arerank(**asked)
                reranked.extend(await in_thread(self._stamped, ranking, media, nodes))
        return reranked

    def _asked(
        self, query: str, nodes: list[NodeWithScore]
    ) -> tuple[dict[str, Any], list[Candidate]]:
        """What the reranker is called with, and the media, which it cannot read."""
        readable, media = to_candidates(nodes, self.metadata_mode, self.details, self.prefix)
        cut = {"top_n": self.top_n, "score_threshold": self.score_threshold}
        return {"query": query, "passages": readable, **cut}, media

    def _stamped(
        self, ranking: Ranking, media: list[Candidate], nodes: list[NodeWithScore]
    ) -> list[NodeWithScore]:
        every = with_unread(ranking, media, self._kept())
        return to_nodes(every, nodes, self.details, self.prefix)

    def _kept(self) -> int | None:
        return self._reranker.top_n if self.top_n is None else check_top_n(self.top_n)

    @contextmanager
    def _reported(self, query: str, nodes: list[NodeWithScore]) -> Iterator[list[NodeWithScore]]:
        """Start and end events, of both kinds, around what fills the list that it gives."""
        top_n = self._kept()
        reranked: list[NodeWithScore] = []
        dispatcher.event(
            ReRankStartEvent(
                query=query,
                nodes=nodes,
                top_n=len(nodes) if top_n is None else top_n,
                model_name=self.model,
            )
        )
        try:
            with self.callback_manager.event(
                CBEventType.RERANKING,
                payload={
                    EventPayload.NODES: nodes,
                    EventPayload.MODEL_NAME: self.model,
                    EventPayload.QUERY_STR: query,
                    EventPayload.TOP_K: top_n,
                },
            ) as event:
                yield reranked
                event.on_end(payload={EventPayload.NODES: reranked})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=reranked))
