"""Raw images, texts and labels -> TFRecord datasets that one can trust. Usable alone: `tfrecords-tools --help`."""

__version__ = "0.1.0"
