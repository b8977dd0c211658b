"""A WebVision folder of either layout."""

import pytest

SYNSETS = "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02012849 crane\nn03126707 crane\n"
FLICKR = [
    {"id": "11", "title": "  My tench ", "description": "At the lake", "tags": ["fish", "lake"]},
    {"id": "12", "tags": []},
    {"id": "13", "title": "", "description": None, "tags": None, "views": 7},
]
GOOGLE = [
    {"id": "abc", "title": "Tench", "site": "x.org", "page_url": "http://x.org/p"},
    {"id": "def", "title": "Tinca — Café", "description": "A fish & <b>more</b>"},
]
LINES = {
    "google": [("google/q0001/abc.jpg", 0, "google/q0001.json 1"), ("google/q0001/def.jpg", 0, "google/q0001.json 2")],
    "flickr": [
        ("flickr/q0001/11.jpg", 0, "flickr/q0001.json 1"),
        ("flickr/q0001/12.jpg", 0, "flickr/q0001.json 2"),
        ("flickr/q0007/11.jpg", 1, "flickr/q0007.json 1"),  # another image of an equal base name
    ],
}


@pytest.fixture
def make_files(tmp_path, write):
    """A function: {path: text, JSON value or image bytes} -> the folder that holds them."""

    def make(files):
        for name, content in files.items():
            write(f"wv/{name}", content)
        return tmp_path / "wv"

    return make


@pytest.fixture
def release(make_files, small_jpeg):
    """A function: other files -> a WebVision 1.0 folder."""

    def make(**others):
        files = {"info/synsets.txt": SYNSETS, "info/val_filelist.txt": "val000001.jpg 1\n"}
        for name in ("google", "flickr", "all"):
            lines = LINES[name] if name in LINES else LINES["google"] + LINES["flickr"]
            files[f"info/train_filelist_{name}.txt"] = "".join(f"{path} {label}\n" for path, label, _ in lines)
            files[f"info/train_meta_list_{name}.txt"] = "".join(f"{meta}\n" for _, _, meta in lines)
            files |= {path: small_jpeg for path, _, _ in lines}
        files["val_images_256/val000001.jpg"] = small_jpeg
        files |= {
            "google/q0001.json": GOOGLE,
            "flickr/q0001.json": FLICKR,
            "flickr/q0007.json": [{"id": "11", "title": "Gold"}],
        }
        files |= {"info/queries_google.txt": "1 tench fish\n", "info/queries_flickr.txt": "1 tench\n7 goldfish pond\n"}
        return make_files(files | others)

    return make


@pytest.fixture
def benchmark(make_files, small_jpeg):
    """A function: other files -> the layout of the WebVision 2.0 benchmark."""

    def make(**others):
        paths = {"n01440764/abc.jpg": 0, "n01440764/11.jpg": 0, "n01443537/11.jpg": 1, "n01443537/def.jpg": 1}
        files = {
            "meta/synsets.txt": "".join(f"{line.split()[0]}\n" for line in SYNSETS.splitlines()),
            "meta/train.txt": "".join(f"{path} {label}\n" for path, label in paths.items()),
            "meta/val.txt": "val000001.jpg 1\n",
            "val/val000001.jpg": small_jpeg,
            "google/q0001.json": GOOGLE,
            "flickr/q0001.json": FLICKR,
            "flickr/q0009.json": FLICKR[:1],  # the same image, found by another query
        }
        return make_files(files | {f"train/{path}": small_jpeg for path in paths} | others)

    return make
