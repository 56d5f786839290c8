"""Finds the joints of one person per picture, part by part, and writes a folder of poses.

A part is written when all its pictures are done. So a killed command goes on with the next part, and several
processes can each do some of the parts. `data/pose_parts.py` explains the files.
"""

import dataclasses
import hashlib
import pathlib
import time

import jax
import numpy as np

from hap_jax import sharding
from hap_jax.data import pose_parts
from hap_jax.data.part_sampler import PartByPart
from hap_jax.data.pipeline import Reading
from hap_jax.evaluation.evaluate import make_predict_step
from hap_jax.inference import pose_folder
from hap_jax.io.progress import SILENT

PART_SIZE = 4096  # pictures of a part


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that change the joints of a picture. They are the same for all processes and restarts.

  Attributes:
    padding: see `pose_models.load`.
    flip_test: see `pose_models.load`.
    min_score: joints with a lower score are marked as missing. None: no joint is.
    batch_size: pictures per batch. It changes the joints by rounding errors.
    boxes: file of boxes. None: each picture is a box.
  """

  padding: float
  flip_test: bool
  min_score: float | None
  batch_size: int
  boxes: str | None = None

  def __post_init__(self):
    if not 0 < self.padding < np.inf:
      raise ValueError(f"--padding={self.padding}: expected a number above 0")

  def to_json(self):
    """Returns the settings as plain JSON values. A file of boxes is replaced by the digest of its content."""
    boxes = self.boxes and hashlib.sha256(pathlib.Path(self.boxes).read_bytes()).hexdigest()
    return dataclasses.asdict(self) | {"boxes": boxes, "part_size": PART_SIZE}


def extract(
  model,
  pictures,
  out,
  settings,
  *,
  layout=pose_folder.PARTS,
  shard=(0, 1),
  workers=0,
  max_bad_share=0.01,
  say=print,
  progress=SILENT,
):
  """Finds the joints of the pictures in the parts of this process, and writes the folder `out`.

  The process that finds all parts complete also writes the summary and the sheet.

  Args:
    model: a `pose_models.PoseModel`.
    pictures: a `posed_pictures.PosedPictures`.
    out: pathlib.Path of the folder. If it has complete parts of the same settings, they are kept.
    settings: `Settings`.
    layout: a `pose_folder.Layout`.
    shard: (number of this process from 0, number of processes).
    workers: number of processes that read pictures.
    max_bad_share: largest share of unreadable pictures.
    say: prints a line.
    progress: a started `Progress` that counts the pictures.
  Returns:
    the share of its time after the first batch that the process waited for pictures. None: it had nothing to
    do.
  Raises:
    ValueError: if the folder has other settings, or if too many pictures cannot be read. Parts that are
      complete remain.
  """
  facts = {
    "model": {key: model.facts[key] for key in ("family", "digest")},
    "pictures": {"count": len(pictures), "names": pictures.digest(), "exif": pictures.spec.exif},
    "layout": layout.name,
    **settings.to_json(),
  }
  layout.check(pictures.names)
  pose_parts.start(out, facts)
  if pose_folder.is_complete(out, say):
    return None
  count = -(-len(pictures) // PART_SIZE)
  parts = [pose_parts.part_of_pictures(number, count) for number in range(count)]
  todo = pose_folder.find_todo(out, parts, shard, say)
  waiting = None
  if todo:
    sampler = PartByPart(len(pictures), settings.batch_size, PART_SIZE, tuple(todo))
    progress.begin(sum(stop - start for start, stop in map(sampler.rows, todo)), "pictures")
    allowed = pose_folder.Allowance(max_bad_share, len(pictures))
    run = _Run(model, pictures, sampler, settings.min_score, workers, progress)
    for part, rows in run.parts():
      allowed.add(rows["unreadable"])
      layout.write(out, out / parts[part], rows)
      say(f"{parts[part]}: {len(rows['name']):,} people, {len(rows['unreadable']):,} unreadable")
      allowed.check()
    waiting = run.waiting_share
  pose_folder.finish(
    out,
    parts,
    {**model.facts, "exif": pictures.spec.exif, "settings": facts},
    total=len(pictures),
    unit="pictures",
    max_bad_share=max_bad_share,
    layout=layout,
    read=_reader_of(pictures),
    say=say,
  )
  return waiting


def _reader_of(pictures):
  """Returns a function (number of a part, name of a picture) -> the picture [H, W, 3] uint8."""

  def read(part, name):
    rows = range(part * PART_SIZE, min((part + 1) * PART_SIZE, len(pictures)))
    return pictures[next(i for i in rows if pictures.names[i] == name)]["image"]

  return read


class _Run:
  """Predicts the parts of one process.

  Attributes:
    waiting_share: share of the time after the first batch in which the process waited for pictures.
  """

  def __init__(self, model, pictures, sampler, min_score, workers, progress):
    self.waiting_share = 0.0
    self._pictures, self._sampler, self._fields = pictures, sampler, model.fields
    self._min_score, self._progress = min_score, progress
    mesh = sharding.make_mesh()
    sharding.check_batch_size(sampler.batch_size, mesh, "--batch_size")
    step = make_predict_step(model.predict, mesh)
    variables = sharding.put_replicated(model.variables, mesh)
    self._predict = lambda batch: step(variables, sharding.put_batch(batch, mesh))
    # The pictures that cannot be read are counted here, and not by the loader.
    reading = Reading(workers=workers, max_bad_share=1.0, bad_share_key="")
    self._loader = reading.loader(pictures, model.view, sampler, (*model.fields, "size", "is_read"))

  def parts(self):
    """Yields (number of a part, {"name", "keypoints", "image_size", "unreadable"}) in order."""
    start, waited, collected = time.monotonic(), 0.0, []
    with self._loader.iterate(0, self._sampler.num_steps) as batches:
      pending = None
      for step in range(self._sampler.num_steps):
        before = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - before
        result = self._predict({name: batch[name] for name in (*self._fields, "index", "valid")})
        if not step:
          start, waited = time.monotonic(), 0.0  # the network has been compiled until now
        # The rows of the last step are fetched only now, so the device computes while a batch is read.
        if pending is not None:
          yield from self._collect(*pending, collected)
        pending = step, batch, result
      yield from self._collect(*pending, collected)
    self.waiting_share = waited / max(time.monotonic() - start, 1e-9)

  def _collect(self, step, batch, result, collected):
    """Appends the rows of a step to the list `collected`. Yields the part if it is complete."""
    found, valid = jax.device_get(result), self._sampler.valid(step)
    wanted = self._sampler.indices(step)
    # If the storage failed again and again, the loader has replaced the record by another one.
    is_read = batch["is_read"] & (batch["index"] == wanted)
    score = found["score"][..., None]
    xy = np.asarray(found["keypoints_xy"])
    if self._min_score is not None:
      xy = np.where(score < self._min_score, pose_parts.MISSING, xy)
    collected.append(
      {
        "index": wanted[valid],
        "is_read": is_read[valid],
        "keypoints": np.concatenate([xy, score], axis=-1).astype(np.float32)[valid],
        "image_size": batch["size"][valid],
      }
    )
    self._progress.add(int(valid.sum()))
    part, is_last = self._sampler.place(step)
    if is_last:
      rows = {name: np.concatenate([some[name] for some in collected]) for name in collected[0]}
      collected.clear()
      yield part, self._as_part(rows)

  def _as_part(self, rows):
    is_read, names = rows["is_read"], [self._pictures.names[int(i)] for i in rows["index"]]
    return {
      "name": [name for name, is_good in zip(names, is_read, strict=True) if is_good],
      "keypoints": rows["keypoints"][is_read],
      "image_size": rows["image_size"][is_read],
      "unreadable": [name for name, is_good in zip(names, is_read, strict=True) if not is_good],
    }
