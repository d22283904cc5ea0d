"""The cross-encoder as it is trained: encoded exactly as `rerank_plugins.scoring` encodes."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import LongPassages
from rerank_plugins.scoring.batching import token_budget_batches
from rerank_plugins.scoring.blocks import has_blocks, read_blocks
from rerank_plugins.scoring.checkpoint import Checkpoint, checked_max_length, read_checkpoint
from rerank_plugins.scoring.encoding import EncodedPairs, PairEncoder
from rerank_plugins.scoring.hub import fetch
from rerank_plugins.scoring.local import LocalScorer

logger = logging.getLogger(__name__)

# Longer inputs cost more than they teach; models that take 8192 tokens are still trained here
# at the length that passages of the usual size need, unless the user asks for more.
DEFAULT_MAX_LENGTH = 512

# Padded tokens in one forward pass on a CPU: pairs of a batch are run in order of length, so
# that short ones are not padded to the longest. A GPU prefers one large pass.
_CPU_TOKENS = 4096
_WHOLE_BATCH = 1 << 62


class TrainedCrossEncoder(CrossEncoder):  # type: ignore[misc]
    """A `CrossEncoder` with this library's encoding.

    sentence-transformers truncates ``longest_first``, so that a long query loses its end
    without a word. Here the query is capped first, then only the passage is cut; and when the
    model is evaluated, a long passage is treated as the checkpoint's own block in
    ``config.json`` says, just as the `Reranker` will treat it.

    Attributes:
        folder: Where it was loaded from.
        headless: Whether its scoring head is new.
        encoder: Turns pairs into token rows.
        window_tokens: Passage tokens per window in evaluation; None for as many as fit.
        long_passages: How a passage that does not fit is scored in evaluation.
        bf16: Whether forward passes run under bf16 autocast, evaluation included.
    """

    folder: Path
    headless: bool
    encoder: PairEncoder
    window_tokens: int | None
    long_passages: LongPassages
    bf16: bool = False
    _checkpoint: Checkpoint
    _length: int

    @property
    def first_stage_weight(self) -> float:
        """The default blend that the checkpoint states for its users; 0 for none."""
        return self._checkpoint.first_stage_weight

    def set_up(self, checkpoint: Checkpoint, max_length: int, *, headless: bool) -> None:
        """Takes over what the checkpoint says of its tokenizer and of long passages."""
        self.folder, self.headless = checkpoint.folder, headless
        self._checkpoint, self._length = checkpoint, max_length
        self._encode_with(checkpoint.window_tokens, checkpoint.long_passages)

    def use_windows(self, window_tokens: int) -> None:
        """Scores passages by their best window, unless the checkpoint states other windows.

        The ``config.json`` that is saved will say so.
        """
        if self._checkpoint.window_tokens is None:
            block = dict(getattr(self.config, "rerank_plugins", None) or {})
            block |= {"window_tokens": window_tokens, "long_passages": "max"}
            self.config.rerank_plugins = block
            self._encode_with(window_tokens, "max")

    def _encode_with(self, window_tokens: int | None, long_passages: LongPassages) -> None:
        self.window_tokens, self.long_passages = window_tokens, long_passages
        self.encoder = PairEncoder(
            self._checkpoint.pair_tokenizer,
            max_length=self._length,
            window_tokens=window_tokens,
            pad_id=self._checkpoint.pad_id,
            with_types=self._checkpoint.with_types,
        )

    def preprocess(self, inputs: Sequence[Any], *_: Any, **__: Any) -> dict[str, Any]:
        """Token rows of (query, passage) pairs, unpadded."""
        pairs = [(str(query), str(passage)) for query, passage in inputs]
        how: LongPassages = "truncate" if self.training else self.long_passages
        return {"encoded": self.encoder.encode(pairs, how), "pairs": len(pairs)}

    def forward(self, features: Mapping[str, Any], **_: Any) -> dict[str, torch.Tensor]:
        """Logits under ``scores``, shape (pairs, labels), in the order of the pairs."""
        encoded: EncodedPairs = features["encoded"]
        device = self.device
        budget = _CPU_TOKENS if device.type == "cpu" else _WHOLE_BATCH
        order: list[torch.Tensor] = []
        logits: list[torch.Tensor] = []
        for rows in token_budget_batches(encoded.lengths, budget):
            batch = self.encoder.pad(encoded, rows)
            tensors = {
                "input_ids": torch.from_numpy(batch.input_ids).to(device),
                "attention_mask": torch.from_numpy(batch.attention_mask).to(device),
            }
            if batch.token_type_ids is not None:
                tensors["token_type_ids"] = torch.from_numpy(batch.token_type_ids).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                logits.append(self.model(**tensors).logits.float())
            order.append(torch.from_numpy(rows))
        rows_scored = torch.cat(logits)[torch.argsort(torch.cat(order)).to(device)]
        return {"scores": self._per_pair(rows_scored, encoded, features["pairs"])}

    def _per_pair(self, scores: torch.Tensor, encoded: EncodedPairs, pairs: int) -> torch.Tensor:
        if len(scores) == pairs:
            return scores
        owners = torch.from_numpy(encoded.owners).to(scores.device)
        owners = owners.unsqueeze(1).expand_as(scores)
        reduce = "mean" if self.long_passages == "mean" else "amax"
        empty = scores.new_zeros(pairs, scores.shape[1])
        return empty.scatter_reduce(0, owners, scores, reduce, include_self=False)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """The folder as other libraries read it: weights in blocks become a model.safetensors."""
    if not has_blocks(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="rerank-plugins-") as made:
        for file in folder.glob("*.json"):
            shutil.copy(file, made)
        save_file(read_blocks(folder), Path(made) / "model.safetensors", {"format": "pt"})
        yield Path(made)


def _loaded_as(device: str | None) -> dict[str, Any]:
    """float32, and on a CPU attention as plain products.

    The backward pass of torch's fused attention takes five times as long there: a step of 48
    pairs of 128 tokens, 12x384 under bf16 autocast on two Zen 5 cores, 2.5 s against 1.8 s.
    """
    if device == "cpu" or (device is None and not torch.cuda.is_available()):
        return {"dtype": torch.float32, "attn_implementation": "eager"}
    return {"dtype": torch.float32}


def load_for_training(
    base: str | Path, *, device: str | None = None, max_length: int | None = None
) -> TrainedCrossEncoder:
    """The base checkpoint in float32, ready to train.

    An encoder without a scoring head gets a new one with a single label.

    Args:
        base: What `load_reranker` takes: ``bundled``, a folder, a name on the Hub.
        device: A torch device; None for a GPU where there is one.
        max_length: Tokens of query and passage together; None for the model's maximum, 512 at
            most.

    Raises:
        UnknownModelError: If no model has that name.
        UnsupportedModelError: If the checkpoint cannot be read, or has no fast tokenizer.
        InvalidInputError: ``max_length`` is more than the model can take.
    """
    scorer = load_scorer(base)
    if not isinstance(scorer, LocalScorer):
        raise UnsupportedModelError(
            f"{base} is a text encoder, not a cross-encoder: train from 'bundled' instead"
        )
    source = scorer.settings.source
    folder = Path(source) if Path(source).is_dir() else fetch(source)
    checkpoint = read_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    headless = not any(
        "SequenceClassification" in name for name in config.get("architectures") or ()
    )
    if headless:
        logger.warning("%s has no scoring head: it starts with a random one", base)
    if max_length is None:
        max_length = min(checkpoint.max_length, DEFAULT_MAX_LENGTH)
    length = checked_max_length(checkpoint, max_length)
    try:
        with _plain(folder) as readable:
            model = TrainedCrossEncoder(
                str(readable),
                device=device,
                num_labels=1 if headless else None,
                local_files_only=True,
                model_kwargs=_loaded_as(device),
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModelError(f"the base {base} could not be loaded: {error}") from error
    model.set_up(checkpoint, length, headless=headless)
    return model
