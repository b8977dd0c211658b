"""ARCHITECTURE.md tells the truth: about the folders, and about how many files a new part takes."""

import re
from pathlib import Path

import pytest

import mm_keras
import tfrecords_tools

PACKAGES = [Path(package.__file__).parent for package in (mm_keras, tfrecords_tools)]
PAGE = PACKAGES[0].parent / "ARCHITECTURE.md"


def _mentions(name):
    """The modules of both packages in which a name stands."""
    paths = [path for package in PACKAGES for path in package.rglob("*.py")]
    return [path for path in paths if re.search(rf"\b{name}\b", path.read_text("utf-8"))]


@pytest.mark.parametrize(
    "part",
    [
        *("build_gated_fusion", "build_bilinear_fusion", "build_cross_attention_fusion"),
        *("build_per_label_head", "build_class_embedding_head"),
        *("build_word_vector_encoder", "build_transformer_encoder", "build_recurrent_encoder"),
        *("make_focal_loss", "make_asymmetric_loss", "make_plateau_schedule"),
        "resnext101_32x4d",
    ],
)
def test_a_part_is_one_file_of_code(part):
    """Docstrings of others may tell of it; no other module lists it."""
    for path in _mentions(part):
        code = re.sub(r'""".*?"""', "", path.read_text("utf-8"), flags=re.DOTALL)
        code = re.sub(r'f?"[^"\n]*"', lambda text: text.group() if text.group() == f'"{part}"' else "", code)
        if re.search(rf"\b{part}\b", code):
            assert path.parent.name in ("model", "objectives", "training"), path
            assert re.search(rf"def {part}\(|\"{part}\":", code), f"{path} lists {part}; let it be found instead"


@pytest.mark.parametrize("source", ["coco", "flickr", "image_folder", "open_images", "tfds"])
def test_a_source_is_one_file_of_code(source):
    imports = re.compile(
        rf"^\s*(from tfrecords_tools\.sources import .*\b{source}\b|from tfrecords_tools\.sources\.{source} )", re.M
    )
    importing = [path for package in PACKAGES for path in package.rglob("*.py") if imports.search(path.read_text("utf-8"))]
    assert not importing


@pytest.mark.skipif(not PAGE.is_file(), reason="mm_keras is installed without its source")
def test_the_page_names_every_folder_and_module():
    page = PAGE.read_text("utf-8")
    for package in PACKAGES:
        for path in package.iterdir():
            if path.name.startswith("_") or path.name in ("progress.py",):
                continue
            name = f"`{path.name}/`" if path.is_dir() else f"`{path.name}`"
            assert name in page, f"ARCHITECTURE.md does not name {path}"
