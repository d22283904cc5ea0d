"""Option names that people bring from other libraries, and the errors that lead to ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from inspect import Parameter, signature

from rerank_plugins.errors import InvalidInputError

# Other libraries' names (LangChain, LlamaIndex, sentence-transformers, FlagEmbedding, Cohere,
# rerankers, rank-bm25) -> what has the same meaning here; the first that the callee has is named.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "api_base": ("url",),
    "api_key": ("api_key_env",),
    "base_retriever": ("first_stage",),
    "base_url": ("url",),
    "compressor": ("compressor", "reranker"),
    "base_compressor": ("compressor", "reranker"),
    "batch_size": ("batch_tokens",),
    "bm25_params": ("k1", "b"),
    "bm25_variant": ("engine",),
    "cache_dir": ("cache_folder",),
    "dtype": ("precision",),
    "cohere_api_key": ("api_key_env",),
    "embed_model": ("embed", "embedding", "embeddings"),
    "embedding_function": ("embedding", "embeddings", "embed"),
    "fetch_k": ("candidates",),
    "initial_top_k": ("candidates",),
    "jina_api_key": ("api_key_env",),
    "k": ("top_n", "similarity_top_k"),
    "max_retries": ("retries",),
    "metadata_filters": ("filters", "filter"),
    "min_score": ("score_threshold",),
    "model": ("model", "model_name"),
    "model_id": ("model",),
    "model_name": ("model",),
    "model_name_or_path": ("model",),
    "name_or_path": ("model",),
    "node_postprocessor": ("postprocessor",),
    "normalize": ("scale",),
    "path": ("model",),
    "preprocess_func": ("analyzer",),
    "preprocessing_func": ("analyzer",),
    "rank_fields": ("metadata_fields", "metadata_mode"),
    "reranker_model": ("model",),
    "retriever": ("first_stage",),
    "search_kwargs": ("filter",),
    "similarity_cutoff": ("score_threshold",),
    "similarity_top_k": ("top_n", "k"),
    "stemmer": ("language", "analyzer"),
    "skip_stemming": ("analyzer",),
    "stopwords": ("analyzer",),
    "token_pattern": ("analyzer",),
    "tokenizer": ("analyzer",),
    "top_k": ("top_n", "k", "similarity_top_k"),
    "top_n": ("k", "similarity_top_k"),
    "token": ("api_key_env",),
    "torch_dtype": ("precision",),
    "use_bf16": ("precision",),
    "use_fp16": ("precision",),
    "vectorizer": ("analyzer",),
    "weights": ("weights", "first_stage_weight"),
}


def nearest(name: str, known: Collection[str]) -> list[str]:
    """What a name most likely stands for: the same thing's name here, then similar spellings."""
    elsewhere = [ours for ours in _ELSEWHERE.get(name, ()) if ours in known]
    return elsewhere[:1] or get_close_matches(name, known, n=2, cutoff=0.7)


def check_options(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Checks the names of keyword options.

    Args:
        owner: What was called, for the message.
        given: Names that came in.
        known: Names that ``owner`` takes.

    Raises:
        InvalidInputError: If one is unknown. The message starts with the likeliest name and then
            lists all, ``model`` first where there is one.
    """
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    found = {name: nearest(name, known) for name in unknown}
    hints = [
        f"{name!r} (did you mean {' or '.join(map(repr, near))}?)" if near else repr(name)
        for name, near in found.items()
    ]
    near_first = dict.fromkeys(name for near in found.values() for name in near)
    rest = sorted(set(known) - set(near_first), key=lambda name: (name != "model", name))
    raise InvalidInputError(
        f"{owner} has no option {', '.join(hints)}. Its options: {', '.join([*near_first, *rest])}"
    )


def own_options(owner: Callable[..., object]) -> list[str]:
    """Names of the parameters that a class or function declares, ``**options`` left out."""
    # Not the signature of the class: pydantic makes that one from the fields.
    called = owner.__init__ if isinstance(owner, type) else owner  # type: ignore[misc]
    collecting = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    parameters = signature(called).parameters.values()
    return [one.name for one in parameters if one.kind not in collecting and one.name != "self"]
