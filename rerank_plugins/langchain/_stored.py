"""What the stores and retrievers of this package share: names of documents, and files of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.documents import Document

from rerank_plugins.errors import IndexDamagedError, IndexMismatchError, InvalidInputError
from rerank_plugins.first_stage import storage
from rerank_plugins.langchain._documents import MetadataFilter, check_documents


def named(
    documents: Iterable[Document], ids: Iterable[str | None] | None
) -> tuple[list[str], dict[str, Document]]:
    """The documents' ids in order, new ones where there are none; and the last copy under each.

    Raises:
        InvalidInputError: An element is no Document, or there are more or fewer ids.
    """
    given = check_documents(documents)
    names = [document.id for document in given] if ids is None else list(ids)
    if len(names) != len(given):
        raise InvalidInputError(
            f"there must be as many ids as documents, but got {len(names)} ids for "
            f"{len(given)} documents"
        )
    final = [str(uuid.uuid4()) if name is None else str(name) for name in names]
    newest = dict(zip(final, given, strict=True))
    return final, {
        name: document.model_copy(update={"id": name, "metadata": {**document.metadata}})
        for name, document in newest.items()
    }


def write_documents(out: storage.Writer, documents: Iterable[Document]) -> None:
    """One JSON line a document: text, metadata and id.

    Raises:
        InvalidInputError: A document is of a class of its own, or its metadata are no JSON.
    """
    out.lines("documents.jsonl", map(_line, documents))


def _line(document: Document) -> dict[str, Any]:
    if type(document) is not Document:
        raise InvalidInputError(
            f"Documents alone can be stored, but one is {type(document).__name__}"
        )
    return {
        "id": document.id,
        "page_content": document.page_content,
        "metadata": document.metadata,
    }


def read_documents(part: storage.Reader) -> list[Document]:
    """The documents of `write_documents`, in their order."""
    return [Document(**line) for line in part.lines("documents.jsonl")]


def by_key(documents: list[Document], keys: list[int]) -> dict[int, Document]:
    """The documents at their keys.

    Raises:
        IndexDamagedError: There are more or fewer.
    """
    if len(documents) != len(keys):
        raise IndexDamagedError(
            f"there must be {len(keys)} documents, but there are {len(documents)}"
        )
    return dict(zip(keys, documents, strict=True))


def stored_filter(keep: MetadataFilter | None) -> dict[str, Any]:
    """What is stored of a filter: the wanted values, or that it is a function."""
    if isinstance(keep, Mapping):
        return {"values": dict(keep)}
    return {"function": keep is not None}


def restored_filter(told: Mapping[str, Any], given: MetadataFilter | None) -> MetadataFilter | None:
    """The filter that is given, or the stored one.

    Raises:
        IndexMismatchError: It was a function, and none is given: without it, documents would
            come back that were to be kept back.
    """
    if given is not None:
        return given
    if told.get("function"):
        raise IndexMismatchError(
            "the retriever had a function as its filter, which is not stored: "
            "give it again as filter="
        )
    values: Mapping[str, Any] | None = told.get("values")
    return values
