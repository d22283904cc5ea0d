"""The torch engine for causal language models: the logits of one or two next tokens.

Only the last position's hidden state goes through the output layer, and only to the tokens that
answer. What the rows of a query have in common (system message, instruction, query) is computed
once, and its keys and values are reused for all its candidates: with causal attention they do
not depend on what follows. Encoders cannot do this.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_plugins._threads import fork_safe_lock
from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.scoring.batching import PADDED_TOKENS_ON_CPU, token_budget_batches
from rerank_plugins.scoring.encoding import Batch
from rerank_plugins.scoring.forward import forward_on

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Shorter ones save less than the bookkeeping costs.
_SHORTEST_PREFIX = 8
# Queries in flight at a time; each holds keys and values of its prefix.
_PREFIXES = 16
# How far a pass with a reused prefix may be from one without, on the trial's rows.
_NEAR = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2}


@dataclass(frozen=True, slots=True)
class Answers:
    """The tokens that answer.

    Attributes:
        true: Id of the token for relevant.
        false: Id of the token for not relevant; None where the logit of the first is the score.
    """

    true: int
    false: int | None

    @property
    def ids(self) -> list[int]:
        """One id, or two."""
        return [self.true] if self.false is None else [self.true, self.false]


class Prefixes:
    """Which token prefixes are shared by many rows: noted by the encoder, read by the engine."""

    def __init__(self, most: int = _PREFIXES) -> None:
        self._most = most
        self._common: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._lock = fork_safe_lock()

    def note(self, query: str, rows: Sequence[list[int]]) -> None:
        """Notes what all rows of this query so far, these included, begin with."""
        with self._lock:
            known = self._common.pop(query, None)
            # The last token of a row is never part of it: its hidden state is asked for.
            beginnings = [row[:-1] for row in rows]
            beginnings += [] if known is None else [list(known)]
            low, high = min(beginnings), max(beginnings)
            pairs = enumerate(zip(low, high, strict=False))
            count = next((at for at, (one, two) in pairs if one != two), min(len(low), len(high)))
            self._common[query] = tuple(low[:count])
            while len(self._common) > self._most:
                self._common.popitem(last=False)

    def of(self, row: Sequence[int]) -> tuple[int, ...]:
        """The longest noted prefix of a row; empty for none that is worth it."""
        with self._lock:
            known = [one for one in self._common.values() if len(one) >= _SHORTEST_PREFIX]
        fitting = [one for one in known if len(one) < len(row) and one == tuple(row[: len(one)])]
        return max(fitting, key=len, default=())


class CausalEngine:
    """Holds a causal language model and runs forward passes.

    Args:
        model: A transformers causal language model, on its device.
        answers: The tokens whose logits are the score: their difference, or the one's own.
        prefixes: What rows have in common.
        precision: Of the weights.
        reuse: Whether keys and values of shared prefixes are reused; off where the trial at
            load finds other logits.
    """

    name = "torch"
    # Rows are batched by what is left of them behind the prefix; no bound on padding from outside.
    packed = True

    def __init__(
        self,
        model: Any,
        answers: Answers,
        prefixes: Prefixes,
        *,
        precision: str,
        reuse: bool = True,
    ) -> None:
        self._model = model.eval()
        self._answers = answers
        self._prefixes = prefixes
        self._kept: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self.device = next(model.parameters()).device
        self.precision = precision
        self.computed_tokens = 0
        self._head = self._of_two_tokens()
        self.reuse = reuse and self._tried()

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self._model.parameters())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Shape (rows, 1): the log-odds of the two tokens, or the logit of the only one."""
        rows = [
            ids[mask.astype(bool)].tolist()
            for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
        return forward_on(self.device, batch.input_ids.shape, lambda: self._scores(rows))

    def _scores(self, rows: list[list[int]]) -> torch.Tensor:
        import torch

        groups: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(self._prefixes.of(row) if self.reuse else (), []).append(number)
        scores = torch.empty(len(rows), 1, dtype=torch.float32, device=self.device)
        for prefix, numbers in groups.items():
            rest = [rows[number][len(prefix) :] for number in numbers]
            for some in self._batches(rest):
                chosen = [rest[place] for place in some]
                places = torch.tensor([numbers[place] for place in some], device=self.device)
                scores[places] = self._pass(chosen, prefix).float()
        return scores

    def _batches(self, rows: list[list[int]]) -> list[list[int]]:
        lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
        most = PADDED_TOKENS_ON_CPU if self.device.type == "cpu" else int(lengths.sum())
        return [places.tolist() for places in token_budget_batches(lengths, most)]

    def _pass(self, rows: list[list[int]], prefix: tuple[int, ...]) -> torch.Tensor:
        """Scores of rows behind a prefix, padded on the right, shape (rows, 1)."""
        import torch

        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        width = int(lengths.max())
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        self.computed_tokens += ids.numel()
        real = torch.arange(width, device=self.device)[None, :] < lengths[:, None]
        before = torch.ones(len(rows), len(prefix), dtype=torch.bool, device=self.device)
        extra: dict[str, Any] = {"use_cache": False}
        if prefix:
            extra = {"past_key_values": self._cache(prefix, len(rows)), "use_cache": True}
        positions = torch.arange(len(prefix), len(prefix) + width, device=self.device)
        hidden = self._model.base_model(
            input_ids=ids.to(self.device),
            attention_mask=torch.cat([before, real], dim=1).long(),
            position_ids=positions.expand(len(rows), -1),
            **extra,
        ).last_hidden_state
        last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]
        logits: torch.Tensor = self._head(last)
        if self._answers.false is None:
            return logits
        return logits[:, :1] - logits[:, 1:]

    def _cache(self, prefix: tuple[int, ...], rows: int) -> Any:
        """Keys and values of a prefix, for so many rows, without copying them."""
        import torch
        from transformers import DynamicCache

        kept = self._kept.get(prefix)
        if kept is None:
            cache = DynamicCache()
            ids = torch.tensor([prefix], device=self.device)
            self.computed_tokens += len(prefix)
            self._model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
            kept = [(layer.keys, layer.values) for layer in cache.layers]
            self._kept[prefix] = kept
            while len(self._kept) > _PREFIXES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prefix)
        expanded = [
            (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
            for keys, values in kept
        ]
        return DynamicCache(expanded)

    def _of_two_tokens(self) -> Any:
        """From hidden states of shape (rows, hidden) to the answers' logits."""
        import torch

        output = self._model.get_output_embeddings()
        ids = torch.tensor(self._answers.ids, device=self.device)
        weight = output.weight[ids].detach().clone()
        bias = None if output.bias is None else output.bias[ids].detach().clone()
        cap = getattr(self._model.config, "final_logit_softcapping", None)

        def head(hidden: torch.Tensor) -> torch.Tensor:
            logits = torch.nn.functional.linear(hidden, weight, bias).float()
            return logits if cap is None else cap * torch.tanh(logits / cap)

        return head

    def _tried(self) -> bool:
        """Whether the short ways give what the model's own forward gives; else the long one."""
        import torch

        size = self._model.config.get_text_config().vocab_size
        rows = [np.linspace(1, size - 1, count).astype(int).tolist() for count in (24, 17, 12)]
        shared = rows[0][:8]
        rows = [shared + row for row in rows]
        ids = self._answers.ids
        with torch.inference_mode():
            whole = torch.stack(
                [
                    self._model(input_ids=torch.tensor([row], device=self.device)).logits[0, -1]
                    for row in rows
                ]
            ).float()
            expected = whole[:, ids[:1]] - (whole[:, ids[1:]] if len(ids) > 1 else 0)
            far = _distance(self._pass(rows, ()), expected)
            if far > _NEAR[self.precision]:
                raise UnsupportedModelError(
                    f"the next token's logits of {type(self._model).__name__} are not those of its "
                    f"output layer alone ({far:.2g} off): use engine='sentence-transformers'"
                )
            try:
                found = self._pass([row[8:] for row in rows], tuple(shared))
                far = _distance(found, expected)
            except Exception as error:  # noqa: BLE001 - caches of other kinds than keys and values
                logger.info("no prefix is reused: %s: %s", type(error).__name__, error)
                far = float("inf")
        self._kept.clear()
        self.computed_tokens = 0
        return far <= _NEAR[self.precision]


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative where logits are large."""
    return float(((found - expected).abs() / (expected.abs() / 10).clamp(min=1.0)).max())
