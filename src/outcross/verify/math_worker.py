"""The process in which math-verify runs. It can hang and it can eat memory there, and it is thrown away when it does."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from outcross.verify.each import Finding
from outcross.verify.worker import Judge, serve


class _Exhausted(logging.Handler):
    """math-verify reports what it swallowed to its log, and "not equal" to its caller: this hears of memory errors."""

    seen = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], MemoryError):
            self.seen = True


class TwoStages:
    """A parser that tries ANTLR's faster prediction (SLL) first. What that can parse has the same tree under full prediction (LL);
    anything else is parsed again (Parr, Harwell & Fisher 2014, Adaptive LL(*) parsing, section 3.2: two-stage parsing)."""

    def __init__(self, create: Any, latex: str) -> None:
        self._create, self._latex = create, latex

    def math(self) -> Any:
        from antlr4.atn.PredictionMode import PredictionMode

        parser = self._create(self._latex)
        parser._interp.predictionMode = PredictionMode.SLL
        try:
            return parser.math()
        except MemoryError:
            raise
        except Exception:  # of the class that the parser's listener for syntax errors raises
            return self._create(self._latex).math()


def parse_in_two_stages() -> None:
    """Make the LaTeX parser behind math-verify several times faster, to the same trees."""
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    create = _Latex2Sympy.create_parser
    _Latex2Sympy.create_parser = lambda self, latex: TwoStages(lambda text: create(self, text), latex)


@lru_cache(maxsize=256)
def read_gold(text: str) -> list[Any]:
    """The reference as math-verify reads it; as LaTeX without dollar signs when it reads nothing else."""
    from math_verify import parse

    found: list[Any] = parse(text, parsing_timeout=None) or parse(f"${text}$", parsing_timeout=None)
    return found


def judge(gold: str, answer: str) -> Finding:
    """Verdict, reason and evidence by math-verify, without its own deadlines."""
    from math_verify import parse, verify

    expected = read_gold(gold)
    if not expected:
        return "error", "the reference answer cannot be read", gold[:200]
    said = parse(answer, parsing_timeout=None)
    if not said:
        return "fail", "no answer could be read", answer[-200:]
    if verify(expected, said, timeout_seconds=None):
        return "pass", "", ""
    return "fail", "differs from the reference answer", str(said[-1])[:200] if isinstance(said[-1], str) else ""


def prepare(settings: None) -> Judge:
    """math-verify imported, its parser made faster and its log heard."""
    import math_verify  # noqa: F401  paid before the first deadline begins

    parse_in_two_stages()
    exhausted = _Exhausted()
    for name in ("math_verify", "latex2sympy2_extended"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [exhausted], False, logging.DEBUG

    def heard(gold: str, answer: str) -> Finding:
        exhausted.seen = False
        finding = judge(gold, answer)
        if exhausted.seen:
            raise MemoryError
        return finding

    return heard


if __name__ == "__main__":
    serve(prepare)
