"""Smaller tables."""

from __future__ import annotations

from docs.generate.included import source
from docs.generate.text import ROOT, code, linked, table
from polyprefix.config import read_yaml
from polyprefix.studies import shipped
from polyprefix.tasks.scores import ANSWER_SCORES


def studies() -> str:
    """Of each shipped study: what its paper reports, what is not known of it, what was chosen."""
    parts = []
    paper = ""
    for name, path in shipped().items():
        values = read_yaml(path)
        if values["paper"] != paper:
            paper = values["paper"]
            folder = name.partition("/")[0]
            parts.append(f"### `{folder}` {{#{folder}}}\n\n{linked(paper)}\n")
        address = source(path.relative_to(ROOT).as_posix())
        parts.append(f'??? note "{values["title"]}"\n')
        rows = [f"    [`{name}`]({address})"]
        rows += [
            f"    **{key}.** {' '.join(values[key].split())}"
            for key in ("reports", "unknown", "chosen")
        ]
        parts.append("\n\n".join(rows) + "\n")
    return "\n".join(parts)


def score_names() -> str:
    """Of written answers: the metrics and the scores that each gives."""
    rows = [
        (code(metric), ", ".join(map(code, scores))) for metric, scores in ANSWER_SCORES.items()
    ]
    return table(("metric", "scores"), rows)
