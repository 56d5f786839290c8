"""Source: RSTPReid (arXiv 2109.05534), people with captions for text ReID.

  <root>/data_captions.json   one record per picture (see `data/text_records.py`), with the key `img_path`
  <root>/imgs/*.jpg           the pictures. They may also lie in the root.

HAP's published result was trained on "trainval".
"""

from hap_jax.data import captioned_people, text_records
from hap_jax.data.text_records import DataSet

SPLITS = ("train", "val", "test")
PLACES = ("annotations",)
_DATA = DataSet(
  "rstpreid",
  splits=SPLITS,
  files=("data_captions.json",),
  picture_key="img_path",
  licence="RSTPReid: academic research, on the terms of its authors",
  counts={
    "train": (18_505, 3_701, 37_010),
    "val": (1_000, 200, 2_000),
    "test": (1_000, 200, 2_000),
    "trainval": (19_505, 3_901, 39_010),
  },
)


def open_source(*, root, split, seed, annotations=""):
  """Opens a split of RSTPReid.

  Args:
    root: folder of the data set (config.data.root).
    split: "train", "val", "test", "trainval" (train followed by val), or a view of one of them, such as
      "test_pictures" and "test_captions".
    seed: not used, because the order is the order of the file.
    annotations: path of the annotation file, relative to `root`. "": data_captions.json.

  Returns:
    a source of pairs of picture and caption, or a view of it (see `base.py`).

  Raises:
    ValueError: if a file or a picture is missing, if a record has a wrong value, if a person or a picture is
      in two splits, or if the split is empty.
  """
  del seed
  return captioned_people.open_split(_DATA, root=root, split=split, annotations=annotations)


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return text_records.published(_DATA, split)
