import math

import pytest

from rewards.options import RewardTerm
from rewards.registry import REGISTERED, RewardError, check_columns, resolve


@pytest.mark.parametrize("name", REGISTERED)
def test_every_registered_name_resolves(name):
    assert callable(resolve(name))


def test_a_dotted_path_gives_that_very_function():
    from trl.rewards import accuracy_reward

    assert resolve("trl.rewards.accuracy_reward") is accuracy_reward


def test_a_callable_object_is_a_reward_function():
    assert resolve("tests.rewards.faulty_rewards.punish_length")(completion_ids=[[1], [1] * 9]) == [0.0, -1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maths", "no reward function is called 'maths': nearest registered names: math[,;]"),
        ("reasoning-gym", "nearest registered names: reasoning_gym;"),
        ("", "no reward function is called ''"),
        ("no_such_package.reward", "importing 'no_such_package' failed with ModuleNotFoundError"),
        ("trl.rewards.acuracy_reward", "nearest names it has: .*accuracy_reward"),
        ("tests.rewards.faulty_rewards.NOT_CALLABLE", "names a value of type int, which cannot be called"),
        ("tests.rewards.faulty_rewards.without_kwargs", r"must accept \*\*kwargs"),
        ("trl.rewards.get_soft_overlong_punishment", "if it \\*returns\\* a reward function, assign its result"),
    ],
)
def test_an_unusable_name_is_one_clear_error(name, message):
    with pytest.raises(RewardError, match=message):
        resolve(name)


def test_a_module_that_raises_while_importing_shows_its_own_reason(tmp_path, monkeypatch):
    (tmp_path / "module_that_breaks.py").write_text("raise RuntimeError('the reward model is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RewardError, match="RuntimeError: the reward model is missing"):
        resolve("module_that_breaks.reward")


def test_the_registered_math_reward_does_not_hide_the_standard_library():
    assert math.sqrt(4) == 2


def wants_a_column(completions, solution, *, weight=1.0, tolerance, **kwargs):
    return [0.0 for _ in completions]


def test_what_a_function_needs_and_nobody_gives_is_named_before_anything_is_scored():
    term = RewardTerm(f"{__name__}.wants_a_column", args={"tolerance": 0.1})
    check_columns("close", term, ["prompt", "solution"])
    expected = (
        r"reward.terms.close: .*wants_a_column needs 'solution', and the rows have no such column; they have answer"
    )
    with pytest.raises(RewardError, match=expected):
        check_columns("close", term, ["prompt", "answer"])
    with pytest.raises(RewardError, match=r"needs 'tolerance'.*or set reward.terms.close.args.tolerance"):
        check_columns("close", RewardTerm(f"{__name__}.wants_a_column"), ["solution"])
    with pytest.raises(RewardError, match="needs 'prompt'"):  # which no function gets: prompts it is
        check_columns("single", RewardTerm(f"{__name__}.wants_a_prompt"), ["prompt"])
    with pytest.raises(RewardError, match="column 'tolerance' has the name of an argument"):
        check_columns("close", term, ["solution", "tolerance"])


def wants_a_prompt(completions, prompt, **kwargs):
    return [0.0 for _ in completions]
