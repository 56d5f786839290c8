"""Source: ICFG-PEDES (arXiv 2107.12666), people with captions for text ReID.

  <root>/ICFG-PEDES.json   one record per picture (see `data/text_records.py`). Some copies: ICFG_PEDES.json
  <root>/train/, test/     the pictures. They may also lie in imgs/train/ and imgs/test/.

The folders train/ and test/ come from MSMT17. A record of the split "train" may have its picture in test/. So
the split and the person come from the record. Only the last three parts of `file_path` are used. An id that
is in both splits is not an error, because it may mean two different people.
"""

from hap_jax.data import captioned_people, text_records
from hap_jax.data.text_records import DataSet

SPLITS = ("train", "test")
PLACES = ("annotations",)
_DATA = DataSet(
  "icfg_pedes",
  splits=SPLITS,
  files=("ICFG-PEDES.json", "ICFG_PEDES.json"),
  picture_key="file_path",
  licence="ICFG-PEDES: academic research, on the terms of its authors",
  counts={"train": (34_663, 3_101, 34_664), "test": (19_848, 1_000, 19_848)},
  dropped=(1369, 4116, 6116),
  path_parts=3,
  shares_ids=True,
)


def open_source(*, root, split, seed, annotations="", drop_ids=(1369, 4116, 6116)):
  """Opens a split of ICFG-PEDES.

  Args:
    root: folder of the data set (config.data.root).
    split: "train", "test", or a view of one of them, such as "test_pictures" and "test_captions".
    seed: not used, because the order is the order of the file.
    annotations: path of the annotation file, relative to `root`. "": ICFG-PEDES.json or ICFG_PEDES.json.
    drop_ids: ids of persons that are left out of training. The official preparation uses the list of
      CUHK-PEDES, which removes one person with ten pictures here. (): nobody is left out.

  Returns:
    a source of pairs of picture and caption, or a view of it (see `base.py`).

  Raises:
    ValueError: if a file or a picture is missing, if a record has a wrong value, if a picture is in two
      splits, or if the split is empty.
  """
  del seed
  return captioned_people.open_split(
    _DATA, root=root, split=split, annotations=annotations, drop_ids=drop_ids
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return text_records.published(_DATA, split)
