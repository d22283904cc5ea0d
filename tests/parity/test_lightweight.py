"""bge-reranker-v2.5-gemma2-lightweight: cut layers and compressed tokens, by its card.

The reference is plain: one row at a time, layer by layer, the passage's tokens averaged in a
loop. FlagEmbedding 1.4.2's own ``CostWiseGemmaForCausalLM`` under transformers 4.46.3, which the
tests' version cannot be, gave the same on the same checkpoint to 4e-6 (2026-11-25).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from texts import ALL_PASSAGES, PAIRS, QUESTIONS
from transformers import AutoTokenizer, Gemma2Config, Gemma2Model

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.lightweight import Lightweight

SHORT = PAIRS[::4]
LONG = [(query, " ".join(ALL_PASSAGES)) for query in QUESTIONS.values()]
WAYS = [
    Lightweight(),
    Lightweight(cutoff_layer=3),
    Lightweight(compress_ratio=2, compress_layers=[1]),
    Lightweight(cutoff_layer=5, compress_ratio=4, compress_layers=[2]),
    Lightweight(cutoff_layer=4, compress_ratio=2, compress_layers=[1, 3, 5]),
    Lightweight(cutoff_layer=2, compress_ratio=8, compress_layers=[2]),
]


def by_the_card(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    way: Lightweight,
    *,
    prompt: str = "Predict whether passage B contains an answer to query A.",
    max_length: int = 1024,
) -> np.ndarray:
    """``get_inputs`` of the card, then the layers one by one."""
    raw = json.loads((folder / "config.json").read_text())
    config = Gemma2Config.from_dict({k: v for k, v in raw.items() if k != "model_type"})
    config._attn_implementation = "eager"
    config.attn_logit_softcapping = None  # as under torch's fused attention
    weights = load_file(folder / "model.safetensors")
    body = Gemma2Model(config).eval()
    body.load_state_dict({k[6:]: w for k, w in weights.items() if k.startswith("model.")})
    cut = config.num_hidden_layers if way.cutoff_layer is None else way.cutoff_layer
    head = weights["lm_head.0.linear_head.weight"]  # for one cutoff layer, whatever it is
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config)

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    sep, told = ids_of("\n"), ids_of(prompt)
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    scores = []
    for query, passage in pairs:
        asked = [*first, *ids_of(f"A: {query}")[: max_length * 3 // 4]]
        text = [*sep, *ids_of(f"B: {passage}")[:max_length]][: max_length - len(asked)]
        row = [*asked, *text, *sep, *told]
        before, behind = len(asked) + len(sep), len(sep) + len(told)
        with torch.inference_mode():
            hidden = body.embed_tokens(torch.tensor([row]))
            if not hasattr(body.embed_tokens, "embed_scale"):  # older: in the model's forward
                hidden = hidden * config.hidden_size**0.5
            for number, layer in enumerate(body.layers[:cut]):
                if way.compress_ratio > 1 and number in way.compress_layers:
                    inner = hidden[0, before : hidden.shape[1] - behind]
                    means = [part.mean(0) for part in inner.split(way.compress_ratio)]
                    hidden = torch.cat(
                        [hidden[0, :before], torch.stack(means), hidden[0, -behind:]]
                    )[None]
                hidden = run(body, layer, hidden)
            logit = torch.nn.functional.linear(body.norm(hidden)[0, -1], head)
        scores.append(float(30 * torch.tanh(logit / 30)))
    return np.asarray(scores)


def run(body: Any, layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """One layer with causal attention."""
    count = hidden.shape[1]
    places = torch.arange(count)[None]
    mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
    return layer(
        hidden,
        position_embeddings=body.rotary_emb(hidden, places),
        attention_mask=mask,
        position_ids=places,
    )


def logits(folder: Path, pairs: Sequence[tuple[str, str]], **options: Any) -> np.ndarray:
    """Ours, in fp32."""
    scorer = load_scorer(folder, precision="fp32", device="cpu", **options)
    return scorer.score(pairs, ScoreOptions()).logits


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_cut_layers_and_compressed_tokens_score_as_the_card_says(
    tiny_cross_encoders: Mapping[str, Path], way: Lightweight
) -> None:
    """Short pairs in batches of mixed lengths, and pairs cut to the length."""
    folder = tiny_cross_encoders["lightweight"]
    expected = by_the_card(folder, SHORT, way)
    np.testing.assert_allclose(logits(folder, SHORT, form=way), expected, atol=1e-4)
    assert np.std(expected) > 0.05
    room = 300
    prompt = "Predict whether passage B contains an answer to query A."
    tokenizer = AutoTokenizer.from_pretrained(folder, config=Gemma2Config())
    behind = len(tokenizer("\n")["input_ids"]) + len(tokenizer(prompt)["input_ids"])
    cut = logits(folder, LONG, form=way, max_length=room + behind)
    np.testing.assert_allclose(cut, by_the_card(folder, LONG, way, max_length=room), atol=1e-4)


def test_the_whole_model_is_the_default(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """By its model type, with no form named; what is left out is told."""
    folder = tiny_cross_encoders["lightweight"]
    found = logits(folder, SHORT)
    np.testing.assert_allclose(found, by_the_card(folder, SHORT, Lightweight()), atol=1e-4)
    told = load_scorer(folder, form=WAYS[4], device="cpu").describe()
    assert told["form"] == "bge-gemma2-lightweight"
    assert (told["cutoff_layer"], told["compress_ratio"]) == (4, 2)
    assert told["compress_layers"] == (1, 3, 5)
    assert told["parameters"] < load_scorer(folder, device="cpu").describe()["parameters"]


def test_the_checkpoint_s_code_never_runs(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """Trusted or not: its layers are Gemma 2's, which transformers has."""
    folder = tiny_cross_encoders["lightweight"]
    assert (folder / "gemma_config.py").is_file()
    found = logits(folder, SHORT[:2], trust_remote_code=True)
    np.testing.assert_allclose(found, logits(folder, SHORT[:2]), atol=1e-6)


