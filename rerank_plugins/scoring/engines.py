"""Which engine runs a model, in which precision, and why."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from rerank_plugins._validation import check_choice
from rerank_plugins.errors import (
    InvalidInputError,
    MissingDependencyError,
    UnsupportedModelError,
)
from rerank_plugins.scoring import converted
from rerank_plugins.scoring.checkpoint import Checkpoint

EngineName = Literal["auto", "torch", "openvino", "sentence-transformers"]
ENGINES: tuple[str, ...] = get_args(EngineName)
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

# What each engine can run, `auto` aside.
_ABLE = {
    "torch": ("fp32", "bf16", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "sentence-transformers": ("fp32", "bf16", "fp16"),
}
# What torch's engine was proved on, by the parity tests: it takes these for itself. Others go
# through sentence-transformers, or through torch for whoever asks.
PROVED_ON_TORCH = {
    "albert",
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "gemma2",
    "modernbert",
    "mpnet",
    "qwen3",
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
}
# Where OpenVINO was measured to be the faster one (benchmarks/engines.py): these
# architectures, on x86 processors.
_MEASURED_ARCHITECTURES = {"bert", "camembert", "roberta", "xlm-roberta"}
_MEASURED_MACHINES = {"x86_64", "AMD64"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that runs a model.

    Attributes:
        engine: ``torch``, ``openvino`` or ``sentence-transformers``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``; but for OpenVINO also ``auto``,
            which the device settles.
        reason: Why this one, in a few words.
    """

    engine: str
    precision: Precision
    reason: str


def check_engine(engine: str, precision: str, device: str) -> None:
    """Answers settings that no machine could run, before anything is loaded.

    Raises:
        InvalidInputError: If a name is unknown, or the three do not go together.
        MissingDependencyError: OpenVINO is asked for and not installed.
    """
    check_choice("engine", engine, ENGINES)
    check_choice("precision", precision, PRECISIONS)
    if not isinstance(device, str):
        raise InvalidInputError(f"device must be a name, but got {type(device).__name__}")
    if engine in _ABLE and precision not in ("auto", *_ABLE[engine]):
        raise InvalidInputError(
            f"with engine={engine!r}, precision must be one of {['auto', *_ABLE[engine]]}, "
            f"but got {precision!r}"
        )
    if (engine == "openvino" or precision == "int8") and device not in ("auto", "cpu"):
        asked = "engine='openvino'" if engine == "openvino" else "precision='int8'"
        raise InvalidInputError(
            f"{asked} runs on the CPU: device must be 'auto' or 'cpu', but got {device!r}"
        )
    if engine == "openvino" and not openvino_installed():
        raise MissingDependencyError(
            "the OpenVINO engine needs the extra 'openvino': pip install 'rerank-plugins[openvino]'"
        )


def choose(
    engine: str, precision: Precision, device: str, checkpoint: Checkpoint, *, remote_code: bool
) -> Choice:
    """The engine and precision for these settings on this machine.

    By itself this never picks a precision that changes scores, but for bf16 where the
    processor computes it natively. OpenVINO converts a model at its first use, which takes
    longer than torch takes to load it: some seconds for a small model, a minute or more for
    a large one. It is still the right choice by itself for whoever installed the extra, a
    one-off command included: the converted model is kept, and from the second use on it
    loads sooner than torch's does (no weights pass through transformers) and scores faster.
    Where nothing can be kept, each process would pay again, so there torch is chosen.

    Raises:
        InvalidInputError: bf16 is asked of OpenVINO on a processor without it.
        UnsupportedModelError: If the checkpoint asks for what the engine does not do.
    """
    _check_able(engine, precision, checkpoint)
    if engine in ("torch", "sentence-transformers"):
        return Choice(engine, precision, "asked for")
    if engine == "openvino":
        if precision == "bf16":
            check_native_bf16()
        return Choice("openvino", *_precision(precision, "asked for"))
    if precision == "int8":
        return _int8()
    other = _other_than_openvino(checkpoint)
    if other is not None:
        return Choice(other[0], precision, other[1])
    against = _against_openvino(precision, device, checkpoint, remote_code=remote_code)
    if against is not None:
        return Choice("torch", precision, against)
    return Choice("openvino", *_precision(precision, "installed, and the faster one on this CPU"))


