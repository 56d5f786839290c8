"""What a person looks like: skin, hair and face, clothes, shoes, hats, glasses and bags, as named choices."""

import dataclasses

import numpy as np

COLOURS = {
  "black": (32, 32, 36),
  "white": (226, 226, 222),
  "grey": (128, 130, 134),
  "navy": (36, 46, 82),
  "blue": (48, 88, 168),
  "light blue": (140, 178, 214),
  "red": (176, 38, 42),
  "burgundy": (98, 30, 44),
  "green": (46, 110, 66),
  "olive": (96, 98, 58),
  "beige": (200, 180, 148),
  "brown": (104, 72, 50),
  "yellow": (222, 186, 60),
  "orange": (214, 112, 46),
  "pink": (222, 142, 164),
  "purple": (104, 66, 132),
  "teal": (40, 124, 130),
}
SKIN_TONES = ((236, 200, 176), (222, 178, 148), (196, 148, 114), (150, 104, 76), (104, 70, 52))
HAIR_COLOURS = {
  "black": (30, 26, 26),
  "dark brown": (58, 42, 34),
  "brown": (96, 68, 46),
  "blond": (188, 152, 98),
  "red": (136, 70, 40),
  "grey": (154, 152, 150),
}
PATTERNS = ("plain", "stripes", "bars", "plaid", "logo", "splice")


@dataclasses.dataclass(frozen=True)
class Appearance:
  """One person's looks and belongings: the same over cameras and days.

  Colour fields hold names (keys of COLOURS or HAIR_COLOURS); `tones` holds the exact RGB behind them.

  Attributes:
    is_female: bool. age: "child", "adult" or "senior".
    skin: RGB.
    hair: "bald", "short", "medium", "long", "bun" or "ponytail"; hair_colour: name.
    has_beard, has_glasses: bool. hat: "none", "cap", "beanie" or "brim"; hat_colour: name.
    top: "shirt", "jacket" or "coat"; sleeve: "short" or "long"; pattern: one of PATTERNS.
    bottom: "trousers", "shorts", "skirt" or "dress"; fit: slack of the trousers, 0 (tight) to 1 (wide).
    shoes: "shoes", "trainers" or "boots".
    backpack, shoulder_bag, hand_bag: bool.
    tones: colour role -> RGB float.
  """

  is_female: bool
  age: str
  skin: tuple[float, float, float]
  hair: str
  hair_colour: str
  has_beard: bool
  has_glasses: bool
  hat: str
  hat_colour: str
  top: str
  sleeve: str
  pattern: str
  top_colour: str
  second_colour: str
  inner_colour: str
  bottom: str
  bottom_length: float
  bottom_colour: str
  fit: float
  shoes: str
  shoe_colour: str
  backpack: bool
  shoulder_bag: bool
  hand_bag: bool
  bag_colour: str
  tones: dict[str, np.ndarray]


