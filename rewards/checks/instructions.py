"""The 25 instructions of IFEval (arXiv 2311.07911), each as a check of a text.

Written from the definitions that google-research publishes with its data. Three things differ, because a reward is
optimised and a benchmark is not: words of the data are words, not patterns; what the data lack is an error, where
theirs draws it at random; and a text whose language cannot be told ("1 2 3") follows no instruction about it, where
theirs follows all. Sentences and words in capitals are counted without NLTK (`rewards.checks.sentences`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rewards.checks.language import language, languages
from rewards.checks.sentences import capital_words, sentences, words

LESS_THAN, AT_LEAST = "less than", "at least"
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]


def _related(count: int, relation: str, wanted: int) -> bool:
    return count < wanted if relation == LESS_THAN else count >= wanted


def _times(text: str, word: str) -> int:
    return len(re.findall(re.escape(word.strip()), text, re.IGNORECASE))


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _placeholders(text: str) -> int:
    """`[...]` within a line, counted from the left."""
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
            start = line.find("[", end)
    return count


def _postscript(text: str, marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = patterns.get(marker.strip()) or re.escape(marker.strip().lower())
    return re.search(pattern, text.lower()) is not None


def _bullets(text: str) -> int:
    """Lines that begin with one `*` and something behind it, or with `-`."""
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE))


def _highlights(text: str) -> int:
    """`*...*` and `**...**` within a line, with something in them."""
    single = re.findall(r"\*[^\n*]*\*", text)
    double = re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(each.strip("*").strip()) for each in single) + sum(bool(each[2:-2].strip()) for each in double)


def _sections(text: str, splitter: str) -> int:
    return len(re.findall(rf"{re.escape(splitter.strip())}\s?\d+", text))


def _json(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    """`<<...>>` within a line, with something in it."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def _paragraphs(text: str, wanted: int) -> bool:
    """Parts between `***`; only the first and the last may be empty, and are none then."""
    parts = [part.strip() for part in text.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == wanted


def _first_word(text: str, wanted: Arguments) -> bool:
    """Paragraphs here are parts between two line ends; the n-th is counted with empty ones before it."""
    parts = [part.strip() for part in text.split("\n\n")]
    place = wanted["nth_paragraph"]
    if sum(map(bool, parts)) != wanted["num_paragraphs"] or not parts[place - 1]:
        return False
    word = parts[place - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == wanted["first_word"].lower()


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _relation(name: str) -> dict[str, Callable[[Any], str | None]]:
    return {name: lambda value: None if value in (LESS_THAN, AT_LEAST) else f"{LESS_THAN!r} or {AT_LEAST!r}"}


def _count(name: str, least: int = 0) -> dict[str, Callable[[Any], str | None]]:
    def wrong(value: Any) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        whole = whole or (isinstance(value, float) and value.is_integer())  # tables write whole numbers with a point
        return None if whole and value >= least else f"a whole number of at least {least}"

    return {name: wrong}


def _text(name: str, letters: int | None = None) -> dict[str, Callable[[Any], str | None]]:
    def wrong(value: Any) -> str | None:
        good = isinstance(value, str) and value.strip() and letters in (None, len(value.strip()))
        return None if good else ("a text that is not empty" if letters is None else f"a text of {letters} character")

    return {name: wrong}


def _texts(name: str) -> dict[str, Callable[[Any], str | None]]:
    def wrong(value: Any) -> str | None:
        good = (
            isinstance(value, list | tuple) and value and all(isinstance(each, str) and each.strip() for each in value)
        )
        return None if good else "a list of texts that are not empty"

    return {name: wrong}


def _language(name: str) -> dict[str, Callable[[Any], str | None]]:
    def wrong(value: Any) -> str | None:
        return None if value in languages() else f"one of {', '.join(sorted(languages()))}"

    return {name: wrong}


INSTRUCTIONS: dict[str, tuple[dict[str, Callable[[Any], str | None]], Check]] = {
    "keywords:existence": (_texts("keywords"), lambda t, a: all(_times(t, word) for word in a["keywords"])),
    "keywords:frequency": (
        {**_text("keyword"), **_count("frequency"), **_relation("relation")},
        lambda t, a: _related(_times(t, a["keyword"]), a["relation"], a["frequency"]),
    ),
    "keywords:forbidden_words": (
        _texts("forbidden_words"),
        lambda t, a: not any(_has_word(t, word) for word in a["forbidden_words"]),
    ),
    "keywords:letter_frequency": (
        {**_text("letter", 1), **_count("let_frequency"), **_relation("let_relation")},
        lambda t, a: _related(t.lower().count(a["letter"].strip().lower()), a["let_relation"], a["let_frequency"]),
    ),
    "language:response_language": (_language("language"), lambda t, a: language(t) == a["language"]),
    "length_constraints:number_sentences": (
        {**_count("num_sentences"), **_relation("relation")},
        lambda t, a: _related(sentences(t), a["relation"], a["num_sentences"]),
    ),
    "length_constraints:number_paragraphs": (
        _count("num_paragraphs", 1),
        lambda t, a: _paragraphs(t, a["num_paragraphs"]),
    ),
    "length_constraints:number_words": (
        {**_count("num_words"), **_relation("relation")},
        lambda t, a: _related(words(t), a["relation"], a["num_words"]),
    ),
    "length_constraints:nth_paragraph_first_word": (
        {**_count("num_paragraphs", 1), **_count("nth_paragraph", 1), **_text("first_word")},
        _first_word,
    ),
    "detectable_content:number_placeholders": (
        _count("num_placeholders"),
        lambda t, a: _placeholders(t) >= a["num_placeholders"],
    ),
    "detectable_content:postscript": (
        _text("postscript_marker"),
        lambda t, a: _postscript(t, a["postscript_marker"]),
    ),
    "detectable_format:number_bullet_lists": (_count("num_bullets"), lambda t, a: _bullets(t) == a["num_bullets"]),
    "detectable_format:constrained_response": ({}, lambda t, _: any(option in t for option in OPTIONS)),
    "detectable_format:number_highlighted_sections": (
        _count("num_highlights"),
        lambda t, a: _highlights(t) >= a["num_highlights"],
    ),
    "detectable_format:multiple_sections": (
        {**_text("section_spliter"), **_count("num_sections")},
        lambda t, a: _sections(t, a["section_spliter"]) >= a["num_sections"],
    ),
    "detectable_format:json_format": ({}, lambda t, _: _json(t)),
    "detectable_format:title": ({}, lambda t, _: _title(t)),
    "combination:two_responses": ({}, lambda t, _: _two_responses(t)),
    "combination:repeat_prompt": (
        _text("prompt_to_repeat"),
        lambda t, a: t.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    ),
    "startend:end_checker": (
        _text("end_phrase"),
        lambda t, a: t.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    ),
    "startend:quotation": ({}, lambda t, _: _quoted(t)),
    "change_case:capital_word_frequency": (
        {**_count("capital_frequency"), **_relation("capital_relation")},
        lambda t, a: _related(capital_words(t), a["capital_relation"], a["capital_frequency"]),
    ),
    "change_case:english_capital": ({}, lambda t, _: t.isupper() and language(t) == "en"),
    "change_case:english_lowercase": ({}, lambda t, _: t.islower() and language(t) == "en"),
    "punctuation:no_comma": ({}, lambda t, _: "," not in t),
}
"""Name -> (its arguments and what is wrong with a value of each, the check of a text that is not empty)."""


def check_arguments(name: str, given: Arguments | None) -> dict[str, Any]:
    """The arguments of an instruction; those that are null are those of others, as in tables.

    Raises:
        ValueError: there is no such instruction, an argument lacks, is unknown, or has a value that means nothing.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"there is no instruction {name!r}; IFEval has {', '.join(sorted(INSTRUCTIONS))}")
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"the arguments of {name} are {given!r:.80}: an object is needed")
    arguments = {key: value for key, value in (given or {}).items() if value is not None}
    known = INSTRUCTIONS[name][0]
    if lacking := sorted(known.keys() - arguments.keys()):
        raise ValueError(f"{name} lacks the argument {', '.join(lacking)}")
    if unknown := sorted(arguments.keys() - known.keys()):
        raise ValueError(f"{name} has no argument {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}")
    for key, value in arguments.items():
        if wanted := known[key](value):
            raise ValueError(f"{key}={value!r:.80} of {name}: {wanted} is needed")
        if isinstance(value, float):
            arguments[key] = int(value)
    if arguments.get("nth_paragraph", 0) > arguments.get("num_paragraphs", float("inf")):
        raise ValueError(f"{name} asks for paragraph {arguments['nth_paragraph']} of {arguments['num_paragraphs']}")
    return arguments


def follows(name: str, text: str, arguments: Arguments) -> bool:
    """Whether a text follows an instruction with checked arguments; an empty one follows none.

    Raises:
        Undetected: the instruction is about the language, and none can be told.
    """
    return bool(text.strip()) and INSTRUCTIONS[name][1](text, arguments)
