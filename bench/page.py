"""`python -m bench.page RESULTS…` writes into docs/performance.md what runs found: the last one, and all ratios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import regression, report, table

_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"

Document = dict[str, Any]


def rows_of(document: Document) -> list[table.Row]:
    """The rows of a results.json."""
    return [
        table.Row(
            **{
                **row,
                "cells": {name: table.Cell(**cell) for name, cell in row["cells"].items()},
                "targets": tuple(table.Target(**target) for target in row["targets"]),
            }
        )
        for row in document["summary"]
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mark(target: table.Target) -> str:
    return f"{'✓' if target.met else '✗'} {target.text}"


def _whole(document: Document) -> list[str]:
    about = document["machine"]
    kinds = (table.OURS, table.ENVOY, table.NAIVE)
    lines = [
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']},",
        f"{about['date'][:10]}; medians over {document['plan']['rounds']} rounds (lowest–highest).",
        "Ratios are the medians of the rounds' ratios.",
        "",
        _line(["", *kinds, "ours / Envoy", "target"]),
        "|---|---|---|---|---|---|",
    ]
    for row in rows_of(document):
        ratio = report.ratio(row.to_envoy)
        if row.to_naive is not None and row.label.startswith("CPU"):
            ratio += f"; {report.ratio(row.to_naive)} of naive"
        cells = [report.cell(row.cells.get(name)) for name in kinds]
        lines.append(_line([f"{row.label} ({row.unit})", *cells, ratio, "; ".join(map(_mark, row.targets))]))
    lines += ["", _line(["part, alone", "ours", "target"]), "|---|---|---|"]
    for part in document["parts"]:
        value = f"{part['value']:.3g} {part['unit']}"
        limit = f"{'✓' if part['value'] <= part['target'] else '✗'} ≤ {part['target']:g} {part['unit']}"
        lines.append(_line([part["label"], value, limit]))
    lines += ["", "What the bench said of this run:", "", *(f"- {note}" for note in document["notes"])]
    return lines


def _ratios(documents: list[Document]) -> list[str]:
    runs = [regression.ratios(rows_of(document)) for document in documents]
    dates = [document["machine"]["date"][:16].replace("T", " ") for document in documents]
    lines = ["Ratios of CPU, run by run:", "", _line(["", *dates]), "|---|" + "---|" * len(runs)]
    lines += [_line([label, *(report.ratio(run.get(label)) for run in runs)]) for label in runs[-1]]
    return lines


def main(results: Annotated[list[Path], typer.Argument(exists=True, help="Of `make bench`, the newest last.")]) -> None:
    """Replace the results in docs/performance.md by those of these runs."""
    documents = [json.loads(path.read_text()) for path in results]
    found = [*_whole(documents[-1]), *(["", *_ratios(documents)] if len(documents) > 1 else [])]
    text = _PAGE.read_text()
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _PAGE.write_text("\n".join([head + _BEGIN, "", *found, "", _END + tail]))


if __name__ == "__main__":
    typer.run(main)