def test_another_prompt_takes_the_place_of_the_card_s(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """The card names four, for answers, same meanings, same questions and contradictions."""
    folder, told = (
        tiny_cross_encoders["lightweight"],
        "Predict whether queries A and B are asking the same thing.",
    )
    found = logits(folder, SHORT, instruction=told)
    expected = by_the_card(folder, SHORT, Lightweight(), prompt=told)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_cannot_be_cut_is_named(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """A layer without a head, a ratio that nobody trained, another kind of model."""
    folder = tiny_cross_encoders["lightweight"]
    with pytest.raises(InvalidInputError, match=r"cutoff_layer must be one of 2 to 6 .* got 1"):
        load_scorer(folder, form=Lightweight(cutoff_layer=1)).describe()
    with pytest.raises(InvalidInputError, match=r"compress_ratio must be one of .* got 3"):
        Lightweight(compress_ratio=3)
    with pytest.raises(InvalidInputError, match="compress_layers must be a list"):
        Lightweight(compress_layers="8")
    with pytest.raises(InvalidInputError, match="each of compress_layers must be"):
        Lightweight(compress_layers=[0])
    with pytest.raises(UnsupportedModelError, match="goes with model_type='cost_wise_gemma'"):
        load_scorer(tiny_cross_encoders["bare_gemma"], form=Lightweight()).describe()
    with pytest.raises(UnsupportedModelError, match="goes with model_type='cost_wise_gemma'"):
        load_scorer(folder, form="bge-reranker-gemma").describe()
    other = Path(shutil.copytree(folder, tmp_path / "x"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_wise": False}))
    with pytest.raises(UnsupportedModelError, match="layer_wise=true"):
        load_scorer(other).describe()


def test_it_ranks_under_windows_and_a_deadline(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """Everything that the core gives."""
    reranker = load_reranker(
        tiny_cross_encoders["lightweight"],
        precision="fp32",
        form=WAYS[3],
        long_passages="max",
        max_length=160,
    )
    long = " ".join(ALL_PASSAGES)
    plain = reranker.rerank(QUESTIONS["en"], [*ALL_PASSAGES, long])
    timed = reranker.rerank(QUESTIONS["en"], [*ALL_PASSAGES, long], deadline_ms=60_000)
    assert timed.keys == plain.keys
    start, end = next(item.span for item in plain if item.text == long)
    assert 0 < end - start < len(long) / 2
