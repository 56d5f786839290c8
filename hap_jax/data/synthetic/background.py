"""Places: one wide picture for each fixed camera, from which every photograph shows a random stretch.

Nothing here depends on who stands in front: what is behind a person tells nothing about them.
"""

import functools

import cv2
import numpy as np

PIXELS_PER_METRE = 64
WALL_BASE = 300        # row of the wide picture in which the ground meets what stands behind it
HEIGHT, WIDTH = 544, 1280
_GROUND = HEIGHT - WALL_BASE

_STONE = ((150, 146, 140), (122, 120, 118), (176, 166, 150), (104, 100, 98), (160, 150, 150), (190, 186, 178))
_WALLS = ((168, 120, 96), (184, 172, 150), (142, 146, 150), (200, 196, 188), (120, 92, 80), (156, 164, 156), (92, 98, 108))
_PAINTS = ((176, 40, 44), (40, 70, 130), (36, 36, 40), (214, 212, 206), (130, 134, 140), (40, 96, 70), (206, 170, 60), (90, 30, 40))


@functools.lru_cache(maxsize=32)
def wide_picture(seed, site, camera):
  """Paints the surroundings of one fixed camera; [HEIGHT, WIDTH, 3] uint8."""
  rng = np.random.default_rng((seed, site, camera, 71))
  picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
  kind = ("street", "shops", "park", "hall")[rng.integers(4)]
  {"street": _street, "shops": _shops, "park": _park, "hall": _hall}[kind](picture, rng)
  light = cv2.resize(rng.normal(1.0, 0.10, (5, 12)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
  grain = cv2.resize(rng.normal(0.0, 5.0, (HEIGHT // 2, WIDTH // 2)).astype(np.float32), (WIDTH, HEIGHT))
  shaded = picture * light[..., None] + grain[..., None]
  base = np.exp(-np.abs(np.arange(HEIGHT) - WALL_BASE) / 14.0).astype(np.float32)[:, None, None]
  shaded *= 1 - 0.25 * base
  picture = np.clip(shaded, 0, 255).astype(np.uint8)
  picture.flags.writeable = False
  return picture


def wall_distance(seed, site, camera):
  """Returns how far behind the passers-by the back of a camera's scene stands, in metres."""
  return float(np.random.default_rng((seed, site, camera, 72)).uniform(2.0, 12.0))


def view(picture, size, metres_high, base_row, rng):
  """Cuts a stretch of a wide picture.

  Args:
    picture: [HEIGHT, WIDTH, 3] uint8. size: (H, W) of the result. metres_high: height of the view where the
      wall stands. base_row: row of the result at which the wall meets the ground, as a share of H.
    rng: numpy Generator: where along the picture.
  Returns:
    [H, W, 3] float32 grey levels.
  """
  high = metres_high * PIXELS_PER_METRE
  wide = min(high * size[1] / size[0], WIDTH - 2)
  left = rng.uniform(0, WIDTH - wide)
  top = WALL_BASE - base_row * high
  rows, columns = _whole_pixels(top, high, HEIGHT), _whole_pixels(left, wide, WIDTH)
  shrinks = rows[1] - rows[0] > size[0]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(picture[slice(*rows), slice(*columns)], size[::-1], interpolation=method).astype(np.float32)


def _whole_pixels(start, extent, limit):
  """Moves a span inside [0, limit] and rounds it; (first, last + 1)."""
  first = int(min(max(start, 0), limit - min(extent, limit)))
  return first, first + int(min(extent, limit - first))


def _tint(rng, colours, spread=10):
  return np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, spread, 3), 10, 245)


def _paint(colour, factor=1.0):
  return tuple(float(value) for value in np.clip(np.asarray(colour) * factor, 0, 255))


def _box(picture, left, top, right, bottom, colour):
  cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)), _paint(colour), -1, cv2.LINE_AA)


