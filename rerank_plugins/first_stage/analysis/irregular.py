"""Forms that no suffix rule joins with their word: ``children``, ``wrote``, ``yeux``, ``ręce``.

Common words alone, and no form that is a word of its own (``left``, ``led``, ``lives``); British
spellings beside the American. A whole
dictionary in the place of this table (simplemma's, tried on the dev parts of the question sets)
gained .1 points of nDCG@10 in Polish and lost .3 in French and .7 in English: it splits names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rerank_plugins.first_stage.analysis.normalization import folded

# The word, then its forms.
_ENGLISH: Final = """
child children childrens; man men mens; woman women womens; person people; foot feet;
tooth teeth; goose geese; mouse mice; ox oxen; wolf wolves; knife knives; wife wives;
half halves; shelf shelves; thief thieves; calf calves; criterion criteria;
phenomenon phenomena; analysis analyses;
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
understand understood; wake woke woken; wear wore worn; win won; write wrote written;
loaf loaves; feel felt; mean meant; deal dealt; feed fed; lend lent; bend bent;
shine shone; weep wept; bite bitten; blow blew blown; tear tore torn; hang hung;
stick stuck; swing swung; spin spun; dig dug; ring rang rung; hear heard; say said; see seen;
bus buses; quiz quizzes; airplane aeroplane aeroplanes; aluminum aluminium;
anemia anaemia; catalog catalogue catalogues; center centre centres centred; centimeter centimetre
centimetres; defense defence; diarrhea diarrhoea; dialog dialogue dialogues; estrogen oestrogen;
fiber fibre fibres; gray grey; gynecology gynaecology; hemoglobin haemoglobin; jewelry jewellery;
kilometer kilometre kilometres; leukemia leukaemia; license licence licences; liter litre litres;
maneuver manoeuvre manoeuvres; meter metre metres; millimeter millimetre millimetres; mold mould;
offense offence offences; orthopedic orthopaedic; pajamas pyjamas; pediatric paediatric;
pediatrician paediatrician paediatricians; program programme programmes; skeptic sceptic;
theater theatre theatres; tire tyre tyres
"""
_FRENCH: Final = """
travail travaux; clé clef clefs; œil yeux; ciel cieux; vitrail vitraux; bail baux; corail coraux;
blanc blanche blanches; doux douce douces; faux fausse fausses; frais fraîche fraîches;
franc franche franches; grec grecque grecques; long longue longues;
public publique publiques; turc turque turques; sec sèche sèches;
monsieur messieurs; madame mesdames; mademoiselle mesdemoiselles
"""
_POLISH: Final = """
adwokat adwokaci; błąd błędu błędem błędzie błędy błędów błędom błędami błędach; brat bracia
braci braciom braćmi braciach; chłopiec chłopca chłopcu chłopcy chłopców; ciasto cieście; córka
córce córek; cukier cukru cukrem; czerwiec czerwca czerwcu; człowiek ludzie ludzi ludziom ludźmi
ludziach; droga drodze dróg; dziecko dzieci dziecka dziecku dzieckiem dzieciom dziećmi
dzieciach; dzień dni dnia dniu dniem dniom dniami dniach; dziewczyna dziewczynie; góra górze
gór; gra gier grze; grudzień grudnia grudniu; gwiazda gwieździe; hasło haseł; imię imiona
imienia imieniem imion; kara karze; kobieta kobiecie; koniec końca końcu końcem; kościół
kościoła kościele; krew krwi; krzesło krzeseł; ksiądz księża księdza księdzu księdzem księży
księżom księżmi księżach; książę księcia księciu książęta; książka książek; kwiecień kwietnia
kwietniu; las lesie; liczba liczbie; lipiec lipca lipcu; mąka mące; marzec marca marcu; matka
matce matek; mąż męża mężem mężowie; miasto mieście; miesiąc miesięcy; młody młodzi; Niemcy
Niemczech Niemiec; noga nodze nóg; obiad obiedzie; ogień ognia ogniem ogniu; ojciec ojca ojcu
ojcem ojcowie ojców; okno okien; oko oczy oczu oczom oczami oczach; palec palca palce palców;
Paweł Pawła Pawłem Pawłowi; pieniądz pieniądze pieniędzy; pies psy psa psu psem psie psów psom
psami psach; poseł posła posłem posłowie posłów; przyjaciel przyjaciele przyjaciół; ręka ręce
ręki rąk rękom rękami rękach; rok roku rokiem; rzeka rzece; sąsiad sąsiedzi sąsiedzie; sen snu
sny snów; sierpień sierpnia sierpniu; siostra siostrze sióstr; stół stołu stole; stopień stopnia
stopniu stopni stopniem; styczeń stycznia styczniu; sweter swetra swetry swetrów; świat świecie;
światło świetle świateł; szkoła szkole szkół; test teście; tydzień tygodnie tygodnia tygodniu
tygodniem tygodni tygodniach; tysiąc tysięcy; ucho uszy uszu uszom uszami uszach; uczeń ucznia
uczniem uczniowie uczniów; urząd urzędu urzędem urzędzie urzędy urzędów urzędom urzędami
urzędach; węgiel węgla; Węgry Węgrzech; Wiedeń Wiednia Wiedniu; wieś wsi; wizyta wizycie; Włochy
Włoszech; woda wodzie wód; wojna wojnie wojen; wrzesień września wrześniu; ząb zęby zęba zębem
zębów; zwierzę zwierzęta zwierzęciem zwierząt
"""

_ARABIC: Final = """
مدرسة مدارس; طالب طلاب; طبيب أطباء; سعر أسعار; بنك بنوك; قرض قروض; عقد عقود; قانون قوانين;
محكمة محاكم; قضية قضايا; شرط شروط; حق حقوق; رسم رسوم; ضريبة ضرائب; بيت بيوت; مدينة مدن; دولة
دول; قرية قرى; شارع شوارع; طريق طرق; جبل جبال; نهر أنهار; جزيرة جزر; متجر متاجر; مطعم مطاعم;
فندق فنادق; مسجد مساجد; متحف متاحف; مكتب مكاتب; مصنع مصانع; مرض أمراض; دواء أدوية; ألم آلام;
عرض أعراض عروض; عظم عظام; عين عيون; قلب قلوب; رجل رجال; صديق أصدقاء; شخص أشخاص; عامل عمال;
مدير مدراء; وزير وزراء; رئيس رؤساء; بطل أبطال; ملعب ملاعب; جهاز أجهزة; هاتف هواتف; برنامج
برامج; خطأ أخطاء; موقع مواقع; رقم أرقام; رسالة رسائل; صورة صور; نظام أنظمة نظم; خبر أخبار;
سؤال أسئلة; جواب أجوبة; يوم أيام; أسبوع أسابيع; دقيقة دقائق; نوع أنواع; شكل أشكال; جزء
أجزاء; قسم أقسام; فرع فروع; باب أبواب; قميص قمصان; فستان فساتين; حذاء أحذية; خاتم خواتم;
سفينة سفن; تذكرة تذاكر; حقيبة حقائب; حديقة حدائق; شجرة أشجار; زهرة زهور أزهار; كلب كلاب; قطة
قطط; طائر طيور; سمكة أسماك سمك; فاكهة فواكه; طبق أطباق; أمير أمراء; نبي أنبياء; حديث أحاديث;
جيش جيوش; سلاح أسلحة; شهيد شهداء; نائب نواب; حزب أحزاب; خليفة خلفاء; شاعر شعراء; فيلم أفلام;
أغنية أغاني أغان; قصة قصص; فن فنون; عاصمة عواصم; مركز مراكز; معهد معاهد; أستاذ أساتذة; قاضي
قضاة; تاجر تجار; زبون زبائن; عميل عملاء; ضيف ضيوف; مريض مرضى; فحص فحوص; تحليل تحاليل; مال
أموال; سهم أسهم; راتب رواتب; دين ديون; فائدة فوائد; سلعة سلع; صندوق صناديق; مفتاح مفاتيح;
كوكب كواكب; نجم نجوم; عنصر عناصر; معدن معادن; مصدر مصادر; مشكلة مشاكل; حل حلول; فكرة أفكار;
سبب أسباب; نتيجة نتائج; وثيقة وثائق; قاعدة قواعد; قبيلة قبائل; شعب شعوب; قرن قرون; عصر عصور;
حدث أحداث; أثر آثار; قصر قصور; برج أبراج; قلعة قلاع; جسر جسور; ميناء موانئ; راكب ركاب; زائر
زوار; عدد أعداد; مبلغ مبالغ; فاتورة فواتير; عنوان عناوين; نص نصوص; مقطع مقاطع; قناة قنوات;
صحيفة صحف; خادم خوادم; نافذة نوافذ; بحث بحوث أبحاث; مثال أمثلة; جدول جداول; صف صفوف; كتاب
كتب; ورقة أوراق; كوب أكواب; موعد مواعيد; غرفة غرف; سجين سجناء; جريمة جرائم; حكم أحكام حكام;
مادة مواد; تقرير تقارير; وظيفة وظائف; مهنة مهن; خط خطوط; حرف حروف أحرف; لقب ألقاب; بئر آبار;
حقل حقول; محصول محاصيل; جائزة جوائز; منصب مناصب; دور أدوار; خلية خلايا; غشاء أغشية; سائل
سوائل; فصل فصول; سطح أسطح; كهف كهوف; صخرة صخور; ابن أبناء; جد أجداد; أب آباء; زوج أزواج; سيد
سادة; غني أغنياء; جندي جنود; قائد قادة; حادث حوادث; مصرف مصارف; دائرة دوائر; مرحلة مراحل;
مقعد مقاعد; معرض معارض; مرجع مراجع; مذهب مذاهب; كنيسة كنائس; دير أديرة; راهب رهبان; ثوب
أثواب ثياب; لسان ألسنة; وجه وجوه; رأس رؤوس; ساق سيقان; سفير سفراء; ريح رياح; موسم مواسم;
حاكم حكام; ذنب ذنوب; سوار أساور; عطر عطور; إناء أواني; اسم أسماء; لون ألوان; شهر أشهر شهور;
سوق أسواق; طفل أطفال; عمل أعمال; حرب حروب; مطر أمطار; ملك ملوك; مشروع مشاريع; سنة سنوات
سنين; لحن ألحان; عضو أعضاء; عم أعمام; فقير فقراء; ولد أولاد; أم أمهات; منطقة مناطق; نقطة
نقاط; درس دروس; سن أسنان; مبنى مباني مبان; هدف أهداف; فريق فرق; علم علوم; عبد عبيد; مرة
مرات; امرأة نساء; أخ إخوة; أخت أخوات; بلد بلدان بلاد; يد أيدي; وعاء أوعية; صفحة صفائح; دليل
أدلة; خضار خضروات; حمام حمامات; شقة شقق; طابق طوابق; مصعد مصاعد; قفل أقفال; كرسي كراسي;
طاولة طاولات; سرير أسرة; ستارة ستائر; قلم أقلام; دفتر دفاتر; محفظة محافظ; بضاعة بضائع; بديل
بدائل; هدية هدايا; وصية وصايا; ضحية ضحايا; زاوية زوايا; جسم أجسام; مفصل مفاصل; شريان شرايين;
وريد أوردة; جرح جروح; حرق حروق; كسر كسور; حبة حبوب; جرعة جرع; لقاح لقاحات; وباء أوبئة; دهن
دهون; لحم لحوم; بيضة بيض; حبل حبال; سيف سيوف; درع دروع; كأس كؤوس; شوط أشواط; لائحة لوائح;
بند بنود; تهمة تهم; شاهد شهود; دعوى دعاوى; نسخة نسخ; ميزة مزايا; أداة أدوات; زر أزرار; رمز
رموز; سطر أسطر سطور; دالة دوال; أسرة أسر; قرد قرود; أسد أسود; ذئب ذئاب; حصان أحصنة; جمل
جمال; بقرة أبقار; خروف خراف; دجاجة دجاج; نمر نمور; تلميذ تلاميذ; زميل زملاء; خبير خبراء;
عالم علماء; حلم أحلام; سر أسرار; قيد قيود; ضغط ضغوط; حد حدود; ظرف ظروف; رأي آراء; جيل أجيال;
سقف أسقف; جدار جدران; حائط حيطان; أرض أراضي أراض; مزرعة مزارع; شاطئ شواطئ; ساحل سواحل; صحراء
صحاري; وادي أودية وديان; ميل أميال; متر أمتار; كيس أكياس; علبة علب; زجاجة زجاج; قطعة قطع;
وديعة ودائع; شيك شيكات; قسط أقساط; رصيد أرصدة; سند سندات; ربح أرباح; خسارة خسائر; كتلة كتل;
نسبة نسب; حصة حصص
"""

# Forms that are words of their own too: searched only where the query's own word is nowhere.
_DOUBTFUL_ENGLISH: Final = """
leaf leave left; find found; life lives; see saw; lead led; rise rose; lie lay; bind bound;
wind wound
"""


def _by_form(table: str) -> dict[str, str]:
    words = (entry.split() for entry in table.split(";"))
    return {folded(form): folded(word) for word, *forms in words for form in forms}


WORD_OF: Final = {"en": _by_form(_ENGLISH), "fr": _by_form(_FRENCH), "pl": _by_form(_POLISH)}
ARABIC: Final = tuple(tuple(entry.split()) for entry in _ARABIC.split(";"))
"""Nouns and their broken plurals, hamzas as written."""

DOUBTFUL: Final = {"en": tuple(tuple(e.split()) for e in _DOUBTFUL_ENGLISH.split(";"))}
"""Words and forms that are not joined with them by a stem, since they are words of their own."""


def by_stem(
    families: Iterable[Sequence[str]], stem: Callable[[str], str]
) -> dict[str, tuple[str, ...]]:
    """Each stem of a family of words, and the other stems of all families that it is in."""
    found: dict[str, dict[str, None]] = {}
    for words in families:
        stems = dict.fromkeys(map(stem, words))
        for one in stems:
            found.setdefault(one, {}).update(stems)
    return {one: tuple(other for other in stems if other != one) for one, stems in found.items()}
