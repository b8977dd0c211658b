import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

import mm_keras.solving.candidates as candidates
from mm_keras.model.solved_head import build_solved_head
from mm_keras.solving.answers import make_answers, patterns_of
from mm_keras.solving.blocks import Block, unit_rows
from mm_keras.solving.calibration import Calibration
from mm_keras.solving.ensemble import mean_loss
from mm_keras.solving.rows import Rows
from mm_keras.solving.solve import score, solve
from mm_keras.solving.validation import Validation, answer_logits


def _answers(solution, rows, shown=None):
    """Logits of the head for all rows, with the modalities that are shown."""
    head = build_solved_head(
        [block.values.shape[1] for block in rows.blocks],
        rows.present.shape[1],
        solution.kernels,
        solution.answers,
        solution.pattern_of,
        rows.multi_label,
    )
    blocks = [b.values if isinstance(b.values, np.ndarray) else b.values.toarray() for b in rows.blocks]
    present = rows.present if shown is None else np.tile(np.isin(np.arange(rows.present.shape[1]), shown), (len(blocks[0]), 1))
    return np.asarray(head(np.concatenate([*blocks, present], axis=1).astype("float32")))


def _score(logits, rows):
    return score(logits, rows.targets, rows.weights, rows.multi_label)


@pytest.fixture(scope="module", params=[False, True], ids=["multi-class", "multi-label"])
def solved(request, draw_rows):
    rows = draw_rows(multi_label=request.param)
    return rows, solve(rows, seed=0), draw_rows(multi_label=request.param, seed=1)


def test_new_examples_are_answered_as_well_as_held_out_ones(solved):
    rows, solution, new = solved
    held_out = _score(solution.held_out, rows)
    assert held_out > 0.8
    assert abs(_score(_answers(solution, new), new) - held_out) < 0.06


def test_both_together_are_at_least_as_good_as_each_alone(solved):
    _, solution, new = solved
    both, *alone = (_score(_answers(solution, new, shown), new) for shown in ([0, 1], [0], [1]))
    assert both >= max(alone)


def test_one_input_alone_is_answered_as_by_a_solution_that_knows_no_other(solved):
    rows, solution, new = solved
    alone = dataclasses.replace(rows, blocks=rows.blocks[:1], present=rows.present[:, :1])
    answers = _answers(solve(alone, seed=0), dataclasses.replace(new, blocks=new.blocks[:1], present=new.present[:, :1]))
    np.testing.assert_allclose(_answers(solution, new, [0]), answers, atol=2e-3)


def test_examples_with_nothing_are_answered_with_the_prior(solved):
    rows, solution, _ = solved
    logits = _answers(solution, rows, [])
    assert np.ptp(logits, axis=0).max() == 0
    shares = rows.targets.mean(axis=0)
    expected = np.log(shares / (1 - shares)) if rows.multi_label else np.log(shares)
    np.testing.assert_allclose(logits[0], expected, rtol=1e-4)


def test_answers_are_calibrated(solved):
    _, solution, new = solved
    logits = _answers(solution, new)
    if new.multi_label:
        assert abs((1 / (1 + np.exp(-logits))).mean() - new.targets.mean()) < 0.03
    else:
        assert abs(softmax(logits, axis=1).max(axis=1).mean() - _score(logits, new)) < 0.06


@pytest.mark.parametrize("multi_label", [False, True])
def test_validation_examples_calibrate_the_answers_of_all_sets_of_inputs(draw_rows, multi_label):
    rows, new = draw_rows(multi_label=multi_label), draw_rows(count=900, multi_label=multi_label, missing=0.3, seed=2)
    wrong = np.random.default_rng(0).random(900) < 0.4  # what the folds cannot know: labels of new examples are often wrong
    targets = np.where(wrong[:, None], np.roll(new.targets, 1, axis=1), new.targets)
    validation = Validation(new.blocks, new.present, targets, new.weights)
    solution, without = solve(rows, 0, validation), solve(rows, 0)
    np.testing.assert_allclose(solution.validated, _answers(solution, new), atol=1e-4)
    assert without.validated is None
    doubted = dataclasses.replace(new, targets=targets)
    for shown in ([0], [1], [0, 1]):
        logits, before = (_answers(each, doubted, shown) for each in (solution, without))
        at = new.present[:, shown].all(axis=1)
        loss, loss_before = (mean_loss(each[at], targets[at], new.weights[at], multi_label) for each in (logits, before))
        assert loss < 0.9 * loss_before


