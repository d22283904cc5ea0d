"""Which special tokens stand around query and passage, checked where the checkpoint is loaded.

A tokenizer that joins pairs in another form than the model was trained with gives other scores
and no error. transformers 5.0 to 5.2 did so for XLM-R: one ``</s>`` between the texts, not two.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_plugins.errors import UnsupportedModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# How many separators the architectures' own papers and code put between the texts; each has
# a first token before them and a separator behind.
_SEPARATORS = {
    "albert": 1,
    "bert": 1,
    "camembert": 2,
    "deberta": 1,
    "deberta-v2": 1,
    "distilbert": 1,
    "electra": 1,
    "longformer": 2,
    "modernbert": 1,
    "mpnet": 2,
    "roberta": 2,
    "roberta-prelayernorm": 2,
    "xlm-roberta": 2,
    "xlm-roberta-xl": 2,
}


@dataclass(frozen=True, slots=True)
class PairForm:
    """Special token ids around the two texts, and the token types of all parts."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    prefix_types: tuple[int, ...]
    query_type: int
    middle_types: tuple[int, ...]
    passage_type: int
    suffix_types: tuple[int, ...]

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        """The ids alone."""
        return self.prefix, self.middle, self.suffix


def pair_form(tokenizer: Tokenizer) -> PairForm:
    """The form in which a tokenizer joins a pair, learned from one encoded pair.

    Raises:
        UnsupportedModelError: If it is not specials, query, specials, passage, specials.
    """
    probe = tokenizer.encode("a", "a")
    # A tokenizer.json may configure padding.
    real = [place for place, counts in enumerate(probe.attention_mask) if counts]
    sides = [probe.sequence_ids[place] for place in real]
    ids, types = ([values[place] for place in real] for values in (probe.ids, probe.type_ids))
    query = [i for i, side in enumerate(sides) if side == 0]
    passage = [i for i, side in enumerate(sides) if side == 1]
    if not query or not passage or query[-1] > passage[0]:
        raise UnsupportedModelError(
            "the tokenizer does not encode a pair as query, then passage "
            f"(it gave the tokens {probe.tokens}); a cross-encoder's tokenizer must"
        )
    before, between = slice(0, query[0]), slice(query[-1] + 1, passage[0])
    after = slice(passage[-1] + 1, None)
    return PairForm(
        tuple(ids[before]),
        tuple(ids[between]),
        tuple(ids[after]),
        tuple(types[before]),
        types[query[0]],
        tuple(types[between]),
        types[passage[0]],
        tuple(types[after]),
    )


def check_pair_form(tokenizer: Any, architecture: str, folder: Path) -> None:
    """Compares the form with what the checkpoint's own template and architecture say.

    One of the two must agree: a checkpoint may define another form in tokenizer.json.

    Raises:
        UnsupportedModelError: Neither does.
    """
    found = pair_form(tokenizer.backend_tokenizer).ids
    stated: dict[str, tuple[tuple[int, ...], ...]] = {}
    first = _first_of(tokenizer.cls_token_id, tokenizer.bos_token_id)
    last = _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id)
    if architecture in _SEPARATORS and first is not None and last is not None:
        stated[f"the architecture {architecture}"] = (
            (first,),
            (last,) * _SEPARATORS[architecture],
            (last,),
        )
    file = folder / "tokenizer.json"
    if found not in stated.values() and file.is_file():
        from tokenizers import Tokenizer

        stated["tokenizer.json"] = pair_form(Tokenizer.from_file(str(file))).ids
    if stated and found not in stated.values():
        shown = " and ".join(f"{_shown(tokenizer, form)} by {who}" for who, form in stated.items())
        raise UnsupportedModelError(
            f"the tokenizer of the checkpoint in {folder} joins pairs as "
            f"{_shown(tokenizer, found)} with transformers {version('transformers')}, but they "
            f"should be {shown}: every score would be another one. transformers 5.0 to 5.2 do "
            "this for XLM-R; install 5.3 or later"
        )


def _first_of(*ids: int | None) -> int | None:
    return next((one for one in ids if one is not None), None)


def _shown(tokenizer: Any, form: tuple[tuple[int, ...], ...]) -> str:
    prefix, middle, suffix = ("".join(tokenizer.convert_ids_to_tokens(list(ids))) for ids in form)
    return f"{prefix}query{middle}passage{suffix}"
