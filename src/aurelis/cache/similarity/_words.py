"""Words that the lexical gate knows, by what they do. English mostly; negations and small words of its neighbours."""

from __future__ import annotations

from typing import Final


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


def _pairs(*lines: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(pair.split()) for line in lines for pair in line.split(", "))


NEGATIONS: Final = _words(
    "ain't lacking neither never no nobody none nor not nothing nowhere without",
    "kein keine keinem keinen keiner keines nicht nichts nie niemals niemand ohne",
    "aucun aucune jamais ne pas personne rien sans",
    "jamás nada nadie ningún ninguna ninguno nunca sin",
    "mai nessun nessuna nessuno niente non senza",
    "nenhum nenhuma não sem geen niet niets nooit zonder",
    "bez nikdy žádný без не нет ни никогда",
)
NEGATIONS_INSIDE: Final = (
    *("不", "没", "沒", "無", "无", "非", "未", "别", "別", "勿"),
    *("ない", "ません"),
    *("안", "못", "없", "아니"),
)
"""Negations of languages that write no spaces, or none before these."""

CASE_MATTERS: Final = _words(
    "act aids amazon amber apple art august bath bill bush china christian cook cork drew excel faith frank gene go",
    "grace guy heather holly hope in it ivy jack jade java joy lily march mark may me mercury mobile nice or orange",
    "pearl polish ram reading rest rob rose ruby rust sat soap sue swift target turkey us who will windows word",
)
"""Words that are names or abbreviations as well, so that a capital says which."""

BRITISH: Final = (
    *("behaviour", "colour", "favour", "flavour", "harbour", "honour", "humour", "labour", "neighbour", "rumour"),
)
"""Words that Americans write with "or"."""
ALIKE: Final = {
    "analyse": "analyze",
    "catalogue": "catalog",
    "centre": "center",
    "grey": "gray",
    "litre": "liter",
    "metre": "meter",
    "theatre": "theater",
}
"""Other words that they write otherwise."""

ARTICLES: Final = _words("a an the")
LIGHT: Final = _words("a actually an of please really")
"""Words that change nothing by being there or not."""
LETTERED: Final = _words(
    "appendix blood category class exhibit grade group hepatitis influenza key level model note option part plan point",
    "schedule section series team type variable version vitamin",
)
"""Words after which an "a" is no article."""
FEW: Final = _words("few little lot")
"""Words before which an "a" counts."""
FUNCTION: Final = _words(
    "a about am an and are as at be been by can could did do does for from had has have he her here him his how i if",
    "in into is it its may me might must my of on or our please shall she should so such than that the their them then",
    "there these they this those to us was we were what when where which who whom whose why will with would you your",
)
"""Words that hold a sentence together, and say nothing of what it is about."""
QUANTITY: Final = _words(
    "after all always any before both but each every except fewer first half last least less many more most much often",
    "only over rarely second since some sometimes third twice under unless until",
    "two three four five six seven eight nine ten eleven twelve dozen twenty thirty forty fifty hundred thousand",
    "million billion",
)
"""Words for how much, how often, and when."""

OPPOSITES: Final = _pairs(
    "accept reject, add remove, allow deny, ascending descending, best worst, buy sell, cheap expensive, close open",
    "cold hot, create delete, decode encode, decrease increase, decrypt encrypt, disable enable, download upload",
    "early late, export import, fast slow, high low, install uninstall, advantages disadvantages, pros cons, day night",
    "benefits risks, old new, large small, left right, long short, male female, maximum minimum, max min, north south",
    "east west, on off, pass fail, positive negative, push pull, raise lower, read write, right wrong, safe dangerous",
    "start stop, begin end, true false, up down, win lose, with without, borrow lend, teach learn, arrive depart",
    "ancient modern, love hate, good bad, better worse, strong weak, hard easy, full empty, inside outside",
    "above below",
)
REVERSING: Final = ("a", "anti", "de", "dis", "il", "im", "in", "ir", "mis", "non", "un")
"""What makes the opposite of a word, put before it."""
AGAINST: Final = (
    ("hyper", "hypo"),
    ("in", "ex"),
    ("im", "ex"),
    ("pre", "post"),
    ("over", "under"),
    ("macro", "micro"),
    ("inter", "intra"),
    ("in", "de"),
)
"""Beginnings of words that make opposites of each other."""

LANGUAGES: Final = {
    "de": _words("der die das und ist nicht ein eine wie wo wer warum ich mit für von auf den dem zu"),
    "en": _words("the and is are what how where who why of to in for with my do does can i you it this that"),
    "es": _words("el la los las y es no un una como cómo qué dónde quién por para con de mi en"),
    "fr": _words("le la les et est un une comment quelle quel où qui pourquoi avec pour de du mon en je"),
    "it": _words("il lo gli e è un una come cosa dove chi perché con per di mio che sono"),
    "nl": _words("de het en is niet een hoe wat waar wie waarom met voor van mijn ik op"),
    "pt": _words("o os as e é não um uma como qual onde quem por para com de do meu em"),
}
"""Small words by which a language is known."""

ABOUT_WORDS: Final = _words(
    "article articles capitalize colon comma commas count grammar grammatical grammatically hyphen letters paraphrase",
    "plural pronounce pronunciation proofread punctuate punctuation quote quotes rephrase rewrite rhyme rhymes say",
    "semicolon sentence spell spelling spelled spelt syllables synonym synonyms translate translation uppercase",
    "lowercase word words",
)
"""Where one of them is, courtesy may be what is asked about, and so may an article or a comma."""

TASKS: Final = _words(
    "define describe explain find give help list name recommend show suggest summarize tell translate write"
)
"""What one asks somebody to do."""
SAYING: Final = _words("explain summarize tell")
"""Of these, what nobody asks whether it can be done."""
QUESTIONS: Final = _words("how what when where which who why")
COURTESY: Final = _words("bitte kindly please")
GREETINGS: Final = _words("hello hey hi")
THANKS: Final = (("thanks",), ("thank", "you"))
OPENINGS: Final = (("can", "you"), ("could", "you"), ("would", "you"), ("will", "you"))
"""What a task may begin with."""
ASKINGS: Final = (
    ("tell", "me"),
    ("i", "want", "to", "know"),
    ("i", "would", "like", "to", "know"),
)
"""What a question may begin with."""
KNOWING: Final = ("do", "you", "know")
"""What a question for something, and not for how or why, may begin with as well."""
THINGS: Final = _words("what when where which who")
HOW_TO: Final = frozenset(("how", verb, person) for verb in ("do", "can") for person in ("i", "one"))
