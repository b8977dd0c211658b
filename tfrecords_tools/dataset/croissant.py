"""croissant.json: the dataset described in MLCommons Croissant 1.0 (JSON-LD), for catalogues and crawlers.

No Croissant reader reads TFRecords, so the RecordSet `records` is read from the index beside them. It has everything but the
pixels; for those it names the shard and the offset of the record. This command prints it:

    mlcroissant load --jsonld croissant.json --record_set records
"""

from __future__ import annotations

import json
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.index import INDEX_FOLDER
from tfrecords_tools.dataset.info import CROISSANT_FILE, DatasetInfo
from tfrecords_tools.dataset.schema import TEXT_PREFIX

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
    "repeated": "cr:repeated",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
_SPLIT_URLS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def write(info: DatasetInfo, folder: Path) -> None:
    """Writes croissant.json into `folder`. Only the publisher knows the licence, URL and citation, and has to add them."""
    record_sets = [
        _inline("splits", "cr:Split", [{"name": split, "url": _SPLIT_URLS.get(split, "")} for split in info.splits]),
    ]
    if info.labels.names:
        record_sets.append(_inline("labels", "sc:Enumeration", [{"name": name} for name in info.labels.names]))
    record_sets.append(_records(info))
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
        ]
        + [
            {
                "@type": "cr:FileSet",
                "@id": INDEX_FOLDER,
                "name": INDEX_FOLDER,
                "includes": f"{INDEX_FOLDER}/*.parquet",
                "encodingFormat": "application/x-parquet",
            }
        ],
        "recordSet": record_sets,
    }
    write_text(folder / CROISSANT_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _records(info: DatasetInfo) -> dict:
    """The RecordSet of the records: each of its fields is a column of the index."""

    def field(column: str, data_type: str | list[str], repeated: bool = False) -> dict:
        source = {"fileSet": {"@id": INDEX_FOLDER}, "extract": {"column": column}}
        identity = {"@type": "cr:Field", "@id": f"records/{column}", "name": column, "dataType": data_type}
        return identity | {"source": source} | ({"repeated": True} if repeated else {})

    return {
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "key": {"@id": "records/id"},
        "field": [
            field("id", "sc:Text"),
            field("split", "sc:Text"),
            field("shard", "sc:Text"),
            field("offset", "sc:Integer"),
            field("image/height", "sc:Integer"),
            field("image/width", "sc:Integer"),
            *(field(TEXT_PREFIX + name, "sc:Text", repeated=True) for name in info.text_fields),
            field("labels", ["sc:Text", "cr:Label"], repeated=True),
            field("weight", "sc:Float"),
        ],
    }


def _inline(name: str, data_type: str, rows: list[dict[str, str]]) -> dict:
    """A RecordSet whose rows are stored in croissant.json itself."""
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