def _check_able(engine: str, precision: str, checkpoint: Checkpoint) -> None:
    """Refuses a fast engine for a checkpoint that asks for what it does not do."""
    saved = checkpoint.saved
    fast = "int8" if precision == "int8" else engine
    asked = list(saved.beyond)
    if saved.causal and fast in ("openvino", "int8"):
        asked.append("the next token of a causal language model")
    if asked and fast in ("torch", "openvino", "int8"):
        raise UnsupportedModelError(
            f"{fast} cannot run the checkpoint in {checkpoint.folder} as it asks "
            f"({', '.join(asked)}): use engine='auto' or 'sentence-transformers', in another "
            "precision than int8"
        )


def _other_than_openvino(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """The engine that the checkpoint leaves, and why; None where OpenVINO may be it."""
    if checkpoint.saved.beyond:
        return "sentence-transformers", f"the checkpoint has {', '.join(checkpoint.saved.beyond)}"
    if checkpoint.saved.causal:
        return "torch", "the engine for causal language models"
    if checkpoint.architecture not in PROVED_ON_TORCH:
        architecture = checkpoint.architecture
        return "sentence-transformers", f"the torch engine was not proved on {architecture}"
    return None


def _precision(precision: Precision, reason: str) -> tuple[Precision, str]:
    if precision != "auto":
        return precision, reason
    if native_bf16():
        return "bf16", f"{reason}; bf16, since the processor computes it natively"
    return "fp32", f"{reason}; fp32, since the processor has no native bf16"


def _int8() -> Choice:
    """OpenVINO's int8 gains nothing over fp32 without VNNI or AMX; torch's does."""
    if not openvino_installed():
        return Choice("torch", "int8", "OpenVINO is not installed")
    if not native_int8():
        return Choice("torch", "int8", "the faster one in int8 on a CPU without VNNI")
    return Choice("openvino", "int8", "the faster one in int8 on this CPU")


def check_native_bf16() -> None:
    """Refuses bf16 through OpenVINO where the processor would only emulate it.

    Raises:
        InvalidInputError: If this processor has no instructions for bf16.
    """
    if not native_bf16():
        raise InvalidInputError(
            "with engine='openvino', precision='bf16' needs a processor that computes bf16 "
            "(AVX512-BF16 or AMX), and this one does not: use precision='fp32' or 'int8'"
        )


def against_openvino_here(precision: str) -> str | None:
    """Why this machine takes torch by itself, for any model; None where it does not."""
    if precision == "fp16" or (precision == "bf16" and not native_bf16()):
        return f"OpenVINO has no {precision} on this CPU"
    if not openvino_installed():
        return "OpenVINO is not installed"
    if platform.machine() not in _MEASURED_MACHINES:
        return f"OpenVINO was not measured on {platform.machine()}"
    return None


def _against_openvino(
    precision: str, device: str, checkpoint: Checkpoint, *, remote_code: bool
) -> str | None:
    """Why torch it is; None when nothing speaks against OpenVINO."""
    if device not in ("auto", "cpu"):
        return f"device is {device!r}"
    if (against := against_openvino_here(precision)) is not None:
        return against
    if checkpoint.architecture not in _MEASURED_ARCHITECTURES or remote_code:
        return "OpenVINO was not measured with this architecture"
    if device == "auto" and _accelerator():
        return "there is an accelerator"
    if not converted.writable(converted.places(checkpoint.folder)):
        return "a model converted for OpenVINO could not be kept"
    return None


def openvino_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported for that."""
    return find_spec("openvino") is not None


def native_bf16() -> bool:
    """Whether this processor has instructions for bf16 products.

    OpenVINO and torch list bf16 also where they would only emulate it, so the processor's own
    flags decide.
    """
    return _has_any("avx512_bf16", "amx_bf16")


def native_int8() -> bool:
    """Whether this processor has instructions for sums of int8 products: VNNI or AMX."""
    return _has_any("avx512_vnni", "avx_vnni", "amx_int8")


def _has_any(*wanted: str) -> bool:
    """By the kernel or by torch 2.9 and later; what cannot be told is taken for no."""
    flags = _kernels_flags() if "torch" not in sys.modules else None
    if flags is None:
        import torch

        flags = getattr(torch.cpu, "get_capabilities", dict)()
    return any(flags.get(name) for name in wanted)


def _kernels_flags() -> Mapping[str, object] | None:
    """What Linux lists of an x86 processor: torch takes a second to import for the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    listed = next((line for line in lines if line.startswith("flags")), None)
    return None if listed is None else dict.fromkeys(listed.split(), True)


def _accelerator() -> bool:
    import torch

    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
