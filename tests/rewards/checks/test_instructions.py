"""IFEval's 25 instructions: a text that follows each and one that does not; and data that say nothing are errors."""

from __future__ import annotations

import random
import time

import pytest
from langdetect.detector_factory import DetectorFactory

from rewards.checks.instruction_following import instruction_following, loose_versions
from rewards.checks.instructions import INSTRUCTIONS, check_arguments, follows
from rewards.checks.language import Undetected, _ByWords, _factory, language
from rewards.checks.sentences import capital_words, sentences

LOWER = "this is a sentence in english, and nothing else is written here."
GERMAN = "Das ist ein Satz auf Deutsch, und sonst steht hier nichts geschrieben."
GOLDEN = [
    ("keywords:existence", {"keywords": ["mom", "Mother"]}, "My MOM is a mother.", "My mom is."),
    ("keywords:existence", {"keywords": ["C++"]}, "I like c++.", "I like C."),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "at least"}, "War and warfare", "war"),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"}, "war", "war war"),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocks", "The ROCK."),
    ("keywords:letter_frequency", {"letter": "T", "let_frequency": 2, "let_relation": "at least"}, "Tt", "t"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "less than"}, "#a", "##"),
    ("language:response_language", {"language": "de"}, GERMAN, LOWER),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One, Mr. X.", "One? Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***\n", "a *** *** b"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two-three", "one, two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one, two", "one two-three"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
        'a\n\n"hello, you',
        "a\n\nyou hello",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b c]", "[a] [b\nc]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a\nP. S. b", "a PS b"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "a p.p.s b", "a P.S. b"),
    ("detectable_content:postscript", {"postscript_marker": "PS:"}, "a ps: b", "a P.S. b"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "a\n* b\n - c\n**d**", "* a"),
    ("detectable_format:constrained_response", {}, "My answer is no. So.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b c*", "*a* and **"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1\na\nPart2\nb",
     "PART 1 a Part 2"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1'),
    ("detectable_format:title", {}, "<<A poem>>\nb", "<< >>\n<b>"),
    ("combination:two_responses", {}, "a ****** b", "a ****** a"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "Bye."}, 'a "bye."', "Bye. a"),
    ("startend:quotation", {}, ' "a" ', '"a'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A B-C a", "A-B"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "A b", "A B"),
    ("change_case:english_capital", {}, LOWER.upper(), LOWER.capitalize()),
    ("change_case:english_capital", {}, LOWER.upper(), GERMAN.upper()),
    ("change_case:english_lowercase", {}, LOWER, LOWER.capitalize()),
    ("punctuation:no_comma", {}, "a; b", "a, b"),
]  # fmt: skip


def test_all_of_them_have_golden_texts():
    assert {name for name, *_ in GOLDEN} == INSTRUCTIONS.keys()
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), GOLDEN)
def test_a_text_that_follows_and_one_that_does_not(name, arguments, good, bad):
    arguments = check_arguments(name, {**arguments, "another_ones": None})
    assert follows(name, good, arguments)
    assert not follows(name, bad, arguments)
    assert not follows(name, " \n", arguments)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No end", 1),
        ("One. Two! Three? Four... Five", 5),
        ("Mr. Smith met Dr. Who at 3.5 p.m. on Fig. 2.", 1),
        ("J. R. R. Tolkien wrote it. See example.com or e.g. this.", 2),
        ('He said "Go!" and went. "Stay." She did.', 4),
        ("1. First\n2. Second.", 1),
        ("So do I. He came at 3 p.m. She left.", 3),
        ("We had 12. Then it ended?!", 2),
        ("!" * 5000 + "x", 1),
    ],
)
def test_sentences(text, count):
    assert sentences(text) == count


def test_words_in_capitals():
    assert capital_words("NASA's U.S.A. WELL-KNOWN AT&T a1 A1 Ab I") == 5  # NASA's has a small letter


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "<<" * 10_000, "*" * 20_000, " \n" * 10_000 + "x", "a. " * 5_000, "-\n" * 10_000, "{" * 20_000],
)
def test_no_text_is_slow(text):
    """What IFEval's own patterns need seconds for is linear here."""
    start = time.perf_counter()
    for name, arguments, *_ in GOLDEN:
        if not name.startswith(("language", "change_case:english")):
            follows(name, text, check_arguments(name, arguments))
    assert time.perf_counter() - start < 1.0


def score(text, *instructions, **options):
    """(score, what is malformed)."""
    told = []
    (found,) = instruction_following(
        completions=[text],
        instruction_id_list=[[name for name, _ in instructions]],
        kwargs=[[arguments for _, arguments in instructions]],
        log_malformed=lambda *each: told.append(each),
        **options,
    )
    return found, told


