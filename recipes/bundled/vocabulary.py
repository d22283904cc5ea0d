"""Stage 2: a small vocabulary over the four languages, and its rows from the teacher's.

Writes `tokenizer.json` and `rows.npy`. Everything that makes two spellings one word happens in the
tokenizer's own normalizer, so a plain BERT checkpoint carries it wherever it is loaded.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from recipes.bundled import data, e5, pieces

log = logging.getLogger(__name__)

SIZE = 20_000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEACHER_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
# Share of the training text: Arabic and Polish inflect more, so they need more pieces.
SHARES = {"ar": 0.36, "pl": 0.27, "fr": 0.20, "en": 0.17}
TOTAL = 3_000_000  # words the trainer sees
RARE = 40  # a character seen less often than this is left to [UNK]
JOINED = 700  # pieces that take up the metaspace standing alone before them
WORD = re.compile(r"\w+|[^\w\s]")


def normalizer() -> normalizers.Normalizer:
    """NFKC, lower case; Arabic letters, marks, digits to one spelling; nothing invisible."""
    digits = [
        normalizers.Replace(Regex(f"[{chr(0x660 + d)}{chr(0x6F0 + d)}]"), str(d)) for d in range(10)
    ]
    return normalizers.Sequence(
        [
            normalizers.Replace(
                Regex(r"[\u00AD\u061C\u200B-\u200F\u202A-\u202E\u2060-\u2069\uFEFF]"), ""
            ),
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace("œ", "oe"),
            normalizers.Replace(Regex(pieces.MARKS), ""),
            normalizers.Replace(Regex("[أإآٱ]"), "ا"),
            normalizers.Replace(Regex("[ىی]"), "ي"),
            normalizers.Replace("ة", "ه"),
            normalizers.Replace("ک", "ك"),
            normalizers.Replace(Regex("[’‘ʼ`]"), "'"),
            *digits,
        ]
    )


def count_words(folder: Path) -> dict[str, Counter[str]]:
    """Words as written (case, marks and all) with their counts, by language."""
    counts: dict[str, Counter[str]] = {language: Counter() for language in SHARES}
    for part in data.load_questions(folder)[0]:
        for text in [*part.passages.values(), *part.questions.values()]:
            counts[part.language].update(WORD.findall(data.plain(text)))
    for language, heading, text in data.read_headings(folder):
        counts[language].update(WORD.findall(data.plain(f"{heading} {text}")))
    for language, text in data.read_mono(folder):
        counts[language].update(WORD.findall(data.plain(text)))
    for record in data.read_parallel(folder):
        for language, text in record.items():
            counts[language].update(WORD.findall(data.plain(text)))
    return counts


def weights(counts: dict[str, Counter[str]], teacher: Tokenizer) -> Counter[str]:
    """Normalized words with the weight that the trainer gives them.

    Half of a language's weight follows our counts, half the teacher's vocabulary (the scores of a
    unigram vocabulary are log probabilities in the text it was made from, CommonCrawl): our texts
    are few and partial to software, law and whatever the question sets are about.
    """
    normal = normalizer()
    pieces = dict(teacher.get_vocab())
    scores = _scores(teacher)
    total: Counter[str] = Counter()
    for language, counter in counts.items():
        ours, theirs = Counter[str](), Counter[str]()
        for word, count in counter.items():
            key = normal.normalize_str(word)
            ours[key] += count
            if "▁" + word in pieces:
                theirs[key] += math.exp(scores["▁" + word])
        for part in (ours, theirs):
            scale = TOTAL * SHARES[language] / 2 / sum(part.values())
            for key, value in part.items():
                total[key] += value * scale
    letters: Counter[str] = Counter()
    for word, value in total.items():
        for letter in word:
            letters[letter] += value
    return Counter({w: v for w, v in total.items() if w and min(letters[c] for c in w) >= RARE})


def _scores(tokenizer: Tokenizer) -> dict[str, float]:
    return dict(json.loads(tokenizer.to_str())["model"]["vocab"])


def train(weighted: Counter[str], size: int = SIZE) -> Tokenizer:
    """A unigram tokenizer whose pairs are `[CLS] query [SEP] passage [SEP]`, types 0 and 1."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer()
    # Words and marks apart, each led by the metaspace: "(paris" shares with "paris".
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=SPECIAL, unk_token="[UNK]", max_piece_length=16
    )

    def lines() -> Iterator[str]:
        for word, weight in weighted.items():
            yield " ".join([word] * max(1, round(weight)))

    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def join(tokenizer: Tokenizer, weighted: Counter[str]) -> Tokenizer:
    """Give the commonest words that start with a lone metaspace a separate piece.

    The trainer leaves `▁` a piece, since every mark follows one, and then finds `▁` + `?` or
    `▁` + `à` cheap: one token in nine was a lone metaspace. The joined pieces take the places of
    the least probable ones.
    """
    words = [w for w, _ in weighted.most_common(200_000)]
    gain: Counter[str] = Counter()
    cuts = tokenizer.encode_batch(words, add_special_tokens=False)
    for word, cut in zip(words, cuts, strict=True):
        if cut.tokens[0] == "▁" and len(cut.tokens) > 1 and cut.ids[1] != 1:
            gain["▁" + cut.tokens[1]] += weighted[word]
    model = json.loads(tokenizer.to_str())["model"]
    scores = dict(model["vocab"])
    new = [piece for piece, _ in gain.most_common(JOINED) if piece not in scores]
    least = sorted(
        (i for i, (piece, _) in enumerate(model["vocab"]) if len(piece) > 2 and i >= len(SPECIAL)),
        key=lambda i: model["vocab"][i][1],
    )
    total = sum(weighted.values())
    for i, piece in zip(least, new, strict=False):
        model["vocab"][i] = (piece, math.log(gain[piece] / total))
    joined = Tokenizer.from_str(tokenizer.to_str())
    joined.model = models.Unigram([tuple(x) for x in model["vocab"]], unk_id=1)
    return joined


