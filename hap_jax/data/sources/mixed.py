"""Source: several data sets as one. The records of the first data set come first, then those of the next one.

`config.data.mixed.parts` lists the labels of the data sets. `config.data.mixed.<label>` holds the source of a
data set, its folder and its options (see `config_parts.py`), so one source may be used several times.

A record has the fields that all data sets have, and
  dataset  int32, index of the data set in `parts`
If the data sets have different numbers of joints, the fields `keypoints_*` are padded to the longest
skeleton. The added joints are missing. Each data set adds an offset to its person numbers `pid`, so that
different persons have different numbers. Data sets with the same numbering of persons (`SourceSpec.people`)
have the same offset. The field `picture` is left out, because its numbers have two meanings, see `base.py`.
"""

import bisect
import dataclasses
import functools

import numpy as np

from hap_jax.data.columns import LazyColumns
from hap_jax.data.sources import base

_JOINTS = "keypoints_"  # prefix of the fields with one row per joint
_LEFT_OUT = ("picture",)


@dataclasses.dataclass(frozen=True, eq=False)
class MixedSource:
  """Records of several data sets, see the docstring of this file.

  Attributes:
    parts: (label, source) of each data set.
    pid_offsets: number that is added to the `pid` of each data set, or () if there is no `pid`.
    spec: facts about the source. Its skeleton is None if the data sets have different skeletons.
  """

  parts: tuple[tuple[str, base.Source], ...]
  pid_offsets: tuple[int, ...]
  spec: base.SourceSpec

  @functools.cached_property
  def sections(self):
    sections, start = [], 0
    for label, source in self.parts:
      sections.append(base.Section(f"{label} ({source.spec.name})", start, start + len(source)))
      start += len(source)
    return tuple(sections)

  def __len__(self):
    return self.sections[-1].stop

  def __getitem__(self, index):
    d, source, row = self._find(index)
    return self._joined(d, source[row])

  def fetch(self, index):
    """Reads a record without its pixels, if its source can. Returns a function that returns the record."""
    d, source, row = self._find(index)
    read = source.fetch(row) if hasattr(source, "fetch") else functools.partial(source.__getitem__, row)
    return lambda: self._joined(d, read())

  def name(self, index):
    _, source, row = self._find(index)
    return source.name(row)

  @functools.cached_property
  def columns(self):
    """The columns that all data sets have, and `dataset`. Each column is computed at its first use."""
    shared = [
      field
      for field in self.spec.fields
      if field != "dataset" and all(field in source.columns for _, source in self.parts)
    ]
    compute = {field: functools.partial(self._column, field) for field in shared}
    sizes = [section.size for section in self.sections]
    return LazyColumns(
      {**compute, "dataset": lambda: np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)}
    )

  def __getstate__(self):
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  def _find(self, index):
    """Returns (index of the data set, its source, row of the source) of a record."""
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {self.spec.name}, which has {len(self)}")
    d = bisect.bisect_right(self.sections, index, key=lambda section: section.start) - 1
    return d, self.parts[d][1], index - self.sections[d].start

  def _joined(self, d, record):
    """Returns a record of data set d with the fields of the mixture."""
    own = {field: record[field] for field in self.spec.fields if field != "dataset"}
    for field, value in own.items():
      if field.startswith(_JOINTS):
        own[field] = self._padded(value[None])[0]
    if self.pid_offsets:
      own["pid"] = np.int32(own["pid"] + self.pid_offsets[d])
    return {**own, "dataset": np.int32(d)}

  def _column(self, field):
    columns = [np.asarray(source.columns[field]) for _, source in self.parts]
    if field.startswith(_JOINTS):
      columns = [self._padded(column) for column in columns]
    if field == "pid":
      columns = [
        (column + offset).astype(np.int32) for column, offset in zip(columns, self.pid_offsets, strict=True)
      ]
    return np.concatenate(columns)

  def _padded(self, values):
    """Returns [N, K, ...] values of joints with zeros or False for the joints that are added."""
    missing = self._num_joints - values.shape[1]
    return np.pad(values, ((0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)))

  @functools.cached_property
  def _num_joints(self):
    return max(len(source.spec.skeleton.joints) for _, source in self.parts if source.spec.skeleton)


def open_source(*, root="", split="train", seed=0, parts=(), shares=()):
  """Joins opened data sets.

  Args:
    root, split, seed: not used, because each data set has its own.
    parts: (label, source) of each data set. In a configuration, these are the labels only, and
      `config_sources.open_source` opens the data sets.
    shares: not used here. It sets the order of the records of a run. (): all data sets are shuffled together.
      Otherwise: the share of each data set in the rows of the batches.
  Returns:
    MixedSource.
  Raises:
    ValueError: if there is no data set, or if the data sets are not opened.
  """
  del root, split, seed, shares
  if not parts:
    raise ValueError(
      "config.data.mixed.parts is empty: expected the labels of the data sets, such as ('coco', 'mpii')"
    )
  if not all(isinstance(part, tuple) and len(part) == 2 for part in parts):
    raise ValueError(
      f"the source mixed cannot open the data sets {', '.join(map(str, parts))} without a configuration: use "
      "the source of each data set"
    )
  offsets, people = _number_people(parts)
  return MixedSource(parts=tuple(parts), pid_offsets=offsets, spec=_join_specs(parts, people))


def _number_people(parts):
  """Returns (offset of each data set, name of the joined numbering of persons). Without `pid`: ((), "")."""
  if not all("pid" in source.columns for _, source in parts):
    return (), ""
  numberings, bounds = [source.spec.people for _, source in parts], {}
  for name, (_, source) in zip(numberings, parts, strict=True):
    pids = source.columns["pid"]
    low, high = bounds.get(name, (np.inf, -np.inf))
    bounds[name] = min(low, int(pids.min())), max(high, int(pids.max()))
  offsets, free = {}, 0
  for name, (low, high) in bounds.items():
    offsets[name] = free - low
    free += high - low + 1
  if free > np.iinfo(np.int32).max:
    raise ValueError(
      f"the data sets of config.data.mixed have {free:,} person numbers; expected at most 2**31 - 1"
    )
  # The offsets are a part of the name, because equal numbers mean the same person only with equal offsets.
  people = "; ".join(f"{name} + {offset}" for name, offset in offsets.items())
  return tuple(offsets[name] for name in numberings), people


def _join_specs(parts, people):
  """Returns the SourceSpec of joined data sets; `people` is the name of the numbering of persons."""
  specs = [source.spec for _, source in parts]
  first, *others = specs
  fields = [
    field
    for field in first.fields
    if field not in _LEFT_OUT
    and all(field in spec.fields and spec.labels.get(field) == first.labels.get(field) for spec in others)
  ]
  skeletons = list(dict.fromkeys(spec.skeleton for spec in specs))
  turns = {spec.exif for spec in specs}
  return base.SourceSpec(
    name=" + ".join(dict.fromkeys(spec.name for spec in specs)),
    skeleton=skeletons[0] if len(skeletons) == 1 else None,
    licence="; ".join(dict.fromkeys(spec.licence for spec in specs)),
    fields=(*fields, "dataset"),
    notes=tuple(f"{label}: {note}" for label, source in parts for note in source.spec.notes),
    labels={field: first.labels[field] for field in fields if field in first.labels},
    people=people,
    exif=turns.pop() if len(turns) == 1 else base.APPLY,
    parts=tuple(specs),
  )
