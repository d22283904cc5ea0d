"""From a checkpoint of a causal language model to its engine and what makes its rows."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.causal_engine import Answers, CausalEngine, Prefixes
from rerank_plugins.scoring.causal_forms import FORMS, EncoderMaker
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.lightweight_engine import LightweightEngine
from rerank_plugins.scoring.sentence_transformers_engine import (
    SentenceTransformersEngine,
    encoders_of,
    load_cross_encoder,
)
from rerank_plugins.scoring.torch_engine import (
    Precision,
    check_complete,
    loading,
    torch_device,
    torch_dtype,
    torch_precision,
)

Loaded = tuple[
    Checkpoint, CausalEngine | SentenceTransformersEngine | LightweightEngine, EncoderMaker
]

logger = logging.getLogger(__name__)


def load_causal(
    checkpoint: Checkpoint,
    *,
    device: str,
    precision: Precision,
    trust_remote_code: bool,
    allow_pickle_weights: bool,
) -> Loaded:
    """The checkpoint as loaded, its engine, and what makes encoders for it.

    A checkpoint with a form is read by transformers; one that sentence-transformers saved, or
    that says nothing, is read and rendered by its ``CrossEncoder``.

    Raises:
        UnsupportedModelError: If it cannot be loaded, or its logits are not those of its output
            layer.
    """
    where = torch_device(device)
    settled = torch_precision(precision, where)
    options = {
        "trust_remote_code": trust_remote_code,
        "allow_pickle_weights": allow_pickle_weights,
    }
    prefixes = Prefixes()
    if checkpoint.form is None:
        return _saved(checkpoint, prefixes, device=device, precision=precision, **options)
    form = FORMS[checkpoint.form]
    engine: CausalEngine | LightweightEngine
    if checkpoint.lightweight is not None:
        from rerank_plugins.scoring.lightweight_model import read_cut

        tokenizer, cut = read_cut(
            checkpoint,
            checkpoint.lightweight,
            torch_dtype(settled),
            allow_pickle_weights=allow_pickle_weights,
        )
        engine = LightweightEngine(cut.to(where), checkpoint.lightweight, precision=settled)
    else:
        tokenizer, model = _read(checkpoint, torch_dtype(settled), **options)
        engine = CausalEngine(model.to(where), form.answers(tokenizer), prefixes, precision=settled)
    window = checkpoint.window_tokens

    def encoder(max_length: int | None, instruction: str | None) -> Any:
        return form(
            tokenizer,
            prefixes=prefixes,
            instruction=instruction,
            max_length=max_length,
            window_tokens=window,
        )

    limit = encoder(None, None).max_length
    found = replace(checkpoint, max_length=min(checkpoint.max_length, limit))
    return found, engine, encoder


def _saved(
    checkpoint: Checkpoint,
    prefixes: Prefixes,
    *,
    device: str,
    precision: Precision,
    **options: bool,
) -> Loaded:
    """What sentence-transformers would score: its ``LogitScore`` says which tokens answer."""
    model, found, slow = load_cross_encoder(
        checkpoint,
        device=device,
        precision=precision,
        trust_remote_code=options["trust_remote_code"],
        allow_pickle_weights=options["allow_pickle_weights"],
    )
    score = model[-1]
    try:
        engine = CausalEngine(
            model.transformers_model,
            Answers(score.true_token_id, score.false_token_id),
            prefixes,
            precision=slow.precision,
        )
    except UnsupportedModelError as error:
        logger.info("%s; its own forward pass is used", error)
        return found, slow, encoders_of(model, found)
    return found, engine, encoders_of(model, found, prefixes)


def _read(
    checkpoint: Checkpoint, dtype: Any, *, trust_remote_code: bool, allow_pickle_weights: bool
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    with loading(checkpoint.folder, "a causal language model"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **own)
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            use_safetensors=None if allow_pickle_weights else True,
            output_loading_info=True,
            **own,
        )
    check_complete(checkpoint.folder, report["missing_keys"])
    return tokenizer, model
