"""`denoiserl algorithms`: every file is listed, for the models that it can train, and a user's own file too."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from configs.algorithm_options import AdvantageKind, ObjectiveKind
from configs.compose import PACKAGE, compose
from configs.errors import UserError
from rl.commands.algorithms import Wanted, recipes_of, show_algorithms, table
from rl.commands.catalogue import catalogue
from rl.commands.recipe import Recipe
from rl.compatibility import problems
from tests.documentation import blocks, commands, run_command

PAGE = "docs/algorithms.md"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """No test reads what another has kept, or writes into a home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/denoiserl"


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in catalogue()}


@pytest.fixture
def known(monkeypatch, recipes) -> None:
    monkeypatch.setattr("rl.commands.algorithms.recipes_of", lambda config_dir: list(recipes.values()))


def test_every_file_is_listed_and_can_train_something(recipes):
    assert list(recipes) == sorted(file.stem for file in (PACKAGE / "algorithm").glob("*.yaml"))
    for name, recipe in recipes.items():
        assert recipe.modalities, f"{name} is refused for text and for images"
        assert len(recipe.summary) > 20


def test_files_are_short():
    """A recipe is a configuration, not a program."""
    for file in (PACKAGE / "algorithm").glob("*.yaml"):
        assert len(file.read_text().splitlines()) < 40, file.name


@pytest.mark.parametrize(
    ("name", "cell", "forwards", "needs", "modalities"),
    [
        ("tracerl", ("replay(every_step)", "element", "ppo_clip", "zscore"), "T x 1", {"trace"}, {"text"}),
        ("vrpo", ("elbo", "none", "group_dpo", "preference"), "8 x 3", {"reference", "pairs"}, {"text"}),
        (
            "ppd",
            ("elbo", "none", "group_dpo", "preference"),
            "1 x 3",
            {"reference", "pairs", "user embeddings"},
            {"image"},
        ),
        (
            "d_tree_rpo",
            ("replay(forks)", "element", "ppo_clip", "siblings"),
            "2 x 3",
            {"trace", "reference"},
            {"text"},
        ),
        ("spo", ("replay(every_step)", "none", "group_dpo", "best_worst"), "T x 3", {"trace", "reference"}, {"image"}),
        ("wd1", ("elbo", "none", "weighted", "softmax"), "1 x 1", set(), {"text"}),
        (
            "tracerl_value",
            ("replay(every_step)", "element", "ppo_clip", "zscore"),
            "T x 3",
            {"trace", "value"},
            {"text"},
        ),
        (
            "dpok",
            ("replay(every_step)", "element", "clip_always", "raw"),
            "T x 8",
            {"trace", "reference", "value"},
            {"image"},
        ),
        (
            "flow_grpo",
            ("replay(every_step)", "element", "ppo_clip", "global_std"),
            "T x 2",
            {"trace", "reference"},
            {"image"},
        ),
        ("sft", ("elbo", "none", "weighted", "constant"), "1 x 1", {"demonstrations"}, {"text", "image"}),
    ],
)
def test_what_a_recipe_is(recipes, name, cell, forwards, needs, modalities):
    recipe = recipes[name]
    assert recipe.cell == cell
    assert recipe.forwards == forwards
    assert set(recipe.needs) == needs
    assert set(recipe.modalities) == modalities


def test_papers_are_read_from_the_files(recipes):
    assert recipes["espo"].paper == "2512.03759"
    assert recipes["one_step"].paper == ""


def test_the_parts_of_the_grid_are_in_use(recipes):
    """An objective or advantage that no recipe uses would be an option that nobody needs."""
    assert {recipe.cell[2] for recipe in recipes.values()} == {kind.value for kind in ObjectiveKind} - {"custom"}
    unused = {kind.value for kind in AdvantageKind} - {recipe.cell[3] for recipe in recipes.values()}
    assert unused == {"custom"}


