"""What sentence-transformers saved beside the weights: followed, or refused by name.

Read as its ``CrossEncoder`` reads it (sentence-transformers 6.2: ``base/model.py``,
``base/modules/transformer.py``, ``cross_encoder/model.py``). docs/checkpoints.md has the table:
each setting, what is done with it, the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank_plugins.errors import UnsupportedModelError

_MODULES = "modules.json"
_CARD = "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
# Older names of the last; its own code tries them in turn.
_OLDER = (
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# What its code reads of each file, and what it writes there for others to read.
_CARD_KEYS = {
    "__version__",
    "activation_fn",
    "default_prompt_name",
    "keep_in_fp32_modules",
    "model_type",
    "prompts",
    "requirements",
    "similarity_fn_name",
    "truncate_dim",
}
_TRANSFORMER_KEYS = {
    "config_args",
    "config_kwargs",
    "do_lower_case",
    "document_length",
    "max_seq_length",
    "modality_config",
    "model_args",
    "model_kwargs",
    "module_output_name",
    "processing_kwargs",
    "processor_kwargs",
    "query_expansion",
    "query_length",
    "tokenizer_args",
    "tokenizer_name_or_path",
    "transformer_task",
    "unpad_inputs",
}
# Settings of the transformer that only sentence-transformers' own code follows.
_BEYOND = (
    "config_args",
    "config_kwargs",
    "model_args",
    "model_kwargs",
    "processing_kwargs",
    "processor_kwargs",
    "tokenizer_args",
    "tokenizer_name_or_path",
)
_CAUSAL_TASKS = ("text-generation", "any-to-any")
_LOGITS = {"method": "forward", "method_output_name": "logits"}
_ACTIVATIONS = ("sigmoid", "identity", "softmax")
# Names that every model has, empty, whether they are saved or not.
_PROMPTS = ("query", "document")


@dataclass(frozen=True, slots=True)
class SavedSettings:
    """How ``CrossEncoder`` would score with a checkpoint.

    Attributes:
        prompt: Text in front of every query; with a chat template the system message.
        prompts: All prompts by name.
        activation: ``sigmoid``, ``identity`` or ``softmax``; None where nothing is said.
        max_seq_length: Tokens per pair, in place of the tokenizer's own limit.
        lowercase: Whether texts are lowercased before the tokenizer's normalizer.
        causal: Whether the score comes from a causal language model's next token.
        chat: Whether pairs pass through the tokenizer's chat template.
        beyond: The settings that only sentence-transformers' own code follows.
        stated: Whether sentence-transformers saved the checkpoint as a ``CrossEncoder``.
    """

    prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    activation: str | None = None
    max_seq_length: int | None = None
    lowercase: bool = False
    causal: bool = False
    chat: bool = False
    beyond: tuple[str, ...] = ()
    stated: bool = False


def read_saved(folder: Path, config: Mapping[str, Any], *, remote_code: bool) -> SavedSettings:
    """The settings of a checkpoint folder.

    Without modules.json, or where the folder holds another kind of model than a
    ``CrossEncoder``, that class reads config.json alone, and so does this.

    Args:
        folder: The checkpoint.
        config: Its config.json; empty if missing.
        remote_code: Whether modules may be classes of the checkpoint's own.

    Raises:
        UnsupportedModelError: If a setting is unknown, damaged or not supported; the error
            names it.
    """
    modules, card = _read(folder, _MODULES), _read(folder, _CARD) or {}
    adapter = ("adapter_config.json",) if (folder / "adapter_config.json").is_file() else ()
    if modules is None or card.get("model_type") != "CrossEncoder":
        return _as_plain(folder, config, adapter)
    for file in (_CARD, _TRANSFORMER):
        known = _CARD_KEYS if file == _CARD else _TRANSFORMER_KEYS
        if unknown := sorted(set(_read(folder, file) or {}) - known):
            raise UnsupportedModelError(
                f"{file} in {folder} has the unknown settings {unknown}; a score that leaves them "
                f"out may be another than its authors'. Known are {sorted(known)}"
            )
    kinds, paths = _modules(folder, modules, remote_code=remote_code)
    beyond = [
        f"{_CARD}: {key}" for key in ("requirements", "keep_in_fp32_modules") if card.get(key)
    ]
    if kinds not in (["Transformer"], ["Transformer", "LogitScore"]) or paths[0]:
        beyond.append(f"{_MODULES}: {', '.join(kinds)}")
    if any(module.get("kwargs") for module in modules):
        beyond.append(f"{_MODULES}: kwargs")
    settings = _read(folder, _TRANSFORMER) or {}
    beyond += [f"{_TRANSFORMER}: {key}" for key in _BEYOND if settings.get(key)]
    beyond += [name for name in _OLDER if not settings and (folder / name).is_file()]
    task, modalities = settings.get("transformer_task"), settings.get("modality_config")
    if not beyond and kinds == ["Transformer"] and task != "sequence-classification":
        raise UnsupportedModelError(
            f"{_TRANSFORMER} in {folder} must say transformer_task='sequence-classification' for a "
            f"model of one module, but says {task!r}, which gives no score"
        )
    chat = isinstance(modalities, dict) and "message" in modalities
    if modalities is not None and any(
        name not in ("text", "message") or {key: way.get(key) for key in _LOGITS} != _LOGITS
        for name, way in modalities.items()
    ):
        beyond.append(f"{_TRANSFORMER}: modality_config")
    causal = task in _CAUSAL_TASKS and kinds[-1:] == ["LogitScore"] and not beyond
    beyond += [] if causal else _of_pairs(folder, chat=chat)
    prompts = {str(name): str(text or "") for name, text in dict(card.get("prompts") or {}).items()}
    return SavedSettings(
        prompt=_default_prompt(folder, prompts, card.get("default_prompt_name")),
        prompts=prompts,
        activation=_named_activation(folder, _CARD, card.get("activation_fn"))
        or _activation(folder, config),
        max_seq_length=settings.get("max_seq_length"),
        lowercase=bool(settings.get("do_lower_case")),
        causal=causal,
        chat=chat,
        beyond=(*adapter, *beyond),
        stated=True,
    )


def _as_plain(folder: Path, config: Mapping[str, Any], adapter: tuple[str, ...]) -> SavedSettings:
    """A transformers checkpoint of which sentence-transformers knows nothing."""
    architecture = next(iter(config.get("architectures") or ()), "")
    causal = architecture.endswith("ForCausalLM") and not adapter
    chat = _has_chat_template(folder)
    beyond = [*adapter, *([] if causal else _of_pairs(folder, chat=chat))]
    beyond += [
        name
        for name in ("processor_config.json", "preprocessor_config.json")
        if (folder / name).is_file()
    ]
    return SavedSettings(
        activation=_activation(folder, config), causal=causal, chat=chat, beyond=tuple(beyond)
    )


def _read(folder: Path, name: str) -> Any:
    """The content of a JSON file, or None if it does not exist."""
    file = folder / name
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    kind: type = list if name == _MODULES else dict
    if not isinstance(content, kind):
        raise UnsupportedModelError(
            f"{file} must hold a JSON {kind.__name__}, but holds {type(content).__name__}"
        )
    return content


def module_folders(folder: Path) -> list[str]:
    """The sub-folders that modules.json names, each a relative path inside the checkpoint.

    Raises:
        UnsupportedModelError: If a path leads elsewhere.
    """
    modules = _read(folder, _MODULES) or []
    paths = [str(module.get("path") or "") for module in modules if isinstance(module, dict)]
    for path in paths:
        parts = path.replace("\\", "/").split("/")
        if ".." in parts or path.startswith(("/", "\\")) or ":" in path:
            raise UnsupportedModelError(
                f"modules.json in {folder} must name folders inside the checkpoint, but has "
                f"path={path!r}"
            )
    return [path for path in paths if path]


def _modules(folder: Path, modules: list[Any], *, remote_code: bool) -> tuple[list[str], list[str]]:
    """Class names and paths of the modules, in order."""
    module_folders(folder)
    kinds, paths = [], []
    for module in modules:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise UnsupportedModelError(
                f"modules.json in {folder} must list modules with a type, but has {module!r}"
            )
        if not module["type"].startswith("sentence_transformers.") and not remote_code:
            raise UnsupportedModelError(
                f"modules.json in {folder} names the class {module['type']!r}, code that is not "
                "sentence-transformers'; if you trust it, pass trust_remote_code=True"
            )
        kinds.append(module["type"].rsplit(".", 1)[-1])
        paths.append(str(module.get("path") or ""))
    if not kinds:
        raise UnsupportedModelError(f"modules.json in {folder} names no module")
    return kinds, paths


def _default_prompt(folder: Path, prompts: Mapping[str, str], name: str | None) -> str:
    if name is None:
        return ""
    if name not in prompts and name not in _PROMPTS:
        raise UnsupportedModelError(
            f"{_CARD} in {folder} has default_prompt_name={name!r}, but prompts has only "
            f"{sorted(prompts)}"
        )
    return prompts.get(name, "")


def _activation(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Where config.json keeps it: sentence-transformers 4 and 5, then 2 and 3."""
    block = config.get("sentence_transformers")
    if isinstance(block, dict) and "activation_fn" in block:
        return _named_activation(folder, "config.json", block["activation_fn"])
    return _named_activation(
        folder, "config.json", config.get("sbert_ce_default_activation_function")
    )


