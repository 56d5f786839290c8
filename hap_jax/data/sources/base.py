"""What every source of records promises.

A source is a sequence of records: `len(source)`, `source[i] -> record` and `source.name(i) -> str`, which
names record i for error messages without reading it, and `source.spec`. It reads and decodes; it does not
augment, batch or score. Each file here offers `open_source(*, root, split, seed, **options)`; the options are
the keys of `config.data.<file name>`.

A person record holds
  image              [H, W, 3] uint8, RGB, any H and W
  keypoints_xy       [K, 2] float32, pixels of this image, 0-based, (x, y)
  keypoints_visible  [K] bool; False: missing, its xy means nothing
and may hold more fields.
"""

import dataclasses

from hap_jax.data.skeletons import Skeleton


class BadRecordError(ValueError):
  """A record that cannot be read; the message names its file and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """Facts about a source: its data set's name, its joints, its licence and the extra fields of its records."""

  name: str
  skeleton: Skeleton
  licence: str
  fields: tuple[str, ...] = ("image", "keypoints_xy", "keypoints_visible")
