"""Paints backgrounds: one wide picture per fixed camera. Each photograph shows a random section of one.

The background does not depend on the person, so a network cannot recognise a person by the background.
"""

import functools

import cv2
import numpy as np

from hap_jax.synthetic.props import (
  HEIGHT,
  PAINTS,
  PIXELS_PER_METRE,
  STONE,
  WALL_BASE,
  WALLS,
  WIDTH,
  fill_box,
  paint_car,
  paint_foliage,
  paint_furniture,
  paint_tree,
  shade,
  tint,
)

_GROUND = HEIGHT - WALL_BASE  # rows of the wide picture that show the ground


@functools.lru_cache(maxsize=32)
def wide_picture(seed, site, camera):
  """Returns the background of one fixed camera, [HEIGHT, WIDTH, 3] uint8. The array is read-only."""
  rng = np.random.default_rng((seed, site, camera, 71))
  picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  kind = ("street", "shops", "park", "hall")[rng.integers(4)]
  {"street": _street, "shops": _shops, "park": _park, "hall": _hall}[kind](picture, rng)
  # At this point the picture has only flat colours. Photographs have uneven light and fine grain.
  light = cv2.resize(
    rng.normal(1.0, 0.10, (5, 12)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
  )
  grain = cv2.resize(rng.normal(0.0, 3.0, (HEIGHT // 2, WIDTH // 2)).astype(np.float32), (WIDTH, HEIGHT))
  # The lens is focused on the people, so the background is blurred.
  picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.0, 4.5))
  # Little light reaches the foot of a wall.
  base = np.exp(-np.abs(np.arange(HEIGHT) - WALL_BASE) / 14.0).astype(np.float32)[:, None]
  light = cv2.merge([light * (1 - 0.25 * base)] * 3)
  picture = cv2.add(cv2.multiply(picture, light, dtype=cv2.CV_32F), cv2.merge([grain] * 3))
  picture = np.clip(picture, 0, 255).astype(np.uint8)
  picture.flags.writeable = False  # all callers get the same array from the cache
  return picture


@functools.lru_cache(maxsize=256)
def wall_distance(seed, site, camera):
  """Returns the distance in metres from the people to the wall behind them, for one camera."""
  return float(np.random.default_rng((seed, site, camera, 72)).uniform(2.0, 12.0))


def view(picture, size, metres_high, base_row, rng):
  """Cuts a section out of a wide picture, at a random horizontal position, and resizes it.

  Args:
    picture: [HEIGHT, WIDTH, 3] uint8.
    size: (H, W) of the result.
    metres_high: height of the section in metres, measured at the wall.
    base_row: row of the result at which the wall meets the ground, as a share of H.
    rng: numpy Generator; it chooses the horizontal position.
  Returns:
    [H, W, 3] float32 grey levels.
  """
  high = metres_high * PIXELS_PER_METRE
  wide = min(high * size[1] / size[0], WIDTH - 2)
  left = rng.uniform(0, WIDTH - wide)
  top = WALL_BASE - base_row * high
  rows, columns = _whole_pixels(top, high, HEIGHT), _whole_pixels(left, wide, WIDTH)
  shrinks = rows[1] - rows[0] > size[0]
  # INTER_AREA is the only method that does not skip pixels when it shrinks a picture.
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(picture[slice(*rows), slice(*columns)], size[::-1], interpolation=method).astype(
    np.float32
  )


def _whole_pixels(start, extent, limit):
  """Moves a span into [0, limit] and rounds it to whole pixels. Returns (first, last + 1)."""
  first = int(min(max(start, 0), limit - min(extent, limit)))
  return first, first + int(min(extent, limit - first))


def _ground(picture, rng, colour, joints):
  """Paints a floor in perspective. The joints between its slabs run to a vanishing point."""
  ramp = np.linspace(0.86, 1.08, _GROUND, dtype=np.float32)[:, None, None]
  picture[WALL_BASE:] = np.clip(np.asarray(colour, np.float32) * ramp, 0, 255)
  if not joints:
    return
  line = shade(colour, rng.uniform(0.72, 0.9))
  vanish = (rng.uniform(0.2, 0.8) * WIDTH, WALL_BASE - rng.uniform(60, 260))
  for x in np.arange(-3 * WIDTH, 4 * WIDTH, rng.uniform(60, 200)):
    cv2.line(picture, (int(x), HEIGHT + 60), (int(vanish[0]), int(vanish[1])), line, 1, cv2.LINE_AA)
  # Horizontal joints are closer together where the floor is farther away.
  for step in range(1, 12):
    y = WALL_BASE + _GROUND * (step / 11) ** 1.7
    cv2.line(picture, (0, int(y)), (WIDTH, int(y)), line, 1 + step // 6)


def _pavement(picture, rng):
  colour = tint(rng, STONE, 5)
  _ground(picture, rng, colour, joints=rng.random() < 0.7)
  # Half of the pavements have a road in front. Painted: asphalt, top and front of the kerb, lane marks.
  if rng.random() < 0.5:
    y = WALL_BASE + rng.uniform(0.15, 0.8) * _GROUND
    fill_box(picture, 0, y, WIDTH, HEIGHT, shade((84, 84, 88), rng.uniform(0.8, 1.2)))
    fill_box(picture, 0, y - 5, WIDTH, y + 3, shade(colour, 1.15))
    fill_box(picture, 0, y + 3, WIDTH, y + 9, shade(colour, 0.55))
    if rng.random() < 0.6:
      for x in np.arange(rng.uniform(0, 200), WIDTH, rng.uniform(150, 300)):
        fill_box(picture, x, y + 50, x + 90, y + 58, (214, 212, 200))


def _sky(picture, rng):
  top, low = (
    tint(rng, ((120, 160, 210), (190, 200, 210), (160, 180, 205))),
    tint(rng, ((215, 222, 228), (230, 225, 215))),
  )
  ramp = np.linspace(0, 1, WALL_BASE, dtype=np.float32)[:, None, None]
  picture[:WALL_BASE] = np.clip(top * (1 - ramp) + low * ramp, 0, 255)


def _windows(picture, rng, left, right):
  """Paints rows of windows on the wall between two columns."""
  glass = tint(rng, ((60, 72, 84), (90, 104, 116), (40, 44, 50), (150, 168, 180)))
  frame = tint(rng, ((220, 218, 210), (60, 60, 62), (130, 110, 90)))
  wide, high = rng.uniform(50, 110), rng.uniform(60, 130)
  sill = WALL_BASE - rng.uniform(20, 90)
  for x in np.arange(left + 20, right - wide, wide * rng.uniform(1.25, 2.0)):
    for y in np.arange(sill - high, -high, -high * 1.5):
      fill_box(picture, x - 4, y - 4, x + wide + 4, y + high + 4, frame)
      fill_box(picture, x, y, x + wide, y + high, shade(glass, rng.uniform(0.75, 1.25)))
      # A bright diagonal looks like a reflection.
      cv2.line(
        picture, (int(x), int(y + high)), (int(x + wide * 0.6), int(y)), shade(glass, 1.35), 6, cv2.LINE_AA
      )
      fill_box(picture, x + wide / 2 - 2, y, x + wide / 2 + 2, y + high, frame)


def _facade(picture, rng):
  """Paints a row of houses."""
  left = -rng.uniform(0, 300)
  while left < WIDTH:
    right = left + rng.uniform(260, 620)
    wall = tint(rng, WALLS)
    fill_box(picture, left, 0, right, WALL_BASE, wall)
    if rng.random() < 0.4:
      for y in range(4, WALL_BASE, 9):
        fill_box(picture, left, y, right, y, shade(wall, 0.9))
    fill_box(picture, left, WALL_BASE - rng.uniform(14, 40), right, WALL_BASE, shade(wall, 0.7))
    _windows(picture, rng, max(left, 0), right)
    # A door: the frame, the door leaf, and a glass pane in the leaf.
    if rng.random() < 0.7:
      x = rng.uniform(left + 20, right - 90)
      fill_box(picture, x - 5, WALL_BASE - 145, x + 67, WALL_BASE, shade(wall, 0.6))
      fill_box(picture, x, WALL_BASE - 140, x + 62, WALL_BASE, tint(rng, PAINTS))
      fill_box(picture, x + 8, WALL_BASE - 130, x + 54, WALL_BASE - 75, (70, 80, 90))
    left = right


def _wear(picture, rng):
  """Paints stains on the ground. In half of the pictures, also paints the spotted shade of a tree."""
  area = picture[WALL_BASE:]
  for _ in range(rng.integers(6, 20)):
    center = (int(rng.uniform(0, WIDTH)), int(rng.uniform(10, _GROUND)))
    axes = (int(rng.uniform(6, 60)), int(rng.uniform(2, 10)))
    colour = shade(area[center[1] - 1, center[0]], rng.choice((0.72, 0.85, 1.15)))
    cv2.ellipse(area, center, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
  if rng.random() < 0.5:
    leaves = cv2.resize(
      rng.random((16, 40), dtype=np.float32), (WIDTH, _GROUND), interpolation=cv2.INTER_CUBIC
    )
    broken = 1 - 0.24 * np.clip((leaves - 0.5) * 4, 0, 1)[..., None]
    area[:] = (area * broken).astype(np.uint8)


def _street(picture, rng):
  _pavement(picture, rng)
  _wear(picture, rng)
  _sky(picture, rng)
  _facade(picture, rng)
  for _ in range(rng.integers(0, 4)):
    paint_tree(picture, rng, rng.uniform(0, WIDTH))
  for _ in range(rng.integers(0, 4)):
    paint_car(picture, rng, rng.uniform(-100, WIDTH))
  paint_furniture(picture, rng, rng.integers(8, 18))


def _shops(picture, rng):
  """Paints a row of shop windows with signs. The inside of a shop is dark or lit."""
  _ground(picture, rng, tint(rng, STONE, 5), joints=True)
  _wear(picture, rng)
  left = -rng.uniform(0, 200)
  while left < WIDTH:
    right = left + rng.uniform(180, 420)
    wall = tint(rng, WALLS)
    fill_box(picture, left, 0, right, WALL_BASE, wall)
    fill_box(picture, left, WALL_BASE - 215, right, WALL_BASE - 178, tint(rng, PAINTS))
    inside = tint(rng, ((62, 60, 58), (210, 196, 160), (150, 150, 150), (40, 46, 54)))
    fill_box(picture, left + 14, WALL_BASE - 170, right - 14, WALL_BASE - 18, inside)
    for _ in range(rng.integers(2, 8)):
      x, high = rng.uniform(left + 20, right - 60), rng.uniform(20, 110)
      fill_box(
        picture,
        x,
        WALL_BASE - 22 - high,
        x + rng.uniform(14, 50),
        WALL_BASE - 22,
        tint(rng, PAINTS + WALLS),
      )
    for x in np.arange(left + 14, right, rng.uniform(60, 130)):
      fill_box(picture, x, WALL_BASE - 170, x + 5, WALL_BASE - 18, shade(wall, 0.6))
    left = right
  paint_furniture(picture, rng, rng.integers(6, 14))


def _park(picture, rng):
  """Paints grass or a path, hedges and trees."""
  _ground(
    picture, rng, tint(rng, ((96, 118, 62), (120, 126, 78), (150, 140, 118), (128, 126, 122))), joints=False
  )
  _sky(picture, rng)
  _wear(picture, rng)
  # Distant trees look like one closed wall of leaves.
  for left in np.arange(-100, WIDTH, 130):
    paint_foliage(
      picture, rng, WALL_BASE - rng.uniform(160, 360), WALL_BASE + 20, left, left + rng.uniform(260, 420)
    )
  if rng.random() < 0.6:
    paint_foliage(
      picture, rng, WALL_BASE - rng.uniform(50, 110), WALL_BASE + 14, -60, WIDTH + 60, is_crown=False
    )
  for _ in range(rng.integers(3, 8)):
    paint_tree(picture, rng, rng.uniform(0, WIDTH))
  if rng.random() < 0.7:
    y = WALL_BASE + rng.uniform(0.2, 0.6) * _GROUND
    fill_box(picture, 0, y, WIDTH, HEIGHT, tint(rng, ((176, 164, 140), (140, 138, 134), (120, 118, 116)), 5))
    _wear(picture, rng)
  paint_furniture(picture, rng, rng.integers(5, 12))


def _hall(picture, rng):
  """Paints a hall: a wall with panels, pillars, and a floor that reflects them."""
  floor = tint(rng, ((196, 190, 180), (150, 148, 146), (120, 112, 104), (210, 206, 200)))
  _ground(picture, rng, floor, joints=True)
  wall = tint(rng, ((206, 200, 190), (176, 180, 184), (150, 140, 128), (220, 216, 210)))
  fill_box(picture, 0, 0, WIDTH, WALL_BASE, wall)
  step = rng.uniform(70, 220)
  for x in np.arange(rng.uniform(0, step), WIDTH, step):
    cv2.line(picture, (int(x), 0), (int(x), WALL_BASE), shade(wall, 0.8), 2)
  fill_box(picture, 0, WALL_BASE - 12, WIDTH, WALL_BASE, shade(wall, 0.6))
  for _ in range(rng.integers(2, 7)):
    x, wide = rng.uniform(0, WIDTH), rng.uniform(60, 220)
    colour = tint(rng, PAINTS + WALLS)
    fill_box(picture, x, WALL_BASE - rng.uniform(110, 200), x + wide, WALL_BASE - rng.choice((0, 40)), colour)
    fill_box(
      picture, x + 8, WALL_BASE - 105, x + wide - 8, WALL_BASE - 60, shade(colour, rng.uniform(0.6, 1.5))
    )
  for x in np.arange(rng.uniform(0, 400), WIDTH, rng.uniform(300, 500)):
    pillar = tint(rng, STONE, 5)
    fill_box(picture, x, 0, x + 60, WALL_BASE + 26, pillar)
    fill_box(picture, x + 38, 0, x + 60, WALL_BASE + 26, shade(pillar, 0.75))
  # The floor is polished, so it shows a blurred mirror image of the wall.
  shine = cv2.GaussianBlur(cv2.flip(picture[WALL_BASE - _GROUND : WALL_BASE], 0), (0, 0), 9)
  picture[WALL_BASE:] = cv2.addWeighted(picture[WALL_BASE:], 0.8, shine, 0.2, 0)
  paint_furniture(picture, rng, rng.integers(5, 12))
