"""Paints textures: one small picture per kind of surface of a person, joined into an atlas."""

import cv2
import numpy as np

from hap_jax.synthetic.figure import TILE_INDEX, TILES

SIZE = 64
_FRONT = SIZE // 4  # column at the front of trunk and head
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE]
_FROM_FRONT = np.abs(
  (_COLUMNS - _FRONT + SIZE // 2) % SIZE - SIZE // 2
)  # distance from the front in columns: 0 at the front, 32 at the back
# One fixed picture of soft wrinkles with three equal channels. Each garment uses a random section of it.
_WRINKLES = cv2.merge(
  [
    1
    + 0.06
    * cv2.resize(
      np.random.default_rng(41).standard_normal((48, 20), dtype=np.float32),
      (256, 256),
      interpolation=cv2.INTER_CUBIC,
    )
  ]
  * 3
)


# Surfaces that have a picture. Every other surface has a single colour, stored as a single texel.
_PICTURES = ("head", "top", "sleeve", "bottom", "shoe", "bag", "hair")
_WRINKLED = ("top", "sleeve", "bottom", "bag")
_TEXELS = len(_PICTURES) * SIZE * SIZE + len(TILES) - len(_PICTURES)


def _first_texels():
  plain = [name for name in TILES if name not in _PICTURES]
  first = {name: k * SIZE * SIZE for k, name in enumerate(_PICTURES)}
  first |= {name: len(_PICTURES) * SIZE * SIZE + k for k, name in enumerate(plain)}
  return np.array([first[name] for name in TILES])


_FIRST_TEXEL = _first_texels()
THING_TEXEL = _FIRST_TEXEL[TILE_INDEX["thing"]]
_SIDE = np.array([SIZE if name in _PICTURES else 0 for name in TILES])


def find_tile(tile):
  """Finds the positions of tiles in several concatenated atlases.

  Args:
    tile: [Q] int. `k * len(TILES) + t` is tile t of atlas k.
  Returns:
    (first, side). first: [Q] int, index of the first texel of the tile. side: [Q] int, SIZE for a picture of
    SIZE x SIZE texels, or 0 for a single texel.
  """
  rank = tile // len(TILES)
  tile = tile - rank * len(TILES)
  return _FIRST_TEXEL[tile] + rank * _TEXELS, _SIDE[tile]


def sample_wear(rng):
  """Draws the random properties of textures that are not in an Appearance.

  Returns:
    (colour, places). colour: [3] float, colour of the carried object. places: [4, 2] int, for each surface
    with wrinkles the first (row, column) of its section in the picture of wrinkles.
  """
  return sample_thing_colour(rng), np.stack([rng.integers(0, 256 - SIZE, 2) for _ in _WRINKLED])


def paint_atlas(look, wear):
  """Paints all textures of a person.

  Args:
    look: Appearance.
    wear: result of `sample_wear`.
  Returns:
    [3, N] float32, 0 to 255. `find_tile` returns the start of each tile. In a picture, the row is v and the
    column is u. Row 0 is the lower end.
  """
  tones = {role: tone.astype(np.float32) for role, tone in look.tones.items()}
  texels = np.empty((_TEXELS, 3), np.float32)
  pictures = texels[: len(_PICTURES) * SIZE * SIZE].reshape(-1, SIZE, SIZE, 3)
  picture = dict(zip(_PICTURES, pictures, strict=True))
  for tile, tone in (
    ("skin", "skin"),
    ("hat", "hat"),
    ("scarf", "scarf"),
    ("sock", "sock"),
    ("boot", "shoe"),
  ):
    texels[_FIRST_TEXEL[TILE_INDEX[tile]]] = tones[tone]
  texels[THING_TEXEL], wrinkles = wear
  _paint_head(picture["head"], look, tones)
  _paint_top(picture["top"], picture["sleeve"], look, tones)
  _paint_bottom(picture["bottom"], look, tones)
  _paint_shoe(picture["shoe"], look, tones)
  for tile in ("bag", "hair"):
    _cover(picture[tile], tones[tile])
  picture["bag"][28:31] *= 0.7
  picture["bag"][8:24, _FRONT - 7 : _FRONT + 8] *= 0.85
  picture["hair"][:, ::5] *= 0.82
  picture["hair"][:, 2::7] *= 1.2
  for tile, (row, column) in zip(_WRINKLED, wrinkles, strict=True):
    picture[tile] *= _WRINKLES[row : row + SIZE, column : column + SIZE]
  return np.ascontiguousarray(texels.T)


def sample_thing_colour(rng):
  """Draws a random colour, [3] float, for an object that is not part of an identity, such as a bench."""
  return rng.uniform(0.6, 1.3) * np.array(_THINGS[rng.integers(len(_THINGS))])


_THINGS = (
  (150, 120, 88),
  (178, 150, 112),
  (60, 62, 66),
  (120, 124, 128),
  (200, 200, 196),
  (72, 92, 70),
  (130, 60, 50),
)


def _cover(picture, tone):
  """Fills a picture with one colour. Faster than picture[:] = tone, which has a short last axis."""
  picture.reshape(SIZE, -1)[:] = np.tile(tone, SIZE)


def _paint_top(body, sleeve, look, tones):
  top, second = tones["top"], tones["second"]
  for cloth in (body, sleeve):
    _cover(cloth, top)
  if look.pattern == "stripes":
    band = (_ROWS // (3 if look.fit < 0.4 else 5)) % 2 == 0
    body[band], sleeve[band] = second, second
  elif look.pattern == "bars":
    body[(_COLUMNS // 2) % 2 == 0] = second
    sleeve[(_COLUMNS // 8) % 2 == 0] = second
  elif look.pattern == "plaid":
    rows, columns = _ROWS % 10 < 4, _COLUMNS % 8 < 3
    for cloth in (body, sleeve):
      cloth[rows | columns] = 0.5 * (top + second)
      cloth[rows & columns] = second
  elif look.pattern == "splice":
    body[_ROWS > 36] = second
    sleeve[_ROWS < 20] = second
  elif look.pattern == "logo":
    body[32:46, _FRONT - 5 : _FRONT + 6] = second
    body[36:42, _FRONT - 3 : _FRONT + 4] = top
  # Jackets and coats have an opening at the front, with darker edges and pockets.
  if look.top != "shirt":
    half_open = 3 if look.fit > 0.5 else 1
    body[:, _FRONT - half_open : _FRONT + half_open + 1] = tones["inner"] if half_open > 1 else 0.5 * top
    body[:, _FRONT - half_open - 2 : _FRONT - half_open] *= 0.72
    body[:, _FRONT + half_open + 1 : _FRONT + half_open + 3] *= 0.82
    body[14:22, [_FRONT - 9, _FRONT - 8, _FRONT + 8, _FRONT + 9]] *= 0.75
  elif look.sleeve == "long" and look.pattern in ("plain", "plaid", "bars"):
    body[:, _FRONT] *= 0.72  # a row of buttons
    body[3::9, _FRONT] = 0.6 * top + 80
  # Hems and cuffs are a little darker.
  body[:2] *= 0.8
  body[-3:] *= 0.8
  sleeve[:1] *= 0.8
  sleeve[-2:] *= 0.85


def _paint_bottom(picture, look, tones):
  _cover(picture, tones["bottom"])
  if look.bottom in ("skirt", "dress"):
    picture[:, ::6] *= 0.88  # folds
    return
  picture[:, [0, SIZE // 2]] *= 0.8  # the seams at both sides
  # Blue trousers are jeans, which fade on the thighs.
  if look.bottom_colour in ("blue", "navy", "light blue"):
    fade = np.exp(-(((_ROWS - 14) / 12.0) ** 2) - (_FROM_FRONT / 9.0) ** 2)
    picture *= 1 + 0.22 * fade[..., None].astype(np.float32)
  if look.is_tucked:
    picture[60:] = (40, 32, 28)  # a belt


def _paint_shoe(picture, look, tones):
  """Paints a shoe. The instep is at 1/4 of the columns, the sole at 3/4. Row 0 is the heel."""
  _cover(picture, tones["shoe"])
  sole = 225.0 if look.shoes == "trainers" else 36.0
  picture[:, 40:57] = sole
  if look.shoes == "trainers":
    picture[24:44:5, _FRONT - 4 : _FRONT + 5] = 235 - 0.5 * tones["shoe"]
    picture[16:34, [0, 1, 30, 31, 62, 63]] = 0.5 * tones["shoe"] + 110


_BEARD = (_ROWS < 22) & (_FROM_FRONT < 15) & ~((_ROWS > 17) & (_FROM_FRONT < 3))
# Hairline from the front of the head to the back. Angles are shares of half a turn. Heights are shares of the
# height of the head.
_HAIRLINE = (0.0, 0.3, 0.42, 0.52, 0.6, 1.0), (0.84, 0.80, 0.62, 0.55, 0.26, 0.14)
_HAIR = np.interp(_FROM_FRONT / 32, *_HAIRLINE) < _ROWS / SIZE


def _paint_head(picture, look, tones):
  """Paints face and hair on the surface of the head. Row 0 is the chin, row 63 the crown."""
  skin, hair = tones["skin"], tones["hair"]
  _cover(picture, skin)
  picture[33:41, _FRONT - 8 : _FRONT + 9] *= 0.90  # eye sockets
  picture[22:30, [_FRONT - 9, _FRONT - 8, _FRONT + 8, _FRONT + 9]] *= (1.04, 0.94, 0.92)
  if look.has_beard:
    picture[_BEARD] = 0.3 * skin + 0.7 * hair
  if look.hair != "bald":
    picture[_HAIR] = hair
  # First the mouth. Then, for each eye: the white, the iris, the upper lid and the eyebrow.
  picture[11:13, _FRONT - 3 : _FRONT + 4] = skin * (0.74, 0.52, 0.52)
  for center in (_FRONT - 5, _FRONT + 5):
    picture[36:38, center - 2 : center + 3] = 0.55 * skin + 80
    picture[36:39, center - 1 : center + 1] = (36, 28, 26)
    picture[39, center - 2 : center + 3] *= 0.6
    picture[42:44, center - 3 : center + 3] = 0.6 * hair + 0.25 * skin
  if look.has_glasses:
    frame = (28.0, 28.0, 30.0)
    for center in (_FRONT - 5, _FRONT + 5):
      cv2.rectangle(picture, (center - 4, 33), (center + 4, 40), frame, 1)
    picture[
      38, [*range(_FRONT - 16, _FRONT - 8), *range(_FRONT - 1, _FRONT + 2), *range(_FRONT + 9, _FRONT + 17)]
    ] = frame
