"""Makes malformed COCO keypoint files as bytes. The same seed always gives the same files."""

import copy
import json
import random

from hap_jax.data.skeletons import COCO17

# Python's json module writes NaN and Infinity, although the JSON standard does not allow them.
VALUES = (
  None,
  True,
  "",
  "7",
  "person",
  "\0",
  "../up.jpg",
  "/dev/zero",
  "caf\udce9.jpg",
  "\ud800",
  "x" * 5_000,
  0,
  -1,
  0.5,
  1e38,
  1e39,
  -1e308,
  2**31,
  2**63,
  10**4_000,
  float("nan"),
  float("inf"),
  float("-inf"),
  [],
  [[]],
  [None] * 51,
  [1] * 51,
  [1e308] * 4,
  [float("nan")] * 4,
  {},
  {"id": 1},
)


def document():
  """Returns a well-formed document: two pictures, two categories and four annotations."""
  joints = [value for j in range(len(COCO17.joints)) for value in (10 + j, 20 + 2 * j, 2)]
  return {
    "info": {"year": 2017},
    "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    "images": [
      {"id": 1, "file_name": "one.jpg", "height": 80, "width": 60},
      {"id": 2, "file_name": "below/two.jpg", "height": 80, "width": 60},
    ],
    "annotations": [
      {
        "id": i,
        "image_id": 1 + i % 2,
        "category_id": 1,
        "bbox": [10.5, 20, 20, 40],
        "keypoints": joints,
        "num_keypoints": 17,
        "area": 640.5,
        "iscrowd": 0,
      }
      for i in range(4)
    ],
  }


def cases(count, seed):
  """Yields `count` files as bytes, most of them malformed. Equal arguments give equal files."""
  rng = random.Random(seed)
  kinds = (_change_values, _change_values, _change_values, _drop, _repeat, _cut, _flip, _nest, _replace_text)
  for number in range(count):
    yield kinds[number % len(kinds)](rng)


def _parent(content, place):
  for key in place[:-1]:
    content = content[key]
  return content


def _draw_place(rng, content):
  """Draws the place (key, key, ...) of a value inside the document."""
  place, value = (), content
  while isinstance(value, dict | list) and value and (not place or rng.random() < 0.8):
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    place, value = (*place, key), value[key]
  return place


def _draw_value(rng):
  return copy.deepcopy(rng.choice(VALUES))


def _change_values(rng):
  content = document()
  for _ in range(rng.choice((1, 1, 2, 5))):
    place = _draw_place(rng, content)
    _parent(content, place)[place[-1]] = _draw_value(rng)
  return json.dumps(content).encode()


def _drop(rng):
  content = document()
  for _ in range(rng.choice((1, 1, 3))):
    place = _draw_place(rng, content)
    del _parent(content, place)[place[-1]]
  return json.dumps(content).encode()


def _repeat(rng):
  """Repeats the elements of a list, or sets one field of all its elements to the same value."""
  content = document()
  key = rng.choice(("images", "annotations", "categories"))
  if rng.random() < 0.5:
    content[key] *= rng.choice((2, 3, 50))
  else:
    field = rng.choice(sorted(content[key][0]))
    value = _draw_value(rng)
    for entry in content[key]:
      entry[field] = value
  return json.dumps(content).encode()


def _cut(rng):
  data = json.dumps(document()).encode()
  return data[: rng.randrange(len(data))]


def _flip(rng):
  data = bytearray(json.dumps(document(), indent=rng.choice((None, 1))).encode())
  for _ in range(rng.choice((1, 2, 8))):
    data[rng.randrange(len(data))] = rng.randrange(256)
  return bytes(data)


def _nest(rng):
  """Replaces a value by deeply nested lists or objects."""
  content = document()
  place = _draw_place(rng, content)
  _parent(content, place)[place[-1]] = "HERE"
  depth = rng.choice((10, 500, 950, 2_000, 20_000, 100_000))
  opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"id":', "}]")))
  deep = opening * depth + "1" + closing * rng.choice((depth, depth, 0))
  return json.dumps(content).replace('"HERE"', deep).encode()


def _replace_text(rng):
  """Replaces a piece of the text by a piece that JSON forbids or that parsers read in different ways."""
  text = json.dumps(document())
  old = rng.choice(('"id"', "1", "[", "{", ",", '"person"', "20", ":"))
  new = rng.choice(
    (
      "-",
      "1e999",
      "-1e999",
      "NaN",
      "1" * 5_000,
      "0x10",
      "//",
      "\ufeff",
      "\\ud800",
      '"id"',
      "[" * 3_000,
      "\x00",
    )
  )
  return text.replace(old, new, rng.choice((1, 2, -1))).encode()
