"""Every code block of the Start page and of the guides runs, on data of the same names made here; only sizes are cut.

By default what needs no training is checked: configs and sweep files. CI runs the Start page as a whole, and the slow test all
guides. What needs a cluster, or the network, is marked `console` and not run.
"""

import functools
import importlib
import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

import mm_keras
from mm_keras.cli.main import COMMANDS
from mm_keras.config.functions import configurable_functions
from mm_keras.config.load import load_config
from mm_keras.estimator import config, fitting, parts
from mm_keras.sweep.sweep_file import read_sweep
from tfrecords_tools.sources import sample

REPOSITORY = Path(mm_keras.__file__).parent.parent
DOCS = REPOSITORY / "docs"
LANGUAGES = {"bash", "python", "gin", "toml", "text", "console"}
PROGRAMS = {"mm-keras": "mm_keras.cli.main", "tfrecords-tools": "tfrecords_tools.cli.main"}
SMALL = ["train.epochs=1", "make_features.image_size=(32, 32)"]
QUICK = [*SMALL, "sample_dataset.num_examples=150", "build_small_cnn.widths=(8, 8)"]
TRAIN_ONLY = ["train_and_evaluate.evaluate=None", "train_and_evaluate.export=None"]


def _nav() -> dict[str, list[str]]:
    """Section -> its pages."""

    class Loader(yaml.SafeLoader):
        pass

    nav = yaml.load((REPOSITORY / "mkdocs.yml").read_text("utf-8"), Loader)["nav"]
    sections: dict[str, list[str]] = {}
    for entry in nav:
        ((name, pages),) = entry.items()
        sections[name] = [pages] if isinstance(pages, str) else [next(iter(page.values())) for page in pages]
    return sections


NAV = _nav()
RUN = [*NAV["Start"], *NAV["Guides"]]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
def test_every_block_is_closed(page):
    fences = re.findall(r"^```(.*)$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0 and set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", RUN)
def test_every_block_says_what_it_is(page):
    assert {language for language, _ in blocks(page)} <= LANGUAGES
    prose = re.sub(r"^```.*?^```", "", (DOCS / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^    (mm-keras|tfrecords-tools|pip) ", prose, re.MULTILINE)


def test_every_page_has_its_place():
    made = {"reference/commands.md", "reference/configs.md"}
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert written | made == {page for pages in NAV.values() for page in pages}


@pytest.mark.parametrize("page", RUN)
def test_lines_of_configs_can_be_bound(page):
    for language, code in blocks(page):
        if language == "gin":
            load_config(None, [line for line in code.splitlines() if line.strip()])


def test_sweep_files_can_be_read(tmp_path):
    files = [code for language, code in blocks("sweeps.md") if language == "toml"]
    for code in files:
        path = tmp_path / "sweep.toml"
        path.write_text(code if "config" in code else 'config = "quickstart.gin"\n' + code)
        read_sweep(path)
    assert len(files) == 3


def test_reference_lists_every_command_and_parameter():
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "generated_pages.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    page = generated.configs_page()
    for name, function in configurable_functions().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert all(f"| `{parameter}` |" in section for parameter in inspect.signature(function).parameters), name
    assert "| `learning_rate` | `0.001` |" in page and "| `image_tower` | `@build_image_tower` |" in page
    page = generated.commands_page()
    assert all(re.search(rf"^### mm-keras {name}\b", page, re.MULTILINE) for name in COMMANDS)  # some have commands below
    assert "### tfrecords-tools pack table\n" in page and "--labels" in page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "images").mkdir()
    lines, tagged = ["id,photo,title,description,category"], ["photo,title,tags"]
    for number, example in enumerate(sample.iter_examples(140, seed=3)):
        name = "a1" if number == 0 else example.id
        (folder / "images" / f"{name}.jpg").write_bytes(example.image)
        title, description = (example.texts[field][0] for field in ("title", "description"))
        colour = example.labels[0].split()[0]
        lines.append(f'{name},images/{name}.jpg,"{title}","{description}",{colour}')
        tagged.append(f'images/{name}.jpg,"{title}",{";".join(example.labels[0].split()[:2])}')
        photo = folder / "photos" / colour / f"{name}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(example.image)
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    (folder / "tagged.csv").write_text("\n".join(tagged) + "\n")
    (folder / "new.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines[:20]) + "\n")
    (folder / "classes.jsonl").write_text('{"label": "oak stool", "text": "oak stool"}\n')
    return folder


@pytest.fixture
def run_page(folder, monkeypatch, capsys):
    """A function: a page -> all of its commands and its Python ran, with small encoders and one epoch."""
    small = functools.partial(parts.choose_parts, "scratch")
    monkeypatch.setattr(fitting, "choose_parts", lambda preset, image, text, *has: small("auto", "auto", *has))
    monkeypatch.setattr(config, "_EPOCHS", (1, 1))
    monkeypatch.chdir(folder)

    def run(page):
        names: dict[str, object] = {}
        for language, code in blocks(page):
            if language == "python":
                exec(compile(code, page, "exec"), names)  # it is the project's own
            for line in code.replace("\\\n", " ").splitlines() if language == "bash" else ():
                program, *words = shlex.split(line)
                status = importlib.import_module(PROGRAMS[program]).main(_cut(words))
                assert not status, f"{page}: {line}: {capsys.readouterr().err[-2000:]}"

    return run


def _cut(words: list[str]) -> list[str]:
    """The words of a command, with options that make it short."""
    if words[0] == "sweep":
        return words
    if words[0] != "train":
        return [*words, "--overwrite"] if words[0] == "pack" else words
    if any(word.startswith(("--table", "--dataset")) for word in words):
        words = [word for word in words if not word.startswith("--preset")]
        return [*words, "--preset=scratch", "--overwrite", *(f"--set={line}" for line in SMALL)]
    overwrite = [] if {"--resume", "--overwrite", "--dry_run"} & {*words} else ["--overwrite"]
    return [*words, *overwrite, *(f"--set={line}" for line in [*QUICK, *TRAIN_ONLY])]


@pytest.mark.ci
def test_start_page_runs(run_page, folder):
    run_page("index.md")
    assert len((folder / "answers.csv").read_text().splitlines()) == 20
    assert (folder / "examples.parquet").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in NAV["Guides"] if page != "sweeps.md"])
def test_guide_runs(page, run_page, folder):
    if not (folder / "runs" / "products").is_dir():
        run_page("index.md")
    run_page(page)
