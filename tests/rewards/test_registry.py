import math

import pytest

from rewards.registry import REGISTERED, RewardError, resolve


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
        ("maths", "no reward function is called 'maths': nearest registered names: math;"),
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
