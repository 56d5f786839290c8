"""Draws sheets of synthetic people: each identity in several cameras, and the ground truth of pictures."""

import cv2
import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.synthetic.anatomy import PARTS
from hap_jax.viz import canvas
from hap_jax.viz.pose import SIDE_COLORS, draw_sides

BOX_COLOR = (255, 255, 255)
# One colour per kind of part; left and right parts have a light and a dark tone of it.
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
_RIGHT_TONE = 0.68  # the right half of the body is drawn darker
_TINT = 0.78  # share of the colour in a part; the rest is the picture in grey
_GAP, _ROW_GAP, _GROUP_GAP, _MARGIN = 4, 14, 22, 18
_TEXT, _HEAD_TEXT = 15, 17


def contact_sheet(pictures, titles, texts, columns, *, text_width=380):
  """Draws one row per identity: its pictures side by side, then its title and its sentences.

  Args:
    pictures: N lists of C pictures [H, W, 3] uint8, all of one size.
    titles: N short texts.
    texts: N lists of sentences.
    columns: C words, written above the columns.
    text_width: width of the text in pixels.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if a text needs more height than its pictures have.
  """
  height, width = pictures[0][0].shape[:2]
  head = canvas.blank(round(1.6 * _TEXT), len(columns) * (width + _GAP) - _GAP + _GROUP_GAP + text_width)
  for k, word in enumerate(columns):
    canvas.write_centered(head, word, k * (width + _GAP) + width // 2, _TEXT, _TEXT, color=canvas.FAINT)
  rows = [head]
  for row, title, sentences in zip(pictures, titles, texts, strict=True):
    text = canvas.stack(
      [
        canvas.paragraph(title, text_width, _HEAD_TEXT, 600),
        *(canvas.paragraph(sentence, text_width, _TEXT) for sentence in sentences),
      ],
      8,
    )
    if text.shape[0] > height:
      raise ValueError(
        f"{title}: its text is {text.shape[0]} pixels high, its pictures {height}; increase text_width"
      )
    beside = canvas.blank(height, text_width)
    beside[: text.shape[0]] = text
    rows.append(_side_by_side([*row, beside], [_GAP] * (len(row) - 1) + [_GROUP_GAP]))
  return canvas.frame(canvas.stack(rows, _ROW_GAP), _MARGIN)


def truth_sheet(records, *, columns=3):
  """Draws each record three times: as it is, with joints and box, and with the parts of the body.

  `viz.pose.draw_sides` explains the colours of joints and the mark of a hidden joint.

  Args:
    records: results of `synthetic.draw.draw_person`, pictures of one size.
    columns: records in a row.
  Returns:
    [h, w, 3] uint8.
  """
  groups = [
    _side_by_side(
      [record["image"], draw_truth(record), draw_parts(record["image"], record["parts"])], [_GAP] * 2
    )
    for record in records
  ]
  rows = [
    _side_by_side(groups[start : start + columns], [_GROUP_GAP] * (columns - 1))
    for start in range(0, len(groups), columns)
  ]
  width = rows[0].shape[1]
  rows[-1] = cv2.copyMakeBorder(
    rows[-1], 0, 0, 0, width - rows[-1].shape[1], cv2.BORDER_CONSTANT, value=canvas.PAPER
  )
  joints = [(color, f"{side} joints") for side, color in SIDE_COLORS.items()]
  parts = [(color, name.replace("_", " ")) for name, color in _KINDS.items()]
  note = (
    "Left and right are the person's own. A hidden joint has a white centre; parts at the right are darker."
  )
  legend = [canvas.swatches(entries, width, _TEXT) for entries in (joints, parts)]
  legend.append(canvas.paragraph(note, width, _TEXT))
  return canvas.frame(canvas.stack([canvas.stack(rows, _ROW_GAP), *legend], 8), _MARGIN)


def draw_truth(record):
  """Draws a record's box and joints onto a copy of its picture, [H, W, 3] uint8."""
  picture = np.ascontiguousarray(record["image"]).copy()
  left, top, right, bottom = np.round(record["box"]).astype(int).tolist()
  for color, thickness in (((0, 0, 0), 3), (BOX_COLOR, 1)):
    cv2.rectangle(picture, (left, top), (right, bottom), color, thickness)
  return draw_sides(
    picture, record["keypoints_xy"], record["keypoints_visible"], record["keypoints_occluded"], COCO17
  )


def draw_parts(image, parts):
  """Tints a picture [H, W, 3] uint8 by its part labels [H, W]; the background becomes pale grey."""
  grey = (image @ np.array((0.299, 0.587, 0.114)))[..., None]
  colors = np.array([_part_color(name) for name in PARTS], np.float32)[parts]
  tinted = np.where(parts[..., None] > 0, (1 - _TINT) * grey + _TINT * colors, 0.5 * grey + 110)
  return np.round(tinted).clip(0, 255).astype(np.uint8)


def _part_color(name):
  side, _, kind = name.partition("_")
  if side not in ("left", "right"):
    return _KINDS.get(name, (0, 0, 0))
  return tuple((_RIGHT_TONE if side == "right" else 1.0) * z for z in _KINDS[kind])


def _side_by_side(pictures, gaps):
  """Puts pictures of equal height side by side; `gaps` are the widths of the white gaps in pixels."""
  height = pictures[0].shape[0]
  parts = [pictures[0]]
  for gap, picture in zip(gaps, pictures[1:], strict=True):
    parts += [canvas.blank(height, gap), picture]
  return np.concatenate(parts, axis=1)
