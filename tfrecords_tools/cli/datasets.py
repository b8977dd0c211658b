"""The sub-commands of `tfrecords-tools pack` for published data sets, each of which has a format of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfrecords_tools.cli.sources import SourceCommand, comma_list, split_paths
from tfrecords_tools.sources.example import Source


def _add_webvision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="FOLDER", help="holds info/ (the release) or meta/ (the benchmark's layout)")
    parser.add_argument("--layout", help="release or benchmark, where the folder holds both info/ and meta/")
    parser.add_argument("--splits", metavar="SPLIT,…", help="train, val, test (default: train,val; with --holdout: train)")
    parser.add_argument("--sources", default="all", help="google, flickr or all (default: all)")
    parser.add_argument(
        "--fields",
        default="title,description,tags",
        help="text fields: title, description, tags, query; empty = images alone (default: title,description,tags)",
    )
    parser.add_argument("--num_classes", type=int, metavar="N", help="only the first N classes")
    parser.add_argument("--label_names", action="store_true", help="class names as labels instead of wnids")
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="split this fraction of each class's training images off, half val, half test (the paper: 0.04)",
    )
    parser.add_argument("--image_root", type=Path, metavar="FOLDER", help="default: found below FOLDER")
    parser.add_argument("--metadata_root", type=Path, metavar="FOLDER", help="of google/*.json and flickr/*.json")


def _webvision_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import webvision

    return webvision.make_source(
        webvision.Options(
            options.root,
            layout=options.layout,
            splits=comma_list(options.splits) if options.splits else None,
            sources=options.sources,
            fields=comma_list(options.fields),
            num_classes=options.num_classes,
            label_names=options.label_names,
            holdout=options.holdout,
            seed=options.seed,
            image_root=options.image_root,
            metadata_root=options.metadata_root,
        )
    )


def _add_open_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations",
        action="append",
        required=True,
        metavar="[SPLIT=]FILE",
        help="image-level labels, .csv or .csv.gz; any number of files a split; without SPLIT, splits are drawn",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class-descriptions CSV: the classes to read, and their names"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="holds <id>.jpg or <split>/<id>.jpg")
    parser.add_argument(
        "--present_images", action="store_true", help="leave annotated images that are not in the folder out, unreported"
    )
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="class texts: a CSV LabelName,Definition, or class_descriptions.jsonl",
    )
    parser.add_argument("--min_confidence", type=float, default=0.5, metavar="C", help="of a label (default: 0.5)")
    parser.add_argument("--few_shot", default="", metavar="CLASS,…", help="images of these classes go to the split few_shot")
    parser.add_argument("--few_shot_below", type=int, default=0, metavar="N", help="as do those of classes with fewer images")
    parser.add_argument("--tags", action="store_true", help="label with words of the definitions instead of classes")
    parser.add_argument(
        "--max_document_frequency", type=float, default=0.002, metavar="P", help="fraction of definitions with a tag (0.002)"
    )
    parser.add_argument("--any_alphabet", action="store_true", help="tags may have letters other than a–z")


def _open_images_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import open_images

    pairs = [pair.partition("=") for pair in options.annotations]
    return open_images.make_source(
        open_images.Options(
            annotations=[(split, Path(path)) if mark else ("", Path(split)) for split, mark, path in pairs],
            classes=options.classes,
            definitions=options.definitions,
            image_root=options.images,
            present_images=options.present_images,
            min_confidence=options.min_confidence,
            few_shot=comma_list(options.few_shot),
            few_shot_below=options.few_shot_below,
            tags=options.tags,
            max_document_frequency=options.max_document_frequency,
            any_alphabet=options.any_alphabet,
        )
    )


def _add_imagenet_captions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        action="append",
        required=True,
        metavar="[SPLIT=]FOLDER",
        help="holds folders by wnid, images named after one, or validation images; once a split, that of the captions first",
    )
    parser.add_argument(
        "--val_labels",
        type=Path,
        metavar="FILE",
        help="classes of validation images that lie in a flat folder: the devkit's ILSVRC2012_validation_ground_truth.txt "
        "(needs meta.mat beside it or in ../data/) or Kaggle's LOC_val_solution.csv",
    )
    parser.add_argument("--captions", type=Path, metavar="FILE", help="imagenet_captions.json")
    parser.add_argument(
        "--fields", default="title,description,tags", help="text fields (default: title,description,tags)", metavar="FIELD,…"
    )
    parser.add_argument("--synsets", type=Path, metavar="FILE", help="synset_words.txt or LOC_synset_mapping.txt")
    parser.add_argument("--label_names", action="store_true", help="class names as labels instead of wnids")
    parser.add_argument(
        "--class_texts", type=Path, metavar="FILE", help="texts of the classes: wnid,description or class_descriptions.jsonl"
    )
    parser.add_argument("--captioned_only", action="store_true", help="leave out images that have no entry in --captions")


def _imagenet_captions_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import imagenet_captions

    return imagenet_captions.make_source(
        imagenet_captions.Options(
            images=split_paths(options.images),
            val_labels=options.val_labels,
            captions=options.captions,
            fields=comma_list(options.fields),
            synsets=options.synsets,
            label_names=options.label_names,
            class_texts=options.class_texts,
            captioned_only=options.captioned_only,
        )
    )


def _add_coco(parser: argparse.ArgumentParser) -> None:
    by_split = {"action": "append", "default": [], "metavar": "[SPLIT=]PATH"}
    parser.add_argument("--captions", help="a captions file; once a split", **by_split)
    parser.add_argument("--instances", help="an instances file, for labels; once a split", **by_split)
    parser.add_argument("--images", help="the folder of the images, of a split or of all", **(by_split | {"required": True}))


def _coco_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import coco

    return coco.make_source(split_paths(options.captions), split_paths(options.instances), split_paths(options.images))


def _add_flickr(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captions", type=Path, metavar="FILE", help="a token file, captions.txt, results.csv or Karpathy JSON")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="the folder of the images")
    parser.add_argument(
        "--split_list", action="append", default=[], metavar="SPLIT=PATH", help="a file with an image name a line; once a split"
    )


def _flickr_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import flickr

    return flickr.make_source(options.captions, options.images, split_paths(options.split_list))


DATASET_COMMANDS = [
    SourceCommand(
        "webvision",
        "WebVision 1.0 and 2.0: web images with titles, descriptions and tags",
        """examples:
  tfrecords-tools pack webvision webvision --holdout=0.04 --output=data/webvision
  tfrecords-tools pack webvision webvision --sources=google --num_classes=50 --output=data/mini_webvision

