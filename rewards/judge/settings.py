"""The `args` of a judge, checked before anything is asked."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from rewards.judge.template import Template
from rewards.judge.verdict import TOP, criteria_of
from rewards.remote.client import Address, Patience, checked_url

SERVED = "served"
"""As `url`: the judge that the run itself serves (options `judge`)."""
MODES = ("verdict", "expectation", "json")


@dataclass(frozen=True)
class Settings:
    template: str
    """A packaged template (quality, reference, pairwise) or the path of a file of yours."""
    url: str = SERVED
    """Where the judge answers, up to /v1, such as https://api.openai.com/v1; or `served`."""
    model: str | None = None
    """Name of the judge's model; not with `served`, which says it itself."""
    mode: str = "verdict"
    """`verdict`, `expectation` or `json`: see `rewards.judge.verdict`."""
    scores: Mapping[str, float] = field(default_factory=lambda: {str(n): float(n) for n in range(1, 6)})
    """The scale: word -> value."""
    least_mass: float = 0.5
    """Of an expectation: share of the probability that must be on the scale. Unit: 1."""
    schema: Mapping[str, Any] | None = None
    """Of mode json: the JSON schema of an answer, an object with a number property for each criterion."""
    constrained: bool = False
    """Of mode verdict: let vLLM allow nothing but the words of the scale (`structured_outputs`)."""
    system: str | None = None
    """System message."""
    votes: int = 1
    """Answers that are asked for; what most of them say counts. Unit: answers."""
    temperature: float = 0.0
    """0 is greedy; several votes need more. Unit: 1."""
    seed: int = 0
    """Of the first vote; each further one has the next. Unit: 1."""
    max_tokens: int | None = None
    """Of an answer; null is 1 for an expectation, 8 for a verdict and 256 for json. Unit: tokens."""
    concurrency: int = 8
    """Requests in the air. Unit: requests."""
    request_seconds: float = 60.0
    """Deadline of one try. Unit: seconds."""
    patience_seconds: float = 120.0
    """How long the judge may answer nothing at all before the samples are lost as `unavailable`. Unit: seconds."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable with the key, which is read when it is needed and never written; null sends none."""
    records: str | None = None
    """Folder of verdicts that are kept by content; null is `judge/` in the folder of a run, else nowhere."""
    served: str | None = None
    """File that says where the served judge is now. The run sets it."""
    opponents: int | None = None
    """Of a win rate: how many others of its group each sample is compared with; null is all. Unit: samples."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What else `args` gives, for the template."""

    @classmethod
    def of(cls, args: Mapping[str, Any], default_template: str) -> Settings:
        """Raises ValueError: an argument is wrong."""
        known = {each.name: each for each in fields(cls) if each.name != "constants"}
        given = {"template": default_template, **{name: value for name, value in args.items() if name in known}}
        given = {
            name: value
            for name, value in given.items()
            if value is not None or (known[name].default is None) or name == "key_variable"
        }
        if given.get("scores") is not None:
            given["scores"] = {str(word): value for word, value in dict(given["scores"]).items()}
        settings = cls(**given, constants={name: value for name, value in args.items() if name not in known})
        settings._check()
        return settings

    def _check(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode} is none of {', '.join(MODES)}")
        for name in ("votes", "max_tokens", "opponents"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}; a whole number from 1 on is expected")
        if len(self.scores) < 2:
            raise ValueError("scores needs two words at least, each with its value, such as {bad: 0, good: 1}")
        for word, value in self.scores.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or word != word.strip() or not word:
                raise ValueError(f"scores.{word}={value!r}; a word without white space and a number are expected")
        if not 0 < self.least_mass <= 1:
            raise ValueError(f"least_mass={self.least_mass}; above 0 and at most 1 is expected")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature={self.temperature}; 0 or more is expected")
        if self.votes > 1 and (self.mode == "expectation" or self.temperature == 0):
            raise ValueError(
                f"votes={self.votes} with "
                + ("mode=expectation, which is no draw" if self.mode == "expectation" else "temperature=0")
                + " are the same answer so many times: set votes=1, or mode=verdict with a temperature"
            )
        if (self.mode == "json") != (self.schema is not None):
            raise ValueError("mode=json and schema belong together: set both or neither")
        if self.constrained and self.mode != "verdict":
            raise ValueError(f"constrained is for mode=verdict; mode={self.mode} does without")
        if self.schema is not None:
            self._check_schema(self.schema)
        if self.url == SERVED and self.model is not None:
            raise ValueError("model is not for url=served: the options `judge` say which model is served")
        if self.url != SERVED and self.model is None:
            raise ValueError(f"model is missing: the name under which {self.url} serves the judge")
        if self.url != SERVED:
            checked_url(self.url, self.key())
        self.patience  # noqa: B018 - it checks its numbers

    def _check_schema(self, schema: Mapping[str, Any]) -> None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"schema is no JSON schema: {error.message}") from None
        criteria = criteria_of(schema)
        if schema.get("type") != "object" or not criteria:
            raise ValueError("schema must be of an object with a property of type integer or number at least")
        if optional := sorted({*criteria} - {*schema.get("required", ())}):
            raise ValueError(f"schema.required must name {', '.join(optional)}: a score that may be missing is none")

    def check_columns(self, template: Template, columns: Collection[str], needed: tuple[str, ...]) -> None:
        """Raises ValueError: a column is called as an argument, or the template and what there is do not fit."""
        if taken := sorted({*columns} & {each.name for each in fields(self)}):
            raise ValueError(f"column {taken[0]!r} has the name of an argument of judges: rename it")
        template.check({*needed, "scores", *columns, *self.constants}, needed[1:])
        if unused := sorted({*self.constants} - template.variables):
            names = [each.name for each in fields(self) if each.default is not MISSING or each.name == "template"]
            near = difflib.get_close_matches(unused[0], names, n=1)
            raise ValueError(
                f"args.{unused[0]} is no argument of judges, and template {template.name} does not ask for it"
                + (f"; did you mean {near[0]}?" if near else "")
            )

    @property
    def patience(self) -> Patience:
        return Patience(self.request_seconds, self.patience_seconds, self.concurrency)

    @property
    def words(self) -> list[str]:
        """Of the scale, the worst first."""
        return sorted(self.scores, key=lambda word: self.scores[word])

    @property
    def records_folder(self) -> Path | None:
        return None if self.records is None else Path(self.records)

    def key(self) -> str | None:
        return None if self.key_variable is None else os.environ.get(self.key_variable) or None

    def where(self) -> tuple[Address, str]:
        """Where the judge is now, and the name of its model. Raises LookupError: it is nowhere yet."""
        if self.url != SERVED:
            assert self.model is not None
            return Address(checked_url(self.url, self.key()), self.key()), self.model
        if self.served is None:
            raise ValueError("url=served is for runs that serve a judge (options `judge`); give a URL and a model here")
        try:
            found = json.loads(Path(self.served).read_text())
            return Address(found["url"], found["key"]), found["model"]
        except (OSError, ValueError, KeyError, TypeError):
            raise LookupError("the judge of this run is being started") from None

    def request(self, content: Any, model: str, vote: int) -> dict[str, Any]:
        """The body of a chat completion."""
        messages = [{"role": "user", "content": content}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        default = {"expectation": 1, "verdict": 8, "json": 256}[self.mode]
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "temperature": self.temperature,
            "seed": self.seed + vote,
            "max_tokens": default if self.max_tokens is None else self.max_tokens,
        }
        if self.mode == "expectation":
            body |= {"logprobs": True, "top_logprobs": TOP}
        if self.constrained:
            body["structured_outputs"] = {"choice": self.words}
        if self.schema is not None:
            schema = {"name": "verdict", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body
