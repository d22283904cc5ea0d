"""Function words, which queries lose: people ask in sentences.

Short lists of articles, pronouns, prepositions, conjunctions, auxiliaries and question words:
Snowball's for French and English and Lucene's for Polish and Arabic, without every word that
is content in another sentence (French ``été``, Polish ``pan`` and ``rok``, Arabic units and
numerals; stopwords-iso has all of these) or reverses a meaning (not, without, before and after;
keeping them costs nothing on any set), and with the question words that they lack. Dropping
nothing was measured too and costs .01 of MRR@10 on average (``benchmarks/RESULTS.md``).

Passages keep all their words, so that "to be or not to be" finds its own.
"""

from __future__ import annotations

from typing import Final

_FRENCH: Final = """
au aux ce ces cet cette ceci cela ça dans de des du elle elles en et eux il ils je la le
les leur leurs lui ma mais me même mes moi mon ne nos notre nous on ou par pour qu que qui
quoi quel quelle quels quelles lequel laquelle lesquels lesquelles auquel duquel comment
combien où quand pourquoi dont sa se ses soi son sur ta te tes toi ton tu un une vos votre
vous si suis es est sommes êtes sont étant être étais était étions étiez étaient serai
sera serons seront serait seraient fus fut fûmes furent soit soient ai as avons avez ont
avoir ayant avais avait avions aviez avaient aurai aura aurons auront aurait auraient eut
eurent ait aient jusqu lorsqu puisqu quoiqu à y a
"""
_ENGLISH: Final = """
a an and are as at be been being but by did do does doing for from had has have having he
her hers him his how i if in into is it its me my of on or our ours she so such than that
the their theirs them then there these they this those to too was we were what when where
which who whom whose why with would you your yours am could should shall between about can
all most other each both more some any during through because here
"""
_POLISH: Final = """
a aby albo ale ani aż bo by byli był była było były być będą będzie choć ci cię co czego
czemu czy czyj czyja czyje czym dla do dlaczego gdy gdyby gdzie go i ich ile ilu im ja jak
jaka jaką jaki jakich jakie jakiego jakiej jakiemu jakim jakimi jako je jego jej jemu jest
jestem jeszcze jeśli jeżeli ją już kiedy kim kogo komu kto która którą które którego
której któremu który których którym którymi którzy lecz lub ma mają mi mnie mną mój moja
moje mu my na nad nam nami nas nasz nasza nasze nich nią nim nimi niej niego niż o od on
ona one oni ono oraz pod podczas ponieważ przez przy są się skąd swego swoim swoje swoją
swój swojej swojego ta tak taka taki takie tam te tego tej temu ten też to tu ty tych tym
tymi u w we wam was więc z za ze że żeby
"""
_ARABIC: Final = """
أ أم أما أن أنا أنت أنتم أنها أنه أنهم أو أي أية أين إلا إلى إن إنما إنه إنها إذ إذا الذي
التي الذين اللذان اللتان اللذين اللتين اللاتي اللواتي اللائي اذ الى الي أيضا ان او اي اين
بأن بل به بها بهم بما ثم حتى حيث سوف عن عنه عنها عند على عليه عليها عليهم ف فى في فيه فيها
فيما قد كان كانت كانوا كما كم كي كيف لأن لكن لكي لم لما لماذا لن له لها لهم ما ماذا مما
متى مع من منه منها منهم منذ مثل هذا هذه هذان هؤلاء هل هم هما هن هنا هناك هو هى هي و وأن
وفي وقد وكان وكانت ولا ولم وما ومن وهو وهي يكون تكون يكن تكن ذلك تلك ذات ذو نحن نحو لدى
لديه لديها بين خلال ضمن حول كل بعض تم يتم
"""

LISTS: Final = {
    "ar": frozenset(_ARABIC.split()),
    "fr": frozenset(_FRENCH.split()),
    "pl": frozenset(_POLISH.split()),
    "en": frozenset(_ENGLISH.split()),
    "neutral": frozenset(),
}
"""By language, in lower case and with accents."""

REVERSING: Final = frozenset(
    ["no", "not", "nor", "without", "sans", "ni", "pas", "avec", "nie", "لا", "غير", "دون", "ليس"]
)
"""Words that say something beside others, and nothing alone."""

_LABELLED: Final = """
vitamin vitamins vitamine vitamines witamina witaminy witamine hepatitis hepatite type typ class
classe klasa klasy grade group groupe grupa grupy plan category categorie kategoria kategorii
section sekcja line ligne linia linii gate team equipe exhibit appendix annexe influenza grippe
grypa variant wariant option opcja terminal building batiment budynek block bloc blok zone strefa
strefy rer فيتامين الكبد فئة الفئة صف الصف مجموعة المجموعة نوع النوع قسم القسم مبنى المبنى بوابة
البوابة خطة الخطة
"""
LABELLED: Final = frozenset(_LABELLED.split())
"""Nouns that a letter names one of ("vitamin a"), without accents."""

# Function words of languages that we do not stem: they tell that a text is in none of ours.
_GERMAN: Final = """
aber als am an auch auf aus bei bin bis das dass dem den der des die diese dieser dieses
doch durch ein eine einem einen einer er es für haben hat hatte ich ihr im in ist kann
können man mit nach nicht noch nur oder sein sich sie sind so um und uns unter vom von vor
war was wenn wer werden wie wir wird wo wurde zu zum zur über
"""
_DUTCH: Final = """
aan als bij dan dat de deze die dit door een en er geen had heb heeft het hij hoe hun ik in
is je kan maar me meer met mijn na naar niet nog nu of om ook op over te tot uit uw van veel
voor waren was wat we wel werd wie wij worden wordt zal ze zich zijn zo zonder
"""
_SPANISH: Final = """
al algo como con contra cual cuando de del desde donde dos el ella ellos en entre era es esa
ese eso esta este esto está fue ha había hasta hay la las le les lo los me mi mientras muy
más nada ni no nos o otra otro para pero por porque que quien qué se según ser si sin sobre
son su sus también tiene todo un una uno y ya yo
"""
_PORTUGUESE: Final = """
ao aos as até com como da das de dela dele do dos e ela elas ele eles em entre era essa esse
esta este eu foi foram há isso isto já lhe mais mas me mesmo meu minha muito na nas nem no
nos não nós o onde os ou para pela pelas pelo pelos por porque qual quando que quem se sem
ser seu seus sua suas são só também te tem um uma você à às é
"""
_ITALIAN: Final = """
a ai al alla alle anche che chi ci come con da dal dalla dei del della delle di dove e ed
era erano essere fu gli ha hanno ho i il in io la le lei li lo loro ma mi nei nel nella noi
non o per perché più quale quando quella quello questa questo se sei si sia sono sua sue sui
sul sulla suo tra un una uno è
"""
_SWEDISH: Final = """
alla att av blev bli de dem den denna deras dess det detta dig din där efter eller en er ett
från för ha hade han hans har henne hennes hon honom hur här i icke inte jag kan man med men
mig min mot mycket ni nu när och om på samma sedan sig sin skulle som så till under upp ut
utan var vara vi vid vilken än är även över
"""

NEIGHBOURS: Final = tuple(
    frozenset(words.split())
    for words in (_GERMAN, _DUTCH, _SPANISH, _PORTUGUESE, _ITALIAN, _SWEDISH)
)
"""Function words of languages that no analyzer here stems."""
