"""Anything that retrieves or reranks passages, ours or a framework's, behind two classes.

Frameworks' objects are recognized by their methods, not by their type; their records are made
in `_frameworks`, the only module that imports the frameworks, when such an object is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError, ScoreCountError
from rerank_plugins.evaluation.data import QuestionSet
from rerank_plugins.evaluation.sharing import SharedScores
from rerank_plugins.ordering import descending
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import Scorer
from rerank_plugins.scoring.cache import CachedScorer

Found = list[tuple[str, float | None]]
"""Passage ids and scores, best first; a score is None where the system gives none."""


class Passages:
    """The passages of a set; finds which of them a framework's record is.

    Args:
        data: The set.
    """

    def __init__(self, data: QuestionSet) -> None:
        self.texts = data.corpus
        self.ids = list(data.corpus)
        self._by_text: dict[str, str] = {}
        for passage, text in data.corpus.items():
            self._by_text.setdefault(text, passage)

    def of(self, record: Any, text: str, names: Iterable[object]) -> str:
        """The id of a record: the first of its names that is an id, else found by its text.

        Raises:
            InvalidInputError: If it is not a passage of the set.
        """
        for name in names:
            if isinstance(name, str) and name in self.texts:
                return name
        if text in self._by_text:
            return self._by_text[text]
        raise InvalidInputError(
            f"a {type(record).__name__} came back that is not a passage of the set: give records "
            "the passage's id as their id, or as metadata['id'], or leave their text unchanged; "
            f"its text begins {text[:60]!r}"
        )


class FirstStageBridge:
    """Asks any first stage for a query's passages.

    Args:
        stage: Our ``FirstStage`` over the set's passages in their order; a LangChain retriever
            (``invoke``); a LlamaIndex retriever (``retrieve``); given candidates by query id
            (passage ids, or scores by passage id); or a function of query text and number that
            gives passage ids.
        passages: Of the set.

    Raises:
        InvalidInputError: If it is something else, or indexed another number of passages.
    """

    def __init__(self, stage: Any, passages: Passages) -> None:
        self._passages = passages
        if isinstance(stage, Mapping):
            self._ask = lambda query_id, _, k: _given(stage.get(query_id, ()), k)
        elif callable(getattr(stage, "search", None)) and hasattr(stage, "__len__"):
            if len(stage) != len(passages.ids):
                raise InvalidInputError(
                    f"a first stage must index the set's {len(passages.ids)} passages in their "
                    f"order, but this one holds {len(stage)}"
                )
            self._ask = lambda _, query, k: [
                (passages.ids[found.key], found.score) for found in stage.search(query, k)
            ]
        elif callable(getattr(stage, "retrieve", None)):
            self._ask = lambda _, query, k: nodes_found(stage.retrieve(query), passages)[:k]
        elif callable(getattr(stage, "invoke", None)):
            self._ask = lambda _, query, k: documents_found(stage.invoke(query), passages)[:k]
        elif callable(stage):
            self._ask = lambda _, query, k: _given(stage(query, k), k)
        else:
            raise InvalidInputError(
                "a first stage must have search(), invoke() or retrieve(), or be a mapping of "
                f"candidates or a function, but got {type(stage).__name__}"
            )

    _ask: Callable[[str, str, int], Found]

    def find(self, query_id: str, query: str, k: int) -> Found:
        """At most ``k`` passages, best first, each once.

        Raises:
            InvalidInputError: If it found something that is not a passage of the set.
        """
        found = self._ask(query_id, query, k)
        for passage, _ in found:
            if passage not in self._passages.texts:
                raise InvalidInputError(
                    f"the first stage found {passage!r} for query {query_id!r}, which is not a "
                    "passage of the set"
                )
        return found


class RerankerBridge:
    """Asks any reranker for the order of a query's passages.

    Args:
        reranker: A model's name or folder, which is loaded to keep every passage; a
            ``Reranker`` or scorer; a LangChain compressor (``compress_documents``); a
            LlamaIndex postprocessor (``postprocess_nodes``); or a function of query text and
            passage texts that gives one score per passage. What a reranker leaves out stays
            out.
        passages: Of the set.
        shared: By scorer, what it scored already; filled here. A `Reranker` shares its scores
            unless it is a subclass or has its own cache or deadline.

    Raises:
        InvalidInputError: If it is something else.
    """

    def __init__(
        self, reranker: Any, passages: Passages, shared: dict[int, SharedScores] | None = None
    ) -> None:
        self._passages = passages
        self._shared: SharedScores | None = None
        self._used = False
        if isinstance(reranker, (str, Path)):
            from rerank_plugins.models.loading import load_reranker

            reranker = load_reranker(reranker, deduplicate=False)
        elif isinstance(reranker, Scorer):
            reranker = Reranker(reranker, deduplicate=False)
        self.reranker = reranker  # whose settings tell the runs apart
        self._asked = reranker
        if shared is not None and _may_share(reranker):
            scorer = reranker.scorer
            self._shared = shared.setdefault(id(scorer), SharedScores(scorer))
            self._asked = copy(reranker)
            self._asked.scorer = self._shared
        # Compressors may have a rerank() as well, which takes other arguments than ours.
        if callable(getattr(reranker, "compress_documents", None)):
            self._ask = self._langchain
        elif callable(getattr(reranker, "postprocess_nodes", None)):
            self._ask = self._llama_index
        elif callable(getattr(reranker, "rerank", None)):
            self._ask = self._ours
        elif callable(reranker):
            self._ask = self._function
        else:
            raise InvalidInputError(
                "a reranker must be a model's name, have rerank(), compress_documents() or "
                f"postprocess_nodes(), or be a function, but got {type(reranker).__name__}"
            )

    _ask: Callable[[str, Found], Found]

    def order(self, query: str, candidates: Found) -> Found:
        """The passages that the reranker keeps, best first.

        Raises:
            InvalidInputError: If something else than one of the candidates came back.
        """
        self._used = self._used or bool(candidates)
        ordered = self._ask(query, candidates) if candidates else []
        strange = {passage for passage, _ in ordered} - {passage for passage, _ in candidates}
        if strange:
            raise InvalidInputError(
                f"the reranker gave back {min(strange)!r}, which it was not given"
            )
        return ordered

    def warm_up(self, query: str, candidates: Found) -> None:
        """Loads what is loaded at first use; the scores are forgotten."""
        self.order(query, candidates)
        if self._shared is not None:
            self._shared.forget(query)
            self._shared.saved_seconds = 0.0

    def describe(self) -> dict[str, Any]:
        """What the reranker says of itself.

        Nothing where it was not asked for an order: no model is loaded for this alone.
        """
        describe = getattr(self.reranker, "describe", None)
        if not self._used or not callable(describe):
            return {}
        told = describe()
        return {**told, "first_stage_weight": _weight(self.reranker)}

    def saved_seconds(self) -> float:
        """Time of pairs that were scored for another system, since the last call."""
        if self._shared is None:
            return 0.0
        seconds, self._shared.saved_seconds = self._shared.saved_seconds, 0.0
        return seconds

    def _text(self, passage: str) -> str:
        return self._passages.texts[passage]

    def _ours(self, query: str, candidates: Found) -> Found:
        ranking = self._asked.rerank(
            query,
            [
                Candidate(key=place, text=self._text(passage), score=score, rank=place + 1)
                for place, (passage, score) in enumerate(candidates)
            ],
        )
        return [(candidates[item.candidate.key][0], float(item.score)) for item in ranking]

    def _langchain(self, query: str, candidates: Found) -> Found:
        from rerank_plugins.evaluation._frameworks import documents

        texts = ((passage, self._text(passage), score) for passage, score in candidates)
        kept = self.reranker.compress_documents(documents(texts), query)
        return documents_found(kept, self._passages)

    def _llama_index(self, query: str, candidates: Found) -> Found:
        from rerank_plugins.evaluation._frameworks import nodes

        texts = ((passage, self._text(passage), score) for passage, score in candidates)
        kept = self.reranker.postprocess_nodes(nodes(texts), query_str=query)
        return nodes_found(kept, self._passages)

    def _function(self, query: str, candidates: Found) -> Found:
        scores = [
            float(score)
            for score in self.reranker(query, [self._text(passage) for passage, _ in candidates])
        ]
        if len(scores) != len(candidates):
            raise ScoreCountError(
                f"the function must give one score per passage, but gave {len(scores)} for "
                f"{len(candidates)} passages"
            )
        return [(candidates[place][0], scores[place]) for place in descending(scores)]


def _weight(reranker: Any) -> float | None:
    """The first stage's share in the scores, where the reranker has one."""
    own: float | None = getattr(reranker, "first_stage_weight", None)
    if own is None:
        own = getattr(getattr(reranker, "scorer", None), "first_stage_weight", None)
    return own


