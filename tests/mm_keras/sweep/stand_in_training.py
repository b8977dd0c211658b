"""Stands for a training of three epochs: takes its command's arguments, and leaves what a sweep and a search read of a run.

Its `calls` has a line each time it is begun, its `devices` the GPUs it was given. The metric on the validation split is best
at 32 examples a batch; the report depends on batch size and seed. Files in the folder of the sweep tell it what to do:
`hold` and `hold_large` (for batches of more than 90) to wait in the second epoch, `solved` to have no epochs, and `broken`
to fail, all or that batch size alone.
"""

import json
import os
import sys
import time
from pathlib import Path

given = [argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument]
bound = {name.strip(): value.strip() for option, line in given if option == "--set" for name, _, value in [line.partition("=")]}
folder = Path(dict(given)["--workdir"])
workdir = folder.parents[2]
seed, size = int(bound["train.seed"]), int(bound["train.batch_size"])

with open(folder / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\n")
(folder / "devices").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
broken = workdir / "broken"
if broken.exists() and broken.read_text() in ("", str(size)):
    sys.exit("out of memory")

(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "step-0000000001.safetensors").touch()
(folder / "metrics.jsonl").unlink(missing_ok=True)
facts = {"format_version": 2, "followed": "val_top_1", "parameters": 1000, "weight_bytes": 4000}
(folder / "run.json").write_text(json.dumps(facts | {"seconds": {"total": 10.0 + seed}}))
(folder / "training.json").touch()
holding = [workdir / "hold", *([workdir / "hold_large"] if size > 90 else [])]
if (workdir / "solved").exists():
    (folder / "run.json").write_text(json.dumps(facts | {"followed": None, "solver": "solved"}))
    sys.exit()
patience = time.time() + 20
for epoch in (1, 2, 3):
    value = (1 - abs(size - 32) / 100) * epoch / 3
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": epoch, "top_1": 1.0, "val_top_1": value}) + "\n")
    while epoch == 2 and time.time() < patience and any(path.exists() for path in holding):
        time.sleep(0.05)

if "--train_only" not in sys.argv:
    rows = [{"inputs": name, "trained": "together", "top_1": size / 100 + seed / 10} for name in ("image", "all inputs")]
    rows.append({"inputs": "image", "trained": "alone", "top_1": 0.25})
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "evaluation.json").write_text(json.dumps({"rows": rows, "seconds": 2.0}))
