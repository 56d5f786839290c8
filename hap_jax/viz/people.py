"""Draws sheets of synthetic people: the pictures of each person, or pictures with their ground truth."""

import cv2
import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.viz import canvas, sheet
from hap_jax.viz.pose import SIDE_COLORS, draw_sides

BOX_COLOR = (255, 255, 255)
# One colour per kind of body part. A left part has this colour. A right part has a darker tone of the colour.
_KINDS = {
  "head": (240, 228, 66),
  "torso": (0, 158, 115),
  "upper_arm": (86, 180, 233),
  "lower_arm": (0, 114, 178),
  "hand": (204, 121, 167),
  "upper_leg": (230, 159, 0),
  "lower_leg": (213, 94, 0),
  "foot": (150, 75, 40),
  "carried": (170, 170, 170),
  "other_person": (70, 70, 120),
  "object": (60, 60, 60),
}
_RIGHT_TONE = 0.68  # brightness of the colour on the right half of the body
_TINT = 0.78  # opacity of the colour over the grey picture
_GAP, _GROUP_GAP = 4, 22


def contact_sheet(pictures, titles, texts, columns, *, text_width=380):
  """Draws one row per person: the pictures side by side, then texts about the person.

  Args:
    pictures: N lists of C pictures [H, W, 3] uint8, all of one size.
    titles: N short texts. Each is drawn above the sentences of its row.
    texts: N lists of sentences.
    columns: names of the C columns of pictures, drawn above them.
    text_width: width of the text in pixels.
  Returns:
    [h, w, 3] uint8.
  """
  rows = []
  for row, title, sentences in zip(pictures, titles, texts, strict=True):
    text = [canvas.paragraph(title, text_width, sheet.TEXT + 2, 600)]
    text += [canvas.paragraph(sentence, text_width, sheet.TEXT) for sentence in sentences]
    rows.append([*row, canvas.stack(text, 8)])
  gaps = [_GAP] * (len(columns) - 1) + [_GROUP_GAP]
  return sheet.draw(rows, gaps=gaps, heads=[*((word, "") for word in columns), ("", "")])


def truth_sheet(records, part_names, *, columns=3):
  """Draws the picture of each record three times: unchanged, with joints and box, and with body parts.

  `viz.pose.draw_sides` explains the colours of joints and the mark of a hidden joint.

  Args:
    records: results of `synthetic.draw.draw_person`. All pictures have the same size.
    part_names: names of the values in `parts` of a record.
    columns: number of records per row.
  Returns:
    [h, w, 3] uint8.
  """
  groups = [
    (record["image"], draw_truth(record), draw_parts(record["image"], record["parts"], part_names))
    for record in records
  ]
  starts = range(0, len(groups), columns)
  joints = [(color, f"{side} joints") for side, color in SIDE_COLORS.items()]
  parts = [(color, name.replace("_", " ")) for name, color in _KINDS.items()]
  return sheet.draw(
    [[tile for group in groups[start : start + columns] for tile in group] for start in starts],
    gaps=[_GAP, _GAP, _GROUP_GAP] * columns,
    legends=[joints, parts],
    note="Left and right are the person's own. A hidden joint has a white centre; parts at the right are "
    "darker.",
  )


def draw_truth(record):
  """Draws a record's box and joints onto a copy of its picture, [H, W, 3] uint8."""
  picture = np.ascontiguousarray(record["image"]).copy()
  left, top, right, bottom = np.round(record["box"]).astype(int).tolist()
  for color, thickness in (((0, 0, 0), 3), (BOX_COLOR, 1)):
    cv2.rectangle(picture, (left, top), (right, bottom), color, thickness)
  return draw_sides(
    picture, record["keypoints_xy"], record["keypoints_visible"], record["keypoints_occluded"], COCO17
  )


def draw_parts(image, parts, part_names):
  """Draws each body part in its colour over a pale grey copy of the picture.

  Args:
    image: [H, W, 3] uint8.
    parts: [H, W] uint8, index into `part_names`. 0: background.
    part_names: names such as "left_foot".
  Returns:
    [H, W, 3] uint8.
  """
  grey = (image @ np.array((0.299, 0.587, 0.114)))[..., None]
  colors = np.array([_part_color(name) for name in part_names], np.float32)[parts]
  tinted = np.where(parts[..., None] > 0, (1 - _TINT) * grey + _TINT * colors, 0.5 * grey + 110)
  return np.round(tinted).clip(0, 255).astype(np.uint8)


def _part_color(name):
  side, _, kind = name.partition("_")
  if side not in ("left", "right"):
    return _KINDS.get(name, (0, 0, 0))
  return tuple((_RIGHT_TONE if side == "right" else 1.0) * z for z in _KINDS[kind])
