"""Finds the parts of a folder of poses that are to do, and completes the folder when all parts are there."""

import dataclasses
from collections.abc import Callable

import numpy as np

from hap_jax.data import luperson_layout, pose_parts
from hap_jax.data.pose_people import first_five
from hap_jax.data.sources import base
from hap_jax.inference import posed_sheet
from hap_jax.io import picture_file

SHEET_FILE = "sheet.jpg"
_QUALITY = 90  # quality of the sheet's JPEG file


@dataclasses.dataclass(frozen=True)
class Layout:
  """The files in which the joints are written.

  Attributes:
    name: the name of the layout.
    check: function (`Names` of all pictures), which raises ValueError if the layout cannot hold them.
    write: function (folder, path of the part, rows of the part). It writes the part last, because a part that
      exists is complete.
    finish: function (folder, names of all people), called when all parts are complete.
  """

  name: str
  check: Callable
  write: Callable
  finish: Callable


def _write_part(out, path, rows):
  del out
  pose_parts.write_part(path, **rows)


def _write_luperson(out, path, rows):
  luperson_layout.write_joints(out, rows["name"], rows["keypoints"])
  pose_parts.write_part(path, **rows)


PARTS = Layout("poses", lambda names: None, _write_part, lambda out, names: None)
LUPERSON = Layout("luperson", luperson_layout.check_names, _write_luperson, luperson_layout.write_list)
LAYOUTS = {layout.name: layout for layout in (PARTS, LUPERSON)}


def parse_shard(text):
  """Returns (number of this process from 0, number of processes) of a text such as "2/8".

  Raises:
    ValueError: if the text is not of this form, or if the first number is not 1 to the second number.
  """
  number, slash, count = text.partition("/")
  is_whole = slash and number.isdecimal() and count.isdecimal()
  if not is_whole or not 1 <= int(number) <= int(count):
    raise ValueError(f"--shard={text}: expected K/N with K from 1 to N, such as 2/8")
  return int(number) - 1, int(count)


def is_complete(out, say):
  """Returns True, and prints so, if a folder of poses is complete."""
  if (out / pose_parts.SUMMARY_FILE).exists():
    say(f"{out}: complete since an earlier start")
    return True
  return False


def find_todo(out, parts, shard, say):
  """Returns the numbers of the parts that a process has to do.

  Args:
    out: pathlib.Path of the folder.
    parts: file names of all parts.
    shard: see `parse_shard`.
    say: prints a line.
  """
  own = range(shard[0], len(parts), shard[1])
  todo = [number for number in own if not (out / parts[number]).exists()]
  if len(todo) < len(own):
    kept = [parts[number] for number in own if number not in set(todo)]
    say(f"kept from an earlier start: {len(kept):,} of {len(own):,} parts ({first_five(kept)})")
  return todo


class Allowance:
  """Counts the unreadable pictures of one process."""

  def __init__(self, max_bad_share, total):
    """Allows a share of `total` pictures to be unreadable. None: the total is not known yet."""
    self._share, self._total = max_bad_share, total
    self._names = []

  def add(self, names):
    """Counts these pictures."""
    self._names += names

  def check(self):
    """Raises ValueError if more pictures are unreadable than allowed."""
    if self._total is not None:
      check_share(self._names, self._total, self._share)


def check_share(unreadable, total, max_bad_share):
  """Raises ValueError if more than `max_bad_share * total` pictures are in the list `unreadable`."""
  if len(unreadable) > max_bad_share * total:
    raise ValueError(
      f"{len(unreadable):,} of {total:,} pictures cannot be read, more than the share {max_bad_share:g} that "
      f"--max_bad_share allows ({first_five([base.printable(name) for name in unreadable])}): raise "
      "--max_bad_share and start the command again, or repair the pictures and give another --out"
    )


def finish(out, parts, facts, *, total, unit, max_bad_share, layout, read, say):
  """If all parts are complete, writes the sheet and the summary.

  Args:
    out: pathlib.Path of the folder.
    parts: file names of all parts.
    facts: {name: plain JSON value} for the summary, such as the licence of the model.
    total: number of pictures or frames.
    unit: "pictures" or "frames".
    max_bad_share: largest share of them that may be unreadable.
    layout: the `Layout`.
    read: function (number of a part, name of a picture) -> [H, W, 3] uint8.
    say: prints a line.
  Raises:
    ValueError: if too many pictures are unreadable, or if nobody was found.
  """
  missing = sum(not (out / part).exists() for part in parts)
  if missing:
    say(f"{len(parts) - missing:,} of {len(parts):,} parts are complete: start the other shards")
    return
  summary = pose_parts.summarize(out, parts)
  check_share(summary["unreadable"], total, max_bad_share)
  people = summary["counts"]["people"]
  if not people:
    raise ValueError(f"{out}: no person was found in {total:,} {unit}")
  layout.finish(out, (name for part in parts for name in pose_parts.read_part(out / part)["name"].tolist()))
  images, keypoints = _choose(out, summary["parts"], read)
  picture_file.write(out / SHEET_FILE, posed_sheet.draw(images, keypoints), quality=_QUALITY)
  pose_parts.write_summary(out, facts | summary)
  pose_parts.remove_rests(out)
  statistics = summary["statistics"]
  say(
    f"{out}: {people:,} people, {summary['counts']['unreadable']:,} unreadable of {total:,} {unit}; "
    f"{100 * statistics['joints_inside']:.1f} % of the joints are inside their pictures, "
    f"{statistics['joints_per_picture']:.1f} per picture, mean score {statistics['mean_score']:.2f}"
  )
  say(f"pictures of {len(images)} of them: {out / SHEET_FILE}")


def _choose(out, rows, read):
  """Returns (pictures, [n, 17, 3] joints) of up to 24 people at equal distances in the parts.

  Args:
    rows: [[file name of a part, number of people], ...].
  """
  ends = np.cumsum([count for _, count in rows])
  number = min(posed_sheet.PEOPLE, int(ends[-1]))
  chosen = (np.arange(number) * ends[-1] + ends[-1] // 2) // number
  images, keypoints = [], []
  for i in chosen.tolist():
    part = int(np.searchsorted(ends, i, side="right"))
    content = pose_parts.read_part(out / rows[part][0])
    row = i - int(ends[part] - rows[part][1])
    images.append(read(part, content["name"][row].item()))
    keypoints.append(content["keypoints"][row])
  return images, np.stack(keypoints)
