"""What people type and expect to find: kinds of input that search engines get reports about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins.first_stage import BM25

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "search_cases.jsonl").read_text("utf-8").splitlines()
]
OTHER = {"ar": "وصلت الحافلة.", "fr": "La gare.", "pl": "Pociąg odjechał.", "en": "Bread."}


@pytest.mark.parametrize("auto", [False, True], ids=["own", "auto"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['query']}")
def test_a_case_finds_what_it_asks_for(case: dict[str, Any], auto: bool) -> None:
    """The right passage comes first, or exactly the right ones come."""
    bm25 = BM25(case["passages"], language="auto" if auto else case["language"])
    found = [candidate.key for candidate in bm25.search(case["query"], len(case["passages"]))]
    if "first" in case:
        assert found[0] == case["first"]
    else:
        assert sorted(found) == sorted(case["found"])


# Each line: language; words that find each other, in any order.
MEETING = """
ar; وزير; الوزير; والوزير; للوزير; بالوزير; لوزير
ar; لغة; اللغة; للغة; باللغة
ar; ليل; الليل; لليل; بالليل
ar; لجنة; اللجنة; للجنة; ولجنة
ar; لاعب; اللاعبين; للاعبين
ar; أولاد; الأولاد; للأولاد; وأولاد
ar; ألعاب; الألعاب; بألعاب; بالألعاب
ar; ألماني; الألماني; ألمانيا
ar; التهاب; الالتهاب; بالتهاب; الالتهابات
ar; والدة; الوالدة; لوالدة
ar; بالون; البالون
ar; مدرسة; المدرسة; للمدرسة; وبالمدرسة; كالمدرسة; فالمدرسة; مدرستهم; مدرستنا
ar; بيت; لبيت; ببيت; وبيت; البيت; فبيت
ar; أسد; كالأسد; كأسد; بأسد
ar; يفتح; سيفتح; وسيفتح; فسيفتح
ar; مسؤول; مسئول; المسؤولين; المسئولية
ar; شؤون; شئون; الشؤون
ar; رؤوس; رءوس
ar; هيئة; هيأة; الهيئة
ar; قراءة; قرائة
ar; شيء; شئ; شىء
ar; شاطئ; شاطىء; الشاطيء
ar; مبادئ; مباديء; المبادئ
ar; تبدأ; ستبدأ; وستبدأ
ar; أبو ظبي; أبوظبي
ar; أبو ظبي; وأبوظبي; لأبوظبي
ar; قرآن; القرآن; القرءان; والقرءان
ar; آمنوا; ءامنوا; وءامنوا
ar; إجراء; إجراءات; والإجراءات
ar; مئة; مائة; المائة
ar; موسيقى; موسيقا; الموسيقي
ar; سوريا; سورية; السورية
ar; أمريكا; أميركا; الأميركية
ar; فلسطين; فلسطيني; الفلسطينيين
ar; كتاب; كتابا; كتابه; كتابها; كتابهم; والكتاب
ar; عبد الله; عبدالله; لعبدالله
ar; عبد الرحمن; عبدالرحمن; وعبدالرحمن
ar; أبو بكر; أبوبكر
ar; نور الدين; نورالدين
ar; نصر الله; نصرالله
ar; ذو الحجة; ذوالحجة
ar; قرآن; ٱلْقُرْآن; ﺍﻟﻘﺮﺁﻥ; القـــرآن
ar; کتاب کبیر; كتاب كبير
fr; été; ETE; l'été; d’été; Été
fr; Noël; NOEL; noel
fr; école; ECOLES; ecole
fr; français; francais; FRANÇAIS
fr; énergie; énergies; energie; l’ENERGIE
fr; œuvre; oeuvres; ŒUVRE
fr; cœur; coeur; cœurs
fr; élève; eleve; élèves
fr; hôpital; hopital
fr; a-t-il; a
pl; łódź; lodz; Łodzi
pl; żółw; zolw; żółwia
pl; święto; swieto; święta
pl; gęsi; gesi; gęś
pl; źródło; zrodlo; źródła
pl; Kraków; Krakowa; Krakowie; krakowem; krakow
pl; został; zostal; została; zostali
pl; rozmowa; rozmów; rozmow
en; e-mail; email; E-mails; emails
en; Wi-Fi; wifi; WiFi; WIFI
en; U.S.A.; USA; U.S.A
en; U.S.; US
en; Ph.D.; PhD; phd
en; COVID-19; covid19; Covid 19; COVID19
en; ABC-123; ABC123; abc 123; abc_123
en; iPhone15; iPhone 15; iphone-15; IPHONE15
en; get user by id; getUserById; get_user_by_id; get-user-by-id; GetUserById
en; node.js; Node.JS; NodeJS; nodejs
en; 1,000; 1000; 1 000; 1\u00a0000; 1\u202f000; 1.000
en; 1,000,000; 1000000; 1 000 000
en; 3.14; 3,14
en; CO₂; CO2; co2
en; 40 m²; 40 m2; 40m²
en; ½; 1/2
en; 2024-05-01; 20240501; 2024/05/01
en; +33 1 23 45 67 89; 123456789; 1.23.45.67.89
en; ＡＢＣ; abc
en; 555-1234; 5551234
en; 732 829 320 00074; 73282932000074
en; FR7630006000011234567890189; FR76 3000 6000 0112 3456 7890 189
en; O'Brien; OBrien; O’Brien
en; 20 °C; 20℃; 20°C
en; €20; 20 €
en; café; cafe; CAFE\u0301
en; №; no
en; #BlackFriday; BlackFriday; black friday
en; don't; don’t
en; 🇫🇷; 🇫🇷 !
neutral; Straße; STRASSE; strasse
neutral; Đorđe; dorde
neutral; Ærø; aero
neutral; ħaġar; hagar
en; child; children; children's
en; woman; women
en; write; writes; wrote; written; writing
en; analysis; analyses
fr; travail; travaux
fr; œil; oeil; yeux; Yeux
pl; pies; psy; psa; psów
pl; dziecko; dzieci; dzieciom
pl; ręka; ręce; rękami; rece
pl; książka; książek; książki; książce
pl; konto; koncie; kont
pl; rachunek; rachunku; rachunki
pl; paczka; paczek; paczce
pl; Polska; Polsce
pl; biuro; biurze
pl; uwaga; uwadze
pl; urząd; urzędzie; urzedu
pl; pacjent; pacjenci
pl; mieszkaniec; mieszkańcy
pl; zdjęcie; zdjęcia; zdjec
pl; lekarz; lekarze; lekarzy
pl; narzędzie; narzędzia
pl; błąd; błędy; bledow
pl; wrzesień; września
fr; photo; photos
fr; menu; menus
fr; actif; active; actifs
fr; acteur; actrice; acteurs
fr; vendeur; vendeuse
fr; payer; payé; paye; PAYEE
fr; étranger; étrangère
fr; public; publique
en; colour; color; coloured
en; organise; organize; organisation
en; centre; center
en; women's; womens
en; left; leaves; leave
en; database; data base; data-base
en; login; log-in
en; (555) 123-4567; 5551234567
ar; سيارة; سيارتي; سيارتين; السيارتان
ar; الكويت; كويتي
ar; بطاقة; بطاقتي; وبطاقتي
ar; داود; داوود
ar; جوجل; غوغل; قوقل
ar; إنجليزي; إنكليزية
ar; شيء; شيئا
ar; دواء; الدوا
ar; طالب; طلاب; الطلاب
ar; طفل; أطفال; اطفال
ar; بور سعيد; بورسعيد
ar; الصلاة; ٱلصَّلَوٰةَ
ar; العالمين; ٱلْعَٰلَمِينَ
ar; إبراهيم; إِبْرَٰهِـۧمَ
ar; موسى; مُوسَىٰ; يَٰمُوسَىٰ
ar; الرحمن; ٱلرَّحْمَٰنِ
ar; مسؤول; مَسْـُٔولٌ
ar; ملائكة; ٱلْمَلَٰٓئِكَةُ
ar; أولئك; أُو۟لَٰٓئِكَ
ar; الليل; وَٱلَّيْلِ
ar; التوراة; ٱلتَّوْرَىٰةَ
"""
PAIRS = [
    (language.strip(), one.strip(), other.strip())
    for line in MEETING.strip().splitlines()
    for language, *words in [
        line.encode()
        .decode("utf-8")
        .replace("\\u00a0", "\u00a0")
        .replace("\\u202f", "\u202f")
        .replace("\\u0301", "\u0301")
        .split(";")
    ]
    for one in words
    for other in words
]


@pytest.mark.parametrize(("language", "query", "passage"), PAIRS)
def test_spellings_and_forms_find_each_other(language: str, query: str, passage: str) -> None:
    """The passage with one form comes for the other, in its language and in a mixed corpus."""
    for read_as in (language, "auto"):
        if read_as == "auto" and language != "ar":
            continue  # a bare word does not show its language
        bm25 = BM25([f"{passage}", OTHER.get(language, "Bread.")], language=read_as)
        assert [c.key for c in bm25.search(query, 5)] == [0]


# language; query; the passage that comes first; others that must not.
FIRST = [
    ("en", "C++", ["in C++", "in C#", "in C"]),
    ("en", "c#", ["in C#", "in C++", "in C"]),
    ("en", "C", ["in C", "in C#", "in C++"]),
    ("en", ".NET developer", [".NET developer", "net developer"]),
    ("en", "1.2.3", ["version 1.2.3", "version 3.2.1", "version 12.3", "version 1.23"]),
    ("en", "v2.10", ["v2.10 is out", "v2.1 is out", "v10.2 is out"]),
    ("en", "192.168.1.10", ["host 192.168.1.10", "host 192.168.10.1", "host 192.168.110"]),
    ("en", "a.b@example.org", ["write a.b@example.org", "write b.a@example.org"]),
    ("en", "example.org", ["see www.example.org today", "an example of an org here"]),
    ("en", "report_2024.pdf", ["open report_2024.pdf", "a pdf report of 2024"]),
    ("en", "getUserById", ["call getUserById now", "get the user by id now"]),
    ("en", "AB-1234", ["part AB-1234", "part AB-4321", "part BA-1234"]),
    ("en", "AT&T", ["AT&T store", "at the T store"]),
    ("en", "R&D budget", ["R&D budget", "D and R budget"]),
    ("en", "S&P 500", ["S&P 500 fell", "P and S 500 fell"]),
    ("en", "10:30", ["at 10:30 sharp", "at 30:10 sharp"]),
    ("en", "2024-05-01", ["on 2024-05-01", "on 2024-01-05"]),
    ("en", "hepatitis c", ["hepatitis C", "hepatitis B", "hepatitis A"]),
    ("en", "plan B", ["plan B", "plan A"]),
    ("en", "type 2 diabetes", ["type 2 diabetes", "type 1 diabetes"]),
    ("en", "terminal 5", ["terminal 5", "terminal 4"]),
    ("en", "vitamin a", ["vitamin A", "vitamin B"]),
    ("en", "The Who concert", ["concert by The Who", "concert by The Band"]),
    ("en", "IT department", ["the IT department", "the HR department"]),
    ("en", "Will Smith", ["Will Smith", "John Smith"]),
    ("en", "May weather", ["weather in May", "weather in June"]),
    ("en", "no smoking", ["no smoking", "smoking area"]),
    ("en", "not available", ["not available now", "available now"]),
    ("en", "while loop", ["a while loop", "a for loop"]),
    ("en", "Doctor Who", ["an episode of Doctor Who", "a doctor of law"]),
    ("en", "Let It Be", ["Let It Be was released in 1970", "let me in"]),
    ("en", "hepatitis a vaccine", ["hepatitis A vaccine", "hepatitis B vaccine"]),
    ("en", "+48 22 123 45 67", ["call +48221234567", "call +48 22 123 54 67"]),
    ("en", "978-0-306-40615-7", ["ISBN 9780306406157", "ISBN 978-0-306-40616-4"]),
    ("en", "blood type O+", ["blood type O+", "blood type A+", "blood type O"]),
    ("fr", "article L.121-1", ["article L.121-1", "article L.12-11", "article L.122-1"]),
    ("fr", "article L121-1", ["article L. 121-1", "article L. 122-1"]),
    ("fr", "sans gluten", ["pain sans gluten", "pain avec gluten"]),
    ("fr", "pas de danse", ["un pas de danse", "un cours de danse"]),
    ("fr", "ligne a du RER", ["la ligne A du RER", "la ligne B du RER"]),
    ("fr", "groupe A", ["groupe A", "groupe B"]),
    ("fr", "l'est de la France", ["l'est de la France", "le sud de la France"]),
    ("fr", "Tour de France", ["Tour de France", "vie de France"]),
    ("fr", "les nouvelles d'hier", ["nouvelles d'hier", "nouvelles de demain"]),
    ("fr", "médaille d'or", ["médaille d'or", "médaille d'argent"]),
    ("fr", "à la carte", ["menu à la carte", "menu du jour"]),
    ("pl", "Pan Tadeusz", ["Pan Tadeusz", "Tadeusz Kos"]),
    ("pl", "rok 1939", ["rok 1939", "dom 1939"]),
    ("pl", "nie palić", ["nie palić", "palić wolno"]),
    ("pl", "klasa A", ["klasa A", "klasa B"]),
    ("pl", "art. 5 ust. 2", ["art. 5 ust. 2", "art. 2 ust. 15"]),
    ("pl", "być albo nie być", ["być albo nie być", "iść albo nie iść"]),
    ("ar", "فصيلة دم O", ["فصيلة دم O", "فصيلة دم A"]),
    ("ar", "شوربة عدس", ["شوربة عدس", "شوربة خضار"]),
    ("ar", "الإمام علي", ["الإمام علي", "الإمام مالك"]),
    ("ar", "قهوة بدون سكر", ["قهوة بدون سكر", "قهوة مع سكر"]),
    ("ar", "نقص فيتامين أ عند الأطفال", ["نقص فيتامين أ", "نقص فيتامين ج"]),
    ("ar", "سنة ٢٠٢٤", ["سنة 2024", "سنة 2023"]),
    ("ar", "الله", ["ذكر الله", "ذكر له"]),
    ("ar", "آلام الأم", ["آلام الظهر عند الأم", "الأب والأم"]),
    ("neutral", "花园", ["蜜蜂在花园里跳舞", "蜜蜂在城市里跳舞"]),
    ("neutral", "花", ["蜜蜂在花园里跳舞", "蜜蜂在城市里跳舞"]),
    ("neutral", "서울", ["서울에서 만나요", "부산에서 만나요"]),
    ("neutral", "สวัสดี", ["สวัสดีครับ", "ขอบคุณครับ"]),
]


@pytest.mark.parametrize(("language", "query", "passages"), FIRST, ids=lambda v: str(v)[:30])
def test_the_exact_form_comes_first(language: str, query: str, passages: list[str]) -> None:
    """Identifiers, letters and names come before what shares their parts, in both orders."""
    for listed in (passages, passages[::-1]):
        bm25 = BM25(listed, language=language)
        found = [listed[c.key] for c in bm25.search(query, len(listed))]
        assert found[0] == passages[0]


@pytest.mark.parametrize(
    ("language", "query"),
    [("en", "to be or not to be"), ("fr", "qui est-ce"), ("pl", "kto to jest"), ("ar", "من هو"),
     ("en", "the who"), ("en", "a"), ("pl", "i"), ("ar", "و")],
)  # fmt: skip
def test_a_query_of_function_words_finds_them(language: str, query: str) -> None:
    """Stop words are dropped from queries that have others alone."""
    bm25 = BM25([query, OTHER[language]], language=language)
    assert [c.key for c in bm25.search(query, 5)] == [0]


@pytest.mark.parametrize("language", ["ar", "auto"])
def test_a_word_falls_back_while_no_passage_has_it(language: str) -> None:
    """Its other forms are searched then alone; removed passages do not count."""
    bm25 = BM25(["سعر الذهب", "وصلت الحافلة"], language=language)
    assert [c.key for c in bm25.search("أسعار", 5)] == [0]
    (added,) = bm25.add(["أسعار النفط"])
    assert [c.key for c in bm25.search("أسعار", 5)] == [added]
    bm25.remove([added])
    found = bm25.search("أسعار", 5)
    assert found == BM25(["سعر الذهب", "وصلت الحافلة"], language=language).search("أسعار", 5)
    assert found[0].score == pytest.approx(bm25.explain("أسعار", 0).score)


def test_halves_are_searched_only_if_passages_have_both() -> None:
    """A word that no passage has is two words, or none of them."""
    passages = ["a data base of fish", "the base of a tree"]
    assert [c.key for c in BM25(passages, language="en").search("database", 5)] == [0, 1]
    assert BM25(passages[1:], language="en").search("database", 5) == []
