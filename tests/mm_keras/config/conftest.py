import json

import pytest

from tfrecords_tools.sources import sample


@pytest.fixture(scope="session")
def webvision(tmp_path_factory):
    """A WebVision 1.0 folder of 3 classes with 24 drawn pictures each, with titles and descriptions; some have none."""
    folder = tmp_path_factory.mktemp("webvision")
    examples = list(sample.iter_examples(72, seed=1))
    lines, metas = [], []
    for label in range(3):
        rows = []
        (folder / "google" / f"q{label}").mkdir(parents=True)
        for number, example in enumerate(examples[label::3], start=1):
            path = f"google/q{label}/{label}_{number}.jpg"
            (folder / path).write_bytes(example.image)
            rows.append(
                {"id": f"{label}_{number}", **{field: texts[0] for field, texts in example.texts.items() if number % 7}}
            )
            lines.append(f"{path} {label}\n")
            metas.append(f"google/q{label}.json {number}\n")
        (folder / "google" / f"q{label}.json").write_text(json.dumps(rows))
    (folder / "info").mkdir()
    (folder / "info" / "synsets.txt").write_text("n01440764 tench\nn01443537 goldfish\nn02012849 crane\n")
    (folder / "info" / "train_filelist_google.txt").write_text("".join(lines))
    (folder / "info" / "train_meta_list_google.txt").write_text("".join(metas))
    return str(folder)
