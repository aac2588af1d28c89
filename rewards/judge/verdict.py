"""What a judge's answer is worth. An answer that is not understood is `invalid`, and never a number.

verdict      the answer, without white space around it, is one of the words of the scale
expectation  sum_t p(t) v(t) / sum_t p(t) over the first token's most likely words t that are on the scale
             (G-Eval, arXiv 2303.16634, section 2); what these words have of all probability is its mass
json         the answer is JSON of the schema; every number property of it is a criterion
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from rewards.remote.client import OddAnswer, OtherModel

TOP = 20
"""Most likely tokens that are asked for: what OpenAI and vLLM give at most by default."""
SHOWN = 80


class Invalid(ValueError):
    """The answer says nothing on the scale."""


@dataclass(frozen=True)
class Reply:
    """What of an answer is kept."""

    text: str
    finished: str | None
    """`stop`, or `length` where it was cut."""
    tokens: tuple[int, int]
    """Of the prompt, and of the answer."""
    likely: tuple[tuple[str, float], ...] | None = None
    """The most likely first tokens and their log-probabilities."""

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "finished": self.finished, "tokens": self.tokens, "likely": self.likely}

    @classmethod
    def of_json(cls, kept: Any) -> Reply:
        """Raises KeyError, TypeError or ValueError for what `as_json` has not made."""
        likely = kept["likely"]
        pairs = None if likely is None else tuple((str(token), float(logp)) for token, logp in likely)
        first, second = kept["tokens"]
        text, finished = kept["text"], kept["finished"]
        if not isinstance(text, str) or not isinstance(finished, str | None):
            raise TypeError("a verdict is kept as a text")
        return cls(text, finished, (int(first), int(second)), pairs)


def reply_of(answer: Any, model: str, with_likely: bool) -> Reply:
    """
    Args:
        answer: the JSON of a chat completion.
        model: whose it must be.

    Raises:
        OddAnswer: it is another kind of JSON. OtherModel: another model has given it.
    """
    found = answer.get("model") if isinstance(answer, dict) else None
    if isinstance(found, str) and found != model:
        raise OtherModel(f"the answer is of the model {found!r}, and {model!r} was asked")
    try:
        choice = answer["choices"][0]
        text, finished, usage = choice["message"]["content"], choice["finish_reason"], answer["usage"]
        tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        likely = None
        if with_likely:
            tops = choice["logprobs"]["content"][0]["top_logprobs"]
            likely = tuple((str(top["token"]), float(top["logprob"])) for top in tops)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OddAnswer(f"an answer that is no chat completion ({type(error).__name__}: {error})") from None
    if found is None or not isinstance(text, str):
        raise OddAnswer("a chat completion without the name of its model, or without a text")
    return Reply(text, finished, tokens, likely)


def verdict(reply: Reply, scale: Mapping[str, float]) -> float:
    """The value of the word that the answer is. Raises Invalid."""
    word = reply.text.strip()
    if word not in scale:
        raise Invalid(f"the answer {word[:SHOWN]!r} is none of {', '.join(scale)}")
    return scale[word]


def expectation(reply: Reply, scale: Mapping[str, float], least_mass: float) -> tuple[float, float]:
    """The expected value and the mass. Raises Invalid where the mass is below `least_mass`."""
    assert reply.likely is not None
    chances: dict[str, float] = {}
    for token, logp in reply.likely:
        if (word := token.strip()) in scale and logp <= 1e-6:  # " 5" and "5" are the same word
            chances[word] = chances.get(word, 0.0) + math.exp(logp)
    mass = math.fsum(chances.values())
    if not mass >= least_mass or mass == 0:
        raise Invalid(
            f"only {mass:.3g} of the probability is on the scale {', '.join(scale)}, and least_mass={least_mass:g} is "
            f"asked; most likely is {reply.text[:SHOWN]!r}"
        )
    return math.fsum(chance * scale[word] for word, chance in chances.items()) / mass, mass


def of_schema(reply: Reply, schema: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an answer in JSON, by property. Raises Invalid."""
    try:
        found = json.loads(reply.text)
    except ValueError:
        cut = ", cut at max_tokens" if reply.finished == "length" else ""
        raise Invalid(f"the answer is no JSON{cut}: {reply.text[:SHOWN]!r}") from None
    error = next(iter(sorted(Draft202012Validator(schema).iter_errors(found), key=lambda each: list(each.path))), None)
    if error is not None:
        raise Invalid(f"the answer is not of the schema: {error.message[:200]}")
    return {name: float(found[name]) for name in criteria_of(schema)}


def criteria_of(schema: Mapping[str, Any]) -> list[str]:
    """Properties that are numbers."""
    properties = schema.get("properties", {})
    return [name for name, of in properties.items() if isinstance(of, dict) and of.get("type") in ("integer", "number")]


def majority(values: Iterable[float]) -> float:
    """What most votes say. Raises Invalid where two values have as many."""
    counts = Counter(values).most_common(2)
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        raise Invalid(f"the votes tie between {counts[0][0]:g} and {counts[1][0]:g}; ask an odd number of times")
    return counts[0][0]
