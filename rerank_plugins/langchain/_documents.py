"""Documents to records and candidates, and back: the only place that reads or writes them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document

from rerank_plugins._adapters import Detail, score_metadata
from rerank_plugins._stamps import STAMPS, believed, finite, stamps
from rerank_plugins._validation import check_each, check_iterable
from rerank_plugins.candidates import Candidate, Ranking
from rerank_plugins.collection import Filter, Record, check_id, own, read
from rerank_plugins.errors import InvalidInputError

# What retrievers write of one query; the last two only `HybridRetriever`.
_OF_A_QUERY = (*STAMPS, "stage_scores", "stage_ranks")

MetadataFilter = Mapping[str, Any] | Callable[[Document], bool]


def read_filter(keep: MetadataFilter | None) -> Filter | None:
    """A filter of LangChain's kind as the collection's; see `rerank_plugins.collection.filters`."""
    return None if keep is None else read(keep)


def check_documents(documents: Iterable[Document]) -> list[Document]:
    """The documents as a list; an InvalidInputError if an element is something else."""
    return check_each("documents", documents, Document, "LangChain Documents")


def document_of(item: Document | str | Mapping[str, Any]) -> Document:
    """A Document from what other integrations' ``rerank`` takes.

    Raises:
        InvalidInputError: If it is not a Document, a text, or a dict with a text.
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


def documents_of(
    texts: Iterable[str],
    metadatas: Iterable[Mapping[str, Any]] | None,
    ids: Iterable[str | None] | None,
) -> list[Document]:
    """Documents from texts, with metadata and ids where there are any.

    Raises:
        InvalidInputError: If there are more or fewer metadatas or ids than texts, or the texts
            are one string.
    """
    all_texts = list(check_iterable("texts", texts))
    all_metadatas = [{} for _ in all_texts] if metadatas is None else _dicts(metadatas)
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


def _dicts(metadatas: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """One metadata per text; None for none."""
    given = [{} if one is None else one for one in check_iterable("metadatas", metadatas)]
    return list(check_each("metadatas", given, Mapping, "dicts"))  # type: ignore[type-abstract]


def records_of(
    documents: Iterable[Document], ids: Iterable[str | None] | None = None, *, named: bool = True
) -> list[Record]:
    """Records of the documents, which are copied.

    Args:
        documents: Any.
        ids: In place of the documents' own.
        named: Whether a document without an id gets a new one.

    Raises:
        InvalidInputError: If an element is not a Document, an id is not one, or there are more
            or fewer ids than documents.
    """
    given = check_documents(documents)
    names = [document.id for document in given] if ids is None else list(ids)
    if len(names) != len(given):
        raise InvalidInputError(
            f"there must be as many ids as documents, but got {len(names)} ids for "
            f"{len(given)} documents"
        )
    records = []
    for name, document in zip(names, given, strict=True):
        id_ = check_id(name) if name is not None else str(uuid.uuid4()) if named else None
        kept = copied(document).model_copy(update={"id": id_})
        records.append(Record(id_, kept.page_content, kept.metadata, kept))
    return records


def copied(document: Document, added: Mapping[str, Any] | None = None) -> Document:
    """A copy that shares nothing; id, type and subclass stay."""
    plain = type(document) is Document
    metadata = {**own(document.metadata), **(added or {})}
    return document.model_copy(update={"metadata": metadata}, deep=not plain)


def retrieved(
    found: Sequence[tuple[Document, float | None]], query: str, method: str, *, stamp: bool
) -> list[Document]:
    """Copies of what a first stage found, best first, as they were added or with its stamps."""
    if not stamp:
        return [copied(document) for document, _ in found]
    written = stamps([(document.id, score) for document, score in found], query, method)
    return [copied(document, one) for (document, _), one in zip(found, written, strict=True)]


def unstamped(document: Document) -> Document:
    """A copy without the stamps."""
    bare = copied(document)
    for name in STAMPS:
        bare.metadata.pop(name, None)
    return bare


def without_repeats(documents: Iterable[Document]) -> list[Document]:
    """The documents; of one that several queries found, the first alone.

    `MultiQueryRetriever` and agents gather the lists of several queries, where a document differs
    by its stamps. Nothing else is left out: two documents may have one text.

    Raises:
        InvalidInputError: If an element is not a Document.
    """
    given = check_documents(documents)
    if len({str(document.metadata.get(STAMPS[-1])) for document in given}) < 2:
        return given
    kept: list[Document] = []
    known: dict[tuple[str | None, str], list[Document]] = {}
    for document in given:
        alike = known.setdefault((document.id, document.page_content), [])
        if not any(_found_again(document, one) for one in alike):
            alike.append(document)
            kept.append(document)
    return kept


def _found_again(one: Document, other: Document) -> bool:
    """Whether two are the same but for stamps of two lists."""
    lists = [document.metadata.get(STAMPS[-1]) for document in (one, other)]
    if None in lists or lists[0] == lists[1]:
        return False
    bare = [
        {name: value for name, value in document.metadata.items() if name not in _OF_A_QUERY}
        for document in (one, other)
    ]
    try:
        return bool(bare[0] == bare[1])
    except ValueError:  # arrays
        return False


def candidates_of(
    documents: Sequence[Document],
    query: str,
    metadata_fields: Sequence[str] = (),
    separator: str = "\n",
) -> list[Candidate]:
    """One candidate per document, with what its stamps say; its key is the position."""
    known = believed([document.metadata for document in documents], query)
    return [
        Candidate(position, _text_of(document, metadata_fields, separator), score, rank)
        for position, (document, (score, rank)) in enumerate(zip(documents, known, strict=True))
    ]


def _text_of(document: Document, metadata_fields: Sequence[str], separator: str) -> str:
    """The metadata fields that the document has, then its text."""
    values = (document.metadata.get(name) for name in metadata_fields)
    fields = [str(value) for value in values if value is not None and value != ""]
    return separator.join([*fields, document.page_content])


def reranked(
    documents: Sequence[Document], ranking: Ranking, details: Sequence[Detail], prefix: str
) -> list[Document]:
    """Copies of the ranked documents, best first, with their scores in the metadata."""
    found = []
    for item in ranking:
        document = documents[item.candidate.key]
        stale = finite(document.metadata.get("retrieval_score"))
        native = {} if stale is None else {"retrieval_score": stale}
        scores = score_metadata(item, ranking, details, prefix, document.page_content)
        found.append(copied(document, native | scores))
    return found
