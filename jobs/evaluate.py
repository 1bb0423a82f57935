"""Judge a model on shards or folders of pairs, and print a table.

python jobs/evaluate.py --model rain-light --data data/test/Rain100L data/test/Rain100H --json out.json
"""

from __future__ import annotations

import json

from jobs.entry import run
from pipelines import storage
from pipelines.evaluation import EvaluateConfig, evaluate, table


def main(config: EvaluateConfig) -> None:
    """Evaluate; the JSON is a list with one object a set."""
    results = evaluate(config)
    print(table(results))
    if config.json:
        text = json.dumps([result.to_dict() for result in results], indent=1)
        storage.write_bytes(config.json, text.encode())


if __name__ == "__main__":
    run(main, EvaluateConfig, __doc__ or "")
