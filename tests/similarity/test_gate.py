"""The lexical gate: what must not be taken for the same, and what says the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.similarity import read, refusal
from aurelis.cache.similarity._gate import Gate
from tests.similarity.pairs import DIFFERENT, IN_OTHER_WORDS, REWORDED

GATES: tuple[Gate, ...] = ("wording", "meaning")
VOCABULARY = (
    "what is the a capital of France Paris not never 5 17 km please how do i my to from before after €-5 C++ don't",
    "vitamin A большой 大 can you tell me",
)
WORDS = st.lists(st.sampled_from(" ".join(VOCABULARY).split()), max_size=12).map(" ".join)
TEXTS = st.one_of(WORDS, st.text(max_size=40))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in DIFFERENT])
def test_what_asks_something_else_is_refused(one: str, other: str, gate: Gate) -> None:
    assert refusal(read(one), read(other), gate) is not None
    assert refusal(read(other), read(one), gate) is not None


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in REWORDED])
def test_what_asks_the_same_in_the_same_words_passes(one: str, other: str, gate: Gate) -> None:
    assert refusal(read(one), read(other), gate) is None
    assert refusal(read(other), read(one), gate) is None


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in IN_OTHER_WORDS])
def test_other_words_pass_only_where_meaning_is_compared(one: str, other: str) -> None:
    assert refusal(read(one), read(other), "meaning") is None
    assert refusal(read(one), read(other), "wording") == "words"


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("Add 5", "Add 6", "numbers"),
        ("Run 5 km", "Run 5 miles", "units"),
        ("Is $1 fine?", "Is €1 fine?", "signs"),
        ("Is it?", "Is it not?", "negation"),
        ("a to b", "b to a", "order"),
        ("Go home", "Иди домой", "language"),
        ("vitamin a is good", "vitamin is good", "names"),
    ],
)
def test_a_refusal_says_why(one: str, other: str, reason: str) -> None:
    assert refusal(read(one), read(other), "wording") == reason


@pytest.mark.parametrize("gate", GATES)
@given(one=TEXTS, other=TEXTS)
def test_it_is_symmetric_and_never_raises(gate: Gate, one: str, other: str) -> None:
    assert refusal(read(one), read(other), gate) == refusal(read(other), read(one), gate)
    assert refusal(read(one), read(one), gate) is None


@pytest.mark.parametrize("gate", GATES)
@given(text=WORDS, number=st.integers(0, 9999), other=st.integers(0, 9999), at=st.integers(0, 12))
def test_another_number_never_passes(gate: Gate, text: str, number: int, other: int, at: int) -> None:
    words = text.split()
    one, two = ([*words[:at], str(one), *words[at:]] for one in (number, other))
    same = refusal(read(" ".join(one)), read(" ".join(two)), gate) is None
    assert same == (number == other)


@pytest.mark.parametrize("gate", GATES)
@given(text=WORDS, negation=st.sampled_from(["not", "never", "nicht", "pas", "без", "n't"]), at=st.integers(0, 12))
def test_one_negation_more_never_passes(gate: Gate, text: str, negation: str, at: int) -> None:
    words = text.split()
    more = [*words[:at], "isn't" if negation == "n't" else negation, *words[at:]]
    assert refusal(read(text), read(" ".join(more)), gate) is not None


@given(words=st.lists(st.sampled_from(["paris", "london", "rome", "berlin"]), min_size=2, max_size=6))
def test_another_order_never_passes(words: list[str]) -> None:
    turned = words[::-1]
    for gate in GATES:
        passes = refusal(read(" ".join(words)), read(" ".join(turned)), gate) is None
        assert passes == (words == turned)


@given(text=WORDS.filter(bool))
def test_marks_and_spaces_change_nothing(text: str) -> None:
    assert read(text).tokens == read(f'  "{text}"…\n').tokens


def test_a_long_prompt_is_compared_word_by_word() -> None:
    """Otherwise comparing would take time that grows with the square of its length, or worse."""
    long = " ".join(f"word{'abcdefghij'[n % 10]}" for n in range(5000))
    assert refusal(read(long), read(long + " end"), "meaning") == "words"
    assert refusal(read(long), read("Please, " + long), "meaning") is None
