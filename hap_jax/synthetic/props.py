"""Paints objects into the wide pictures of `background`: trees, cars, benches, bicycles and others."""

import cv2
import numpy as np

PIXELS_PER_METRE = 64
HEIGHT, WIDTH = 544, 1280  # pixels of the wide picture
WALL_BASE = 300  # row of the wide picture at which the ground meets the wall

STONE = ((150, 146, 140), (122, 120, 118), (176, 166, 150), (104, 100, 98), (160, 150, 150), (190, 186, 178))
WALLS = (
  (168, 120, 96),
  (184, 172, 150),
  (142, 146, 150),
  (200, 196, 188),
  (120, 92, 80),
  (156, 164, 156),
  (92, 98, 108),
)
PAINTS = (
  (176, 40, 44),
  (40, 70, 130),
  (36, 36, 40),
  (214, 212, 206),
  (130, 134, 140),
  (40, 96, 70),
  (206, 170, 60),
  (90, 30, 40),
)
_METALS = ((70, 72, 76), (46, 48, 50), (110, 112, 116), (40, 80, 60), (150, 150, 146))
_WOODS = ((128, 96, 64), (110, 112, 116), (150, 120, 84))


def tint(rng, colours, spread=10):
  """Chooses one of several colours at random and varies it a little. Returns [3] float."""
  return np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, spread, 3), 10, 245)


def shade(colour, factor=1.0):
  """Returns a lighter or darker colour as a tuple, because OpenCV requires tuples."""
  return tuple(float(value) for value in np.clip(np.asarray(colour) * factor, 0, 255))


def fill_box(picture, left, top, right, bottom, colour):
  """Fills a rectangle. It includes the pixels of both corners."""
  cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)), shade(colour), -1, cv2.LINE_AA)


