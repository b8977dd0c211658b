"""croissant.json: the dataset described in MLCommons Croissant 1.0 (JSON-LD), for catalogues and crawlers.

No Croissant reader reads TFRecords, so the records themselves are not declared as a RecordSet: shards stand in a FileSet,
and labels and splits, which have files or rows that readers do understand, in RecordSets.
"""

from __future__ import annotations

import json
from pathlib import Path

from tfrecords_tools.dataset_info import CROISSANT_FILE, DatasetInfo

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "key": "cr:key",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
_SPLIT_URLS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def write(info: DatasetInfo, folder: Path) -> None:
    """Writes croissant.json; what only the publisher knows (licence, url, citation) is left for them to add."""
    record_sets = [
        _inline("splits", "cr:Split", [{"name": split, "url": _SPLIT_URLS.get(split, "")} for split in info.splits]),
    ]
    if info.labels.names:
        record_sets.append(_inline("labels", "sc:Enumeration", [{"name": name} for name in info.labels.names]))
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": info.name,
        "description": f"{info.name}: images with text ({', '.join(info.text_fields) or 'none'}) and labels as TFRecords.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"{split}-shards",
                "name": f"{split}-shards",
                "includes": f"{split}-*.tfrecord",
                "encodingFormat": "application/x-tfrecord",
            }
            for split in info.splits
        ],
        "recordSet": record_sets,
    }
    (folder / CROISSANT_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _inline(name: str, data_type: str, rows: list[dict[str, str]]) -> dict:
    """A RecordSet whose rows stand in the file itself."""
    keys = list(rows[0])
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "dataType": data_type,
        "key": {"@id": f"{name}/{keys[0]}"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{key}", "name": key, "dataType": "sc:URL" if key == "url" else "sc:Text"}
            for key in keys
        ],
        "data": [{f"{name}/{key}": value for key, value in row.items()} for row in rows],
    }