def _may_share(reranker: Any) -> bool:
    """Whether its scores may be remembered without a change of answers or times."""
    return (
        type(reranker) is Reranker
        and reranker.deadline_ms is None
        and not isinstance(reranker.scorer, CachedScorer)
    )


def documents_found(documents: Iterable[Any], passages: Passages) -> Found:
    """Passages of LangChain documents, each once; the first of a passage's chunks counts."""
    found: dict[str, float | None] = {}
    for document in documents:
        metadata = document.metadata
        passage = passages.of(document, document.page_content, (document.id, metadata.get("id")))
        score = metadata.get("relevance_score", metadata.get("retrieval_score"))
        found.setdefault(passage, _finite(score))
    return list(found.items())


def nodes_found(nodes: Iterable[Any], passages: Passages) -> Found:
    """Passages of LlamaIndex nodes, each once; the first of a passage's chunks counts."""
    found: dict[str, float | None] = {}
    for node in nodes:
        names = (node.node.node_id, node.node.ref_doc_id, node.node.metadata.get("id"))
        passage = passages.of(node, node.node.get_content(), names)
        found.setdefault(passage, _finite(node.score))
    return list(found.items())


def _given(found: Mapping[str, float] | Sequence[str], k: int) -> Found:
    if isinstance(found, Mapping):
        ids = list(found)
        return [(ids[at], float(found[ids[at]])) for at in descending(list(found.values()), k)]
    listed: Found = [(passage, None) for passage in dict.fromkeys(found)]
    return listed[:k]


def _finite(score: object) -> float | None:
    try:
        value = float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
