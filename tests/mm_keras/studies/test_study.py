import json

import pytest

from mm_keras.studies.study import Need, Settings, Step, Study, StudyError, check_data, list_steps, run_steps


@pytest.fixture
def make(tmp_path):
    """A function: (data given, whether step b is another one) -> study, settings."""

    def make(data=None, changed=False):
        commands = {
            "a": ("mm-keras", "a", "x y"),
            "b": ("mm-keras", "b", *(["--more"] if changed else [])),
            "c": ("mm-keras", "c"),
        }
        steps = [
            Step("a", "does a", (commands["a"],), (tmp_path / "a",)),
            Step("b", "does b", (commands["b"],), (tmp_path / "b",), ("photos",), ("a",)),
            Step("c", "does c", (commands["c"],), (tmp_path / "c",), after=("b",)),
        ]
        needs = (Need("photos", "a folder of photos", "https://example.org"),)
        study = Study("trial", "A trial", needs, tuple(steps), lambda: "| results |")
        return study, Settings(tmp_path / "work", data or {})

    return make


@pytest.fixture
def typed(tmp_path):
    """(the commands that were run, a function that runs one: it writes the file of its name, and fails for those in `bad`)."""

    class Call:
        commands, bad, writes = [], {}, True

        def __call__(self, command):
            self.commands.append(command[1])
            if command[1] not in self.bad and self.writes:
                (tmp_path / command[1]).touch()
            return self.bad.get(command[1], 0)

    call = Call()
    call.commands, call.bad = [], {}
    return call


def test_steps_run_in_order_and_are_not_done_twice(make, typed, tmp_path, capsys):
    study, settings = make({"photos": "p"})
    assert run_steps(study, settings, typed) == 0
    assert typed.commands == ["a", "b", "c"]
    out = capsys.readouterr().out
    assert "$ mm-keras a 'x y'\n" in out and out.rstrip().endswith("| results |")
    assert (settings.workdir / "results.md").read_text() == "| results |\n"
    assert run_steps(study, settings, typed) == 0
    assert typed.commands == ["a", "b", "c"]
    (tmp_path / "c").unlink()
    run_steps(study, settings, typed)
    assert typed.commands == ["a", "b", "c", "c"]


def test_step_whose_commands_have_changed_is_done_anew(make, typed):
    run_steps(*make({"photos": "p"}), typed)
    run_steps(*make({"photos": "p"}, changed=True), typed)
    assert typed.commands == ["a", "b", "c", "b"]


def test_step_without_its_data_is_left_out_with_those_behind_it_and_named(make, typed, capsys):
    assert run_steps(*make(), typed) == 0
    assert typed.commands == ["a"]
    assert "left out: b lacks photos\nleft out: c lacks step b\n" in capsys.readouterr().out
    with pytest.raises(StudyError, match="no step of trial could be run; give its data"):
        run_steps(*make(), typed, only=["b"])


def test_failing_step_ends_the_study_and_what_was_done_stays_done(make, typed):
    typed.bad = {"b": 2}
    study, settings = make({"photos": "p"})
    with pytest.raises(StudyError, match="step b ended with status 2"):
        run_steps(study, settings, typed)
    assert list(json.loads((settings.workdir / "study.json").read_text())) == ["a"]
    typed.bad = {"b": 75}
    assert run_steps(study, settings, typed) == 75
    typed.bad, typed.writes = {}, False
    with pytest.raises(StudyError, match=r"step b ran, and .*/b is not there"):
        run_steps(study, settings, typed)


def test_unknown_steps_and_data_are_errors_that_list_those_there_are(make, typed):
    study, settings = make()
    with pytest.raises(StudyError, match=r"steps of trial are a, b, c\. Received: 'd'"):
        run_steps(study, settings, typed, only=["d"])
    with pytest.raises(StudyError, match=r"study trial needs photos\. Received: --data videos=v"):
        check_data(study, {"videos": "v"})


def test_list_shows_what_is_needed_from_where_and_what_is_done(make, typed):
    study, settings = make()
    run_steps(study, settings, typed)
    text = list_steps(study, settings)
    assert "photos: not given\n      a folder of photos\n      from https://example.org" in text
    assert "[done] a: does a\n" in text and "[    ] b: does b (lacks photos)\n           mm-keras b" in text


def test_lines_are_those_of_all_trainings_or_of_one(tmp_path):
    settings = Settings(tmp_path, bindings=("train.epochs = 3", "image: make_x.size = {'a': 1}", "other: x.y = 2"))
    sets = [word for word in settings.train("a.gin", tmp_path / "image", "A = 1") if word.startswith("--set")]
    assert sets == ["--set=A = 1", "--set=train.epochs = 3", "--set=make_x.size = {'a': 1}"]
    assert settings.bindings_of("fused_0.5") == ["train.epochs = 3"]
