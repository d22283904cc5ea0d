"""Text in four languages that the tests encode, score and search."""

from __future__ import annotations

import json
from pathlib import Path

import rerank_plugins

QUESTIONS = {
    "ar": "متى يفتح المتحف أبوابه للزوار؟",
    "fr": "À quelle heure le musée ouvre-t-il ses portes ?",
    "pl": "O której godzinie otwierają muzeum?",
    "en": "At what time does the museum open?",
}

PASSAGES = {
    "ar": [
        "يفتح المتحف أبوابه للزوار كل يوم في التاسعة صباحًا ويغلق في السادسة مساءً.",
        "بُني المتحف قبل مئة عام على ضفة النهر، وفيه اليوم ثلاثة آلاف قطعة.",
        "اِشْتَرَى الوَلَدُ كِتَابًا جَدِيدًا مِنَ المَكْتَبَةِ القَرِيبَةِ مِنَ المَدْرَسَةِ.",
        "يُزرع الزيتون في السفوح الجافة، ويُقطف في الخريف قبل نزول المطر.",
        "تغادر الحافلة الأخيرة المحطة عند منتصف الليل، ولا تسير يوم الجمعة.",
    ],
    "fr": [
        "Le musée ouvre ses portes à neuf heures et ferme à dix-huit heures, sauf le lundi.",
        "L'œuvre la plus connue du musée est un tableau où l'on voit un élève endormi.",
        "Pour réussir la pâte à crêpes, laissez-la reposer une heure à température ambiante.",
        "Le dernier train pour Besançon part à vingt-deux heures quarante.",
        "Les abeilles récoltent le nectar dès que les premières fleurs s'épanouissent.",
    ],
    "pl": [
        "Muzeum jest otwarte codziennie od dziewiątej do osiemnastej, oprócz poniedziałków.",
        "Najstarszy zbiór muzeum to łyżki i dzbany znalezione w żwirowni pod Łodzią.",
        "Żurek najlepiej smakuje na zakwasie, który stał w cieple przez pięć dni.",
        "Ostatni tramwaj odjeżdża z pętli kwadrans po jedenastej wieczorem.",
        "Wiosną rzeka często wylewa, dlatego domy stoją tu na wysokim brzegu.",
    ],
    "en": [
        "The museum opens at nine in the morning and closes at six, except on Mondays.",
        "A guide to the museum costs four pounds and has a map of its three floors.",
        "Bread keeps longer when it is wrapped in a linen cloth, away from the light.",
        "The night ferry leaves at eleven and reaches the island at dawn.",
        "Swifts sleep on the wing, and some do not land for ten months.",
    ],
}

ALL_PASSAGES = [text for texts in PASSAGES.values() for text in texts]

# Pairs in which the languages meet, and whose lengths differ widely.
PAIRS = [(question, text) for question in QUESTIONS.values() for text in ALL_PASSAGES] + [
    (QUESTIONS["ar"], " ".join(PASSAGES["ar"] * 2)),
    (QUESTIONS["fr"], " ".join(PASSAGES["fr"] * 2)),
    (QUESTIONS["en"], "Nine."),
]


def training_texts() -> list[str]:
    """What the tests' tokenizers are trained on: the packaged samples and the texts above."""
    texts = list(QUESTIONS.values()) + ALL_PASSAGES
    samples = Path(rerank_plugins.__file__).parent / "samples" / "passages.jsonl"
    if samples.is_file():
        lines = samples.read_text(encoding="utf-8").splitlines()
        texts += [json.loads(line)["text"] for line in lines if line.strip()]
    return texts
