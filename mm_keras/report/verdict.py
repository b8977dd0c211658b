"""The verdict: what was trained on what, the numbers that matter, and what the next step would be, as rules find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mm_keras.features import ALL_INPUTS

_MUCH_MISSING = 0.05  # of the examples
_OVERCONFIDENT = 0.03  # between the mean claimed probability and the share that came true
_MANY_LEAKS = 0.02  # of the examples
_LEAKED_SCORE = 0.005  # by which copies flatter the score
_TELLING = 0.2  # of the texts name their label
_WIDE = 0.08  # width of an interval
_APART = 0.65  # area under the ROC curve of telling test from training
_WEAK = 0.6  # F1, of a label with enough examples
_ENOUGH = 5  # examples
_MANY_ERRORS = 0.1  # of the labels look wrong: more would tell of a weak model, not of wrong labels
_NAMES = {"accuracy": "accuracy", "mAP": "mAP", "top_5": "top-5 accuracy", "micro_f1": "micro F1", "macro_f1": "macro F1"}


def make_verdict(facts: Mapping, sections: Mapping[str, Mapping]) -> dict:
    """The verdict on a run.

    Args:
        facts: {"dataset", "split", "num_examples", "num_labels", "modalities", "train_examples", "has_labels", "measures":
            the measures with all inputs}.
        sections: the other sections by name, as far as they were made.

    Returns:
        {"trained": a sentence, "numbers": [{"name", "value", "low", "high"}], "single": a sentence or None, "findings":
        [{"kind": "good", "bad" or "hint", "text"}], the most important first}.
    """
    trained = _trained(facts)
    if not facts["has_labels"]:
        text = "These examples have no labels: the page shows predictions, and what can be said of the data."
        return {"trained": trained, "numbers": [], "single": None, "findings": [{"kind": "hint", "text": text}]}
    measures = facts["measures"]
    numbers = [{"name": _NAMES[name], **measures[name]} for name in _NAMES if name in measures][:3]
    inputs = sections.get("inputs")
    findings = [
        *_of_leaks(sections.get("data")),
        *_of_naming(sections.get("data")),
        *(_of_inputs(inputs) if inputs else ()),
        *_of_label_errors(sections.get("data")),
        *_of_classes(sections.get("classes")),
        *_of_trust(sections.get("trust"), facts),
        *_of_drift(sections.get("data")),
        *_of_size(facts, numbers),
    ]
    return {"trained": trained, "numbers": numbers, "single": _single(inputs), "findings": findings}


def _trained(facts: Mapping) -> str:
    total = facts.get("examples_in_split", facts["num_examples"])
    sample = f" (a sample of {total:,})" if total > facts["num_examples"] else ""
    learned = f"{facts['train_examples']:,} examples of " if facts.get("train_examples") else ""
    measured = f"{facts['num_examples']:,} examples{sample} of {facts['dataset']}, split {facts['split']}"
    return (
        f"A model of {_joined(facts['modalities'])} that tells {facts['num_labels']:,} labels apart, trained on {learned}"
        f"{facts['trained_on']}; measured on {measured}."
    )


def _single(inputs: Mapping | None) -> str | None:
    """The sentence on the best single input."""
    if not inputs or not inputs["gain"]:
        return None
    gain, measure = inputs["gain"], inputs["measure"]
    gap = gain["difference"]
    text = f"The best single input is {gain['best']}, with {measure} {gain['value']:.3f}; {ALL_INPUTS} together are "
    if gap["low"] > 0:
        return f"{text}{_points(gap['value'])} better ({_range(gap)})."
    if gap["high"] < 0:
        return f"{text}{_points(-gap['value'])} worse ({_range(gap)}): the fusion loses what the input alone knows."
    return f"{text}not measurably better ({gap['value'] * 100:+.1f} points, {_range(gap)})."


def _of_leaks(data: Mapping | None) -> list[dict]:
    leaks = (data or {}).get("leaks")
    if not leaks or not leaks["count"]:
        return []
    total = leaks["all"]["count"] if leaks.get("all") else leaks["count"]
    text = f"{leaks['count']:,} of {total:,} examples have a near-copy of their picture or text among the training examples"
    serious = leaks["count"] > _MANY_LEAKS * total
    if leaks.get("clean") and leaks["clean"]["value"] is not None and leaks["all"]["value"] is not None:
        text += f": without them the score is {leaks['clean']['value']:.3f} instead of {leaks['all']['value']:.3f}"
        serious = serious and leaks["all"]["value"] - leaks["clean"]["value"] > _LEAKED_SCORE
    return [_finding("bad" if serious else "hint", f"{text}. Split the data so that copies stay together.")]


def _of_naming(data: Mapping | None) -> list[dict]:
    findings = []
    for field in (data or {}).get("named_labels", ()):
        if field["share"] >= _TELLING:
            text = f"{field['share']:.0%} of the texts of {field['field']} name their label"
            if field["naming"]["value"] is not None and field["others"]["value"] is not None:
                text += f": on those the score is {field['naming']['value']:.3f}, on the others {field['others']['value']:.3f}"
            text += ". If texts will not do so where the model is used, take the second number."
            findings.append(_finding("bad", text))
    return findings


def _of_inputs(inputs: Mapping) -> list[dict]:
    """What is lost where an input is missing, and which one adds nothing."""
    findings = []
    for row in inputs["without"]:
        lost, name = row["lost"], row["input"]
        if row["missing"] >= _MUCH_MISSING and lost["low"] > 0:
            text = (
                f"{name} is missing in {row['missing']:.0%} of the examples, and with {name} hidden {inputs['measure']} falls"
            )
            findings.append((lost["value"], _finding("bad", f"{text} by {_points(lost['value'])}: fill it in where you can.")))
        elif lost["low"] > 0:
            text = f"{name} adds {_points(lost['value'])} to the other inputs ({_range(lost)})."
            findings.append((lost["value"], _finding("good", text)))
        elif lost["high"] < 0.02 or lost["value"] <= 0:
            text = f"{name} adds nothing measurable to the other inputs ({lost['value'] * 100:+.1f} points, {_range(lost)})"
            findings.append((0.0, _finding("hint", f"{text}: the model may do as well without it.")))
    count = len(inputs["contradictions"])
    if count:
        who = inputs["who_is_right"]
        text = f"In at least {count} examples {who['first']} and {who['second']} contradict each other: both are sure."
        findings.append((-1.0, _finding("hint", text)))
    return [finding for _, finding in sorted(findings, key=lambda pair: -pair[0])]


def _of_label_errors(data: Mapping | None) -> list[dict]:
    findings = []
    for part in (data or {}).get("label_errors", ()):
        if 0 < part["count"] <= _MANY_ERRORS * part["checked"]:
            text = f"{part['count']:,} of {part['checked']:,} examples of split {part['split']} have a label that looks wrong"
            findings.append(_finding("hint", f"{text}; look through tables/label_errors.csv, the most suspicious first."))
    return findings


def _of_classes(classes: Mapping | None) -> list[dict]:
    rows = [row for row in (classes or {}).get("labels", ()) if row["f1"] and row["support"] >= _ENOUGH]
    if not rows:
        return []
    worst = min(rows, key=lambda row: row["f1"]["value"])
    findings = []
    if worst["f1"]["value"] < _WEAK:
        text = f"The weakest label is {worst['label']}, with F1 {worst['f1']['value']:.2f} on {worst['support']} examples"
        text += f" ({worst['train']:,} in training)" if worst["train"] is not None else ""
        text += f"; it is taken for {worst['taken_for']} most" if worst["taken_for"] else ""
        findings.append(_finding("hint", f"{text}. More examples of it would help most."))
    if classes["absent"]:
        findings.append(_finding("hint", f"{classes['absent']:,} labels have no example in this split and are not measured."))
    return findings


def _of_trust(trust: Mapping | None, facts: Mapping) -> list[dict]:
    findings = []
    if trust and trust.get("patterns"):
        whole = trust["patterns"][-1]
        gap = whole["claimed"] - whole["true"]
        if not facts["multi_label"] and abs(gap) > _OVERCONFIDENT:
            much = f"{abs(gap) * 100:.0f} points"
            sure = "too sure" if gap > 0 else "not sure enough"
            findings.append(_finding("hint", f"Probabilities are {sure}, by {much} on average (ECE {whole['ece']:.3f})."))
        points = trust["coverage_table"]
        full, surest = trust["risk_coverage"][-1]["risk"], next((point for point in points if point["asked"] == 0.8), None)
        if not facts["multi_label"] and surest and full > 0.01 and surest["risk"] < full / 2:
            text = f"Of the answers with a probability above {surest['confidence']:.2f}, {surest['risk']:.1%} are wrong"
            findings.append(_finding("good", f"{text} instead of {full:.1%}; they are {surest['coverage']:.0%} of all."))
    novelty = (trust or {}).get("novelty")
    if novelty and novelty["share"] > 0.05:
        text = f"{novelty['share']:.0%} of the examples are farther from all training examples than those are from each other."
        findings.append(_finding("hint", text))
    return findings


def _of_drift(data: Mapping | None) -> list[dict]:
    score = ((data or {}).get("drift") or {}).get("domain_score")
    if score is None or score < _APART:
        return []
    text = (
        f"A classifier tells these examples from the training's (area under the curve {score:.2f}; .5 is chance): they differ."
    )
    return [_finding("bad", text)]


def _of_size(facts: Mapping, numbers: Sequence[Mapping]) -> list[dict]:
    if not numbers:
        return []
    half = (numbers[0]["high"] - numbers[0]["low"]) / 2
    if half < _WIDE / 2:
        return []
    text = (
        f"With {facts['num_examples']:,} examples the score is known to ±{half * 100:.0f} points only: measure on more of them"
    )
    return [_finding("hint", f"{text} before you compare models.")]


def _finding(kind: str, text: str) -> dict[str, str]:
    return {"kind": kind, "text": text[0].upper() + text[1:]}


def _points(value: float) -> str:
    return f"{value * 100:.1f} points"


def _range(interval: Mapping) -> str:
    return f"95 % interval {interval['low'] * 100:+.1f} to {interval['high'] * 100:+.1f}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