def _ground(picture, rng, colour, joints):
  """Floor in perspective, with paving joints that run to a vanishing point."""
  shade = np.linspace(0.86, 1.08, _GROUND, dtype=np.float32)[:, None, None]
  picture[WALL_BASE:] = np.clip(np.asarray(colour, np.float32) * shade, 0, 255)
  if not joints:
    return
  line = _paint(colour, rng.uniform(0.72, 0.9))
  vanish = (rng.uniform(0.2, 0.8) * WIDTH, WALL_BASE - rng.uniform(60, 260))
  for x in np.arange(-3 * WIDTH, 4 * WIDTH, rng.uniform(60, 200)):
    cv2.line(picture, (int(x), HEIGHT + 60), (int(vanish[0]), int(vanish[1])), line, 1, cv2.LINE_AA)
  picture[:WALL_BASE] = 0
  for step in range(1, 12):
    y = WALL_BASE + _GROUND * (step / 11) ** 1.7
    cv2.line(picture, (0, int(y)), (WIDTH, int(y)), line, 1 + step // 6)


def _pavement(picture, rng):
  colour = _tint(rng, _STONE)
  _ground(picture, rng, colour, joints=rng.random() < 0.7)
  if rng.random() < 0.5:
    y = WALL_BASE + rng.uniform(0.15, 0.8) * _GROUND
    _box(picture, 0, y, WIDTH, HEIGHT, _paint((84, 84, 88), rng.uniform(0.8, 1.2)))
    _box(picture, 0, y - 5, WIDTH, y + 3, _paint(colour, 1.15))
    _box(picture, 0, y + 3, WIDTH, y + 9, _paint(colour, 0.55))
    if rng.random() < 0.6:
      for x in np.arange(rng.uniform(0, 200), WIDTH, rng.uniform(150, 300)):
        _box(picture, x, y + 50, x + 90, y + 58, (214, 212, 200))


def _sky(picture, rng):
  top, low = _tint(rng, ((120, 160, 210), (190, 200, 210), (160, 180, 205))), _tint(rng, ((215, 222, 228), (230, 225, 215)))
  ramp = np.linspace(0, 1, WALL_BASE, dtype=np.float32)[:, None, None]
  picture[:WALL_BASE] = np.clip(top * (1 - ramp) + low * ramp, 0, 255)


def _windows(picture, rng, left, right):
  """A grid of windows or one row of tall panes on a wall."""
  glass = _tint(rng, ((60, 72, 84), (90, 104, 116), (40, 44, 50), (150, 168, 180)))
  frame = _tint(rng, ((220, 218, 210), (60, 60, 62), (130, 110, 90)))
  wide, high = rng.uniform(50, 110), rng.uniform(60, 130)
  sill = WALL_BASE - rng.uniform(20, 90)
  for x in np.arange(left + 20, right - wide, wide * rng.uniform(1.25, 2.0)):
    for y in np.arange(sill - high, -high, -high * 1.5):
      _box(picture, x - 4, y - 4, x + wide + 4, y + high + 4, frame)
      _box(picture, x, y, x + wide, y + high, _paint(glass, rng.uniform(0.75, 1.25)))
      cv2.line(picture, (int(x), int(y + high)), (int(x + wide * 0.6), int(y)), _paint(glass, 1.35), 6, cv2.LINE_AA)
      _box(picture, x + wide / 2 - 2, y, x + wide / 2 + 2, y + high, frame)


def _facade(picture, rng):
  """Houses side by side."""
  left = -rng.uniform(0, 300)
  while left < WIDTH:
    right = left + rng.uniform(260, 620)
    wall = _tint(rng, _WALLS)
    _box(picture, left, 0, right, WALL_BASE, wall)
    if rng.random() < 0.4:
      for y in range(4, WALL_BASE, 9):
        _box(picture, left, y, right, y, _paint(wall, 0.9))
    _box(picture, left, WALL_BASE - rng.uniform(14, 40), right, WALL_BASE, _paint(wall, 0.7))
    _windows(picture, rng, max(left, 0), right)
    if rng.random() < 0.7:
      x = rng.uniform(left + 20, right - 90)
      _box(picture, x - 5, WALL_BASE - 145, x + 67, WALL_BASE, _paint(wall, 0.6))
      _box(picture, x, WALL_BASE - 140, x + 62, WALL_BASE, _tint(rng, _PAINTS))
      _box(picture, x + 8, WALL_BASE - 130, x + 54, WALL_BASE - 75, (70, 80, 90))
    left = right


def _foliage(picture, rng, top, bottom, left, right, thin=0.0):
  """Leaves: soft blobs of several greens over a stretch of the picture."""
  top, bottom, left, right = (int(value) for value in (max(top, 0), min(bottom, HEIGHT), max(left, 0), min(right, WIDTH)))
  if bottom - top < 4 or right - left < 4:
    return
  shape = (bottom - top, right - left)
  coarse = cv2.resize(rng.random((max(shape[0] // 40, 2), max(shape[1] // 40, 2)), dtype=np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
  fine = cv2.resize(rng.random((max(shape[0] // 7, 2), max(shape[1] // 7, 2)), dtype=np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
  rows = np.abs(np.linspace(-1, 1, shape[0], dtype=np.float32))[:, None]
  columns = np.abs(np.linspace(-1, 1, shape[1], dtype=np.float32))[None]
  cover = np.clip((0.75 + 0.6 * coarse + 0.3 * fine - thin - np.maximum(rows, columns) ** 3) * 5, 0, 1)[..., None]
  green = _tint(rng, ((66, 98, 46), (88, 112, 60), (52, 80, 50), (110, 120, 56)), 8)
  leaves = green * (0.35 + 0.5 * coarse + 0.6 * fine)[..., None]
  area = picture[top:bottom, left:right]
  area[:] = np.clip(area * (1 - cover) + leaves * cover, 0, 255).astype(np.uint8)


def _tree(picture, rng, x):
  base = WALL_BASE + rng.uniform(0, 40)
  width = rng.uniform(9, 24)
  bark = _tint(rng, ((84, 68, 54), (104, 94, 84), (60, 50, 44)), 6)
  _box(picture, x - width / 2, 0, x + width / 2, base, bark)
  _box(picture, x + width * 0.1, 0, x + width / 2, base, _paint(bark, 0.7))
  _foliage(picture, rng, -60, WALL_BASE - rng.uniform(120, 190), x - rng.uniform(80, 190), x + rng.uniform(80, 190), thin=0.1)


def _car(picture, rng, x):
  """A parked car, seen from the side."""
  paint = _tint(rng, _PAINTS)
  base = WALL_BASE + rng.uniform(10, 60)
  scale = rng.uniform(0.9, 1.25)
  body = np.array(((0, -25), (0, -48), (18, -55), (60, -60), (90, -92), (190, -94), (228, -62), (268, -56), (272, -25)))
  glass = np.array(((70, -61), (94, -87), (186, -89), (216, -62)))
  at = lambda points: np.rint(points * scale + (x, base)).astype(np.int32)  # noqa: E731
  cv2.ellipse(picture, (int(x + 136 * scale), int(base)), (int(140 * scale), 8), 0, 0, 360, (40, 40, 42), -1, cv2.LINE_AA)
  cv2.fillPoly(picture, [at(body)], _paint(paint), cv2.LINE_AA)
  cv2.fillPoly(picture, [at(np.array(((0, -25), (0, -38), (271, -38), (272, -25))))], _paint(paint, 0.7), cv2.LINE_AA)
  cv2.fillPoly(picture, [at(glass)], (66, 76, 86), cv2.LINE_AA)
  cv2.line(picture, *(tuple(int(v) for v in p) for p in at(np.array(((140, -89), (142, -61))))), _paint(paint), 5, cv2.LINE_AA)
  for wheel in (52, 216):
    center = tuple(int(value) for value in at(np.array((wheel, -22))))
    cv2.circle(picture, center, int(22 * scale), (28, 28, 30), -1, cv2.LINE_AA)
    cv2.circle(picture, center, int(11 * scale), (140, 142, 146), -1, cv2.LINE_AA)


def _furniture(picture, rng, count):
  """Lamp posts, bins, boxes, benches and notices."""
  for _ in range(count):
    x = rng.uniform(0, WIDTH)
    base = WALL_BASE + rng.uniform(0, 70)
    colour = _tint(rng, ((70, 72, 76), (46, 48, 50), (110, 112, 116), (40, 80, 60), (150, 150, 146)))
    kind = rng.integers(4)
    if kind == 0:
      _box(picture, x, 0, x + rng.uniform(5, 12), base, colour)
    elif kind == 1:
      wide, high = rng.uniform(26, 60), rng.uniform(44, 84)
      _box(picture, x, base - high, x + wide, base, colour)
      _box(picture, x + wide * 0.7, base - high, x + wide, base, _paint(colour, 0.65))
      _box(picture, x, base - high, x + wide, base - high + 7, _paint(colour, 1.3))
    elif kind == 2:
      _box(picture, x, base - 34, x + 130, base - 26, _tint(rng, ((128, 96, 64), (110, 112, 116))))
      _box(picture, x, base - 62, x + 130, base - 44, _tint(rng, ((128, 96, 64), (110, 112, 116))))
      for leg in (8, 112):
        _box(picture, x + leg, base - 26, x + leg + 7, base, (60, 60, 62))
    else:
      _box(picture, x, WALL_BASE - 150, x + 60, WALL_BASE - 60, _tint(rng, _PAINTS))
      _box(picture, x + 8, WALL_BASE - 140, x + 52, WALL_BASE - 100, _tint(rng, _WALLS))


def _street(picture, rng):
  _pavement(picture, rng)
  _sky(picture, rng)
  _facade(picture, rng)
  for _ in range(rng.integers(0, 4)):
    _tree(picture, rng, rng.uniform(0, WIDTH))
  for _ in range(rng.integers(0, 4)):
    _car(picture, rng, rng.uniform(-100, WIDTH))
  _furniture(picture, rng, rng.integers(2, 8))


def _shops(picture, rng):
  """A row of shop windows with signs, dark or lit inside."""
  _ground(picture, rng, _tint(rng, _STONE), joints=True)
  left = -rng.uniform(0, 200)
  while left < WIDTH:
    right = left + rng.uniform(180, 420)
    wall = _tint(rng, _WALLS)
    _box(picture, left, 0, right, WALL_BASE, wall)
    _box(picture, left, WALL_BASE - 215, right, WALL_BASE - 178, _tint(rng, _PAINTS))
    inside = _tint(rng, ((62, 60, 58), (210, 196, 160), (150, 150, 150), (40, 46, 54)))
    _box(picture, left + 14, WALL_BASE - 170, right - 14, WALL_BASE - 18, inside)
    for _ in range(rng.integers(2, 8)):
      x, high = rng.uniform(left + 20, right - 60), rng.uniform(20, 110)
      _box(picture, x, WALL_BASE - 22 - high, x + rng.uniform(14, 50), WALL_BASE - 22, _tint(rng, _PAINTS + _WALLS))
    for x in np.arange(left + 14, right, rng.uniform(60, 130)):
      _box(picture, x, WALL_BASE - 170, x + 5, WALL_BASE - 18, _paint(wall, 0.6))
    left = right
  _furniture(picture, rng, rng.integers(1, 6))


def _park(picture, rng):
  """Grass or a path, hedges and trees."""
  _ground(picture, rng, _tint(rng, ((96, 118, 62), (120, 126, 78), (150, 140, 118), (128, 126, 122))), joints=False)
  _sky(picture, rng)
  for left in np.arange(-100, WIDTH, 160):
    _foliage(picture, rng, WALL_BASE - rng.uniform(150, 320), WALL_BASE - 40, left, left + 330)
  if rng.random() < 0.6:
    _foliage(picture, rng, WALL_BASE - rng.uniform(50, 110), WALL_BASE + 14, -60, WIDTH + 60, thin=-0.4)
  for _ in range(rng.integers(3, 8)):
    _tree(picture, rng, rng.uniform(0, WIDTH))
  if rng.random() < 0.7:
    y = WALL_BASE + rng.uniform(0.2, 0.6) * _GROUND
    _box(picture, 0, y, WIDTH, HEIGHT, _tint(rng, ((176, 164, 140), (140, 138, 134), (120, 118, 116))))
  _furniture(picture, rng, rng.integers(0, 4))


def _hall(picture, rng):
  """Indoors: panels, pillars, lights that shine on the floor."""
  floor = _tint(rng, ((196, 190, 180), (150, 148, 146), (120, 112, 104), (210, 206, 200)))
  _ground(picture, rng, floor, joints=True)
  wall = _tint(rng, ((206, 200, 190), (176, 180, 184), (150, 140, 128), (220, 216, 210)))
  _box(picture, 0, 0, WIDTH, WALL_BASE, wall)
  step = rng.uniform(70, 220)
  for x in np.arange(rng.uniform(0, step), WIDTH, step):
    cv2.line(picture, (int(x), 0), (int(x), WALL_BASE), _paint(wall, 0.8), 2)
  _box(picture, 0, WALL_BASE - 12, WIDTH, WALL_BASE, _paint(wall, 0.6))
  for _ in range(rng.integers(2, 7)):
    x, wide = rng.uniform(0, WIDTH), rng.uniform(60, 220)
    colour = _tint(rng, _PAINTS + _WALLS)
    _box(picture, x, WALL_BASE - rng.uniform(110, 200), x + wide, WALL_BASE - rng.choice((0, 40)), colour)
    _box(picture, x + 8, WALL_BASE - 105, x + wide - 8, WALL_BASE - 60, _paint(colour, rng.uniform(0.6, 1.5)))
  for x in np.arange(rng.uniform(0, 400), WIDTH, rng.uniform(300, 500)):
    pillar = _tint(rng, _STONE)
    _box(picture, x, 0, x + 60, WALL_BASE + 26, pillar)
    _box(picture, x + 38, 0, x + 60, WALL_BASE + 26, _paint(pillar, 0.75))
  shine = cv2.GaussianBlur(cv2.flip(picture[WALL_BASE - _GROUND : WALL_BASE], 0), (0, 0), 9)
  picture[WALL_BASE:] = cv2.addWeighted(picture[WALL_BASE:], 0.8, shine, 0.2, 0)
  _furniture(picture, rng, rng.integers(0, 5))
