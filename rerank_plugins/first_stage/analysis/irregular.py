"""Forms that no suffix rule joins with their word: ``children``, ``wrote``, ``yeux``, ``ręce``.

Common words alone, and no form that is a word of its own (``left``, ``led``, ``lives``). A whole
dictionary in the place of this table (simplemma's, tried on the dev parts of the question sets)
gained .1 points of nDCG@10 in Polish and lost .3 in French and .7 in English: it splits names.
"""

from __future__ import annotations

from typing import Final

from rerank_plugins.first_stage.analysis.normalization import folded

# The word, then its forms.
_ENGLISH: Final = """
child children; man men; woman women; person people; foot feet; tooth teeth; goose geese;
mouse mice; ox oxen; wolf wolves; knife knives; wife wives; half halves; shelf shelves;
thief thieves; calf calves; criterion criteria; phenomenon phenomena; analysis analyses;
crisis crises; thesis theses; hypothesis hypotheses; diagnosis diagnoses; bacterium bacteria;
index indices; matrix matrices; vertex vertices; appendix appendices; nucleus nuclei;
fungus fungi; alumnus alumni; curriculum curricula; spectrum spectra; stimulus stimuli;
become became; begin began begun; break broke broken; bring brought; build built; buy bought;
catch caught; choose chose chosen; come came; draw drew drawn; drink drank drunk;
drive drove driven; eat ate eaten; fall fell fallen; fight fought; fly flew flown;
forget forgot forgotten; freeze froze frozen; get got gotten; give gave given; go went gone;
grow grew grown; hide hid hidden; hold held; keep kept; know knew known; lose lost; make made;
meet met; pay paid; ride rode ridden; rise risen; run ran; seek sought; sell sold; send sent;
shoot shot; sing sang sung; sink sank sunk; sleep slept; speak spoke spoken; spend spent;
stand stood; steal stole stolen; strike struck; swear swore sworn; swim swam swum;
take took taken; teach taught; tell told; think thought; throw threw thrown;
understand understood; wake woke woken; wear wore worn; win won; write wrote written
"""
_FRENCH: Final = """
travail travaux; œil yeux; ciel cieux; vitrail vitraux; bail baux; corail coraux;
monsieur messieurs; madame mesdames; mademoiselle mesdemoiselles
"""
_POLISH: Final = """
brat bracia braci braciom braćmi braciach; chłopiec chłopca chłopcu chłopcy chłopców;
człowiek ludzie ludzi ludziom ludźmi ludziach; córka córce córek; droga drodze dróg;
dziecko dzieci dziecka dziecku dzieckiem dzieciom dziećmi dzieciach;
dzień dni dnia dniu dniem dniom dniami dniach; dziewczyna dziewczynie; góra górze gór;
gwiazda gwieździe; imię imiona imienia imieniem imion; kobieta kobiecie;
koniec końca końcu końcem; kościół kościoła kościele; krew krwi;
książę księcia księciu książęta; książka książek; las lesie;
ksiądz księża księdza księdzu księdzem księży księżom księżmi księżach; liczba liczbie;
matka matce matek; mąż męża mężem mężowie; miasto mieście; miesiąc miesięcy; noga nodze nóg;
ojciec ojca ojcu ojcem ojcowie ojców; oko oczy oczu oczom oczami oczach; palec palca palce palców;
pieniądz pieniądze pieniędzy; pies psy psa psu psem psie psów psom psami psach;
przyjaciel przyjaciele przyjaciół; ręka ręce ręki rąk rękom rękami rękach; rok roku rokiem;
rzeka rzece; sen snu sny snów; siostra siostrze sióstr; stół stołu stole; szkoła szkole szkół;
świat świecie; tydzień tygodnie tygodnia tygodniu tygodniem tygodni tygodniach;
tysiąc tysięcy; ucho uszy uszu uszom uszami uszach; wieś wsi; woda wodzie wód;
wojna wojnie wojen; ząb zęby zęba zębem zębów; zwierzę zwierzęta zwierzęciem zwierząt
"""


def _by_form(table: str) -> dict[str, str]:
    words = (entry.split() for entry in table.split(";"))
    return {folded(form): folded(word) for word, *forms in words for form in forms}


WORD_OF: Final = {"en": _by_form(_ENGLISH), "fr": _by_form(_FRENCH), "pl": _by_form(_POLISH)}
