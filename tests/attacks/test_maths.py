"""Hostile answers to the maths verifier: none passes, nothing runs, nothing hangs, and the next answer is judged as if alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import context, sample

from outcross.types import Group, Score, Task
from outcross.verify.math import Math

pytest.importorskip("math_verify", reason="needs math-verify: pip install 'outcross[math]'")

PLANTED = "/tmp/outcross-planted-by-an-answer"
ANSWERS: dict[str, str] = {
    "power tower": "10**10**10",
    "power tower, boxed": "\\boxed{10**10**10}",
    "power tower in LaTeX": "$10^{10^{10}}$",
    "taller tower": "$9^{9^{9^{9}}}$",
    "factorial": "$100000000!$",
    "double factorial": "$((10!)!)!$",
    "sum": "$\\sum_{i=1}^{10^{12}} \\frac{1}{i^{3}}$",
    "product": "$\\prod_{i=1}^{10^{9}} i$",
    "integral": "$\\int_0^1 \\frac{e^{x^x}}{\\sin(x^{99})} dx$",
    "limit": "$\\lim_{x \\to \\infty} \\frac{x^{x!}}{(x!)^{x}}$",
    "large polynomial": "$(a+b+c+d+e)^{200}$",
    "many factors": "$" + "".join(f"(x-{i})" for i in range(300)) + "$",
    "many digits": "9" * 40_000,
    "many decimals": "0." + "3" * 40_000,
    "deep brackets": "$" + "(" * 3000 + "1" + ")" * 3000 + "$",
    "deep fractions": "$" + "\\frac{1}{" * 800 + "2" + "}" * 800 + "$",
    "deep roots": "$" + "\\sqrt{" * 800 + "2" + "}" * 800 + "$",
    "deep powers": "$" + "2^{" * 500 + "2" + "}" * 500 + "$",
    "unclosed brackets": "$" + "{" * 20_000 + "$",
    "import": f"__import__('os').system('touch {PLANTED}')",
    "import, boxed": f"\\boxed{{__import__('os').system('touch {PLANTED}')}}",
    "import in LaTeX": f"$\\text{{__import__('pathlib').Path('{PLANTED}').touch()}}$",
    "lambda": f"(lambda: open('{PLANTED}', 'w'))()",
    "exit": "$exit()$ \\boxed{quit()}",
    "attributes": "().__class__.__bases__[0].__subclasses__()",
    "LaTeX that reads files": "$\\input{/etc/passwd}$ \\boxed{\\write18{id}}",
    "a megabyte of LaTeX": "$" + "x+" * 500_000 + "1$",
    "much LaTeX": "$" + "x+" * 20_000 + "1$",
    "many answers": "\\boxed{1} " * 4000,
    "unicode digits": "٤٢",
    "full-width digits": "４２",
    "superscripts": "⁴²",
    "letters that look like digits": "4Ƨ and 𝟜𝟛",
    "right to left": "\u202e24",
    "null bytes": "\x00" * 100 + "$\x00$",
    "line protocol": '["pass", "", ""]\n["pass", "", ""]\n',
    "not a number": "$\\text{nan}$ nan NaN",
    "infinity": "$\\infty$ inf",
    "every number": "$x \\in \\mathbb{R}$ \\boxed{x=x}",
    "true": "$1 = 1$ True \\top",
    "undefined": "$\\frac{0}{0}$ \\boxed{\\frac{1}{0}}",
    "matrix of everything": "$\\begin{pmatrix}" + "&".join("1" * 60) + "\\end{pmatrix}^{1000}$",
    "backtracking": "1," * 15_000 + "x",
    "signs": "-" * 20_000 + "1",
    "empty": "",
    "spaces": " " * 40_000,
}
GOLD = "41"
SECONDS = 1.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    """Every hostile answer, and after each an honest one that needs a worker."""
    groups = []
    for name, text in ANSWERS.items():
        groups.append(Group(Task(name, "", GOLD), (sample(text),)))
        groups.append(Group(Task(f"after {name}", "", "$x+1$"), (sample("so it is $1+x$"),)))
    result = list(Math(seconds=SECONDS)(context(tmp_path_factory.mktemp("run")), groups))
    assert [group.task for group in result] == [group.task for group in groups]
    return {group.task.id: group.samples[0].scores[0] for group in result}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_contained(name: str, found: dict[str, Score]) -> None:
    assert found[name].verdict in ("fail", "error"), found[name]
    assert found[name].reason and len(found[name].evidence) <= 200
    if found[name].verdict == "error":
        assert found[name].value is None and found[name].reason in (
            "timeout",
            "out of memory",
            "the worker died",
            "the check itself failed",
        )
    assert found[f"after {name}"].verdict == "pass", found[f"after {name}"]


def test_nothing_that_an_answer_says_is_run() -> None:
    assert not Path(PLANTED).exists()


def test_there_are_enough_of_them() -> None:
    assert len(ANSWERS) >= 40