def test_useless_input_does_not_hurt(draw_rows):
    rows, new = (draw_rows(noise=(0.8, 50.0), seed=seed) for seed in (0, 1))
    both, alone = solve(rows, 0), solve(dataclasses.replace(rows, blocks=rows.blocks[:1], present=rows.present[:, :1]), 0)
    alone_new = dataclasses.replace(new, blocks=new.blocks[:1], present=new.present[:, :1])
    noise = [dataclasses.replace(b, values=b.values * (b.name != "part 1 words")) for b in new.blocks]
    assert _score(_answers(both, dataclasses.replace(new, blocks=noise), [0]), new) == pytest.approx(
        _score(_answers(alone, alone_new), alone_new), abs=0.01
    )


def test_examples_that_lack_inputs_are_learned_from_and_answered(draw_rows):
    rows, new = (draw_rows(count=400, missing=0.4, seed=seed) for seed in (0, 1))
    solution = solve(rows, 0)
    assert [chosen.modalities for chosen in solution.chosen] == [(0,), (1,), (0, 1)]
    assert _score(_answers(solution, new), new) > 0.7
    assert _score(solution.held_out, rows) == pytest.approx(_score(_answers(solution, new), new), abs=0.07)


def test_inputs_that_never_come_together_are_answered_when_they_do(draw_rows):
    rows, new = draw_rows(count=400), draw_rows(seed=1)
    first = np.arange(400) % 2 == 0
    present = np.stack([first, ~first], axis=1)
    blocks = []
    for block in rows.blocks:
        shown = present[:, block.modality, None]
        blocks.append(
            dataclasses.replace(block, values=block.values.multiply(shown).tocsr() if block.is_words else block.values * shown)
        )
    solution = solve(dataclasses.replace(rows, blocks=blocks, present=present), 0)
    assert [chosen.modalities for chosen in solution.chosen] == [(0,), (1,)]
    both, *alone = (_score(_answers(solution, new, shown), new) for shown in (None, [0], [1]))
    assert both > max(alone) + 0.05