def test_the_documented_file_is_listed_like_the_others(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine/algorithm"
    folder.mkdir(parents=True)
    (folder / "calm.yaml").write_text(blocks(PAGE, "yaml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    listed, *trainings = [c for c in commands(PAGE) if "calm" in c]
    shown = run_command(listed, monkeypatch, capsys)
    assert "clip_always" in shown
    assert "Sequence ratios of four masks" in shown
    for command in trainings:
        assert "clip_always" in run_command(command.replace(" train ", " config "), monkeypatch, capsys)


def test_the_documented_training_composes(monkeypatch, capsys):
    (command,) = [c for c in commands(PAGE) if "espo" in c and " train " in c]
    assert "ratio: sequence" in run_command(command.replace(" train ", " config "), monkeypatch, capsys)


@pytest.mark.parametrize("command", [c for c in commands(PAGE) if "trees" in c])
def test_the_documented_trees_can_train(command):
    composed = compose([word for word in command.split() if "=" in word])
    assert not problems(composed.config, None)
    assert composed.config.rollout.branching is not None


def test_documented_value_models_compose(monkeypatch, capsys):
    found = [c for c in commands(PAGE) if "value" in c]
    assert len(found) == 2
    for command in found:
        assert "gae_lambda: " in run_command(command.replace(" train ", " config "), monkeypatch, capsys)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted("nothing of the kind"), "no algorithm fits; there are agrpo, align_prop, anchored_coupled"),
        (Wanted(modality="sound"), "--modality sound: there are image, text"),
        (Wanted(needs=("luck",)), "--needs luck: there are .*reference"),
    ],
)
def test_what_there_is_is_told_to_who_asks_for_something_else(known, wanted, message):
    with pytest.raises(UserError, match=message):
        show_algorithms(wanted, None)


def test_algorithms_are_found_by_text_modality_and_needs(known, recipes, capsys):
    def found(*arguments) -> set[str]:
        show_algorithms(Wanted(*arguments), None, as_json=True)
        return {row["name"] for row in json.loads(capsys.readouterr().out)}

    assert found() == recipes.keys()
    assert found("dpo") == {"dpo"}  # the name; as a text it is in others
    assert {"dpo", "diffusion_dpo", "inpo"} < found("group_dpo")
    assert found("", "image") == {name for name, recipe in recipes.items() if "image" in recipe.modalities}
    assert found("", "", ("pairs", "user embeddings")) == {"ppd"}
    assert found("2510.08425") == {"dgpo"}


@pytest.mark.parametrize("width", [80, 110, 150])
def test_words_of_the_table_stay_whole(recipes, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table(list(recipes.values()), width))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    for recipe in recipes.values():
        assert {recipe.name, *recipe.cell} <= words
        assert {word for need in recipe.needs for word in need.split()} <= {word.rstrip(",") for word in words}


def counted(monkeypatch, known: dict[str, Recipe]) -> list[object]:
    """The calls that work the catalogue out, which `known` answers."""
    from rl.commands import catalogue as module

    calls: list[object] = []
    monkeypatch.setattr(module, "catalogue", lambda config_dir: calls.append(config_dir) or list(known.values()))
    return calls


def test_the_catalogue_is_worked_out_once_and_again_when_a_file_changes(monkeypatch, tmp_path, cache, recipes):
    calls = counted(monkeypatch, recipes)
    own = tmp_path / "own/algorithm"
    own.mkdir(parents=True)
    for content in ("clip: 0.3\n", "clip: 0.4\n"):
        (own / "mine.yaml").write_text(content)
        for _ in range(2):
            assert recipes_of(tmp_path / "own") == list(recipes.values())
    assert len(calls) == 2
    assert len(list(cache.iterdir())) == 1  # what is outdated does not pile up


@pytest.mark.parametrize("content", ["", "[{}]", '[{"name": 1}]', "{}x", "[3]", "null"])
def test_what_was_kept_and_cannot_be_read_is_worked_out_again(monkeypatch, cache, recipes, content):
    calls = counted(monkeypatch, recipes)
    assert {recipe.name: recipe for recipe in recipes_of(None)} == recipes
    (file,) = cache.iterdir()
    file.write_text(content)
    assert {recipe.name: recipe for recipe in recipes_of(None)} == recipes
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(monkeypatch, tmp_path, recipes):
    counted(monkeypatch, recipes)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert {recipe.name: recipe for recipe in recipes_of(None)} == recipes
