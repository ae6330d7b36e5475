"""Run files: names resolve without a registry, every wrong value is told once and in place, overrides find their key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outcross.config import find, overrides
from outcross.config.runfile import load, plan
from outcross.errors import ConfigError
from outcross.recipe import fingerprint
from outcross.stages import FitPlan

STAGES = '''
"""Stages of a user's own, as small as they can be."""
from __future__ import annotations
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.stages import Context, FitPlan, Generator, Objective, Stage, Verifier
from outcross.train.machine import Machine
from outcross.types import Comparison, Decision, Example, Group, Measurement, Sampling, Task


@dataclass(frozen=True)
class Numbers:
    n: int
    start: int = 0
    split: Literal["train", "held_out"] = "train"

    def __iter__(self) -> Iterator[Task]:
        return (Task(f"{self.split}-{i}", str(i), str(i)) for i in range(self.start, self.start + self.n))


@dataclass(frozen=True)
class Rows:
    path: Path

    def identity(self) -> object:
        return self.path.read_text()

    def __iter__(self) -> Iterator[Example]:
        return (Example(line, line, line) for line in self.path.read_text().split())


@dataclass(frozen=True)
class Say(Stage):
    n: int = 4
    sampling: Sampling = Sampling(max_tokens=8)

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        return (Group(task, ()) for task in tasks)


@dataclass(frozen=True)
class Same(Stage):
    ground = "exact"
    strict: bool = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return iter(groups)


@dataclass(frozen=True)
class Rate(Stage):
    tasks: Iterable[Task]
    verify: tuple[Verifier, ...]
    generate: Generator = Say(n=1)
    kind = "quality"
    ground = "exact"
    margin: float = 0.02

    def __call__(self, ctx: Context, /) -> Measurement:
        return Measurement("rate", (), ())


@dataclass(frozen=True)
class Copy:
    per_task: int | None = None
    uses_peers = False

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterable[Example]:
        return []


@dataclass(frozen=True)
class Always:
    alpha: float = 0.0

    def __call__(self, comparison: Comparison, margins: dict[str, float], /) -> Decision:
        return Decision(True, "", "always")


@dataclass(frozen=True)
class Toy:
    size: int
    machine: Machine = Machine()
    seed: int = 0


def method(
    bench: Bench, *, verify: tuple[Verifier, ...], generate: Generator = Say(), objective: Objective = Copy(), rounds: int = 3,
    plan: FitPlan = FitPlan(), mix: Mixture = Mixture(),
) -> Recipe:
    learn = {"policy": Learn(objective, plan)}
    return Recipe("method", "", bench, (Phase("train", generate, learn, verify, mix=mix, rounds=rounds),))


def broken(bench: Bench) -> str:
    return "no recipe"


def reward(prompts, completions, **columns):
    return [1.0 for _ in completions]