def test_modality_that_no_example_has_is_no_obstacle(draw_rows):
    rows = draw_rows()
    absent = [Block(b.name, b.modality, b.values * 0) if b.modality else b for b in rows.blocks]
    present = rows.present & [True, False]
    solution = solve(dataclasses.replace(rows, blocks=absent, present=present), 0)
    assert [chosen.modalities for chosen in solution.chosen] == [(0,)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_with_one_example_is_no_obstacle(draw_rows, multi_label):
    rows = draw_rows(multi_label=multi_label)
    targets = np.concatenate([rows.targets, np.zeros((240, 2), np.float32)], axis=1)
    targets[7] = [0, 0, 0, 0, 1, 0]  # and the last class has none
    solution = solve(dataclasses.replace(rows, targets=targets), 0)
    assert np.isfinite(solution.held_out).all()
    assert _score(solution.held_out[:, :4], rows) > 0.8


def test_constant_feature_is_no_obstacle(draw_rows):
    rows = draw_rows()
    constant = np.tile(np.eye(1, 16, dtype="float32"), (240, 1))
    blocks = [rows.blocks[0], Block("constant", 1, constant)]
    solution = solve(dataclasses.replace(rows, blocks=blocks), 0)
    assert _score(solution.held_out, rows) > 0.6


def test_many_examples_are_solved_from_landmarks(draw_rows, monkeypatch):
    rows, new = draw_rows(count=400), draw_rows(seed=1)
    exact = _score(_answers(solve(rows, 0), new), new)
    monkeypatch.setattr(candidates, "MOST_EXACT", 200)
    monkeypatch.setattr(candidates, "MOST_LANDMARKS", 100)
    solution = solve(rows, 0)
    assert all(len(values) == 100 for values in solution.kernels.landmarks.values())
    assert _score(_answers(solution, new), new) > exact - 0.04


def test_embeddings_that_are_much_alike_get_no_huge_weights():
    """Their differences would be told by weights of thousands, with which rounding makes the export answer something else."""
    rng = np.random.default_rng(0)
    targets = np.eye(4, dtype="float32")[np.arange(240) % 4]
    told = targets @ rng.normal(size=(4, 16)) + 0.3 * rng.normal(size=(240, 16))
    alike = Block("part 0", 0, unit_rows(rng.normal(size=16) + 0.02 * told))
    rows = Rows([alike], np.ones((240, 1), bool), targets, np.ones(240, np.float32), False, rng.permutation(240) % 5)
    candidate = next(c for c in solve(rows, 0).candidates if c.kernel.gamma)
    dual = candidates.Regressions(rows, np.arange(240)).fit(candidate).dual
    assert np.linalg.norm(dual, axis=0).max() < 600
    assert _score(candidate.held_out, rows) > 0.6


def test_weights_of_examples_count(draw_rows):
    rows = draw_rows()
    swapped = rows.targets.copy()
    swapped[120:] = np.roll(swapped[120:], 1, axis=1)  # the second half says something else
    for half, expected in ((slice(0, 120), rows.targets), (slice(120, 240), swapped)):
        weights = np.full(240, 0.02, np.float32)
        weights[half] = 1.98
        solution = solve(dataclasses.replace(rows, targets=swapped, weights=weights), 0)
        answers = _answers(solution, rows)
        assert (answers.argmax(axis=1) == expected.argmax(axis=1))[half].mean() > 0.8


@pytest.mark.parametrize("count", [2, 12])
def test_few_examples_are_solved_for_each_input_too(draw_rows, count):
    rows = draw_rows(count=count, classes=2, noise=(0.1, 0.1))
    rows = dataclasses.replace(rows, folds=np.arange(count) // 2 % min(5, count // 2) if count > 2 else np.arange(count))
    solution = solve(rows, 0)
    assert [chosen.modalities for chosen in solution.chosen] == [(0,), (1,), (0, 1)]
    for shown in ([0], [1], [0, 1]):
        assert _score(_answers(solution, rows, shown), rows) == 1


def test_sets_of_inputs():
    assert patterns_of(np.ones((2, 2), bool)) == [(0,), (1,), (0, 1)]
    assert len(patterns_of(np.ones((2, 4), bool))) == 15
    many = np.ones((3, 6), bool)
    many[0, :4] = False
    patterns = patterns_of(many)
    assert (4, 5) in patterns and len(patterns) == 6 + 6 + 1 + 1


def _only_neighbours(rows, modalities):
    return [family for family in candidates.families_of(rows, modalities) if family.methods == ["neighbours"]]


@pytest.mark.parametrize("multi_label", [False, True])
def test_neighbours_answer_in_the_model_as_they_did_when_they_were_chosen(draw_rows, multi_label):
    rows, new = (draw_rows(multi_label=multi_label, missing=0.2, seed=seed) for seed in (0, 1))
    solution, everyone = solve(rows, 0), np.arange(240)
    asked = [number for number, candidate in enumerate(solution.candidates) if candidate.method == "neighbours"]
    regressions, offset = candidates.Regressions(rows, everyone), np.arange(4, dtype="float32")
    chosen = [
        dataclasses.replace(c, shares={number: 1.0}, calibration=Calibration(np.full(4, 0.5), offset))
        for c, number in zip(solution.chosen, asked, strict=True)
    ]
    kernels, answers = make_answers(rows, chosen, {n: regressions.fit(solution.candidates[n]) for n in asked}, everyone)
    assert [list(answer.neighbours) for answer in answers] == [[0], [1], [2]]
    changed = dataclasses.replace(solution, kernels=kernels, answers=[*answers, solution.answers[-1]])
    for number, answer, shown in zip(asked, answers, ([0], [1], [0, 1]), strict=True):
        has_all = np.flatnonzero(new.present[:, shown].all(axis=1))
        logits = _answers(changed, new, shown)[has_all]
        np.testing.assert_allclose(logits, answer_logits(answer, kernels, new.blocks, has_all, multi_label), atol=1e-4)
        held_out = _score(solution.candidates[number].held_out, rows)
        assert score(logits - offset, new.targets[has_all], new.weights[has_all], multi_label) > held_out - 0.1 > 0.3


def test_neighbours_are_those_outside_of_the_fold(draw_rows):
    """A copy of each example in its own fold is not asked; one in another fold answers for it."""
    rows = draw_rows(count=60)
    labels = np.random.default_rng(0).integers(0, 4, 60)
    targets = np.eye(4, dtype="float32")[np.tile(labels, 2)]
    doubled = dataclasses.replace(
        rows,
        blocks=[Block(b.name, b.modality, np.tile(np.asarray(b.values), (2, 1))) for b in rows.blocks[:2]],
        present=np.tile(rows.present, (2, 1)),
        targets=targets,
        weights=np.ones(120, np.float32),
    )
    scores = []
    for shift in (0, 1):
        copies = dataclasses.replace(doubled, folds=np.concatenate([rows.folds, (rows.folds + shift) % 5]))
        (family,) = _only_neighbours(copies, (0, 1))
        (candidate,) = candidates.Regressions(copies, np.arange(120)).candidates(family, (0, 1))
        scores.append(score(candidate.held_out, targets, copies.weights, False))
    assert scores[0] < 0.5 < 0.95 < scores[1]


def test_neighbours_are_asked_where_all_examples_are_landmarks(draw_rows, monkeypatch):
    rows = draw_rows()
    assert len(_only_neighbours(rows, (0,))) == 1
    monkeypatch.setattr(candidates, "MOST_EXACT", 100)
    assert not _only_neighbours(rows, (0,))
