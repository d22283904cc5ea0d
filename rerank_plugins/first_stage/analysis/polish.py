"""Polish alternations, which Snowball's stemmer leaves: ``koncie`` of ``konto``, ``paczek``.

Before the endings -e, -i and -y a hard consonant of the stem turns soft (t to ci, d to dzi, k to
c, g to dz, r to rz), and a word without an ending gets an e between its last two consonants. The
rules read words without accents; they follow the declension tables of school grammars and were
checked against the words of PoQuAD's passages. Where the soft consonant is the word's own
(``zdjęcie``, ``narzędzie``, ``lekarze``), it stays.
"""

from __future__ import annotations

from typing import Final

# Endings, the letters that go, and what stands in their place. The first that fits counts.
_HARDENED: Final = (
    # Nouns in -cie: kliknięcie, stulecie, odkrycie, otwarcie, uczucie, odbicie, wejście.
    ("jecie niecie piecie ciecie ziecie giecie czecie ulecie clecie olecie", 2, ""),
    ("bycie mycie szycie krycie uzycie zycie warcie tarcie parcie darcie czucie trucie", 2, ""),
    # To t: tekście, wzroście, areszcie, koncie, gazecie.
    ("kscie wzroscie gescie moscie szcie", 3, "t"),
    ("scie bicie picie wicie nicie", 2, ""),
    ("acie ecie icie ycie ocie ucie ncie kcie rcie lcie pcie", 3, "t"),
    ("enci anci unci misci nisci wysci tysci rysci dysci lalisci", 2, "t"),
    # To d: sądzie, wyjeździe.
    ("narzedzie krawedzie niedzwiedzie labedzie oredzie lodzie ludzie", 1, ""),
    ("ezdzie", 6, "azd"),
    ("adzie edzie odzie udzie idzie ydzie ndzie rdzie ldzie", 4, "d"),
    # To g: uwadze.
    ("wladze wiedze twierdze pieniadze sadze sedze widze", 1, ""),
    ("adze edze odze udze idze ydze ndze rdze", 3, "g"),
    # To r: biurze, komputerze; nouns in -arze are mostly people, who keep theirs.
    ("obszarze pucharze gitarze katarze pozarze dolarze hektarze miarze papierze karierze", 2, ""),
    ("ierze pasterze rycerze talerze harcerze toperze gorze worze zorze morze burze", 1, ""),
    ("erze orze urze", 2, ""),
    ("ietrze wnetrze jutrze patrze", 1, ""),
    ("trze drze", 2, ""),
    ("torzy sorzy zorzy korzy dorzy terzy nerzy derzy", 2, ""),
    # To k: Polsce, książce, paczce, sukience, walce, koszulce, kolejce, komórce, fabryce, aptece.
    ("miejsce tworce", 1, ""),
    ("sce zce tce czce szce ience sence jance zance lance wance nynce rynce dynce", 2, "k"),
    ("walce pralce szulce bulce pilce wilce spolce ejce trojce komorce corce gorce", 2, "k"),
    ("amce narce karce parce warce darce ryce tyce muzyce ublice klinice hnice ronice", 2, "k"),
    ("afice ogice opiece tece nauce sztuce", 2, "k"),
    ("ownicy zawodnicy zednicy estnicy chotnicy ciwnicy ennicy telnicy obotnicy", 2, "k"),
    ("rycy tycy zycy scy eccy", 2, "k"),
    # The lonely e of nouns that the stemmer would take for verbs: mieszkaniec, surowiec.
    ("aniec eniec iniec yniec oniec owiec awiec niemiec ziemiec", 3, "c"),
)
_LEAST: Final = 5  # letters that a word has to which rules apply


def _by_tail() -> dict[str, tuple[tuple[str, int, str], ...]]:
    rules: dict[str, list[tuple[str, int, str]]] = {}
    for endings, cut, hard in _HARDENED:
        for ending in endings.split():
            rules.setdefault(ending[-3:], []).append((ending, cut, hard))
    return {tail: tuple(of_tail) for tail, of_tail in rules.items()}


_BY_TAIL: Final = _by_tail()


def hardened(word: str) -> str:
    """The word before its ending softened it: ``gazecie`` is ``gazet``."""
    if len(word) >= _LEAST:
        for ending, cut, hard in _BY_TAIL.get(word[-3:], ()):
            if word.endswith(ending):
                return word[: len(word) - cut] + hard
    return word


def without_lonely_e(stem: str) -> str:
    """The stem as it is before endings: ``rachunek`` is ``rachunk``."""
    return stem[:-2] + "k" if len(stem) >= _LEAST and stem.endswith("ek") else stem
