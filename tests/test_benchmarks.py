"""The benchmarks run, and find what they say."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_agreement_with_the_harness(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval")
    from benchmarks.agreement import main

    few = ["--choices", "10", "--answers", "5", "--tokens", "16"]
    assert main(["--data", str(real_data), *few]) == 0
    shown = capsys.readouterr().out
    for task in ("sib200", "xnli", "belebele", "xquad", "mgsm"):
        assert shown.count(f" {task} ") == 2
