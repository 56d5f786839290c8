"""Source: CUHK-PEDES (arXiv 1702.05729), people with captions for text ReID, and data sets in its layout.

  <root>/reid_raw.json   one record per picture (see `data/text_records.py`). `file_path` is relative to imgs/
  <root>/imgs/           CUHK01/, CUHK03/, Market/, cam_a/, cam_b/, test_query/, train_query/

The folders of the pictures may also lie in the root. The file caption_all.json of the same archive has no
splits and is not used. `hap prepare synthetic` writes a folder in this layout. To read it, set `drop_ids` to
an empty tuple, because otherwise ordinary drawn people are left out.
"""

from hap_jax.data import captioned_people, text_records
from hap_jax.data.text_records import DataSet

SPLITS = ("train", "val", "test")
PLACES = ("annotations",)
_DATA = DataSet(
  "cuhk_pedes",
  splits=SPLITS,
  files=("reid_raw.json",),
  picture_key="file_path",
  licence="CUHK-PEDES: academic research, on the terms of its authors",
  counts={"train": (34_051, 11_000, 68_120), "test": (3_074, 1_000, 6_156)},
  dropped=(1369, 4116, 6116),
  without_splits="caption_all.json",
)


def open_source(*, root, split, seed, annotations="", drop_ids=(1369, 4116, 6116)):
  """Opens a split of CUHK-PEDES.

  Args:
    root: folder of the data set (config.data.root).
    split: "train", "val", "test", "trainval" (train followed by val), or a view of one of them, such as
      "test_pictures" and "test_captions".
    seed: not used, because the order is the order of the file.
    annotations: path of the annotation file, relative to `root`. "": reid_raw.json.
    drop_ids: ids of persons that are left out of training. The official preparation leaves out the three
      default ids, which have one picture each. (): nobody is left out.

  Returns:
    a source of pairs of picture and caption, or a view of it (see `base.py`).

  Raises:
    ValueError: if a file or a picture is missing, if a record has a wrong value, if a person or a picture is
      in two splits, or if the split is empty.
  """
  del seed
  return captioned_people.open_split(
    _DATA, root=root, split=split, annotations=annotations, drop_ids=drop_ids
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return text_records.published(_DATA, split)
