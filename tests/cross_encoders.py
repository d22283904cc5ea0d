"""Tiny cross-encoders of many architectures, saved by sentence-transformers' own ``CrossEncoder``.

Random weights, seeded and drawn wide, so that scores differ from pair to pair.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from texts import training_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,
}
# Configuration class and what differs from `_SHAPE`, by the tokenizer that goes with it.
_BERT_LIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "electra": ("Electra", {"embedding_size": 32}),
    "albert": ("Albert", {"embedding_size": 16}),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "modernbert": ("ModernBert", {"global_attn_every_n_layers": 2, "local_attention": 16}),
    "deberta-v2": (
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
}
_ROBERTA_LIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRoberta", {}),
    "roberta": ("Roberta", {}),
    "xlm-roberta-xl": ("XLMRobertaXL", {}),
    "mpnet": ("MPNet", {}),
}
_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 16,
            "num_key_value_heads": 1,
            "query_pre_attn_scalar": 16,
            "sliding_window": 24,
        },
    ),
}
CLASSIFIERS = (*_BERT_LIKE, *_ROBERTA_LIKE, "camembert", *_DECODERS)
LENGTH = 128

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
# As the sentence-transformers edition of Qwen3-Reranker renders a pair.
JUDGE = (
    "{% set say = namespace(task='Find passages that answer') %}"
    "{% for m in messages %}{% if m.role == 'system' %}{% set say.task = m.content %}"
    "{% endif %}{% endfor %}"
    "<|im_start|>user\n<Instruct>: {{ say.task }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}"
    "\n<Document>: "
    "{{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class TinyCrossEncoders(Mapping[str, Path]):
    """Folders by name, each built when it is first asked for.

    The names of `CLASSIFIERS`, and: ``prompted`` (a ModernBERT with two prompts, one of them
    the default), ``lowercased``, ``shortened``, ``chat`` (a Qwen3 classifier with a chat
    template), ``causal`` and ``causal_chat`` (LogitScore, plain and with a template),
    ``bare_causal`` and ``bare_gemma`` (transformers alone; the second caps its logits),
    ``lightweight`` (bge-reranker-v2.5-gemma2-lightweight's form: a head behind every layer),
    ``one_token``, ``dense`` (a pooled body with two Dense
    layers), ``adapter`` (PEFT).
    """

    names = (
        *CLASSIFIERS,
        "prompted",
        "lowercased",
        "shortened",
        "chat",
        "causal",
        "causal_chat",
        "bare_causal",
        "bare_gemma",
        "lightweight",
        "one_token",
        "dense",
        "adapter",
    )

    def __init__(self, root: Path, checkpoints: Mapping[str, Path]) -> None:
        self._root = root
        self._checkpoints = checkpoints
        self._lock = FileLock(root / "building.lock")

    def __getitem__(self, name: str) -> Path:
        if name not in self.names:
            raise KeyError(name)
        folder = self._root / name
        with self._lock:  # re-entered where one is made of another
            if not folder.is_dir():
                unfinished = self._root / f"{name}.unfinished"
                build: Callable[[Path], None] | None = getattr(self, f"_{name}", None)
                if build is None:
                    self._classifier(name, unfinished)
                else:
                    build(unfinished)
                unfinished.rename(folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    # Classifiers.

    def _plain(self, name: str) -> Path:
        """The transformers checkpoint alone, of which sentence-transformers knows nothing."""
        folder = self._root / "plain" / name
        if folder.is_dir():
            return folder
        if name == "camembert":
            shutil.copytree(self._checkpoints["camembert"], folder)
            return folder
        if name in _DECODERS:
            tokenizer = self._bpe()
            model = self._decoder(name, "ForSequenceClassification", num_labels=1)
        else:
            family, changes = (_BERT_LIKE | _ROBERTA_LIKE)[name]
            bert_like = name in _BERT_LIKE
            tokenizer = self._bert_tokenizer() if bert_like else self._xlm_roberta_tokenizer()
            config = getattr(transformers, f"{family}Config")(
                vocab_size=len(tokenizer),
                max_position_embeddings=512 if bert_like else 514,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                num_labels=1,
                **({"type_vocab_size": 2} if name in ("bert", "electra", "albert") else {}),
                **({"type_vocab_size": 1} if name in ("roberta", "xlm-roberta") else {}),
                **({"type_vocab_size": 0} if name == "deberta-v2" else {}),
                **{**_SHAPE, **changes},
            )
            torch.manual_seed(len(name))
            model = getattr(transformers, f"{family}ForSequenceClassification")(config)
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    def _classifier(self, name: str, folder: Path) -> None:
        loaded(self._plain(name)).save_pretrained(str(folder))

    def _decoder(self, name: str, head: str, **more: Any) -> Any:
        tokenizer = self._bpe()
        family, changes = _DECODERS[name]
        config = getattr(transformers, f"{family}Config")(
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            **{**_SHAPE, **changes, **more},
        )
        torch.manual_seed(len(name))
        return getattr(transformers, f"{family}{head}")(config)

    def _prompted(self, folder: Path) -> None:
        model = CrossEncoder(
            str(self["modernbert"]),
            device="cpu",
            prompts={"web": "Which passage answers this? ", "law": "Which law? "},
            default_prompt_name="web",
        )
        model.save_pretrained(str(folder))

    def _lowercased(self, folder: Path) -> None:
        shutil.copytree(self["bert"], folder)
        edit(folder / "sentence_bert_config.json", do_lower_case=True)

    def _shortened(self, folder: Path) -> None:
        shutil.copytree(self["xlm-roberta"], folder)
        edit(folder / "sentence_bert_config.json", max_seq_length=48)

    def _chat(self, folder: Path) -> None:
        plain = self._root / "plain" / "chat"
        shutil.copytree(self._plain("qwen3"), plain)
        (plain / "chat_template.jinja").write_text(JUDGE, encoding="utf-8")
        loaded(plain).save_pretrained(str(folder))

    # Causal language models.

    def _bare_gemma(self, folder: Path) -> None:
        self._decoder("gemma2", "ForCausalLM", final_logit_softcapping=4.0).eval().save_pretrained(
            folder
        )
        self._bpe().save_pretrained(folder)

    def _lightweight(self, folder: Path) -> None:
        """Six layers of Gemma 2, a head behind each from the second on."""
        model = self._decoder("gemma2", "ForCausalLM", num_hidden_layers=6, sliding_window=512)
        weights = {name: w for name, w in model.state_dict().items() if name != "lm_head.weight"}
        for number in range(5):
            weights[f"lm_head.{number}.linear_head.weight"] = torch.randn(1, 32)
        folder.mkdir(parents=True)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        told = model.config.to_dict()
        told |= {"model_type": "cost_wise_gemma", "architectures": ["CostWiseGemmaForCausalLM"]}
        told |= {"layer_wise": True, "start_layer": 2, "layer_sep": 1}
        told |= {"rope_theta": 10000.0, "final_logit_softcapping": 30.0}
        told["auto_map"] = {
            "AutoConfig": "gemma_config.CostWiseGemmaConfig",
            "AutoModelForCausalLM": "gemma_model.CostWiseGemmaForCausalLM",
        }
        (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
        (folder / "gemma_config.py").write_text("raise SystemExit('nobody asked for this code')")
        self._bpe().save_pretrained(folder)

    def _causal_body(self, folder: Path, template: str | None) -> None:
        self._decoder("qwen3", "ForCausalLM").eval().save_pretrained(folder)
        tokenizer = self._bpe()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)

    def _bare_causal(self, folder: Path) -> None:
        self._causal_body(folder, None)

    def _causal(self, folder: Path) -> None:
        loaded(self["bare_causal"]).save_pretrained(str(folder))

    def _causal_chat(self, folder: Path) -> None:
        plain = self._root / "plain" / "causal_chat"
        self._causal_body(plain, JUDGE)
        loaded(plain).save_pretrained(str(folder))

    def _one_token(self, folder: Path) -> None:
        plain = self._root / "plain" / "one_token"
        self._causal_body(plain, JUDGE)
        body = Transformer(str(plain), transformer_task="text-generation")
        score = LogitScore(true_token_id=body.tokenizer.convert_tokens_to_ids("Yes"))
        CrossEncoder(modules=[body, score], device="cpu").save_pretrained(str(folder))

    # Heads and adapters.

    def _dense(self, folder: Path) -> None:
        torch.manual_seed(5)
        body = Transformer(str(self._plain("bert")), transformer_task="feature-extraction")
        pooling = Pooling(32, pooling_mode="mean")
        first = Dense(32, 16, activation_function=torch.nn.GELU())
        last = Dense(16, 1, activation_function=None, module_output_name="scores")
        for layer in (first, last):
            torch.nn.init.normal_(layer.linear.weight)
        model = CrossEncoder(modules=[body, pooling, first, last], device="cpu")
        model.save_pretrained(str(folder))

    def _adapter(self, folder: Path) -> None:
        from peft import LoraConfig, TaskType

        model = loaded(self._plain("bert"))
        torch.manual_seed(6)
        model.add_adapter(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, init_lora_weights=False))
        model.save_pretrained(str(folder))

    # Tokenizers.

    def _bert_tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self._checkpoints["rstar"])

    def _xlm_roberta_tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self._checkpoints["bge"])

    def _bpe(self) -> Any:
        """A byte-level BPE tokenizer with ChatML's special tokens, as Qwen's."""
        folder = self._root / "tokenizers" / "bpe"
        if not folder.is_dir():
            raw = Tokenizer(models.BPE())
            raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            raw.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=900,
                show_progress=False,
                special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            )
            raw.train_from_iterator([*training_texts(), *(["yes no Yes No 1 0"] * 400)], trainer)
            answers = ("yes", "no", "Yes", "1", "0")
            raw.add_tokens([word for word in answers if raw.token_to_id(word) is None])
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_object=raw,
                pad_token="<|endoftext|>",
                eos_token="<|im_end|>",
                model_max_length=LENGTH,
            )
            tokenizer.save_pretrained(folder)
        return transformers.AutoTokenizer.from_pretrained(folder)


def loaded(folder: Path, **options: Any) -> CrossEncoder:
    """The folder's ``CrossEncoder``, in fp32 on the CPU: the oracle."""
    return CrossEncoder(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32},
        **options,
    )


def edit(file: Path, **changes: Any) -> None:
    """Other settings in a JSON file."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, **changes}), encoding="utf-8")
