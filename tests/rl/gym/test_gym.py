"""The gym: runs are shared, resumed and joined without loss, and its report says what the outcomes say."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs.compose import PACKAGE, compose
from configs.errors import UserError
from configs.schema import Config, RunOptions
from rewards.options import RewardOptions, RewardTerm
from rl.gym import picture
from rl.gym.rates import best_rates, choose_rates, read_rates
from rl.gym.report import lines_of, markdown, merged, write_report
from rl.gym.results import CANNOT_RUN, Result, fingerprint, read_result
from rl.gym.runs import Selection, fingerprint_of, jobs_of, run_gym
from rl.gym.tasks import Entry, Setting, Task, contestants, read_tasks, task_names

pytestmark = pytest.mark.usefixtures("rank")

CONSOLE = Console(file=io.StringIO())
PLAIN = hashlib.blake2b(
    b'{"reward": {"terms": {"a": {"function": "math"}}}, "run": {"updates": 3}}', digest_size=8
).hexdigest()
"""Of a configuration in which everything else has its default, as it always was."""


@pytest.fixture(scope="module")
def task(model: Path) -> Task:
    """Two updates of eight samples, with a reward that any policy can move."""
    return Task(
        title="Tiny",
        overrides=[
            "recipe=quickstart",
            "reward.terms.answer.function=tests.rl.support.rewards.share_of_ones",
            "reward.terms.answer.args={}",
            "reward.solved_at=0.5",
            "rollout.prompts_per_update=2",
            "rollout.prompts_per_ticket=2",
            "rollout.group_size=4",
            "rollout.sampler.max_new_tokens=4",
            "algorithm.optimizer.learning_rate=1e-2",
            "run.updates=2",
            "data.train.size=8",
            "data.evaluation.size=6",
        ],
        search=["data.evaluation.seed=2000000"],
        settings={"block": Setting([f"model.path={model}"])},
        algorithms={
            "bgpo": Entry(overrides=["data.train.kind=file", "data.train.name=missing.jsonl"], note="a mistake"),
            "ebpo": Entry(overrides=["algorithm.minibatches=99"]),
            "dpo": Entry(skip="this task has no pairs"),
        },
        combinations={"calm": Entry(algorithm="trace_grpo", overrides=["algorithm.clip=0.1"], note="a candidate")},
    )


def selection(task: Task, *only: str, **options) -> Selection:
    return Selection({"tiny": task}, options.pop("seeds", [0]), only, **options)


@pytest.fixture(scope="module")
def folder(task, tmp_path_factory) -> Path:
    """After a gym of three that run, of which one fails, and one that no setting allows."""
    folder = tmp_path_factory.mktemp("gym")
    run_gym(selection(task, "trace_grpo", "calm", "bgpo", "ebpo"), folder, CONSOLE)
    return folder


def test_a_run_keeps_its_outcomes_and_its_cost(folder):
    result = read_result(folder / "tiny/trace_grpo-0.json")
    assert result.error == ""
    before, after = result.solved
    assert before.shape == after.shape == (6, 1)
    assert set(before.flat) | set(after.flat) <= {0.0, 1.0}
    assert result.samples == 2 * 2 * 4
    assert result.rows > 0
    assert result.forwards >= 2 * 4  # two updates of one batch with four rounds
    assert result.learning_rate == 1e-2


def test_a_reward_of_which_nothing_is_counted_as_solved_is_refused_by_name(task, tmp_path):
    unsolved = dataclasses.replace(task, overrides=[*task.overrides, "reward.solved_at=null"])
    run_gym(selection(unsolved, "trace_grpo"), tmp_path, CONSOLE)
    refused = read_result(tmp_path / "tiny/trace_grpo-0.json")
    assert refused.error.startswith("reward.solved_at=null counts nothing as solved, and the gym compares")
    assert (refused.before, refused.fingerprint) == (None, CANNOT_RUN)


def test_results_from_before_solved_at_could_be_null_keep_their_fingerprints(tmp_path):
    """Then its default was 1, and options with their default are not in a fingerprint."""
    reward = {
        name: RewardOptions({"a": RewardTerm("math")}, solved_at=at)
        for name, at in (("then", 1.0), ("null", None), ("half", 0.5))
    }
    prints = {
        name: fingerprint(Config(reward=options, run=RunOptions(updates=3)), tmp_path)
        for name, options in reward.items()
    }
    assert prints["then"] == PLAIN
    assert len(set(prints.values())) == 3


def test_a_run_that_fails_is_recorded_and_the_others_go_on(folder):
    failed, refused = (read_result(folder / f"tiny/{name}-0.json") for name in ("bgpo", "ebpo"))
    assert "missing.jsonl" in failed.error
    assert failed.fingerprint != CANNOT_RUN
    assert "algorithm.minibatches=99" in refused.error
    assert refused.fingerprint == CANNOT_RUN
    assert not read_result(folder / "tiny/calm-0.json").error  # it came after both


@pytest.mark.slow
def test_the_same_run_gives_the_same_outcomes(task, folder, tmp_path):
    """Though one of them takes over the evaluation that another run made before training."""
    run_gym(selection(task, "calm"), tmp_path, CONSOLE)
    again, first = (read_result(where / "tiny/calm-0.json") for where in (tmp_path, folder))
    same = [dataclasses.replace(result, seconds=0.0, cpu_seconds=0.0) for result in (again, first)]
    assert same[0] == same[1]  # wherever the folder lies


def test_what_is_done_is_not_done_again(task, folder):
    files = {file: file.stat().st_mtime_ns for file in (folder / "tiny").glob("*.json")}
    assert len(files) == 4
    run_gym(selection(task, "trace_grpo", "calm", "bgpo", "ebpo"), folder, CONSOLE)
    changed = {file.stem for file, time in files.items() if file.stat().st_mtime_ns != time}
    assert changed == {"bgpo-0"}  # it failed, and might end well now


def test_another_configuration_is_refused(task, folder):
    changed = dataclasses.replace(task, overrides=[*task.overrides, "algorithm.clip=0.3"])
    with pytest.raises(UserError, match=r"trace_grpo-0.json is of another configuration.*--again"):
        run_gym(selection(changed, "trace_grpo"), folder, CONSOLE)


def test_a_fingerprint_is_of_what_differs_from_the_defaults():
    def of(*overrides: str, folder: str = "results") -> str:
        return fingerprint(compose(["recipe=quickstart", *overrides]).config, Path(folder))

    assert of() == of("run.folder=elsewhere") == of("algorithm.clip=0.2")
    assert of() != of("algorithm.clip=0.3") != of("algorithm.value.discount=1.0")
    pairs = "data.train.name={}/pairs.jsonl"
    here, there = pairs.format("/here"), pairs.format("/there")
    assert of(here, folder="/here") == of(there, folder="/there") != of(there, folder="/here")


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_cover_every_run_once(task, tmp_path, parts):
    jobs = jobs_of(selection(task, seeds=[0, 1, 2]), tmp_path)
    shares = [jobs[part::parts] for part in range(parts)]
    files = [job.file(tmp_path) for share in shares for job in share]
    assert sorted(files) == sorted(job.file(tmp_path) for job in jobs)
    assert len(set(files)) == len(files) == 3 * (len(contestants(task)) - 1)  # dpo is left out


def test_a_second_search_is_waited_for_too(tmp_path):
    (tmp_path / "search").mkdir()
    for name in ("a", "b"):
        content = dataclasses.asdict(result(name, 9, [0], [1], learning_rate=1e-3))
        (tmp_path / f"search/{name}-0.001.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"the search in .* is not done for {name}: "):
            read_rates(tmp_path)
        choose_rates(tmp_path)
    assert read_rates(tmp_path) == {"a": 1e-3, "b": 1e-3}


def test_a_rate_that_nobody_tried_has_not_failed():
    searched = [result("a", 9, [0], [1], learning_rate=rate) for rate in (1e-4, 1e-3)]
    searched += [
        result("b", 9, [0], [1], learning_rate=1e-3),
        result("b", 9, None, None, learning_rate=1e-2, error="x"),
    ]
    searched += [result("c", 9, [0], [1], learning_rate=1e-2)]
    text = markdown(Task(settings={}), [], [], [], searched)
    assert "| b | - | **1.000** | failed |" in text


@pytest.mark.slow
def test_a_search_takes_the_best_rate_and_runs_wait_for_it(task, tmp_path):
    run_gym(selection(task, "trace_grpo", rates=[1e-4, 1e-2], part=(1, 2)), tmp_path, CONSOLE)
    assert not (tmp_path / "tiny/rates.json").exists()
    with pytest.raises(UserError, match=r"the search in .* is not done"):
        jobs_of(selection(task, "trace_grpo"), tmp_path)
    run_gym(selection(task, "trace_grpo", rates=[1e-4, 1e-2], part=(2, 2)), tmp_path, CONSOLE)
    rates = json.loads((tmp_path / "tiny/rates.json").read_text())
    assert rates == best_rates(merged([tmp_path / "tiny/search"]))
    (job,) = jobs_of(selection(task, "trace_grpo"), tmp_path)
    assert job.rate == rates["trace_grpo"]


def result(name: str, seed: int, before: list | None, after: list | None, images: int = 1, **options) -> Result:
    """
    Args:
        before, after: for each problem, or for each of the images of the first, then of the second problem, ...
    """
    known = {"task": "tiny", "fingerprint": "f", "setting": "block", "base": "m"}
    before, after = (ends and np.reshape(ends, (-1, images)).tolist() for ends in (before, after))
    outcome = {"before": before, "after": after, "cell": ("a", "b")}
    return Result(name=name, seed=seed, **{**known, **outcome, **options})


def test_the_best_rate_is_the_one_that_solves_most_and_the_lowest_of_equals():
    outcomes = {1e-4: [1, 0, 0], 1e-3: [1, 1, 0], 3e-3: [1, 0, 1]}
    searched = [result("a", 9, [0, 0, 0], after, learning_rate=rate) for rate, after in outcomes.items()]
    assert best_rates([*reversed(searched), result("b", 9, [], [], error="x")]) == {"a": 1e-3}


UP = [result("up", seed, [0] * 8, [1] * 7 + [0], rows=100.0 + seed, learning_rate=1e-3) for seed in (0, 1)]
DOWN = [result("down", 0, [1] * 8, [0] * 7 + [1], rows=50.0, learning_rate=1e-3)]
STILL = [result("still", 0, [1, 0] * 4, [1, 0] * 4, rows=10.0, learning_rate=1e-6, updates_without_signal=3)]


def test_lines_are_what_can_be_worked_out_by_hand():
    up, still, down = lines_of([*STILL, *DOWN, *UP], ours={"up"})
    assert [line.ours for line in (up, still, down)] == [True, False, False]
    assert [line.name for line in (up, still, down)] == ["up", "still", "down"]
    assert (up.before, up.after, up.gain.value) == (0.0, 0.875, 0.875)
    assert list(up.solved) == [0, 1]
    assert up.rows == 100.5
    assert up.verdict == "yes"
    # Both seeds agree: mean 7/8, its variance that of the problems, (7/64) / 7 = 1/64, Student's t with 7 degrees.
    assert up.gain.low == pytest.approx(0.875 - 2.364624 / 8, abs=1e-5)
    assert down.verdict == "no: significantly worse"
    assert still.gain.value == 0
    assert "3 updates had no group with a signal" in still.verdict
    assert "hardly moved" in still.verdict


def test_images_of_one_prompt_are_no_problems_of_their_own():
    solved = [1, 1, 1, 0, 1, 1, 0, 0]
    (one,) = lines_of([result("a", 0, [0] * 8, solved, images=2)])
    assert (one.after, one.gain.value, one.gain.problems) == (0.625, 0.625, 4)
    # The problems' means are 1, 1/2, 1 and 0, with variance 11/48.
    assert one.gain.high - one.gain.low == pytest.approx(2 * 1.959964 * (11 / 48 / 4) ** 0.5, abs=1e-6)
    (two,) = lines_of([result("a", seed, [0] * 8, solved, images=2) for seed in (0, 1)])
    assert [two.solved[seed].tolist() for seed in (0, 1)] == [[1, 0.5, 1, 0]] * 2


def test_the_report_names_everyone(task, tmp_path):
    everyone = contestants(task)
    failed = result("bgpo", 0, None, None, error="DataError: no file")
    trained = result("trace_grpo", 0, [0, 0, 0], [1, 1, 0], learning_rate=1e-3, rows=12.0)
    text = markdown(task, everyone, lines_of([trained]), [trained, failed], [])
    assert "| trace_grpo | a, b | 0.000 | 0.667 |" in text
    assert "- bgpo, seed 0: failed: DataError: no file" in text
    assert "- dpo: left out: this task has no pairs" in text
    assert "- calm: not run yet" in text
    assert "- calm: a candidate (`algorithm.clip=0.1`)" in text
    assert all(one.name in text for one in everyone)


def test_a_report_of_some_names_them_and_what_has_results(task, folder, tmp_path):
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    (file,) = write_report({"tiny": task}, [tmp_path], CONSOLE, only=["dpo"])
    text = file.read_text()
    assert "- dpo: left out: this task has no pairs" in text
    assert "not run yet" not in text
    assert "| trace_grpo |" in text


def test_labels_of_the_picture_hide_neither_each_other_nor_a_point_nor_the_legend(tmp_path):
    near = [result(f"algorithm_{i}", 0, [0] * 100, [1] * (50 - i // 2) + [0] * (50 + i // 2)) for i in range(12)]
    lines = lines_of([dataclasses.replace(one, rows=1000.0 + i) for i, one in enumerate(near)])
    figure = picture.drawn(lines, "title")
    renderer = figure.canvas.get_renderer()
    _, costs = figure.axes
    boxes = [text.get_window_extent(renderer) for text in costs.texts]
    assert len(boxes) >= 3
    boxes.append(costs.get_legend().get_window_extent(renderer))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    points = [costs.transData.transform((line.rows, line.gain.value)) for line in lines]
    assert not any(box.contains(*point) for box in boxes for point in points)
    picture.draw(lines, "title", tmp_path / "gym.png")
    assert (tmp_path / "gym.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_of_ours_is_compared_with_each_published_one():
    ours = [result("ours", seed, [0] * 8, [1] * 7 + [0]) for seed in (0, 1)]
    weaker = [result("weaker", seed, [0] * 8, [1] + [0] * 7) for seed in (0, 1)]
    other = [result("other", seed, [0] * 8, [1] * 3 + [0] * 5, setting="full") for seed in (0, 1)]
    results = [*UP, *ours, *weaker, *other, result("one_seed", 0, [0] * 8, [1] * 8)]
    setting = {"block": Setting(), "full": Setting()}
    text = markdown(Task(settings=setting), [], lines_of(results, {"ours", "weaker"}), results, [])
    _, duels = text.split("## block: what ours solves more than each")
    assert "| up | +0.000 [" in duels
    assert "| weaker |" not in duels
    (alone,) = (row for row in duels.splitlines() if row.startswith("| one_seed | -0.125 ["))
    assert alone.endswith("| 1 |")  # on the seed that both have
    assert "## full: what" not in duels
    better = markdown(Task(settings=setting), [], lines_of(results, {"ours"}), results, [])
    # Every problem but the first and the last: 6 of 8, as large a variance as 3/4 has: t(7) sqrt(3/16 / 7).
    assert "| weaker | +0.750 [+0.363, +1.137] | 2 |" in better


def test_folders_are_joined_and_drawn(task, folder, tmp_path):
    other = tmp_path / "other"
    (other / "tiny").mkdir(parents=True)
    first = read_result(folder / "tiny/trace_grpo-0.json")
    (job,) = jobs_of(selection(task, "trace_grpo", seeds=[1]), other)
    again = dataclasses.replace(first, seed=1, fingerprint=fingerprint_of(job, selection(task), other))
    (other / "tiny/trace_grpo-1.json").write_text(json.dumps(dataclasses.asdict(again)))
    (report,) = write_report({"tiny": task}, [other, folder], CONSOLE)
    assert report == other / "tiny/gym.md"
    (row,) = (line for line in report.read_text().splitlines() if line.startswith("| trace_grpo | replay"))
    assert row.split(" | ")[6] == "2"  # seeds
    assert (other / "tiny/gym.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_another_configuration_have_no_line(task, folder):
    changed = dataclasses.replace(task, overrides=[*task.overrides, "algorithm.clip=0.3"])
    changed.combinations = {}
    text = write_report({"tiny": changed}, [folder], CONSOLE)[0].read_text()
    for name in ("trace_grpo", "calm", "bgpo"):
        assert f"- {name}, seed 0: of an earlier configuration; run it again" in text
        assert f"\n| {name} |" not in text
    assert "- ebpo, seed 0: failed: " in text  # no setting allowed it, nor does one now


def test_folders_that_disagree_are_refused(tmp_path):
    for name, found in (("a", "f"), ("b", "g")):
        (tmp_path / name).mkdir()
        content = dataclasses.asdict(result("x", 0, [0], [1], fingerprint=found))
        (tmp_path / name / "x-0.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="another folder has this run with another configuration"):
        merged([tmp_path / "a", tmp_path / "b"])


def test_every_algorithm_is_in_a_task():
    """A new algorithm file takes part by itself."""
    found = {one.name for task in read_tasks(task_names()).values() for one in contestants(task)}
    assert found >= {file.stem for file in (PACKAGE / "algorithm").glob("*.yaml")}


def test_options_that_a_task_does_not_have_are_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("settings: {a: {}}\nupdates: 3\n")
    with pytest.raises(UserError, match="updates"):
        read_tasks([str(tmp_path / "mine.yaml")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--part", "5/4"], "--part 5/4: 2/4 is the second of four"),
        (["a", "--seeds", "one"], "--seeds one: give numbers"),
        (["a", "--learning-rates", "1e-3,0.001"], "a number occurs twice"),
        (["a", "b"], "several folders are for --report"),
        (["a", "--task", "sound"], "the tasks here are image, text"),
        (["a", "--task", "text", "--only", "nothing"], "--only nothing: there are"),
        (["a", "--report"], "there are no results of image, text in a"),
    ],
)
def test_what_cannot_be_meant_is_refused(denoiserl, arguments, message):
    assert message in denoiserl.refuses("gym", *arguments)
