"""What the user named as reranker, as a Reranker."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_plugins.catalog import EMBEDDED
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.loading import load_reranker
from rerank_plugins.reranker import Reranker, RerankerOptions

# Those of load_reranker and of Reranker; the adapter has top_n and score_threshold itself.
_OPTIONS = (
    inspect.signature(load_reranker).parameters.keys() | RerankerOptions.__annotations__.keys()
) - {"name_or_path", "options", "top_n", "score_threshold"}


def as_reranker(
    reranker: Reranker | str | Path | None, model: str | Path, options: Mapping[str, Any]
) -> Reranker:
    """The reranker given, or one loaded by name.

    Args:
        reranker: Ready, or a name that `load_reranker` takes, or None for ``model``.
        model: A name that `load_reranker` takes.
        options: For `load_reranker`.

    Raises:
        InvalidInputError: ``reranker`` is something else, an option is unknown, or a ready
            reranker comes together with what only applies to loading one.
        UnknownModelError: There is no model of that name.
    """
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise InvalidInputError(f"options must be among {sorted(_OPTIONS)}, but got {unknown}")
    loading = [*options, *(["model"] if model != EMBEDDED else [])]
    if isinstance(reranker, Reranker):
        if loading:
            raise InvalidInputError(
                f"{', '.join(loading)} cannot be given beside a ready Reranker: "
                "give them to the Reranker, or to load_reranker"
            )
        return reranker
    if reranker is None:
        return load_reranker(model, **options)
    if not isinstance(reranker, (str, Path)):
        raise InvalidInputError(
            f"reranker must be a Reranker or the name of a model, but got {type(reranker).__name__}"
        )
    if "model" in loading:
        raise InvalidInputError(
            f"reranker and model name two models, {str(reranker)!r} and {str(model)!r}: give one"
        )
    return load_reranker(reranker, **options)
