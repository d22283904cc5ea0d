"""Documents to candidates and back: the only place that reads or writes their metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from rerank_plugins._adapters import Detail, score_metadata
from rerank_plugins._validation import check_iterable
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.errors import InvalidInputError

MetadataFilter = Mapping[str, Any] | Callable[[Document], bool]


def check_documents(documents: Iterable[Document]) -> list[Document]:
    """The documents as a list.

    Raises:
        InvalidInputError: An element is no Document.
    """
    checked = list(check_iterable("documents", documents))
    for position, document in enumerate(checked):
        if not isinstance(document, Document):
            raise InvalidInputError(
                "documents must be LangChain Documents, but number "
                f"{position} is {type(document).__name__}"
            )
    return checked


def document_of(item: Document | str | Mapping[str, Any]) -> Document:
    """A Document from what other integrations' ``rerank`` takes.

    Raises:
        InvalidInputError: It is no Document, no text, and no dict with a text.
    """
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(page_content=item)
    text = item.get("text", item.get("page_content")) if isinstance(item, Mapping) else None
    if not isinstance(text, str):
        shown = f"keys {[*item]}" if isinstance(item, Mapping) else type(item).__name__
        raise InvalidInputError(
            "a document must be a Document, a text, or a dict with a 'text' or 'page_content' "
            f"that is text, but got {shown}"
        )
    return Document(page_content=text, metadata=dict(item.get("metadata") or {}))


def candidates_of(
    documents: Sequence[Document], metadata_fields: Sequence[str] = (), separator: str = "\n"
) -> list[Candidate]:
    """One candidate a document, its key the position.

    A ``retrieval_score`` in the metadata becomes the first-stage score. Documents that
    retrievers of different kinds stamped (an ensemble) hold scores on different scales, of
    which no common opinion can be made: those are left out, and the position is the rank.
    """
    one_scale = len({document.metadata.get("retrieval_method") for document in documents}) <= 1
    candidates = []
    for position, document in enumerate(documents):
        score = finite(document.metadata.get("retrieval_score")) if one_scale else None
        rank = _rank(document.metadata.get("retrieval_rank")) if one_scale else None
        candidates.append(
            Candidate(
                key=position,
                text=text_of(document, metadata_fields, separator),
                score=score,
                rank=position + 1 if rank is None else rank,
            )
        )
    return candidates


def documents_of(
    texts: Iterable[str],
    metadatas: Iterable[Mapping[str, Any]] | None,
    ids: Iterable[str | None] | None,
) -> list[Document]:
    """Documents from texts, with metadata and ids where there are any.

    Raises:
        InvalidInputError: There are more or fewer metadatas or ids than texts, or the texts
            are one string.
    """
    if isinstance(texts, str):
        raise InvalidInputError("texts must be many texts, but got one string: put it in a list")
    all_texts = list(texts)
    all_metadatas = [{} for _ in all_texts] if metadatas is None else list(metadatas)
    all_ids = [None for _ in all_texts] if ids is None else list(ids)
    if not len(all_texts) == len(all_metadatas) == len(all_ids):
        raise InvalidInputError(
            "there must be as many metadatas and ids as texts, but got "
            f"{len(all_texts)} texts, {len(all_metadatas)} metadatas and {len(all_ids)} ids"
        )
    return [
        Document(page_content=text, metadata=dict(metadata), id=id_)
        for text, metadata, id_ in zip(all_texts, all_metadatas, all_ids, strict=True)
    ]


def text_of(document: Document, metadata_fields: Sequence[str], separator: str) -> str:
    """The metadata fields that the document has, then its text."""
    if not metadata_fields:
        return document.page_content
    values = (document.metadata.get(name) for name in metadata_fields)
    fields = [str(value) for value in values if value is not None and value != ""]
    return separator.join([*fields, document.page_content])


def reranked(
    documents: Sequence[Document], ranking: Ranking, details: Sequence[Detail], prefix: str
) -> list[Document]:
    """Copies of the ranked documents, best first, with their scores in the metadata."""
    return [
        with_metadata(documents[item.candidate.key], score_metadata(item, ranking, details, prefix))
        for item in ranking
    ]


def retrieved(
    documents: Mapping[int, Document] | Sequence[Document],
    candidates: Iterable[Candidate],
    method: str,
) -> list[Document]:
    """Copies of the documents that a first stage found, with its scores in the metadata."""
    return [
        with_metadata(
            documents[candidate.key],
            {
                "retrieval_score": candidate.score,
                "retrieval_rank": candidate.rank,
                "retrieval_method": method,
            },
        )
        for candidate in candidates
    ]


def with_metadata(document: Document, added: Mapping[str, Any]) -> Document:
    """A copy whose metadata are a dict of its own; id, type and subclass stay."""
    return document.model_copy(update={"metadata": {**document.metadata, **added}})


def mask_of(
    documents: Iterable[tuple[int, Document]], size: int, keep: MetadataFilter | None
) -> NDArray[np.bool_] | None:
    """Shape (size,), True at the keys of the documents that the filter keeps; None for all.

    Args:
        documents: With their keys, every key below ``size``.
        size: Length of the mask.
        keep: Values that the metadata must equal (a missing key equals nothing), or a
            function of the document.

    Raises:
        InvalidInputError: The filter is neither.
    """
    if keep is None:
        return None
    mask = np.zeros(size, dtype=np.bool_)
    if callable(keep):
        for key, document in documents:
            mask[key] = bool(keep(document))
    elif isinstance(keep, Mapping):
        wanted = keep.items()
        for key, document in documents:
            mask[key] = all(
                name in document.metadata and document.metadata[name] == value
                for name, value in wanted
            )
    else:
        raise InvalidInputError(
            "filter must be a dict of metadata values or a function of a Document, but got "
            f"{type(keep).__name__}"
        )
    return mask


def finite(value: object) -> float | None:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None  # type: ignore[arg-type]


def _rank(value: object) -> int | None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if whole and int(value) >= 1 else None  # type: ignore[call-overload]
