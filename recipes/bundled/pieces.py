"""Stage 1: which of e5's quarter of a million pieces the four languages use.

Writes `pieces.json`: the ids kept, in e5's order. A text all of whose best pieces are kept is cut
as e5 cuts it, since a unigram model that loses pieces loses only the paths through them.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.processors import TemplateProcessing

from recipes.bundled import data, e5

log = logging.getLogger(__name__)

SIZE = 104_000  # pieces kept in all: those that our texts use, then the likeliest of the rest
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# Scripts whose unseen pieces may fill up: the four languages', digits and marks.
_SCRIPTS = ("LATIN", "ARABIC", "DIGIT", "COMMA", "FULL STOP")
# Marks that spell the same word: vowels and honorifics, Quranic signs, tatweel.
MARKS = r"[\u0610-\u061A\u0640\u064B-\u065F\u0670\u06D6-\u06ED\u08D3-\u08FF]"
INVISIBLE = r"[\u00AD\u034F\u061C\u180E\u200B-\u200F\u202A-\u202E\u2060-\u206F\uFE00-\uFE0F\uFEFF]"


def normalizer() -> normalizers.Normalizer:
    """e5's own (NFKC, single spaces), and one spelling for what looks or reads alike."""
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(INVISIBLE), ""),
            normalizers.NFKC(),
            normalizers.Replace(Regex(MARKS), ""),
            normalizers.Replace("œ", "oe"),
            normalizers.Replace("Œ", "Oe"),
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of everything that weights which ship may be made from."""
    yield from _first_texts(folder)
    for path in sorted((folder / "more").glob("*/*.jsonl.gz")):
        language = "fr" if path.parent.name.endswith("-fr") else "ar"
        for record in data.read_lines(path):
            for field in {"query", "text"} & record.keys():
                yield language, record[field]


def _first_texts(folder: Path) -> Iterator[tuple[str, str]]:
    for part in data.load_questions(folder)[0]:
        for text in [*part.passages.values(), *part.questions.values()]:
            yield part.language, text
    permissive = folder / "permissive"
    for record in data.read_lines(permissive / "heading_passage.jsonl.gz"):
        yield record["lang"], f"{record['query']} {record['text']}"
    for record in data.read_lines(permissive / "mono.jsonl.gz"):
        yield record["lang"], record["text"]
    for record in data.read_lines(permissive / "parallel.jsonl.gz"):
        for language in ("ar", "fr", "pl", "en"):
            if language in record:
                yield language, record[language]


def count(folder: Path, teacher: Tokenizer) -> dict[str, Counter[int]]:
    """How often each piece stands in the best cut, by language."""
    normal = normalizer()
    teacher.no_padding()
    words: dict[str, Counter[str]] = {}
    for language, text in texts(folder):
        words.setdefault(language, Counter()).update(text.split())
    out: dict[str, Counter[int]] = {}
    for language, counter in words.items():
        out[language] = Counter()
        merged: Counter[str] = Counter()
        for word, number in counter.items():
            merged[normal.normalize_str(word)] += number
        keys = list(merged)
        log.info("%s: %d words, %d different", language, merged.total(), len(keys))
        for start in range(0, len(keys), 50_000):
            chunk = keys[start : start + 50_000]
            for word, cut in zip(
                chunk, teacher.encode_batch_fast(chunk, add_special_tokens=False), strict=True
            ):
                for piece in cut.ids:
                    out[language][piece] += merged[word]
    return out


def choose(counts: dict[str, Counter[int]], teacher: Tokenizer, size: int = SIZE) -> list[int]:
    """Ids to keep, in order: special pieces, every piece that a text uses, the likeliest others."""
    vocabulary = json.loads(teacher.to_str())["model"]["vocab"]
    kept = {teacher.token_to_id(name) for name in SPECIAL}
    kept |= {i for i, (piece, _) in enumerate(vocabulary) if len(piece) == 1 and is_ours(piece)}
    used: Counter[int] = Counter()
    for counter in counts.values():
        used.update(counter)
    log.info("%d pieces are used by our texts", len(used))
    for piece, _ in used.most_common():
        if len(kept) < size:
            kept.add(piece)
    # e5's list is in order of probability, so the first of our scripts are the likeliest.
    for place, (piece, _) in enumerate(vocabulary):
        if len(kept) >= size:
            break
        if is_ours(piece):
            kept.add(place)
    return sorted(kept)


def is_ours(piece: str) -> bool:
    """Whether all of its letters are of the scripts that may fill up."""
    names = [unicodedata.name(char, "") for char in piece if char != "▁"]
    return bool(names) and all(name.startswith(_SCRIPTS) for name in names)


def trimmed(teacher: Tokenizer, kept: list[int]) -> Tokenizer:
    """The tokenizer over the kept pieces; pairs are `<s> query </s> passage </s>`."""
    vocabulary = json.loads(teacher.to_str())["model"]["vocab"]
    rows = [(vocabulary[i][0], vocabulary[i][1]) for i in kept]
    place = {piece: i for i, (piece, _) in enumerate(rows)}
    out = Tokenizer.from_str(teacher.to_str())
    out.no_padding()
    out.no_truncation()
    spec = json.loads(out.to_str())
    spec["model"]["vocab"], spec["model"]["unk_id"] = rows, place["<unk>"]
    for token in spec["added_tokens"]:
        token["id"] = place[token["content"]]
    spec["post_processor"] = None
    out = Tokenizer.from_str(json.dumps(spec))
    out.normalizer = normalizer()
    out.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", place["<s>"]), ("</s>", place["</s>"])],
    )
    return out


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "pieces.json").exists():
        return
    _, teacher = e5.load(e5.fetch(work))
    counts = count(folder, teacher)
    for language, counter in counts.items():
        log.info("%s: %d pieces, %d tokens", language, len(counter), counter.total())
    kept = choose(counts, teacher)
    trimmed(teacher, kept).save(str(work / "tokenizer.json"))
    (work / "pieces.json").write_text(json.dumps(kept), encoding="utf-8")
