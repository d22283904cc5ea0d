"""What each kind of scoring server wants to be sent, and what it answers.

The forms are those of the servers' own references: Hugging Face text-embeddings-inference
(``POST /rerank``), Cohere (``POST /v2/rerank``), Jina (``POST /v1/rerank``), vLLM
(``POST /v1/rerank``) and infinity (``POST /rerank``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.errors import RemoteResponseError

ProtocolName: TypeAlias = Literal["tei", "cohere", "jina", "vllm", "infinity"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)

# A probability this near to 0 or 1 counts as so near: half the spacing of doubles below 1.
_NEAREST = 2.0**-53


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one kind of server is spoken to.

    Attributes:
        path: Goes after the address, unless that ends in ``/rerank`` already.
        texts: The field of the request that holds the passages.
        score: The field of a result that holds the score.
        results: The field of the answer that holds the results; None when it is the results.
        max_texts: Passages per request, at most, by default.
        needs_model: Whether a request without a model is refused.
        counts: Whether ``top_n`` says how many results are wanted.
        raw_by_default: Whether logits are asked for unless the user says otherwise.
        raw: Fields that ask for logits, in place of probabilities; none where it cannot.
        always: Fields of every request.
        key_variable: The environment variable in which users of the service keep their key.
    """

    path: str
    texts: str = "documents"
    score: str = "relevance_score"
    results: str | None = "results"
    # Cohere bills a query with up to 100 documents as one.
    max_texts: int = 100
    needs_model: bool = False
    counts: bool = True
    raw_by_default: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    key_variable: str | None = None


KNOWN: dict[str, Protocol] = {
    "tei": Protocol(
        "/rerank",
        texts="texts",
        score="score",
        results=None,
        max_texts=32,  # the server's default of --max-client-batch-size
        counts=False,
        raw_by_default=True,
        raw={"raw_scores": True},
        always={"truncate": True, "return_text": False},
    ),
    "cohere": Protocol("/v2/rerank", needs_model=True, key_variable="CO_API_KEY"),
    "jina": Protocol(
        "/v1/rerank",
        needs_model=True,
        always={"return_documents": False},
        key_variable="JINA_API_KEY",
    ),
    # use_activation is not a default here: older servers ignore it.
    "vllm": Protocol(
        "/v1/rerank", raw={"use_activation": False}, always={"truncate_prompt_tokens": -1}
    ),
    "infinity": Protocol(
        "/rerank",
        raw_by_default=True,
        raw={"raw_scores": True},
        always={"return_documents": False},
    ),
}


@dataclass(frozen=True, slots=True)
class Shard:
    """What one request asks.

    Attributes:
        query: Of all its passages.
        passages: At least one.
        places: Where each passage's score belongs.
    """

    query: str
    passages: list[str]
    places: list[int]


def shards(pairs: Sequence[tuple[str, str]], *, max_texts: int, max_bytes: int) -> Iterator[Shard]:
    """The pairs in requests of one query each, within both limits.

    A passage that is over ``max_bytes`` with its query alone goes alone: the server says what
    it thinks of it.
    """
    by_query: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        by_query.setdefault(query, []).append(place)
    for query, places in by_query.items():
        # The other fields, the model's name among them, are well below 1000 bytes.
        empty = 1000 + _json_size(query)
        size, first = empty, 0
        for position, place in enumerate(places):
            added = _json_size(pairs[place][1]) + 2  # ", "
            full = position - first == max_texts or size + added > max_bytes
            if full and position > first:
                yield _shard(pairs, query, places[first:position])
                size, first = empty, position
            size += added
        yield _shard(pairs, query, places[first:])


def _shard(pairs: Sequence[tuple[str, str]], query: str, places: list[int]) -> Shard:
    return Shard(query, [pairs[place][1] for place in places], places)


def _json(value: Any) -> bytes:
    # Not \u escapes: they make Arabic three times as long.
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def _json_size(text: str) -> int:
    return len(_json(text))


def request_body(protocol: Protocol, shard: Shard, *, model: str | None, raw: bool) -> bytes:
    """The JSON of a request; the texts must be well-formed Unicode."""
    body: dict[str, Any] = {"query": shard.query, protocol.texts: shard.passages}
    if model is not None:
        body["model"] = model
    if protocol.counts:
        body["top_n"] = len(shard.passages)
    return _json({**body, **protocol.always, **(protocol.raw if raw else {})})


def read_scores(protocol: Protocol, body: bytes, count: int) -> list[float]:
    """The scores of an answer, each placed by its index, once all of it is sure.

    Raises:
        RemoteResponseError: If it is not UTF-8, not JSON or JSON of another form; there are more
            or fewer results than passages; an index is missing, repeated or out of range;
            or a score is not a finite number.
    """
    scores: list[float | None] = [None] * count
    results = _results(protocol, body)
    if len(results) != count:
        raise RemoteResponseError(
            f"the server must give one result per passage, but gave {len(results)} for {count}"
        )
    for result in results:
        if not isinstance(result, dict):
            raise RemoteResponseError(
                f"each result must be a JSON object, but one is a {type(result).__name__}"
            )
        index = result.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise RemoteResponseError(
                f"the index of a result must be a whole number from 0 to {count - 1}, "
                f"but one is {_shown(index)}"
            )
        if scores[index] is not None:
            raise RemoteResponseError(f"each index must occur once, but {index} occurs twice")
        scores[index] = _number(protocol.score, result.get(protocol.score), index)
    return [score for score in scores if score is not None]


def _results(protocol: Protocol, body: bytes) -> list[Any]:
    failed = ""
    try:
        answer = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        failed = "UTF-8"
    except (ValueError, RecursionError):
        failed = "JSON"
    if failed:  # not within `except`: those errors hold the whole answer
        raise RemoteResponseError(f"the answer must be {failed}, but is not")
    results = answer
    if protocol.results is not None:
        results = answer.get(protocol.results) if isinstance(answer, dict) else None
    if not isinstance(results, list):
        form = "a list" if protocol.results is None else f"an object with a list {protocol.results}"
        raise RemoteResponseError(
            f"the answer must be {form}, but is {_shown(answer)}; is this the right protocol?"
        )
    return results


def _number(name: str, value: Any, index: int) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise RemoteResponseError(
            f"{name} must be a finite number, but that of index {index} is {_shown(value)}"
        )
    return number


def _shown(value: Any) -> str:
    """What a value of the server's is, short enough for a message; its texts may repeat a key."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number beyond 64 bits"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return f"a text of {len(value)} characters" if isinstance(value, str) else repr(value)


def to_logits(scores: NDArray[np.float64], *, raw: bool) -> NDArray[np.float64]:
    """Logits of the scores: themselves when raw, else log(p / (1 - p)).

    Probabilities are first kept 2^-53 away from 0 and 1, so that a model that is quite sure
    gets a logit of 36.7 and not infinity.

    Raises:
        RemoteResponseError: If a score that should be a probability is not in [0, 1].
    """
    if raw:
        return scores
    outside = scores[(scores < 0.0) | (scores > 1.0)]
    if outside.size:
        raise RemoteResponseError(
            f"the server's scores must be probabilities, but one is {outside[0]:g}; "
            "if it gives logits, say raw_scores=True"
        )
    kept = np.clip(scores, _NEAREST, 1.0 - _NEAREST)
    return np.asarray(np.log(kept) - np.log1p(-kept), dtype=np.float64)
