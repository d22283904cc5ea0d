r"""RemoteScorer against a scoring server that others wrote, compared with the local engine.

Skipped unless the environment says where such a server is. With infinity, in an environment of
its own (it needs an older transformers than this library)::

    python3 -m venv infinity && infinity/bin/pip install -U pip
    infinity/bin/pip install torch==2.13.0
    infinity/bin/pip install "infinity-emb[server,torch]==0.0.78" "transformers<4.49" "optimum<2"

    # In tests/: a tiny BERT cross-encoder. (What transformers 5 writes of XLM-RoBERTa's
    # tokenizer, transformers 4.48 cannot read.)
    python -c "from pathlib import Path; from checkpoints import TinyCheckpoints; \
        TinyCheckpoints(Path('/tmp/tiny'))['rstar']"

    HF_HUB_OFFLINE=1 infinity/bin/infinity_emb v2 --model-id /tmp/tiny/rstar --engine torch \
        --device cpu --dtype float32 --no-bettertransformer --no-model-warmup \
        --host 127.0.0.1 --port 7997 --api-key a-key-for-the-test

    RERANK_REAL_SERVER=http://127.0.0.1:7997 RERANK_REAL_SERVER_KEY=a-key-for-the-test \
        RERANK_REAL_CHECKPOINT=/tmp/tiny/rstar \
        python -m pytest tests/adapters/test_real_server.py

``RERANK_REAL_PROTOCOL`` names the protocol where it is not ``infinity``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_plugins import RemoteScorer, Reranker
from rerank_plugins.errors import RemoteStatusError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.samples import LANGUAGES, load_passages, load_questions
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.testing import ScorerConformance

URL = os.environ.get("RERANK_REAL_SERVER", "")
CHECKPOINT = os.environ.get("RERANK_REAL_CHECKPOINT", "")
PROTOCOL: Any = os.environ.get("RERANK_REAL_PROTOCOL", "infinity")
KEY = "RERANK_REAL_SERVER_KEY"

pytestmark = pytest.mark.skipif(
    not (URL and CHECKPOINT),
    reason="needs a scoring server: RERANK_REAL_SERVER and RERANK_REAL_CHECKPOINT name it",
)

# infinity's answer has the form that Cohere, Jina and vLLM share, so all of them can be tried.
WAYS = [
    pytest.param(PROTOCOL, "", {}, id="as its own protocol asks"),
    pytest.param(PROTOCOL, "", {"raw_scores": False}, id="probabilities"),
    *(
        pytest.param(protocol, "/rerank", {}, id=protocol)
        for protocol in ("cohere", "jina", "vllm")
        if PROTOCOL == "infinity"
    ),
]


def remote(protocol: Any = PROTOCOL, path: str = "", **options: Any) -> RemoteScorer:
    """A scorer that asks the server for the checkpoint."""
    options = {
        "model": Path(CHECKPOINT).name,
        "api_key_env": KEY if KEY in os.environ else None,
    } | (options)
    return RemoteScorer(URL + path, protocol=protocol, **{"timeout": 300.0, **options})


def sample_pairs(language: str) -> list[tuple[str, str]]:
    """Some questions of a language with every passage of it."""
    passages = [passage.text for passage in load_passages(language)]
    return [(question.text, text) for question in load_questions(language)[:2] for text in passages]


class TestConformance(ScorerConformance):
    """The contract of every scorer, on empty, long and malformed texts."""

    @pytest.fixture
    def scorer(self) -> RemoteScorer:
        """With small requests, so that most lists need several."""
        return remote(max_texts=3)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("protocol", "path", "options"), WAYS)
def test_its_scores_are_the_local_engines(
    protocol: Any, path: str, options: dict[str, Any], language: str
) -> None:
    """Logits within 1e-3, probabilities within 1e-4, on natural text."""
    pairs = sample_pairs(language)
    local = load_scorer(CHECKPOINT, device="cpu").score(pairs, ScoreOptions()).logits
    asked = remote(protocol, path, **options).score(pairs, ScoreOptions()).logits
    assert len(pairs) > 50
    np.testing.assert_allclose(asked, local, atol=1e-3)
    np.testing.assert_allclose(1 / (1 + np.exp(-asked)), 1 / (1 + np.exp(-local)), atol=1e-4)
    assert local.std() > 0.1


def test_its_rankings_are_the_local_ones() -> None:
    """The same order and, within 1e-4, the same scores, a question at a time and many at once."""
    here, there = Reranker(load_scorer(CHECKPOINT, device="cpu")), Reranker(remote())
    questions = [question.text for question in load_questions("ar")[:3]]
    passages = [passage.text for passage in load_passages("ar")]
    expected = here.rerank_many(questions, [passages] * len(questions))
    for found in (
        there.rerank_many(questions, [passages] * len(questions)),
        [there.rerank(question, passages) for question in questions],
        asyncio.run(_all(there, questions, passages)),
    ):
        for one, other in zip(found, expected, strict=True):
            assert one.texts == other.texts
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


async def _all(reranker: Reranker, questions: list[str], passages: list[str]) -> list[Any]:
    return await asyncio.gather(*(reranker.arerank(one, passages) for one in questions))


@pytest.mark.skipif(KEY not in os.environ, reason="the server wants no key")
def test_it_refuses_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error that tells what to look at, and not the key."""
    monkeypatch.setenv("WRONG_KEY", "wrong-5ecret")
    with pytest.raises(RemoteStatusError, match="check the API key") as caught:
        remote(api_key_env="WRONG_KEY").score([("q", "a")], ScoreOptions())
    assert "5ecret" not in str(caught.value)
