"""Text of any kind can be drawn."""

import os

import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.viz import attributes, canvas, curves, pose_report, ranks

# File names and titles come from the user, so every text of an operating system may occur.
NAMES = {
  "not UTF-8": os.fsdecode(b"caf\xe9.jpg"),
  "bytes of a character beyond 16 bits": os.fsdecode(b"\xf0\x9f\x98"),
  "other surrogates": "\ud800x\udfff",
  "zero byte": "a\0b",
  "control characters": "a\nb\tc\x1b[2J\x7f\x85",
  "long": "x" * 4096,
  "other scripts": "日本語 שלום مرحبا नमस्ते e\u0301\u202e \U0001f600",
  "empty": "",
}


def plain():
  return np.full((40, 20, 3), 90, np.uint8)


def _person(name):
  joints = np.full((17, 2), 9.0)
  return pose_report.ShownPerson(
    plain(), (10, 20, 20, 40), joints, np.ones(17, bool), joints, title="OKS 0.5", name=name
  )


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_of_any_kind_can_be_drawn_on_every_sheet(kind):
  name = NAMES[kind]
  sheets = [
    ranks.rank_sheet(
      [plain()], [[plain()]], [[0.1]], query_labels=[name], gallery_labels=[[name]], title=name
    ),
    ranks.rank_sheet([name], [[plain()]], [[0.1]], query_labels=[name]),
    attributes.labelled_sheet([plain()], [[name]], title=name),
    attributes.attribute_bars([name[:200]], [0.7], [0.2], title=name),
    canvas.swatches([((9, 9, 9), name)], 100),
    pose_report.people_sheet([_person(name)], COCO17, title=name),
  ]
  # Dark pixels show that something is drawn.
  assert all(sheet.dtype == np.uint8 and sheet.min() < 128 for sheet in sheets)


def test_each_byte_that_is_not_utf8_becomes_a_replacement_character():
  assert canvas.drawable(os.fsdecode(b"caf\xe9\xff.jpg")) == "caf\ufffd\ufffd.jpg"
  assert canvas.drawable("a\0b\nc") == "a\ufffdb\ufffdc"
  assert canvas.drawable("café 日本 \U0001f600") == "café 日本 \U0001f600"
  drawn = []
  for text in (NAMES["not UTF-8"], "caf\ufffd.jpg"):
    drawn.append(canvas.blank(30, 90))
    canvas.write(drawn[-1], text, (2, 20), 15)
  np.testing.assert_array_equal(*drawn)


def test_a_label_too_long_for_its_picture_keeps_both_ends():
  name = "first" + "x" * 4000 + "last"
  text = canvas.shorten(name, 106, 12)
  assert text.startswith("first")
  assert text.endswith("last")
  assert canvas.text_width(text, 12) <= 106


@pytest.mark.parametrize("title", [NAMES["not UTF-8"], "a$x^{$b"])
def test_curves_can_have_the_name_of_any_workdir_as_title(title):
  rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
  assert curves.curves(rows, title=title).shape == curves.curves(rows, title="plain").shape