def _choose(rng, weights):
  """Draws a key of a dict of relative weights."""
  total = np.cumsum(list(weights.values()))
  return list(weights)[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


_TOP_COLOURS = dict(
  zip(COLOURS, (18, 14, 12, 7, 7, 6, 6, 3, 4, 3, 4, 3, 3, 2, 4, 2, 2), strict=True)
)
_BOTTOM_COLOURS = {"black": 32, "navy": 20, "blue": 16, "grey": 12, "beige": 8, "brown": 5, "olive": 4, "white": 3, "light blue": 4}
_SKIRT_COLOURS = {"black": 24, "navy": 10, "red": 8, "white": 9, "pink": 8, "blue": 8, "beige": 7, "grey": 7, "green": 5, "yellow": 4, "burgundy": 5, "purple": 5}
_SHOE_COLOURS = {"black": 40, "white": 22, "brown": 16, "grey": 10, "navy": 5, "red": 4, "beige": 3}
_BAG_COLOURS = {"black": 34, "brown": 14, "navy": 10, "grey": 10, "red": 9, "beige": 7, "blue": 7, "green": 5, "pink": 4}


def _sample_hair(rng, is_female, age):
  if is_female:
    style = _choose(rng, {"short": 12, "medium": 26, "long": 36, "ponytail": 16, "bun": 10})
  else:
    style = _choose(rng, {"bald": 9 if age != "child" else 0, "short": 76, "medium": 13, "long": 2})
  if age == "senior":
    return style, "grey" if rng.random() < 0.75 else "dark brown"
  return style, _choose(rng, {"black": 40, "dark brown": 26, "brown": 16, "blond": 12, "red": 3, "grey": 3})


def sample_appearance(rng):
  """Draws who someone is and what they wear; rates follow street pictures of attribute data sets in kind."""
  is_female = bool(rng.random() < 0.46)
  age = _choose(rng, {"child": 6, "adult": 83, "senior": 11})
  hair, hair_colour = _sample_hair(rng, is_female, age)
  top = _choose(rng, {"shirt": 64, "jacket": 24, "coat": 12})
  sleeve = "long" if top != "shirt" or rng.random() < 0.35 else "short"
  pattern = _choose(rng, {"plain": 58, "stripes": 12, "bars": 4, "plaid": 7, "logo": 12, "splice": 7})
  if top != "shirt" and pattern in ("stripes", "bars"):
    pattern = "plain"
  if is_female:
    bottom = _choose(rng, {"trousers": 64, "shorts": 12, "skirt": 14, "dress": 10})
  else:
    bottom = _choose(rng, {"trousers": 79, "shorts": 21})
  if top == "coat" and bottom in ("shorts", "dress"):
    bottom = "trousers"
  top_colour = _choose(rng, _TOP_COLOURS)
  second = _choose(rng, {name: weight for name, weight in _TOP_COLOURS.items() if name != top_colour})
  if bottom == "dress":
    bottom_colour, length = top_colour, rng.uniform(0.75, 1.35)
  else:
    bottom_colour = _choose(rng, _SKIRT_COLOURS if bottom == "skirt" else _BOTTOM_COLOURS)
    length = rng.uniform(0.6, 1.3) if bottom == "skirt" else rng.uniform(0.55, 1.05)
  names = {
    "top": top_colour,
    "second": second,
    "inner": _choose(rng, {"white": 5, "grey": 3, "black": 3, "light blue": 2, "red": 1}),
    "bottom": bottom_colour,
    "shoes": _choose(rng, _SHOE_COLOURS),
    "bag": _choose(rng, _BAG_COLOURS),
    "hat": _choose(rng, _TOP_COLOURS),
  }
  tones = {role: _vary(rng, COLOURS[name]) for role, name in names.items()}
  tones["hair"] = _vary(rng, HAIR_COLOURS[hair_colour], 5)
  skin = _vary(rng, SKIN_TONES[rng.choice(5, p=(0.22, 0.34, 0.24, 0.12, 0.08))], 5)
  tones["skin"] = skin
  return Appearance(
    is_female=is_female,
    age=age,
    skin=tuple(skin),
    hair=hair,
    hair_colour=hair_colour,
    has_beard=bool(not is_female and age != "child" and rng.random() < 0.2),
    has_glasses=bool(rng.random() < 0.17),
    hat=_choose(rng, {"none": 86, "cap": 7, "beanie": 4, "brim": 3}),
    hat_colour=names["hat"],
    top=top,
    sleeve=sleeve,
    pattern=pattern,
    top_colour=top_colour,
    second_colour=second,
    inner_colour=names["inner"],
    bottom=bottom,
    bottom_length=float(length),
    bottom_colour=bottom_colour,
    fit=float(rng.beta(1.6, 2.4)),
    shoes=_choose(rng, {"shoes": 46, "trainers": 42, "boots": 12}),
    shoe_colour=names["shoes"],
    backpack=bool(rng.random() < 0.2),
    shoulder_bag=bool(rng.random() < 0.15),
    hand_bag=bool(rng.random() < (0.16 if is_female else 0.06)),
    bag_colour=names["bag"],
    tones=tones,
  )


def _vary(rng, colour, spread=7.0):
  """A colour near a named one: brightness and hue vary a little from cloth to cloth."""
  value = np.array(colour, np.float64) * rng.normal(1.0, 0.08) + rng.normal(0.0, spread, 3)
  return np.clip(value, 8, 245)
