"""Judge a model on shards or folders of pairs, and print a table.

    python jobs/evaluate.py --model rain-light --data data/test/Rain100L data/test/Rain100H --json out.json

    python jobs/evaluate.py --model footage-light --footage --layout clip-pairs --data s3://drives/test

With --paper the paper's tables are printed beside it, and with --localizers what Net_L's accuracy is worth.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from jobs.entry import run
from pipelines.judging import clips, paper
from pipelines.judging.evaluation import EvaluateConfig, evaluate, plain, table
from pipelines.services import cluster, locations, storage


def main(config: EvaluateConfig) -> None:
    """Evaluate; the JSON is a list with one object a set, or an object that holds the tables as well."""
    found: Any
    cluster.check_answers()
    if config.json:
        storage.check_writable(locations.folder_of(config.json))
    if config.footage:
        judged = clips.judge_clips(config)
        print(clips.table(judged))
        found = [result.to_dict() for result in judged]
    elif config.localizers:
        found = _tables(paper.compare_localizers(config))
    elif config.paper:
        found = _beside_the_paper(config)
    else:
        results = evaluate(config)
        print(table(results))
        found = [result.to_dict() for result in results]
    if config.json:
        storage.write_bytes(config.json, json.dumps(found, indent=1, allow_nan=False).encode())


def _beside_the_paper(config: EvaluateConfig) -> dict[str, Any]:
    judged = paper.judge_models(config)
    for one in judged:
        print(f"{one.name}\n{table(one.results)}\n")
    sets = [{"model": one.name, "sets": [result.to_dict() for result in one.results]} for one in judged]
    return {"models": sets, **_tables(paper.compare(judged, limit=config.limit))}


def _tables(comparisons: list[paper.Comparison]) -> dict[str, Any]:
    print("\n\n".join(paper.text(comparison) for comparison in comparisons))
    return {"tables": [plain(asdict(comparison)) for comparison in comparisons]}


if __name__ == "__main__":
    run(main, EvaluateConfig, __doc__ or "")