def paint_foliage(picture, rng, top, bottom, left, right, is_crown=True):
  """Paints leaves as soft spots in shades of one green.

  Args:
    picture: [HEIGHT, WIDTH, 3] uint8, changed in place.
    rng: numpy Generator.
    top: row in pixels. It may be outside the picture, as may the other three.
    bottom: row in pixels.
    left: column in pixels.
    right: column in pixels.
    is_crown: True: the round crown of a tree. False: a hedge with an uneven upper edge.
  """
  top, bottom, left, right = int(top), int(bottom), int(left), int(right)
  shape = (bottom - top, right - left)
  coarse, fine = (
    cv2.resize(
      rng.random((max(shape[0] // step, 2), max(shape[1] // step, 2)), dtype=np.float32),
      shape[::-1],
      interpolation=how,
    )
    for step, how in ((38, cv2.INTER_CUBIC), (7, cv2.INTER_LINEAR))
  )
  # `edge` grows towards the border of the leaves. `cover` is the opacity of each pixel.
  rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
  columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
  edge = rows**2 + columns**2 if is_crown else (0.5 - 0.5 * rows) ** 4 + 0 * columns
  cover = np.clip((0.35 + 0.7 * coarse + 0.3 * fine - edge * 1.1) * 6, 0, 1)[..., None]
  green = tint(rng, ((66, 98, 46), (88, 112, 60), (52, 80, 50), (110, 120, 56)), 6)
  # The sky lights the upper leaves.
  light = np.linspace(1.15, 0.7, shape[0], dtype=np.float32)[:, None]
  leaves = green * ((0.35 + 0.5 * coarse + 0.6 * fine) * light)[..., None]
  inside = np.s_[max(-top, 0) : HEIGHT - top, max(-left, 0) : WIDTH - left]
  area = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
  cover, leaves = cover[inside], leaves[inside]
  area[:] = np.clip(area * (1 - cover) + leaves * cover, 0, 255).astype(np.uint8)


def paint_tree(picture, rng, x):
  """Paints a tree: a trunk and its crown."""
  base = WALL_BASE + rng.uniform(0, 40)
  width = rng.uniform(9, 24)
  bark = tint(rng, ((84, 68, 54), (104, 94, 84), (60, 50, 44)), 6)
  fill_box(picture, x - width / 2, 0, x + width / 2, base, bark)
  fill_box(picture, x + width * 0.1, 0, x + width / 2, base, shade(bark, 0.7))
  reach = rng.uniform(90, 200)
  paint_foliage(picture, rng, -80, WALL_BASE - rng.uniform(80, 150), x - reach, x + reach)


def paint_car(picture, rng, x):
  """Paints a parked car from the side."""
  paint = tint(rng, PAINTS)
  base = WALL_BASE + rng.uniform(10, 60)
  scale = rng.uniform(0.9, 1.25)

  # Points of the car are relative to its lower left corner, in pixels at scale 1.
  def at(points):
    return np.rint(np.array(points) * scale + (x, base)).astype(np.int32)

  body = at(
    ((0, -25), (0, -48), (18, -55), (60, -60), (90, -92), (190, -94), (228, -62), (268, -56), (272, -25))
  )
  glass = at(((70, -61), (94, -87), (186, -89), (216, -62)))
  sill = at(((0, -25), (0, -38), (271, -38), (272, -25)))
  # The shadow below the car is painted first. The glass and the wheels cover the body.
  ground = (int(x + 136 * scale), int(base)), (int(140 * scale), 8)
  cv2.ellipse(picture, *ground, 0, 0, 360, (40, 40, 42), -1, cv2.LINE_AA)
  cv2.fillPoly(picture, [body], shade(paint), cv2.LINE_AA)
  cv2.fillPoly(picture, [sill], shade(paint, 0.7), cv2.LINE_AA)
  cv2.fillPoly(picture, [glass], (66, 76, 86), cv2.LINE_AA)
  cv2.line(
    picture,
    *(tuple(int(v) for v in p) for p in at(np.array(((140, -89), (142, -61))))),
    shade(paint),
    5,
    cv2.LINE_AA,
  )
  for wheel in (52, 216):
    center = tuple(int(value) for value in at(np.array((wheel, -22))))
    cv2.circle(picture, center, int(22 * scale), (28, 28, 30), -1, cv2.LINE_AA)
    cv2.circle(picture, center, int(11 * scale), (140, 142, 146), -1, cv2.LINE_AA)


def paint_furniture(picture, rng, count):
  """Paints `count` random objects along the wall and in front of it, such as posts, bins and benches."""
  pieces = (_post, _bin, _bench, _notice, _bicycle, _railing, _planter)
  for _ in range(count):
    x, base = rng.uniform(0, WIDTH), WALL_BASE + rng.uniform(0, 75)
    pieces[rng.integers(len(pieces))](picture, rng, x, base)


def _post(picture, rng, x, base):
  colour = tint(rng, _METALS, 5)
  wide = rng.uniform(5, 13)
  fill_box(picture, x, 0, x + wide, base, colour)
  fill_box(picture, x + wide * 0.6, 0, x + wide, base, shade(colour, 0.7))


def _bin(picture, rng, x, base):
  colour = tint(rng, _METALS, 8)
  wide, high = rng.uniform(26, 60), rng.uniform(44, 84)
  fill_box(picture, x, base - high, x + wide, base, colour)
  fill_box(picture, x + wide * 0.7, base - high, x + wide, base, shade(colour, 0.65))
  fill_box(picture, x, base - high, x + wide, base - high + 7, shade(colour, 1.3))


def _bench(picture, rng, x, base):
  colour = tint(rng, _WOODS, 6)
  for high in (62, 53, 34):
    fill_box(picture, x, base - high, x + 130, base - high + 7, colour)
  for leg in (8, 112):
    fill_box(picture, x + leg, base - 60, x + leg + 7, base, (60, 60, 62))


def _notice(picture, rng, x, _):
  top = WALL_BASE - rng.uniform(110, 180)
  wide, high = rng.uniform(34, 80), rng.uniform(44, 96)
  fill_box(picture, x - 3, top - 3, x + wide + 3, top + high + 3, tint(rng, _METALS, 5))
  fill_box(picture, x, top, x + wide, top + high, tint(rng, PAINTS + WALLS))
  fill_box(picture, x + 6, top + 6, x + wide - 6, top + high * 0.45, tint(rng, WALLS + PAINTS))
  for row in range(3):
    fill_box(
      picture,
      x + 6,
      top + high * (0.55 + 0.13 * row),
      x + wide * 0.8,
      top + high * (0.59 + 0.13 * row),
      (70, 70, 72),
    )


def _bicycle(picture, rng, x, base):
  colour = shade(tint(rng, PAINTS))
  points = np.array(((0, -22), (66, -22), (20, -56), (56, -58), (34, -24), (62, -70), (16, -64)))
  at = [tuple(int(value) for value in point) for point in points + np.array((x, base))]
  for wheel in at[:2]:
    cv2.circle(picture, wheel, 21, (34, 34, 36), 3, cv2.LINE_AA)
  for start, end in ((0, 2), (2, 4), (4, 3), (2, 3), (0, 4), (1, 3), (3, 5), (2, 6)):
    cv2.line(picture, at[start], at[end], colour, 3, cv2.LINE_AA)


def _railing(picture, rng, x, base):
  colour = shade(tint(rng, _METALS, 5))
  wide = rng.uniform(120, 320)
  for high in (66, 12):
    fill_box(picture, x, base - high, x + wide, base - high + 4, colour)
  for bar in np.arange(x, x + wide, rng.uniform(9, 26)):
    fill_box(picture, bar, base - 66, bar + 2, base, colour)


def _planter(picture, rng, x, base):
  colour = tint(rng, STONE + _WOODS, 6)
  paint_foliage(picture, rng, base - rng.uniform(70, 120), base - 26, x - 12, x + 92)
  fill_box(picture, x, base - 36, x + 80, base, colour)
  fill_box(picture, x + 60, base - 36, x + 80, base, shade(colour, 0.7))