def _named_activation(folder: Path, file: str, path: object) -> str | None:
    if path is None:
        return None
    name = str(path).rsplit(".", 1)[-1].lower()
    if not str(path).startswith("torch.") or name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{file} in {folder} has activation_fn={path!r}; supported are torch's Sigmoid, "
            "Identity and Softmax. sentence_transformers.CrossEncoder may know what to do with "
            "it: CrossEncoderScorer(CrossEncoder(..., activation_fn=torch.nn.Sigmoid()))"
        )
    return name


def _of_pairs(folder: Path, *, chat: bool) -> list[str]:
    """What a classifier's tokenizer does with pairs that the fast engines do not do."""
    return [
        *(["the chat template"] if chat else []),
        *(["truncation_side='left'"] if _cuts_the_beginning(folder) else []),
    ]


def _cuts_the_beginning(folder: Path) -> bool:
    """Whether the tokenizer cuts texts on the left, as transformers reads its two files."""
    stated = (_read(folder, "tokenizer_config.json") or {}).get("truncation_side")
    if stated is not None:
        return bool(stated == "left")
    file = folder / "tokenizer.json"
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as content:
        beginning = content.read(1 << 10)  # it stands before the vocabulary
    return re.search(r'"truncation"\s*:\s*\{[^}]*"direction"\s*:\s*"Left"', beginning) is not None


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    if any((folder / "additional_chat_templates").glob("*.jinja")):
        return True
    return bool((_read(folder, "tokenizer_config.json") or {}).get("chat_template"))
