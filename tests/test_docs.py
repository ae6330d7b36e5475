"""The documents are true: what they show is run, what they name exists, and what can be read off the code is compared with it.

Blocks of a page are read in order. A ```python or ```yaml block whose first line is `# name.py` or `# name.yaml` is a file; any other
```python block, and every command of a ```console block (lines that begin with `$`), is run in one empty folder per page, and the
lines shown below a command must stand in what it prints, in that order (`…` stands for anything). ```sh blocks are for a shell of the reader's:
what they name must exist.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import reference
import typer
import yaml
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.config.overrides import split_words
from outcross.config.runfile import BenchFile, BudgetFile, CardFile, ErrorsFile, RunFile, load

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=lambda path: path.name)
RUN = [ROOT / "README.md", ROOT / "docs" / "extend.md"]
TOY = ROOT / "src" / "outcross" / "cli" / "templates" / "toy.yaml"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OVERRIDABLE = ("run", "validate", "generate")
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it begins on."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name in the first line, of a block that is a file."""
        found = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return found.group(1) if found and self.language in ("python", "yaml") else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(item.group(1), item.group(2), text.count("\n", 0, item.start()) + 1) for item in found]


def codes(page: Path) -> Iterator[str]:
    """Every piece of code on a page: the lines of blocks, and what stands between backticks in prose."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        if block.language in ("sh", "console"):
            yield from (
                line.removeprefix("$ ").partition(" #")[0] for line in block.text.splitlines() if block.language == "sh" or line[0] == "$"
            )
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def of(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda path: path.name)


# ── what is shown is run ───────────────────────────────────────────────────────────────────────────────────────────────
def shell(command: str, folder: Path) -> str:
    """What a command prints on both streams. Fails with it when the command does."""
    bare = f'PATH="{Path(sys.executable).parent}:$PATH"; export PATH OMP_NUM_THREADS=1; {command}'
    done = subprocess.run(["bash", "-c", bare], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def steps(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, [line for line in shown if line.strip()]


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def alike(shown: str, line: str) -> bool:
    """Whether a printed line is the one shown: `…` stands for anything, and measured numbers may differ by a tenth on another machine."""
    pattern = ".*".join(NUMBER.sub("NUMBER", re.sub(r"\s+", " ", part.strip())) for part in shown.split("…"))
    pattern = re.escape(pattern).replace(re.escape(".*"), ".*").replace("NUMBER", rf"({NUMBER.pattern})")
    found = re.search(pattern, re.sub(r"\s+", " ", line))
    numbers = [float(item.replace(",", "")) for item in NUMBER.findall(shown)]
    return found is not None and all(abs(float(a.replace(",", "")) - b) <= 0.1 * b for a, b in zip(found.groups(), numbers, strict=True))


@of(RUN)
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            (tmp_path / "session.py").write_text(block.text, encoding="utf-8")
            shell("python session.py", tmp_path)
        elif block.language == "console":
            for command, shown in steps(block):
                printed = iter(shell(command, tmp_path).splitlines())
                for line in shown:
                    assert any(alike(line, one) for one in printed), f"{page.name}: `{command}` did not print, in this place: {line}"


def test_lines_of_output_are_told_apart() -> None:
    assert alike("Promoted 3 of 3 rounds; pass rate 19.0 % → 38.6 %, …", "Promoted 3 of 3 rounds; pass rate 19.0 % → 38.2 %, real loss 3.")
    assert not alike("Promoted 3 of 3 rounds; pass rate 19.0 % → 38.6 %", "Promoted 2 of 3 rounds; pass rate 19.0 % → 38.6 %")
    assert not alike("Promoted …", "Refused")


def test_each_thing_that_extend_writes_takes_less_than_thirty_lines() -> None:
    files = {block.file: block.text for block in blocks(ROOT / "docs" / "extend.md") if block.file}
    assert {"rewards.py", "nines.py", "spread.py", "easy.py", "distance.py", "harder.py", "mine.yaml", "test_mine.py"} <= files.keys()
    for name, text in files.items():
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        assert len(lines) < 30, f"{name} has {len(lines)} lines of code"


def test_the_run_file_of_the_reference_binds(tmp_path: Path) -> None:
    (shown,) = (block.text for block in blocks(reference.PAGE) if block.language == "yaml")
    (tmp_path / "run.yaml").write_text(shown, encoding="utf-8")
    assert load(tmp_path / "run.yaml").config["models"]["policy"]["lora"]["r"] == 16


def test_the_fragment_of_the_toy_run_file_is_in_it(tmp_path: Path) -> None:
    toy = load(TOY)
    (fragment,) = (yaml.safe_load(block.text) for block in blocks(ROOT / "README.md") if block.language == "yaml")
    whole = yaml.safe_load(TOY.read_text())
    recipe = {**whole["recipe"], **fragment["recipe"]}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**whole, **fragment, "recipe": recipe}))
    assert load(path).config | {"base": None} == toy.config | {"base": None}


# ── what is named exists ───────────────────────────────────────────────────────────────────────────────────────────────
def uses(page: Path) -> Iterator[list[str]]:
    """The words of every `outcross …` on a page, without the first."""
    for code in codes(page):
        for found in re.finditer(r"(?:^|[;&(] *)outcross +([a-z-][^;&|]*)", code):
            yield re.sub(r"'[^']*'", lambda quoted: quoted.group().replace(" ", "\0"), found.group(1)).split()


@of(PAGES)
def test_every_command_and_option_named_exists(page: Path) -> None:
    for name, *words in uses(page):
        if name.startswith("-"):
            continue
        assert name in COMMANDS, f"{page.name}: there is no command `outcross {name}`"
        known = {option for item in COMMANDS[name].params for option in item.opts} | {"--help", "-h", "--debug"}
        unknown = [index for index, word in enumerate(words) if re.match(r"--?[a-z]", word) and word not in known]
        changes = [word.replace("\0", " ").strip("'") for index in unknown for word in words[index : index + 2]]
        assert not changes or name in OVERRIDABLE, f"{page.name}: `outcross {name}` has no option {changes[0]}"
        load(TOY, split_words(changes)[1])


@of(PAGES)
def test_every_override_named_in_prose_is_a_setting(page: Path) -> None:
    for code in codes(page):
        if re.match(r"--[a-z_]+\.\S+ ", code):
            load(TOY, split_words([word.strip("'") for word in code.split(maxsplit=1)])[1])


@of(PAGES)
def test_every_link_path_target_and_extra_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), f"{page.name} links to {target}"
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for code in codes(page):
        found = re.fullmatch(rf"((?:{'|'.join(FOLDERS)})/[\w./-]+|\w+\.(?:md|toml|txt)|Makefile|\.ci/\w+)(?:::(\w+))?", code)
        if found:
            assert (ROOT / found[1]).exists(), f"{page.name} names {found[1]}"
            assert not found[2] or f"def {found[2]}(" in (ROOT / found[1]).read_text(), f"{page.name} names the test {code}"
        for target in re.findall(r"^make (?:[A-Z_]+=\S+ )*([a-z]+)", code):
            assert target in targets, f"{page.name}: the Makefile has no target {target!r}"
        for extra in ",".join(re.findall(r"(?:\.|outcross)\[([a-z,]+)\]", code)).split(","):
            assert not extra or extra in extras, f"{page.name}: there is no extra {extra!r}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_and_is_in_the_readme(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output
    assert re.search(rf"`(?:outcross )?{command}`", (ROOT / "README.md").read_text())


# ── what can be read off the code ──────────────────────────────────────────────────────────────────────────────────────
def test_the_annotated_tree_is_the_package() -> None:
    (tree,) = (block.text for block in blocks(ROOT / "README.md") if block.text.startswith("src/outcross/"))
    shown = set(re.findall(r"^[├└]── (\S+)\s+\S", tree, re.MULTILINE))
    package = ROOT / "src" / "outcross"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert shown == folders | {path.name for path in package.glob("[!_]*.py")}


def test_the_reference_is_what_the_code_says() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.written(page), "run `python tests/reference.py`, which writes the page's generated sections"


def test_the_reference_names_every_outer_key_with_its_default() -> None:
    models = {"": RunFile, "bench.": BenchFile, "budget.": BudgetFile, "card.": CardFile, "errors.": ErrorsFile}
    wanted = {f"{prefix}{name}": item for prefix, model in models.items() for name, item in model.model_fields.items()}
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \|", reference.PAGE.read_text().partition("## Data from files")[0], re.MULTILINE)
    assert {key for key, _ in rows} == wanted.keys() - {"bench", "budget", "card", "errors"}
    for key, shown in rows:
        item = wanted[key]
        value = None if item.is_required() else item.get_default(call_default_factory=True)
        default = "required" if item.is_required() else "none" if value in (None, {}, []) else value
        if key != "name":
            assert shown.strip("`") == str(default).replace("False", "false"), key


def test_what_a_run_leaves_behind_is_what_the_reference_draws(tmp_path: Path) -> None:
    small = "--bench.tasks.n 100 --bench.held_out.n 50 --bench.real.n 50 --models.policy.examples.n 50 --recipe.rounds 1 --recipe.n 1"
    shell(f"outcross run {TOY} {small} --recipe.plan.epochs 1 --models.policy.plan.epochs 1 --bench.gate open --out run", tmp_path)
    (drawn,) = (block.text for block in blocks(reference.PAGE) if block.text.startswith("RUN/"))
    for depth, name in re.findall(r"^(│|    |)[ ]*[├└]── (\S+?)/?\s", drawn, re.MULTILINE):
        if name != "PHASE/ROUND":
            place = tmp_path / "run" / "expert_iteration" / "0000" if depth else tmp_path / "run"
            assert (place / name).exists(), name
