"""Makes the report of a run: one page, its data beside it, and the model card."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from mm_keras.configurable import configurable
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.report.draw_sections import draw_classes, draw_inputs, draw_maps, draw_training, draw_trust
from mm_keras.report.evidence import Evidence, load_evidence
from mm_keras.report.figures import Drawing
from mm_keras.report.measures import main_measure, measure_all
from mm_keras.report.model_card import write_card
from mm_keras.report.page import as_json, data_folder, render, write_report
from mm_keras.report.pictures import Pictures
from mm_keras.report.section_classes import make_classes
from mm_keras.report.section_data import make_data
from mm_keras.report.section_inputs import make_inputs
from mm_keras.report.section_maps import make_maps
from mm_keras.report.section_training import make_training
from mm_keras.report.section_trust import make_trust
from mm_keras.report.section_why import make_why
from mm_keras.report.tables import make_tables
from mm_keras.report.verdict import make_verdict
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.progress import progress_bar

VERSION = 1  # of report.json
SECTIONS: dict[str, Callable[[Evidence], dict]] = {
    "inputs": make_inputs,
    "classes": make_classes,
    "trust": make_trust,
    "data": make_data,
    "why": make_why,
    "maps": make_maps,
    "training": lambda evidence: make_training(evidence.loaded.run),
}
PARTS = ("verdict", *SECTIONS)
PARTS_BY_DEFAULT = PARTS
_NEED_LABELS = ("inputs", "classes")


@configurable
def report(
    workdir: str | Path,
    dataset: str | None = None,
    split: str | None = None,
    parts: Sequence[str] | None = None,
    output: str | Path | None = None,
) -> Path | None:
    """Writes the report of a trained run on a split, as one HTML page that needs no other file and no network.

    Beside the page stand report.json with all that is drawn, tables/*.csv, figures/*.svg, and, if there are labels,
    MODEL_CARD.md. If `output` names another place, they stand in <its name>_data/ beside the page.

    Args:
        workdir: the run folder.
        dataset: a dataset folder, also one without labels; default: the one that the run was trained on.
        split: the split to report on. If neither `dataset` nor `split` is given: what was evaluated last, or else "test".
        parts: some of "verdict", "inputs", "classes", "trust", "data", "why", "maps" and "training"; None: all of them. The
            verdict is always made, and says more the more parts there are. An empty list: there is no report.
        output: the page's path; None: report/report.html in the run folder.

    Returns:
        the page's path, if there is one.

    Raises:
        ValueError: for a part, or a split, that does not exist.

    Example:
        >>> report("runs/products", split="val", parts=["inputs", "classes"])
        PosixPath('runs/products/report/report.html')
    """
    chosen = _check_parts(PARTS_BY_DEFAULT if parts is None else parts)
    if not chosen:
        return None
    began = time.monotonic()
    run = RunFolder(workdir)
    path = Path(output) if output else run.report / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML page: output ends in .html. Received: {str(path)!r}")
    if not dataset and not split and (evaluated := run.report / "evaluation.json").is_file():
        last = read_json(evaluated)
        dataset, split = last.get("folder"), last["split"]
    data = data_folder(path, is_own=not output)
    evidence = load_evidence(workdir, dataset, split or "test")
    sections, left_out = _make_sections(evidence, chosen)
    facts = _facts(evidence)
    verdict = make_verdict(facts, sections)
    content = {"version": VERSION, **facts, "verdict": verdict, **sections, "left_out": left_out}
    train = evidence.train
    pictures = Pictures([evidence.examples, *([train.examples] if train else [])])
    drawings = _draw(sections, pictures)
    page = render(
        "report_page.html",
        title=f"{run.path.resolve().name}: {facts['dataset']}",
        verdict=verdict,
        shown=["verdict", *sections],
        left_out=left_out,
        drawings=drawings,
        thumbnail=pictures.uri,
        heat=lambda example: pictures.heat_uri(example["split"], example["row"], example["regions"]),
        labelled=facts["has_labels"],
        multi_label=evidence.multi_label,
        modalities=evidence.modalities,
        measure=main_measure(evidence.multi_label),
        stem=path.stem,
        data_beside="" if data == path.parent else f"{data.name}/",
        **sections,
    )
    figures = [drawing for of_section in drawings.values() for drawing in of_section]
    write_report(path, data, page, as_json(content), make_tables(evidence, sections), figures)
    if facts["has_labels"]:
        write_card(data / run.card.name, evidence, content)
    logging.info(f"report: {path} ({time.monotonic() - began:.0f} s)")
    return path


def _check_parts(parts: Sequence[str]) -> list[str]:
    for part in parts:
        if part not in PARTS:
            near = difflib.get_close_matches(part, PARTS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"parts of a report are {', '.join(PARTS)}. Received: {part!r}{hint}")
    return [part for part in PARTS if part in parts]


def _make_sections(evidence: Evidence, chosen: Sequence[str]) -> tuple[dict[str, dict], list[str]]:
    """The sections by name, and which were left out, with the reason."""
    left_out = [f"{name} (not asked for)" for name in SECTIONS if name not in chosen]
    sections: dict[str, dict] = {}
    names = [name for name in SECTIONS if name in chosen]
    with progress_bar("report", "sections", len(names)) as bar:
        for name in names:
            end_if_asked()
            if evidence.labels is None and name in _NEED_LABELS:
                left_out.append(f"{name} (the examples have no labels)")
            else:
                sections[name] = as_json(SECTIONS[name](evidence))
            bar.update()
    if evidence.train is None and {"trust", "data", "why"} & sections.keys():
        left_out.append("what is compared with the training examples (they are not there, or are these)")
    return sections, left_out


def _facts(evidence: Evidence) -> dict:
    """What the page says of the run and the split."""
    facts = evidence.loaded.run.facts()
    measures = {}
    if evidence.labels is not None:
        answers = evidence.probabilities, evidence.labels, evidence.multi_label, evidence.loaded.thresholds
        measures = measure_all(*answers)
    train = evidence.train
    return {
        "run": evidence.loaded.run.path.resolve().name,
        "dataset": evidence.split.dataset.info.name,
        "split": evidence.split.name,
        "num_examples": len(evidence),
        "examples_in_split": evidence.split.num_labelled or evidence.split.num_examples,
        "num_labels": len(evidence.names),
        "multi_label": evidence.multi_label,
        "modalities": list(evidence.modalities),
        "trained_on": Path(facts["dataset"]).name,
        "train_examples": train.split.num_labelled if train else None,
        "has_labels": evidence.labels is not None,
        "measures": measures,
    }


def _draw(sections: dict[str, dict], pictures: Pictures) -> dict[str, list[Drawing]]:
    makers: dict[str, Callable[[dict], list[Drawing]]] = {
        "inputs": draw_inputs,
        "classes": draw_classes,
        "trust": draw_trust,
        "maps": lambda content: draw_maps(content, pictures.jpeg),
        "training": draw_training,
    }
    drawings = {}
    for name, make in makers.items():
        end_if_asked()
        drawings[name] = make(sections[name]) if name in sections else []
    return drawings
