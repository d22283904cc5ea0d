"""What computes the text encoder's forward pass: torch or OpenVINO, and which of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Protocol

from rerank_plugins._cpus import limit_threads
from rerank_plugins._validation import check_choice
from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring import engines
from rerank_plugins.scoring.blocks import Blocks
from rerank_plugins.scoring.engines import Choice
from rerank_plugins.scoring.weights import read_tensors

EncoderEngine = Literal["auto", "torch", "openvino"]
_ENGINES: Final[tuple[str, ...]] = get_args(EncoderEngine)
EncoderPrecision = Literal["auto", "fp32", "bf16", "int8"]
_PRECISIONS: Final[tuple[str, ...]] = get_args(EncoderPrecision)


class Body(Protocol):
    """A BERT whose answer is the mean of its last layer."""

    dimension: int

    def __call__(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Of token rows, none empty: shape (rows, dimension)."""
        ...


def check_choices(engine: str, precision: str) -> None:
    """Refuses what no machine could run.

    Raises:
        InvalidInputError: If a name is unknown, or the two do not go together.
        MissingDependencyError: OpenVINO is asked for and not installed.
    """
    check_choice("engine", engine, _ENGINES)
    check_choice("precision", precision, _PRECISIONS)
    engines.check_engine(engine, precision, "cpu")
    if engine == "openvino" and precision == "int8":
        raise InvalidInputError(
            "a text encoder's int8 is torch's: use engine='torch', or precision='auto' with "
            "engine='openvino'"
        )


def chosen(engine: EncoderEngine, precision: EncoderPrecision, config: Mapping[str, Any]) -> Choice:
    """The engine and precision for these settings on this machine.

    Raises:
        InvalidInputError: bf16 is asked of OpenVINO on a processor without it.
        UnsupportedModelError: OpenVINO is asked for a model that it is not for.
    """
    from rerank_plugins.scoring.openvino_body import against_graph

    settled = precision
    if precision == "auto":
        settled = "bf16" if engines.native_bf16() else "fp32"
    against = against_graph(config)
    if engine == "openvino":
        if against is not None:
            raise UnsupportedModelError(
                f"OpenVINO cannot run this encoder ({against}): use engine='torch'"
            )
        if settled == "bf16":
            engines.check_native_bf16()
        return Choice(engine, settled, "asked for")
    if engine == "torch":
        return Choice(engine, settled, "asked for")
    if precision == "int8":
        return Choice("torch", settled, "the engine for a text encoder's int8")
    against = against or engines.against_openvino_here(precision)
    if against is not None:
        return Choice("torch", settled, against)
    return Choice("openvino", settled, "installed, and the faster one on this CPU")


def read_body(folder: Path, config: Mapping[str, Any], choice: Choice) -> Body:
    """The body of a folder's weights.

    Raises:
        UnsupportedModelError: If weights are missing or damaged, or do not fit together.
    """
    from safetensors import SafetensorError

    kind = OpenVINOBody if choice.engine == "openvino" else TorchBody
    try:
        return kind(folder, config, choice.precision)
    except (KeyError, OSError, ValueError, SafetensorError) as error:
        raise UnsupportedModelError(
            f"weights and config.json in {folder} do not fit together: {error}"
        ) from error


class TorchBody:
    """Rows one behind the other, with no padding; on the CPU."""

    def __init__(self, folder: Path, config: Mapping[str, Any], precision: str) -> None:
        import torch

        from rerank_plugins.scoring.linear import check_int8
        from rerank_plugins.scoring.packed import PackedBody

        limit_threads(torch, "get_num_threads", "set_num_threads")
        self.dimension = int(config["hidden_size"])
        if precision == "int8":
            check_int8()
        with torch.inference_mode():
            self._body = PackedBody(
                config,
                read_tensors(folder),
                dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
                device=torch.device("cpu"),
                int8=precision == "int8",
                prefix="",
            )

    def __call__(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Shape (rows, dimension)."""
        import torch

        from rerank_plugins.scoring.attention import attention_by_row
        from rerank_plugins.scoring.encoding import Batch

        mask, tokens = _laid_out(rows)
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = tokens
        with torch.inference_mode():
            batch = Batch(ids, mask.astype(np.int64), None)
            hidden, layout = self._body.hidden(batch, attention_by_row)
        starts = layout.starts[:-1].numpy()
        sums: NDArray[np.float32] = np.add.reduceat(hidden.float().numpy(), starts, axis=0)
        sums /= mask.sum(axis=1, keepdims=True)
        return sums


class OpenVINOBody:
    """Rows padded to the longest, compiled for this CPU; torch is not imported for blocks."""

    def __init__(self, folder: Path, config: Mapping[str, Any], precision: str) -> None:
        from rerank_plugins.scoring.openvino_body import mean_pooled
        from rerank_plugins.scoring.openvino_compiled import CompiledModel

        self.dimension = int(config["hidden_size"])
        self._words, _ = _arrays(folder)
        self._compiled = CompiledModel(
            # Read again in a forked child, so that no weight is held twice meanwhile.
            lambda: mean_pooled(config, _arrays(folder)[1]),
            bf16=precision == "bf16",
        )

    def __call__(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Shape (rows, dimension)."""
        mask, tokens = _laid_out(rows)
        words = np.zeros((*mask.shape, self.dimension), dtype=np.float32)
        words[mask] = self._words(tokens)
        return self._compiled.infer({"words": words, "mask": mask.astype(np.float32)})


def _laid_out(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Where rows have tokens, shape (rows, longest), and the tokens one behind the other."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    return mask, np.array([token for row in rows for token in row], dtype=np.int64)


Lookup = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Array = Callable[[str], NDArray[np.float32]]


def _arrays(folder: Path) -> tuple[Lookup, Array]:
    """What gives rows of the table of words, and what gives weights by name."""
    tensors, words = read_tensors(folder), "embeddings.word_embeddings.weight"
    if isinstance(tensors, Blocks):
        return tensors.rows(words), tensors.array
    table = tensors[words]
    return (
        lambda ids: np.asarray(table[ids].float().numpy()),
        lambda name: np.asarray(tensors[name].float().numpy()),
    )