FINISHED = Same(strict=False)
'''

RUN = """
recipe: {use: "%(m)s:method", mix: {real_floor: 0.5}}
bench:
  tasks: {use: "%(m)s:Numbers", n: 10}
  held_out: {use: "%(m)s:Numbers", n: 5, start: 100, split: held_out}
  real: {use: "%(m)s:Rows", path: rows.txt}
  verify: "%(m)s:Same"
  probes: [{use: "%(m)s:Rate"}]
  gate: "%(m)s:Always"
models:
  policy: {use: "%(m)s:Toy", size: 3}
  judge: policy
machine: {threads: 2}
seed: 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with stages of their own and a run file that names them."""
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(STAGES)
    (tmp_path / "rows.txt").write_text("1 2 3")
    (tmp_path / "run.yaml").write_text(RUN % {"m": module})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def edited(folder: Path, old: str, new: str) -> Path:
    text = (folder / "run.yaml").read_text()
    assert old in text
    (folder / "run.yaml").write_text(text.replace(old, new))
    return folder / "run.yaml"


def refusal(path: Path, changes: list[tuple[str, Any]] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, changes or []).build_recipe()
    return str(caught.value)


# ── a whole run file ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_file_becomes_a_recipe_and_models(folder: Path) -> None:
    made = load(folder / "run.yaml")
    recipe, models = made.build_recipe(), made.build_models()
    (phase,) = recipe.phases
    assert (recipe.name, phase.rounds, phase.mix.real_floor, phase.mix.history) == ("method", 3, 0.5, "accumulate")
    assert [task.prompt for task in recipe.bench.held_out] == ["100", "101", "102", "103", "104"]
    assert [row.id for row in recipe.bench.real or ()] == ["1", "2", "3"]  # the path is relative to the run file
    policy: Any = models["policy"]
    assert policy is models["judge"]  # an alias is the same model
    assert (policy.size, policy.machine.threads, policy.seed) == (3, 2, 5)  # machine and seed come from the outer level


def test_probes_and_recipe_share_the_benchs_tasks_and_verifiers(folder: Path) -> None:
    recipe = load(folder / "run.yaml").build_recipe()
    probe: Any = recipe.bench.probes[0]
    assert probe.tasks is recipe.bench.held_out
    assert probe.verify is recipe.phases[0].verify
    assert type(recipe.phases[0].verify[0]).__name__ == "Same"


def test_checking_builds_nothing(folder: Path) -> None:
    path = edited(folder, "path: rows.txt", "path: missing.txt")
    made = load(path)
    with pytest.raises(FileNotFoundError):
        list(made.build_recipe().bench.real or ())


def test_the_resolved_configuration_has_every_default_and_gives_the_same_recipe_again(folder: Path) -> None:
    made = load(folder / "run.yaml")
    assert made.config["recipe"]["plan"]["lr"] == FitPlan().lr
    assert made.config["recipe"]["generate"]["sampling"]["max_tokens"] == 8
    assert made.config["bench"]["probes"][0]["margin"] == 0.02
    assert made.config["models"] == {"policy": {"use": made.config["models"]["policy"]["use"], "size": 3}, "judge": "policy"}
    again = plan(made.config, folder)
    assert again.config == made.config
    assert fingerprint(again.build_recipe()) == fingerprint(made.build_recipe())


def test_real_none_is_said_out_loud(folder: Path) -> None:
    text = (folder / "run.yaml").read_text()
    real = next(line for line in text.splitlines() if line.startswith("  real:"))
    made = load(edited(folder, real, "  real: none"))
    assert made.build_bench().real is None
    assert "bench.real is missing; write `real: none`" in refusal(edited(folder, "  real: none\n", ""))


# ── what is wrong is told once, in place ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 5", "sede: 5", "sede: there is no setting 'sede' here; did you mean 'seed'?"),
        ("seed: 5", "seed: five", "seed is 'five'"),
        ("seed: 5", "seed: true", "seed is True"),
        ("seed: 5", "budget: {token: 5}", "budget.token: there is no setting 'token' here; did you mean 'tokens'?"),
        ("  gate:", "  gates:", "bench.gates: there is no setting 'gates' here; did you mean 'gate'?"),
        ("n: 10", "n: ten", "bench.tasks.n is 'ten'; it must be a whole number"),
        ("n: 10", "n: true", "bench.tasks.n is True; it must be a whole number"),
        ("n: 10", "n: 10, strat: 3", "bench.tasks.strat: the task set"),
        ("n: 10", "start: 10", "needs the setting 'n' (a whole number)"),
        ("split: held_out", "split: test", "bench.held_out.split is 'test'; it must be one of train, held_out"),
        ("real_floor: 0.5", "real_flor: 0.5", "recipe.mix.real_flor: Mixture has no setting 'real_flor'; did you mean 'real_floor'?"),
        ("mix: {real_floor: 0.5}", "mix: 3", "recipe.mix is 3; it must be settings"),
        ("machine: {threads: 2}", "machine: {thread: 1}", "machine.thread: the machine has no setting 'thread'; did you mean 'threads'?"),
        ("machine: {threads: 2}", "machine: {threads: two}", "machine.threads is 'two'; it must be a whole number"),
        ("judge: policy", "judge: polcy", "models.judge is 'polcy', which is neither another role (policy) nor a model"),
        (":method", ":metod", "has no 'metod'; did you mean 'method'?"),
        (":Same", ":Sane", "has no 'Sane'; did you mean 'Same'?"),
        ("seed: 5", "seed: 5\nseed: 6", "the key 'seed' is given twice"),
        ("seed: 5", "seed: [5", "line 1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(folder: Path, old: str, new: str, told: str) -> None:
    message = refusal(edited(folder, old, new))
    assert told in message
    assert "run.yaml" in message
    assert len(message) < 700


def test_recipe_taking_the_bench_does_not_let_the_file_set_it(folder: Path) -> None:
    assert "allowed: generate, mix, objective, plan, rounds" in refusal(edited(folder, "mix:", "paln: {lr: 1}, mix:"))


def test_a_recipe_function_that_returns_something_else(folder: Path) -> None:
    message = refusal(folder / "run.yaml", [("recipe", f"own_{folder.name}:broken")])
    assert "gave a str; a recipe function returns an outcross.Recipe" in message


def test_an_unknown_use_name_lists_what_there_is(folder: Path) -> None:
    message = refusal(edited(folder, 'policy: {use: "', 'policy: {use: "no_such_module_'))
    assert "models.policy.use: there is no module 'no_such_module_" in message
    message = refusal(folder / "run.yaml", [("bench.gate", "opn")])
    assert "bench.gate.use: no gate is called 'opn'" in message
    assert "`module:Name`" in message


def test_a_module_that_fails_to_import_is_told_apart_from_one_that_is_missing(folder: Path) -> None:
    (folder / "failing.py").write_text("import no_such_package_anywhere\n")
    (folder / "raising.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="importing 'failing' failed: No module named 'no_such_package_anywhere'"):
        find.find("failing:Name", find.GATE, "bench.gate.use", folder)
    with pytest.raises(ConfigError, match="importing 'raising' raised ZeroDivisionError"):
        find.find("raising:Name", find.GATE, "bench.gate.use", folder)


@pytest.mark.parametrize(("text", "told"), [("", "holds nothing"), ("- a\n", "holds a list"), ("just text", "holds a str")])
def test_a_file_without_settings(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert told in refusal(tmp_path / "run.yaml")


def test_a_run_file_that_does_not_exist(tmp_path: Path) -> None:
    assert "outcross init" in refusal(tmp_path / "absent.yaml")


def test_roles_that_name_each_other_in_a_circle(folder: Path) -> None:
    path = edited(folder, "judge: policy", "judge: critic\n  critic: judge")
    assert "in a circle" in refusal(path)


def test_a_finished_object_can_be_named_but_takes_no_settings(folder: Path) -> None:
    made = load(edited(folder, ":Same", ":FINISHED"))
    verifier: Any = made.build_recipe().phases[0].verify[0]
    assert verifier.strict is False
    module = f"own_{folder.name}"
    message = refusal(folder / "run.yaml", [("bench.verify", [{"use": f"{module}:FINISHED", "strict": True}])])
    assert "finished object" in message


# ── overrides ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("key", "value", "look"),
    [
        ("recipe.mix.real_floor", 0.8, "recipe.mix.real_floor"),
        ("mix.real_floor", 0.8, "recipe.mix.real_floor"),
        ("real_floor", 0.8, "recipe.mix.real_floor"),
        ("plan.lr", "1e-2", "recipe.plan.lr"),  # not written in the file
        ("seed", 9, "seed"),
        ("tasks.n", 20, "bench.tasks.n"),
        ("held_out.n", 20, "bench.held_out.n"),
        ("recipe.generate.n", 7, "recipe.generate.n"),
        ("bench.probes.0.margin", 0.5, "bench.probes.0.margin"),
        ("verify.0.strict", False, "bench.verify.0.strict"),  # the file says only a name
        ("budget.seconds", 60, "budget.seconds"),
    ],
)
def test_an_override_reaches_its_setting(folder: Path, key: str, value: Any, look: str) -> None:
    found: Any = load(folder / "run.yaml", [(key, value)]).config
    for part in look.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    assert found == (float(value) if isinstance(value, str) else value)


def test_an_override_keeps_its_neighbours(folder: Path) -> None:
    made = load(folder / "run.yaml", [("recipe.generate.sampling.max_tokens", 99)])
    assert made.config["recipe"]["generate"]["n"] == 4
    assert made.config["recipe"]["mix"]["real_floor"] == 0.5


def test_list_items_go_by_their_name_too(folder: Path) -> None:
    module = f"own_{folder.name}"
    made = load(folder / "run.yaml", [(f"bench.probes.{module}:Rate.margin", 0.3)])
    assert made.config["bench"]["probes"][0]["margin"] == 0.3


def test_an_ambiguous_override_lists_the_candidates(folder: Path) -> None:
    message = refusal(folder / "run.yaml", [("start", 3)])
    assert message == "--start could mean 2 settings; write one of --bench.held_out.start, --bench.tasks.start"


def test_an_unknown_override_suggests(folder: Path) -> None:
    assert "did you mean --mix.real_floor" in refusal(folder / "run.yaml", [("mix.real_flor", 0.8)])


def test_an_override_may_give_what_the_file_lacks(folder: Path) -> None:
    path = edited(folder, "seed: 5", "name: null")
    text = path.read_text()
    path.write_text(text.replace("recipe: {", "recipe: {rounds: many, "))
    assert load(path, [("recipe.rounds", 2)]).config["recipe"]["rounds"] == 2
    assert "recipe.rounds is 'many'" in refusal(path, [("seed", 2)])


@pytest.mark.parametrize(
    ("words", "plain_words", "found"),
    [
        (["run.yaml", "--mix.real-floor", "0.8"], ["run.yaml"], [("mix.real_floor", 0.8)]),
        (["--mix.real_floor=0.8", "run.yaml"], ["run.yaml"], [("mix.real_floor", 0.8)]),
        (["--plan.lr", "1e-3", "--a", "[1, 2]"], [], [("plan.lr", 1e-3), ("a", [1, 2])]),
        (["--x=-1", "--unsafe"], [], [("x", -1), ("unsafe", True)]),
        (["--gate", "{use: open}"], [], [("gate", {"use": "open"})]),
        (["--real", "none"], [], [("real", "none")]),
    ],
)
def test_words_of_a_command_line(words: list[str], plain_words: list[str], found: list[tuple[str, Any]]) -> None:
    assert overrides.split_words(words) == (plain_words, found)
