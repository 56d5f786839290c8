"""Sheets that show synthetic people: who they are in six cameras, and what is known about each picture."""

import cv2
import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.viz import canvas
from hap_jax.viz.pose import SIDE_COLORS, draw_sides

BOX_COLOR = (255, 255, 255)
# A hue for each kind of part, a light and a dark tone for left and right; (fill colour, words of the legend).
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
  """Draws a row an identity: their pictures side by side, then what can be said about them.

  Args:
    pictures: N lists of C pictures [H, W, 3] uint8, all of one size. titles: N short texts. texts: N lists of
      sentences. columns: C words, written above. text_width: pixels.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if a text is higher than its pictures.
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
        f"{title}: {text.shape[0]} pixels of text beside pictures {height} high: widen text_width"
      )
    beside = canvas.blank(height, text_width)
    beside[: text.shape[0]] = text
    rows.append(_side_by_side([*row, beside], [_GAP] * (len(row) - 1) + [_GROUP_GAP]))
  return canvas.frame(canvas.stack(rows, _ROW_GAP), _MARGIN)


def truth_sheet(records, part_names, *, columns=3):
  """Draws each record three times: as it is, with joints and box, and with the parts of the body.

  The colours of left and right, and what marks a hidden joint, are those of `viz.pose.draw_sides`.

  Args:
    records: dicts of `synthetic.draw.draw_person`, pictures of one size.
    part_names: names of the values in `parts` of a record.
    columns: records in a row.
  Returns:
    [h, w, 3] uint8.
  """
  groups = [
    _side_by_side(
      [record["image"], draw_truth(record), draw_parts(record["image"], record["parts"], part_names)],
      [_GAP] * 2,
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
  """Draws a record's box and joints onto its picture; [H, W, 3] uint8, a new picture."""
  picture = np.ascontiguousarray(record["image"]).copy()
  left, top, right, bottom = np.round(record["box"]).astype(int).tolist()
  for color, thickness in (((0, 0, 0), 3), (BOX_COLOR, 1)):
    cv2.rectangle(picture, (left, top), (right, bottom), color, thickness)
  return draw_sides(
    picture, record["keypoints_xy"], record["keypoints_visible"], record["keypoints_occluded"], COCO17
  )


def draw_parts(image, parts, part_names):
  """Tints a picture by the parts of the body; the background stays, paler.

  Args:
    image: [H, W, 3] uint8.
    parts: [H, W] uint8, index into `part_names`; 0 is the background.
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


def _side_by_side(pictures, gaps):
  """Puts pictures of one height next to each other, with white gaps of so many pixels between them."""
  height = pictures[0].shape[0]
  parts = [pictures[0]]
  for gap, picture in zip(gaps, pictures[1:], strict=True):
    parts += [canvas.blank(height, gap), picture]
  return np.concatenate(parts, axis=1)