Labels are wnids in the order of synsets.txt. Metadata is looked for beside the images, in metadata/ and in google_json/;
an image without it is packed without texts and reported. More: the docstring of tfrecords_tools/sources/webvision.py.
""",
        _add_webvision,
        _webvision_source,
    ),
    SourceCommand(
        "open_images",
        "Open Images labels with class texts: multi-label, by classes or by tags (ImageD)",
        """examples:
  tfrecords-tools pack open_images --annotations=val=oidv7-val-annotations-human-imagelabels.csv \\
      --classes=oidv7-class-descriptions-boxable.csv --definitions=definitions.csv --images=images --output=data/imaged
  tfrecords-tools pack open_images --annotations=train.csv --definitions=definitions.csv --tags --few_shot_below=100 \\
      --images=images --present_images --output=data/imaged_tags

Definitions are derived from the label: as input to a model for that label they would tell the answer.
""",
        _add_open_images,
        _open_images_source,
    ),
    SourceCommand(
        "imagenet_captions",
        "ImageNet, with the titles, descriptions and tags of ImageNet-Captions",
        """examples:
  tfrecords-tools pack imagenet_captions --images=train=CLS-LOC/train --images=val=CLS-LOC/val \\
      --val_labels=LOC_val_solution.csv --synsets=LOC_synset_mapping.txt \\
      --captions=imagenet_captions.json --output=data/imagenet
  tfrecords-tools pack imagenet_captions --images=train --captions=imagenet_captions.json --captioned_only \\
      --fields=title,tags --output=data/imagenet_captions

Labels are wnids: names repeat. Validation images lie in folders by wnid, or in one flat folder with --val_labels.
""",
        _add_imagenet_captions,
        _imagenet_captions_source,
    ),
    SourceCommand(
        "coco",
        "COCO captions and instances: several captions an image, classes of its objects",
        """example:
  tfrecords-tools pack coco \\
      --captions=train=annotations/captions_train2017.json --captions=val=annotations/captions_val2017.json \\
      --instances=train=annotations/instances_train2017.json --instances=val=annotations/instances_val2017.json \\
      --images=train=train2017 --images=val=val2017 --output=data/coco
""",
        _add_coco,
        _coco_source,
    ),
    SourceCommand(
        "flickr",
        "Flickr8k, Flickr30k (also Kaggle's files) and Karpathy's splits: five captions an image",
        """examples:
  tfrecords-tools pack flickr Flickr8k.token.txt --images=Flicker8k_Dataset \\
      --split_list=train=Flickr_8k.trainImages.txt --split_list=val=Flickr_8k.devImages.txt \\
      --split_list=test=Flickr_8k.testImages.txt --output=data/flickr8k
  tfrecords-tools pack flickr dataset_flickr30k.json --images=flickr30k-images --output=data/flickr30k
""",
        _add_flickr,
        _flickr_source,
    ),
]
