"""Which reward functions have a name, and how a name or a dotted path becomes a function.

A reward function has TRL's signature: `f(prompts, completions, completion_ids, **columns) -> list[float | None]`. It is
called with keyword arguments only, and with more of them than it may want, so it must accept `**kwargs`. A function of
one `completion`, as the library verifiers has them, becomes such a one (`rewards.rubric`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from rewards.options import Per, RewardTerm
from rewards.rubric import Rubric, in_style_of_verifiers

RewardFunction = Callable[..., Any]

REGISTERED = {
    "reasoning_gym": "rewards.reasoning.reasoning_gym",
    "math": "rewards.mathematics.answer.math",
    "tokens_per_round": "rewards.speed.tokens_per_round",
    "code_stdio": "rewards.sandbox.code.code_stdio",
    "code_calls": "rewards.sandbox.code.code_calls",
    "code_asserts": "rewards.sandbox.code.code_asserts",
    "scene": "rewards.scenes.reward.scene",
    "jpeg_compressibility": "rewards.images.jpeg.jpeg_compressibility",
    "jpeg_incompressibility": "rewards.images.jpeg.jpeg_incompressibility",
    "digit_probability": "rewards.images.digits.digit_probability",
    "digit_log_probability": "rewards.images.digits.digit_log_probability",
    "brightness": "rewards.differentiable.brightness",
    "text_image_similarity": "rewards.images.dual_encoder.text_image_similarity",
    "judge": "rewards.judge.rubric.judge",
    "judge_win_rate": "rewards.judge.win_rate.judge_win_rate",
    "remote_reward_model": "rewards.remote.reward_model.remote_reward_model",
    "clip_score": "rewards.images.preferences.clip_score",
    "pick_score": "rewards.images.preferences.pick_score",
    "hps_v2": "rewards.images.preferences.hps_v2",
    "image_reward": "rewards.images.image_reward.image_reward",
    "aesthetic": "rewards.images.aesthetic.aesthetic",
    "safety": "rewards.images.safety.safety",
    "geneval": "rewards.geneval.reward.geneval",
    "ocr": "rewards.reading.rapid.ocr",
    "ocr_tesseract": "rewards.reading.tesseract.ocr_tesseract",
    "countdown": "rewards.checks.countdown.countdown",
    "countdown_shaped": "rewards.checks.countdown.countdown_shaped",
    "sudoku": "rewards.checks.sudoku.sudoku",
    "sudoku_shaped": "rewards.checks.sudoku.sudoku_shaped",
    "json_schema": "rewards.checks.json_schema.json_schema",
    "xml_format": "rewards.checks.xml_format.xml_format",
    "length": "rewards.checks.length.length",
    "exact_match": "rewards.checks.matching.exact_match",
    "regex_match": "rewards.checks.matching.regex_match",
    "multiple_choice": "rewards.checks.multiple_choice.multiple_choice",
    "instruction_following": "rewards.checks.instruction_following.instruction_following",
    "preference_model": "rewards.preference.reward.preference_model",
}
"""Short name -> dotted path. A path, not a function: naming one reward must not import the libraries of all."""

COMPLETIONS = {
    "reasoning_gym": "text",
    "math": "text",
    "tokens_per_round": "text",
    "code_stdio": "text",
    "code_calls": "text",
    "code_asserts": "text",
    "scene": "image",
    "jpeg_compressibility": "image",
    "jpeg_incompressibility": "image",
    "digit_probability": "image",
    "digit_log_probability": "image",
    "brightness": "image",
    "text_image_similarity": "image",
    "remote_reward_model": "text",
    "clip_score": "image",
    "pick_score": "image",
    "hps_v2": "image",
    "image_reward": "image",
    "aesthetic": "image",
    "safety": "image",
    "geneval": "image",
    "ocr": "image",
    "ocr_tesseract": "image",
    "countdown": "text",
    "countdown_shaped": "text",
    "sudoku": "text",
    "sudoku_shaped": "text",
    "json_schema": "text",
    "xml_format": "text",
    "length": "text",
    "exact_match": "text",
    "regex_match": "text",
    "multiple_choice": "text",
    "instruction_following": "text",
    "preference_model": "text",
}
"""What a registered function scores, so that a run can refuse it before it starts. A function that is not listed is not
checked."""

GIVEN: dict[str, RewardFunction] = {}
"""Path -> function, of those that no import finds: a notebook or a script defined them, and whoever starts a scoring
process sends them there by value."""
LOCAL = "__main__."
"""Paths of what a notebook or a script defines begin with this."""

RESERVED = (
    "prompts",
    "completions",
    "completion_ids",
    "groups",
    "trainer_state",
    "log_extra",
    "log_metric",
    "log_malformed",
    "log_failed",
)
"""Keyword arguments that the caller fills in; neither a dataset column nor an option may be called like one."""

OURS = ("cluster", "configs", "models", "rewards", "rl", "rollout")

GIVEN_ANYWAY = ("prompt", "completion", "completion_ids")
"""Dataset columns that functions do not get, as in TRL: they get the content by an argument of another name."""


class RewardError(ValueError):
    """The reward is configured or called wrongly: nothing can be scored until someone changes something."""


def resolve(name: str) -> RewardFunction:
    """The function behind a registered name or a dotted path `package.module.function`.

    Raises:
        RewardError: unknown name, path that does not import, or something that cannot be called as a reward function.
    """
    if name in GIVEN:
        function = _adapted(GIVEN[name])
        check_function(name, function)
        return function
    path = REGISTERED.get(name, name)
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise RewardError(
            f"no reward function is called {name!r}: {_nearest(name, REGISTERED, 'registered names')}; any other "
            "function is named by its dotted path, package.module.function"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs foreign code: whatever it raises is the reason to show
        raise RewardError(
            f"reward function {name!r}: importing {module_name!r} failed with {type(error).__name__}: {error} "
            f"(if a registered reward was meant: {_nearest(name, REGISTERED, 'registered names')}){_clash(name)}"
        ) from error
    try:
        function = getattr(module, attribute)
    except Exception as error:  # lazy modules import inside getattr
        if name.startswith(LOCAL):
            own = f"my_rewards.{attribute}"
            raise RewardError(
                f"reward function {name!r} was defined in a notebook or script, and this process is another one: put "
                f"it into a module, for example my_rewards.py in this folder, and name it {own}"
            ) from error
        raise RewardError(
            f"reward function {name!r}: {module_name!r} has no usable {attribute!r} "
            f"({type(error).__name__}: {error}); {_nearest(attribute, dir(module), 'names it has')}{_clash(name)}"
        ) from error
    function = _adapted(function)
    check_function(name, function)
    return function


def _adapted(function: Any) -> Any:
    return Rubric(function) if in_style_of_verifiers(function) else function


def check_clash(name: str, term: RewardTerm, columns: Collection[str]) -> None:
    """Raises RewardError where a column has the name of an argument of the term that is filled in otherwise."""
    if clash := sorted({*columns} & {*RESERVED, *term.args}):
        raise RewardError(
            f"dataset column {clash[0]!r} has the name of an argument of reward term {name!r}; rename one of them"
        )


def check_columns(name: str, term: RewardTerm, columns: Collection[str]) -> None:
    """Whether the term can be called on rows with these columns.

    Raises:
        RewardError: as `check_clash`; or an argument that the function cannot do without is nobody's.
    """
    given = {*columns} - {*GIVEN_ANYWAY}
    check_clash(name, term, given)
    function = resolve_term(name, term)
    if (check := getattr(function, "check", None)) is not None:  # of functions that can say more before the start
        try:
            check(term.args, given)
        except ValueError as error:
            raise RewardError(f"reward.terms.{name}.args: {error}") from error
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()  # that is how it is called
    except ValueError:  # one that is written in C and does not say
        return
    fillable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [each.name for each in parameters if each.kind in fillable and each.default is each.empty]
    for lacking in (each for each in needed if each not in {*given, *RESERVED, *term.args}):
        raise RewardError(
            f"reward.terms.{name}: {term.function} needs {lacking!r}, and the rows have no such column; they have "
            f"{', '.join(sorted(given)) or 'none'}. Rename one, or set reward.terms.{name}.args.{lacking}"
        )


def _clash(name: str) -> str:
    """What to say of a function that was looked for in a package of ours."""
    package = name.partition(".")[0]
    if package not in OURS:
        return ""
    return f". {package} is a package of DenoiseRL: give a module of yours another name, such as my_{package}.py"


def resolve_term(name: str, term: RewardTerm) -> RewardFunction:
    """The function of the term `reward.terms.NAME`. Raises RewardError, which names the term."""
    taken = [argument for argument in term.args if argument in RESERVED]
    if taken:
        raise RewardError(f"reward.terms.{name}.args: {', '.join(taken)} is filled in by the trainer; remove it")
    try:
        function = resolve(term.function)
    except RewardError as error:
        raise RewardError(f"reward.terms.{name}: {error}") from error
    if isinstance(function, Rubric) and term.per is Per.group:
        raise RewardError(
            f"reward.terms.{name}.per=group: {term.function} is a function of one completion, which compares nothing; "
            f"use per=sample"
        )
    return function.named if isinstance(function, Rubric) and term.criteria else function


def local_functions(names: Iterable[str]) -> dict[str, RewardFunction]:
    """Those of the named functions that another process could not find by itself."""
    return {name: resolve(name) for name in names if name in GIVEN or name.startswith(LOCAL)}


def by_value(parts: Mapping[str, Any]) -> bytes:
    """Parts as bytes that `cloudpickle` makes whole again in another process.

    Raises:
        RewardError: one of them holds something that cannot be sent; names it and the way out.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(dict(parts))
    except Exception:  # whatever an object in a closure raises
        for name, part in parts.items():  # which of them was it?
            try:
                cloudpickle.dumps(part)
            except Exception as error:
                raise RewardError(
                    f"{name} cannot be sent to other processes by value ({type(error).__name__}: {error}): something "
                    f"that it uses cannot be copied. Put it into a module and give its path, or make what it uses "
                    f"inside it"
                ) from error
        raise


def check_function(name: str, function: object) -> None:
    """Raises RewardError for what cannot be called as a reward function."""
    if not callable(function):
        raise RewardError(
            f"reward function {name!r} names a value of type {type(function).__name__}, which cannot be called; give "
            f"the path of a function"
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some functions written in C do not say
        return
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        raise RewardError(
            f"reward function {name!r} must accept **kwargs, because it is passed every dataset column; if it "
            "*returns* a reward function, assign its result to a name in a module of yours and give the path of that"
        )


def _nearest(wanted: str, known: Iterable[str], what: str) -> str:
    known = [name for name in known if not name.startswith("_")]
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return f"nearest {what}: {', '.join(close or known[:10]) or 'none'}"
