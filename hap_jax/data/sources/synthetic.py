"""Source: synthetic people, drawn when asked for, or drawn once and held in memory."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os

import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base
from hap_jax.data.synthetic import camera, draw

_FIELDS = ("image", "keypoints_xy", "keypoints_visible", "keypoints_occluded", "pid", "camid")
_CHUNK = 128  # pictures drawn by one call to a worker process
_WORTH_A_POOL = 1000  # fewer pictures are drawn faster here than in processes that must start first


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
  """Records of synthetic people; see `open_source`."""

  split: str
  seed: int
  image_size: tuple[int, int]
  num_records: int
  held: dict[str, np.ndarray] | None
  spec: base.SourceSpec

  def __len__(self):
    return self.num_records

  def __getitem__(self, i):
    self._check(i)
    if self.held is not None:
      return {name: value[i] for name, value in self.held.items()}
    return _record(self.seed, draw.FIRST_INDEX[self.split] + i, self.image_size)

  def name(self, i):
    self._check(i)
    return f"synthetic/{self.split}/{i:06d} (seed {self.seed})"

  def _check(self, i):
    if not 0 <= i < self.num_records:
      raise IndexError(f"record {i} of synthetic/{self.split}, which has {self.num_records}")


def open_source(
  *,
  root="",
  split="train",
  seed=0,
  num_train=12000,
  num_val=1024,
  num_test=1024,
  image_size=(256, 128),
  hold_in_memory=False,
):
  """Opens one split of synthetic people.

  Args:
    root: not used, people are made here; may be empty.
    split: "train", "val" or "test"; their people are disjoint.
    seed: whole number >= 0; another seed gives other people and places.
    num_train, num_val, num_test: number of pictures of each split, eight of each person in a row.
    image_size: (H, W) pixels in which pictures are drawn.
    hold_in_memory: draw every picture now, on all processors, and keep them (H * W * 3 bytes each).
  Returns:
    SyntheticSource; beside the person record's fields, `keypoints_occluded` [17] bool (hidden by the body
    itself or by something else, though inside the picture), `pid` and `camid` (int).
  Raises:
    ValueError: for an unknown split or a size or number that cannot be drawn.
  """
  del root
  counts = {"train": num_train, "val": num_val, "test": num_test}
  if split not in counts:
    raise ValueError(f"synthetic: split={split!r} is not one of {', '.join(counts)}")
  count = counts[split]
  limit = draw.FIRST_INDEX["val"]
  if not 1 <= count <= limit:
    raise ValueError(
      f"synthetic: num_{split}={count}; expected 1 to {limit} pictures (data.synthetic.num_{split})"
    )
  size = tuple(int(side) for side in image_size)
  highest, widest = camera.MAX_SIZE
  if len(size) != 2 or not (16 <= size[0] <= highest and 16 <= size[1] <= widest):
    raise ValueError(
      f"synthetic: image_size={image_size}; expected (H, W) from (16, 16) to ({highest}, {widest}) pixels "
      "(data.synthetic.image_size)"
    )
  return SyntheticSource(
    split=split,
    seed=int(seed),
    image_size=size,
    num_records=count,
    held=_draw_all(int(seed), draw.FIRST_INDEX[split], count, size) if hold_in_memory else None,
    spec=base.SourceSpec("synthetic", COCO17, licence="Apache-2.0 (made by this project)", fields=_FIELDS),
  )


def _record(seed, index, size):
  drawn = draw.draw_person(seed, index, size)
  return {name: drawn[name] for name in _FIELDS}


def _draw_chunk(seed, size, indices):
  records = [_record(seed, index, size) for index in indices]
  return {name: np.stack([record[name] for record in records]) for name in _FIELDS}


def _draw_all(seed, first, count, size):
  """Draws records first .. first + count - 1; {field: [count, ...]}, the same with and without processes."""
  chunks = [range(start, min(start + _CHUNK, first + count)) for start in range(first, first + count, _CHUNK)]
  draw_chunk = functools.partial(_draw_chunk, seed, size)
  if count < _WORTH_A_POOL:
    parts = list(map(draw_chunk, chunks))
  else:
    # Processes are spawned, not forked: the parent may already run jax's threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
      parts = list(pool.map(draw_chunk, chunks))
  return {name: np.concatenate([part[name] for part in parts]) for name in _FIELDS}
