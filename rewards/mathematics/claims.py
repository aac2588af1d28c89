r"""What a completion claims to be the answer: everything that it marks as one and does not take back.

To name several answers is no answer. Whoever boxes 4 and then 5 is right about neither, unless the text says that the
first was wrong; so is whoever writes "3 or 4", "perhaps 4" or "not 4". `judge` pays what all claims agree on.
"""

from __future__ import annotations

import re
from bisect import bisect
from dataclasses import dataclass

from rewards.mathematics.extract import LENGTH_LIMIT, bare, closing_brace
from rewards.mathematics.sentences import SENTENCE, value_of

CLAIMS_LIMIT = 12
"""Different claims that are compared; more of them are a list of guesses."""
TEXT_LIMIT = 200_000
"""Characters of a completion that are read, the last ones: what it costs to look for claims is bounded by them."""
_BESIDE = 40
"""Characters before and behind a box in which it may be denied or doubted."""
_MARKED_LIMIT = 100
"""Boxes, tags or marks that are looked at, the last ones."""
_THOUGHTS = "</think>"
_TOKEN = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_TAG = re.compile(r"<answer>", re.IGNORECASE)
_END_OF_TAG = re.compile(r"</answer>", re.IGNORECASE)
_MARK = re.compile(r"####|\b(?:answer|Answer|ANSWER)\**\s*(?:is\b|:)\s*:?")
_TAKEN_BACK = re.compile(
    r"\b(?:[Ww]ait|[Aa]ctually|rather|[Cc]orrection|[Cc]orrected|[Mm]istaken?|wrong|incorrect|[Ii]nstead|[Oo]ops|[Ss]orry"
    r"|[Rr]echeck\w*|[Rr]econsider\w*|scratch that|(?:No|no)(?=[,.:;!]))\b|\bNo(?=\s*[,.:;!-])"
)
_OPENING = r"[\s$(\[\\*]*$"
_DENIED = re.compile(rf"(?:\b(?:not|isn't|nor|never)|\\(?:neq?|not=?)|≠){_OPENING}", re.IGNORECASE)
_OFFERED = re.compile(
    r"(?:\b(?:or|perhaps|maybe|possibly|either|neither|than|at least|at most|about|approximately|nearly)|\\approx|≈)"
    + _OPENING,
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    r"^[\s$()\]\\*]*(?:"
    r"[.,;:!]*\s*(?:or|perhaps|maybe|possibly|alternatively)\b(?!\s+(?:equivalently|equal|simply|just|in other))"
    r"|(?:is\s+)?(?:not|wrong|incorrect)\b|\?"
    r"|.{0,20}\b(?:that|this|it)(?:'s| is| was)\s+(?:wrong|incorrect|a mistake|not (?:right|correct)))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Claim:
    readings: tuple[str, ...]
    """The most literal first: whoever reads takes the first that can be read. None is an answer that says nothing."""

    @classmethod
    def of(cls, *readings: str) -> Claim:
        return cls(tuple(filter(None, readings)))


@dataclass(frozen=True)
class _Marked:
    """Places in a text: a copy of every box would be too much where they lie in each other."""

    start: int
    end: int
    inner_start: int
    inner_end: int

    def content(self, text: str) -> str:
        return text[self.inner_start : self.inner_end]


def claims_of(completion: str) -> list[Claim]:
    r"""What must all be right.

    The contents of all `\boxed{}` and `<answer>` behind the thoughts and behind the last correction; what is never
    closed says nothing, and so does what is denied or offered as a guess. Without them: what follows `####`, "answer
    is" or "answer:"; of the last its first sentence, or the last formula or number in that. Without those: the text, or
    the last formula or number in it. More than `CLAIMS_LIMIT` different ones are a claim that says nothing.
    """
    completion = completion[-TEXT_LIMIT:]
    answered = completion[completion.rfind(_THOUGHTS) + len(_THOUGHTS) :] if _THOUGHTS in completion else completion
    for text in dict.fromkeys((answered, completion)):
        claims = _marked_claims(text) or _claims_behind_marks(text)
        if claims:
            different = list(dict.fromkeys(claims))
            return different if len(different) <= CLAIMS_LIMIT else [Claim(())]
    return [Claim.of(bare(completion), *value_of(answered))]


def reference_of(text: str) -> str:
    """The answer of a reference, which is bare, in a box, or behind a mark; nothing is looked for in prose. Of several
    boxes the last is the reference."""
    marked = _marked(text)
    if marked:
        return bare(_unwrapped(marked[-1].content(text)))
    marks = list(_MARK.finditer(text))
    return bare(text[marks[-1].end() :].strip() if marks else text)


def _marked_claims(text: str) -> list[Claim]:
    marked = _marked(text)
    kept: list[Claim] = []
    for place, each in enumerate(marked):
        before = text[marked[place - 1].end if place else 0 : each.start]
        if place and _TAKEN_BACK.search(before):
            kept = []
        last = place == len(marked) - 1
        denied = _DENIED.search(before[-_BESIDE:])
        if denied and not last:
            continue
        offered = not kept and _OFFERED.search(before[-_BESIDE:])
        doubted = last and _DOUBTED.search(text[each.end : each.end + _BESIDE])
        content = "" if denied or offered or doubted else bare(_unwrapped(each.content(text)))
        kept.append(Claim.of(content))
    return kept


def _marked(text: str) -> list[_Marked]:
    """The outermost boxes and the tags without a box in them, in their order; what is not closed is empty."""
    boxes: list[_Marked] = []
    opened: list[tuple[int, re.Match[str]]] = []
    depth = 0
    for token in _TOKEN.finditer(text):
        if token["box"]:
            opened.append((depth, token))
            depth += 1
        elif token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            while opened and opened[-1][0] > depth:  # braces that do not match
                opened.pop()
            if opened and opened[-1][0] == depth:
                start = opened.pop()[1]
                while boxes and boxes[-1].start > start.start():
                    boxes.pop()
                boxes.append(_Marked(start.start(), token.end(), start.end(), token.start()))
    if opened and (not boxes or opened[-1][1].start() > boxes[-1].end):
        boxes.append(_Marked(opened[-1][1].start(), len(text), len(text), len(text)))
    tags = []
    starts = list(_TAG.finditer(text))
    for place, start in enumerate(starts):
        following = starts[place + 1].start() if place + 1 < len(starts) else len(text)
        end = _END_OF_TAG.search(text, start.end(), following)
        inside = (start.end(), end.start()) if end else (following, following)
        tags.append(_Marked(start.start(), end.end() if end else following, *inside))
    places = [box.start for box in boxes]
    tags = [tag for tag in tags if bisect(places, tag.start) == bisect(places, tag.end)]
    return sorted([*boxes, *tags], key=lambda each: each.start)[-_MARKED_LIMIT:]


def _unwrapped(content: str) -> str:
    """Without boxes in it."""
    while len(content) <= LENGTH_LIMIT:
        box = _BOX.search(content)
        end = closing_brace(content, box.end()) if box else None
        if box is None or end is None:
            break
        content = content[: box.start()] + content[box.end() + 1 : end] + content[end + 1 :]
    return content


def _claims_behind_marks(text: str) -> list[Claim]:
    marks = list(_MARK.finditer(text))[-_MARKED_LIMIT:]
    kept: list[Claim] = []
    for place, mark in enumerate(marks):
        if place and _TAKEN_BACK.search(text, marks[place - 1].end(), mark.start()):
            kept = []
        last = place == len(marks) - 1
        rest = text[mark.end() : None if last else marks[place + 1].start()].strip()
        sentence = SENTENCE.split(rest, maxsplit=1)[0]
        if last and _DOUBTED.search(rest[len(sentence) :][:_BESIDE]):
            kept.append(Claim.of())
        elif last:
            kept.append(Claim.of(bare(rest), bare(sentence), *value_of(sentence, formulas_first=True)))
        elif sentence and len(sentence) < LENGTH_LIMIT and not re.search(r"(?<!\\)\b[A-Za-z]{2,}", sentence):
            kept.append(Claim.of(bare(sentence)))  # of what comes before only what is no prose
    return kept