def rows(
    tokenizer: Tokenizer, counts: dict[str, Counter[str]], teacher: Tokenizer, table: np.ndarray
) -> np.ndarray:
    """A vector for each new piece: the mean of the teacher's pieces it stands for in real words.

    Every word, as written, is cut by both vocabularies; a new piece takes the teacher's pieces that
    cover its letters, weighted by how many. So a piece both have is copied, and `مدرسه` gets the
    vector of `مدرسة`, the spelling that the teacher knows.

    Args:
        tokenizer: the new tokenizer.
        counts: words as written.
        teacher: the teacher's tokenizer.
        table: the teacher's word embeddings, (250037, hidden).

    Returns:
        The new embeddings, (pieces, hidden).
    """
    out = np.zeros((tokenizer.get_vocab_size(), table.shape[1]))
    mass = np.zeros(len(out))
    teacher.no_padding()
    for counter in counts.values():
        scale = 1e6 / sum(counter.values())
        words = [w for w, _ in counter.most_common(120_000)]
        new = tokenizer.encode_batch(words, add_special_tokens=False)
        old = teacher.encode_batch(words, add_special_tokens=False)
        for word, a, b in zip(words, new, old, strict=True):
            weight = math.sqrt(counter[word] * scale)
            spans = [(i, s, e) for i, (s, e) in zip(b.ids, b.offsets, strict=True) if e > s]
            for piece, (start, stop) in zip(a.ids, a.offsets, strict=True):
                for other, s, e in spans:
                    shared = min(stop, e) - max(start, s)
                    if shared > 0:
                        share = weight * shared / (stop - start)
                        out[piece] += share * table[other]
                        mass[piece] += share
    seen = mass > 0
    out[seen] /= mass[seen, None]
    for name, other in zip(SPECIAL, TEACHER_SPECIAL, strict=True):
        out[tokenizer.token_to_id(name)] = table[teacher.token_to_id(other)]
    unseen = [i for i in np.flatnonzero(~seen) if i >= len(SPECIAL)]
    log.info("%d pieces seen in no word are cut by the teacher's vocabulary", len(unseen))
    for i in unseen:
        ids = teacher.encode(tokenizer.id_to_token(i).lstrip("▁"), add_special_tokens=False).ids
        out[i] = table[ids].mean(0) if ids else table[teacher.token_to_id("<unk>")]
    return out.astype(np.float32)


def run(folder: Path, work: Path) -> None:
    """Do the stage; see the module."""
    if (work / "rows.npy").exists():
        return
    model, teacher = e5.load(e5.fetch(work))
    counts = count_words(folder)
    weighted = weights(counts, teacher)
    trained = work / "unigram.json"  # five minutes of one core, so kept for a second start
    if not trained.exists():
        train(weighted).save(str(trained))
    tokenizer = join(Tokenizer.from_file(str(trained)), weighted)
    tokenizer.save(str(work / "tokenizer.json"))
    for language, counter in counts.items():
        words = [w for w in counter if w.isalpha()]
        n = sum(counter[w] for w in words)
        cut = tokenizer.encode_batch(words, add_special_tokens=False)
        tokens = sum(counter[w] * len(c.ids) for w, c in zip(words, cut, strict=True))
        log.info("%s: %d words, %.2f tokens a word", language, n, tokens / n)
    table = model.embeddings.word_embeddings.weight.detach().numpy()
    np.save(work / "rows.npy", rows(tokenizer, counts, teacher, table))
