"""First stages as a collection uses them: never changed, each change makes the next."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol, runtime_checkable

from typing_extensions import Self

from rerank_plugins.collection.records import Record
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.first_stage.base import StoredStage


@runtime_checkable
class CollectedStage(StoredStage, Protocol):
    """A first stage that holds an immutable view of what it indexed."""

    @property
    def view(self) -> Any:
        """What it has indexed; see `rerank_plugins.first_stage.base.StageView`."""
        ...

    def at(self, view: Any) -> Self:
        """The same stage over another view."""
        ...


def with_added(stage: Any, records: Sequence[Record]) -> Any:
    """The stage with the records' texts under the next keys."""
    kind = type(stage).__name__
    texts = stage_texts(kind, records)
    if not texts:
        return stage
    if hasattr(stage, "at"):
        vectors = [record.vector for record in records]
        given = {"vectors": vectors} if kind == "Dense" and any(vectors) else {}
        return stage.at(stage.view.with_added(texts, **given))
    stage = copy(stage)
    stage.add(texts)
    return stage


def with_removed(stage: Any, keys: Sequence[int]) -> Any:
    """The stage without these keys."""
    if not keys:
        return stage
    if hasattr(stage, "at"):
        return stage.at(stage.view.with_removed(keys))
    stage = copy(stage)
    stage.remove(keys)
    return stage


def stage_texts(kind: str, records: Sequence[Record]) -> list[str]:
    """The texts that a stage of that kind has of the records.

    An embedding model may refuse empty text, so that a hidden record has a dot for it.
    """
    if kind != "Dense":
        return [record.text for record in records]
    return [record.text or ("." if record.hidden else "") for record in records]


def position_of(kind: type[Any], held: Any) -> int:
    """Where the stage of that class is in a collection or a view.

    Raises:
        InvalidInputError: If there is none.
    """
    stages = getattr(held, "view", held).stages
    for position, stage in enumerate(stages):
        if isinstance(stage, kind):
            return position
    raise InvalidInputError(
        f"the collection must have a {kind.__name__} stage, but has "
        f"{', '.join(type(stage).__name__ for stage in stages) or 'none'}"
    )
