"""The own scorers of reasoning-gym's task families, with what they must not be given kept away from them."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from outcross.errors import MissingExtra
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.each import PASS, Finding, scored
from outcross.verify.exact import last_match, wrapped

_EVALUATES = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
_COMPUTES = frozenset({"puzzle24", "countdown"})
_ALGEBRA = frozenset({"simple_integration", "intermediate_integration", "polynomial_multiplication"})
_DATA = re.compile(r"[\w\s.,'\"-]*")
_NAMES = frozenset(("exp", "log", "sin", "cos", "tan", "sqrt", "pi", "asin", "acos", "atan", "sinh", "cosh", "tanh"))
_PARTS = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UAdd, ast.USub,
)  # fmt: skip
_LARGEST, _LONGEST = 10**9, 500  # a number in a formula; characters of a formula


@dataclass(frozen=True)
class ReasoningGymScorer(Stage):
    """Passes an answer to which the family's own scorer gives the full mark, 1.0; partial marks fail, since in many families
    "The answer is X" earns some.

    pattern: a regular expression that finds the answer in a longer text (last match, first group); see `Exact`.

    What a scorer raises is an *error* verdict. Nine families hand the answer to Python's or sympy's evaluator: there an answer
    that is more than plain data is an *error* too, and never evaluated. Known faults of version 0.1.25: `game_of_life_halting`
    accepts any text, `puzzle24` does not check which numbers are used, `coin_flip` accepts "0.0".
    """

    pattern: str = ""
    ground: ClassVar[Ground] = "exact"

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A sum of reasoning-gym's own. Raises `MissingExtra` where it is not installed."""
        family, settings = "chain_sum", '{"seed": 1, "size": 1}'
        entry = _entry(family, settings, 0)
        right, wrong = (wrapped(self.pattern, str(int(entry["answer"]) + off)) for off in (0, 1))
        task = Task("sum", entry["question"], columns=(("family", family), ("settings", settings), ("index", "0")))
        known = () if right is None or wrong is None else (Canary(task, (right, wrong), ("pass", "fail")),)
        return *known, Canary(Task("no family", entry["question"]), ("0",), ("abstain",))

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        columns = dict(task.columns)
        if not {"family", "settings", "index"} <= columns.keys():
            return "abstain", "the task is not of reasoning-gym", ""
        found = last_match(self.pattern, text) if self.pattern else text
        if found is None:
            return "fail", "nothing in the answer matches the pattern", text[-200:]
        said, family = found.strip(), columns["family"]
        if not is_plain(family, said):
            return "error", "refused: the family's scorer would evaluate this text", said
        dataset = _dataset(family, columns["settings"])
        entry = _entry(family, columns["settings"], int(columns["index"]))
        if entry["question"] != task.prompt:
            return "error", "this version of reasoning-gym makes another question from the task's seed", entry["question"]
        mark = dataset.score_answer(said, entry)
        if mark >= 1.0:
            return PASS
        return "fail", "the scorer gave less than the full mark", f"{mark:g} for {said}"


def is_plain(family: str, text: str) -> bool:
    """Whether a family's scorer can be given `text` without running it as a program."""
    if family in _EVALUATES:
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return _DATA.fullmatch(text) is not None
        return True
    if family not in _COMPUTES | _ALGEBRA:
        return True
    try:
        tree = ast.parse(text.strip(), mode="eval") if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return tree is not None and all(_harmless(node, family in _ALGEBRA) for node in ast.walk(tree)) and _powers(tree) <= 2


def _harmless(node: ast.AST, algebra: bool) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and abs(node.value) <= _LARGEST
    if isinstance(node, _PARTS):
        return True
    if not algebra:
        return False
    if isinstance(node, ast.Name):
        return len(node.id) == 1 or node.id in _NAMES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _NAMES and not node.keywords
    return isinstance(node, ast.Pow | ast.Load)


def _powers(node: ast.AST) -> int:
    """How deep powers are nested in a formula; 99 for an exponent that is not a small number."""
    inner = max(map(_powers, ast.iter_child_nodes(node)), default=0)
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)):
        return inner
    numbers = [item.value for item in ast.walk(node.right) if isinstance(item, ast.Constant)]
    plain = all(isinstance(item, int | float) and abs(item) < 100 for item in numbers) and not any(
        isinstance(item, ast.Mult | ast.Pow) for item in ast.walk(node.right)
    )
    return inner + 1 if plain else 99


@lru_cache(maxsize=64)
def _dataset(family: str, settings: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies leave files open while they are imported
            from reasoning_gym.factory import create_dataset
    except ModuleNotFoundError as error:
        raise MissingExtra("reasoning-gym", "tasks", f"the scorer of {family!r}") from error
    return create_dataset(family, **json.loads(settings))


@lru_cache(maxsize=64)
def _entry(family: str, settings: str, index: int) -> Any:
    return _dataset(family, settings)[index]