COMMA, LOWERCASE = ("punctuation:no_comma", {}), ("change_case:english_lowercase", {})


def test_prompts_and_instructions_strictly_and_loosely():
    text = "Sure, here it is:\n" + LOWER.replace(",", "")
    assert score(text, COMMA, LOWERCASE) == (0.0, [])
    assert score(text, COMMA, LOWERCASE, loose=True) == (1.0, [])
    assert score(LOWER, COMMA, LOWERCASE) == (0.0, [])
    assert score(LOWER, COMMA, LOWERCASE, level="instruction") == (0.5, [])
    assert score("", COMMA, level="instruction") == (0.0, [])
    assert loose_versions("a*\nb\n*c") == ["a*\nb\n*c", "b\n*c", "a*\nb", "b", "a\nb\nc", "b\nc", "a\nb"]
    assert instruction_following(completions=["a"], instruction_id_list=[None], kwargs=[None]) == [None]


def test_a_text_without_a_language_follows_no_instruction_about_it():
    """IFEval pays it: `1 2 3` would be a response in any language."""
    found, told = score("1 2 3", ("language:response_language", {"language": "fr"}))
    assert found == 0.0
    ((place, label, reason),) = told
    assert (place, label) == (0, "instruction_following")
    assert "language:response_language" in reason
    with pytest.raises(Undetected):
        language("1 2 3")


@pytest.mark.parametrize(
    ("names", "arguments", "reason"),
    [
        (["punctuation:no_commas"], [{}], "there is no instruction 'punctuation:no_commas'"),
        (["length_constraints:number_words"], [{"num_words": 3}], "lacks the argument relation"),
        (["length_constraints:number_words"], [{}], "lacks the argument num_words, relation"),
        (["punctuation:no_comma"], [{"num_words": 3}], "has no argument num_words"),
        (["length_constraints:number_words"], [{"num_words": "3", "relation": "at least"}], "num_words='3'"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": "at most"}], "relation='at most'"),
        (["keywords:existence"], [{"keywords": []}], "a list of texts"),
        (["keywords:existence"], [{"keywords": "mom"}], "a list of texts"),
        (
            ["keywords:letter_frequency"],
            [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}],
            "1 character",
        ),
        (["language:response_language"], [{"language": "tlh"}], "one of af, ar"),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}],
            "paragraph 2 of 1",
        ),
        (["punctuation:no_comma"], [{}, {}], "as many"),
        ([], [], "one or more"),
        ("punctuation:no_comma", [{}], "one or more"),
        (["punctuation:no_comma"], None, "as many"),
        (["punctuation:no_comma"], ["x"], "an object is needed"),
    ],
)
def test_data_that_say_nothing_are_an_error_and_never_a_zero(names, arguments, reason):
    with pytest.raises(ValueError, match=f"sample 0: .*{reason}"):
        instruction_following(completions=["a"], instruction_id_list=[names], kwargs=[arguments])


@pytest.mark.parametrize(
    "text",
    [
        LOWER, LOWER.upper(), GERMAN, "WELL Known NASA's  OK  ABc aBC  ", "a", "  double  spaces ", "été à Paris, ça?",
        "\u042d\u0442\u043e \u0442\u0435\u043a\u0441\u0442. English words", "これは日本語の文章。", "한국어 문장",
        "Ti\u1ebfng Vi\u1ec7t co\u0301 d\u00e2\u0301u", "این یک جمله است", "Țară și oraș", "\n\ttabs\nand lines\n",
        f"see https://example.com/a?b and mail me@example.org, {LOWER}", "x" * 50 + " " + LOWER * 200,
    ],
)  # fmt: skip
def test_words_have_langdetects_own_ngrams(text):
    theirs, ours = _factory().create(), _ByWords(_factory())
    theirs.append(text)
    ours.append(text)
    assert ours.text == theirs.text
    assert [(each.lang, each.prob) for each in ours.get_probabilities()] == [
        (each.lang, each.prob) for each in theirs.get_probabilities()
    ]
    assert ours._extract_ngrams() == theirs._extract_ngrams()


def test_languages_are_told_the_same_whatever_others_seed_and_draw():
    text = "no me gusta the weather in Paris, aber it is fine"
    before, global_seed = random.getstate(), DetectorFactory.seed
    try:
        found = set()
        for seed in (None, 1, 2, 3):
            DetectorFactory.seed = seed
            language.cache_clear()
            found.add(language(text))
    finally:
        DetectorFactory.seed = global_seed
    assert len(found) == 1
    assert random.getstate() == before
