"""The appearance of a person as a list of choices: skin, hair, clothes, shoes, hat, glasses and bags."""

import bisect
import dataclasses
import itertools

import numpy as np

COLOURS = {
  "black": (34, 34, 38),
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
HAIR_COLOURS = {
  "black": (32, 28, 28),
  "dark brown": (58, 42, 34),
  "brown": (96, 68, 46),
  "blond": (188, 152, 98),
  "red": (136, 70, 40),
  "grey": (154, 152, 150),
}
# Relative rates of the choices below. `choose` divides them by their sum. The rates differ, because some
# colours are more common on a street than others.
_SKIN_RATES = {
  (236, 200, 176): 22,
  (222, 178, 148): 34,
  (196, 148, 114): 24,
  (150, 104, 76): 12,
  (104, 70, 52): 8,
}

# fmt: off
_TOP_RATES = {
  "black": 18, "white": 14, "grey": 12, "navy": 7, "blue": 7, "light blue": 6, "red": 6, "burgundy": 3,
  "green": 4, "olive": 3, "beige": 4, "brown": 3, "yellow": 3, "orange": 2, "pink": 4, "purple": 2, "teal": 2,
}
_TROUSER_RATES = {
  "black": 32, "navy": 20, "blue": 16, "grey": 12, "beige": 8, "brown": 5, "olive": 4, "white": 3,
  "light blue": 4,
}
_SKIRT_RATES = {
  "black": 24, "navy": 10, "red": 8, "white": 9, "pink": 8, "blue": 8, "beige": 7, "grey": 7, "green": 5,
  "yellow": 4, "burgundy": 5, "purple": 5,
}
# fmt: on
_SHOE_RATES = {"black": 40, "white": 22, "brown": 16, "grey": 10, "navy": 5, "red": 4, "beige": 3}
_BAG_RATES = {
  "black": 34,
  "brown": 14,
  "navy": 10,
  "grey": 10,
  "red": 9,
  "beige": 7,
  "blue": 7,
  "green": 5,
  "pink": 4,
}
_HAIR_RATES = {"black": 40, "dark brown": 26, "brown": 16, "blond": 12, "red": 3, "grey": 3}


@dataclasses.dataclass(frozen=True)
class Appearance:
  """Appearance and belongings of one person, the same in all pictures of the person.

  Every colour is a name: a key of COLOURS or HAIR_COLOURS.

  Attributes:
    age: "child", "adult" or "senior".
    hair: "bald", "short", "medium", "long", "bun" or "ponytail".
    hat: "none", "cap", "beanie" or "brim".
    top: "shirt", "jacket" or "coat".
    second_colour: colour of the pattern.
    pattern: "plain", "stripes", "bars", "plaid", "logo" or "splice".
    sleeve: "short" or "long".
    sleeve_length: position along the arm at which a short sleeve ends. 0 is the shoulder, 1 the elbow.
    is_tucked: True if the lower end of the shirt is inside the trousers or the skirt.
    bottom: "trousers", "shorts", "skirt" or "dress".
    bottom_length: position along the leg at which shorts, skirt or dress end. 0 is the hip, 1 the knee.
    fit: width of trousers, from 0 (tight) to 1 (wide).
    shoes: "shoes", "trainers" or "boots".
    bag_side: +1 if bags hang at the person's left, -1 if they hang at the right.
    tones: {role: [3] float RGB, 0 to 255}. A role names the object with this colour, such as "top" or "skin".
  """

  is_female: bool
  age: str
  hair: str
  hair_colour: str
  has_beard: bool
  has_glasses: bool
  hat: str
  hat_colour: str
  has_scarf: bool
  scarf_colour: str
  top: str
  top_colour: str
  second_colour: str
  pattern: str
  sleeve: str
  sleeve_length: float
  has_hood: bool
  is_tucked: bool
  bottom: str
  bottom_colour: str
  bottom_length: float
  fit: float
  shoes: str
  shoe_colour: str
  has_socks: bool
  backpack: bool
  shoulder_bag: bool
  hand_bag: bool
  suitcase: bool
  bag_side: int
  bag_colour: str
  tones: dict[str, np.ndarray]


def sample_appearance(rng):
  """Draws a random Appearance. Choices that are common on a street are more likely."""
  is_female = bool(rng.random() < 0.46)
  age = choose(rng, {"child": 6, "adult": 83, "senior": 11})
  hair, hair_colour = _sample_hair(rng, is_female, age)
  clothes = _sample_clothes(rng, is_female)
  belongings = _sample_belongings(rng, is_female, age)
  bag_colour, hat_colour, scarf_colour = (
    choose(rng, rates) for rates in (_BAG_RATES, _TOP_RATES, _SKIRT_RATES)
  )
  names = {
    "top": clothes["top_colour"],
    "second": clothes["second_colour"],
    "inner": choose(rng, {"white": 5, "grey": 3, "black": 3, "light blue": 2, "red": 1}),
    "bottom": clothes["bottom_colour"],
    "shoe": clothes["shoe_colour"],
    "bag": bag_colour,
    "hat": hat_colour,
    "scarf": scarf_colour,
    "sock": choose(rng, {"white": 6, "black": 4, "grey": 2}),
  }
  rgb = [COLOURS[name] for name in names.values()]
  rgb += [HAIR_COLOURS[hair_colour], choose(rng, _SKIN_RATES)]
  # Brightness and hue vary, because real garments with the same colour name rarely look exactly the same.
  rgb = np.array(rgb) * rng.normal(1.0, 0.08, (len(rgb), 1)) + rng.normal(0.0, 5.0, (len(rgb), 3))
  tones = dict(zip((*names, "hair", "skin"), rgb.clip(8, 245), strict=True))
  return Appearance(
    is_female=is_female,
    age=age,
    hair=hair,
    hair_colour=hair_colour,
    has_beard=bool(not is_female and age != "child" and rng.random() < 0.22),
    has_glasses=bool(rng.random() < 0.17),
    hat=choose(rng, {"none": 86, "cap": 7, "beanie": 4, "brim": 3}),
    hat_colour=hat_colour,
    has_scarf=bool(clothes["top"] != "shirt" and rng.random() < 0.22),
    scarf_colour=scarf_colour,
    bag_colour=bag_colour,
    tones=tones,
    **clothes,
    **belongings,
  )


def choose(rng, rates):
  """Draws one key of a dict {key: relative rate}."""
  # rng.choice would take several times longer for one draw from a short list.
  totals = list(itertools.accumulate(rates.values()))
  return list(rates)[bisect.bisect(totals, rng.random() * totals[-1], hi=len(totals) - 1)]


def _sample_hair(rng, is_female, age):
  if is_female:
    style = choose(rng, {"short": 12, "medium": 26, "long": 36, "ponytail": 16, "bun": 10})
  else:
    style = choose(rng, {"bald": 9 if age != "child" else 0, "short": 78, "medium": 11, "long": 2})
  # Most old people have grey hair.
  if age == "senior":
    return style, choose(rng, {"grey": 75, "dark brown": 25})
  return style, choose(rng, _HAIR_RATES)


def _sample_clothes(rng, is_female):
  top = choose(rng, {"shirt": 64, "jacket": 24, "coat": 12})
  # Jackets and coats have no short sleeves.
  sleeve = "long" if top != "shirt" else choose(rng, {"short": 65, "long": 35})
  if top == "shirt":
    pattern = choose(rng, {"plain": 55, "stripes": 13, "bars": 4, "plaid": 8, "logo": 13, "splice": 7})
  else:
    pattern = choose(rng, {"plain": 84, "plaid": 4, "logo": 4, "splice": 8})
  bottoms = (
    {"trousers": 64, "shorts": 12, "skirt": 14, "dress": 10} if is_female else {"trousers": 79, "shorts": 21}
  )
  # A coat with shorts would look odd, and a dress would replace the coat. So with a coat, the person wears
  # trousers or a skirt.
  if top == "coat":
    bottoms = {"trousers": 85, "skirt": 15 if is_female else 0}
  bottom = choose(rng, bottoms)
  top_colour = choose(rng, _TOP_RATES)
  # A dress is drawn as a shirt with a skirt of the same cloth.
  if bottom == "dress":
    top_colour = choose(rng, _SKIRT_RATES)
  # The second colour differs from the colour of the cloth. Otherwise the pattern would be invisible.
  second = choose(rng, {name: rate for name, rate in _TOP_RATES.items() if name != top_colour})
  bottom_colour = choose(rng, _SKIRT_RATES if bottom == "skirt" else _TROUSER_RATES)
  low, high = {"trousers": (1, 1), "shorts": (0.5, 1.05), "skirt": (0.6, 1.3), "dress": (0.7, 1.35)}[bottom]
  return {
    "top": "shirt" if bottom == "dress" else top,
    "top_colour": top_colour,
    "second_colour": second,
    "pattern": pattern,
    "sleeve": sleeve,
    # Lengths are multiples of 1/20. So many people share a table of rings, and the table is often in the
    # cache.
    "sleeve_length": int(rng.integers(8, 18)) / 20,
    "has_hood": bool(top == "jacket" and rng.random() < 0.45),
    "is_tucked": bool(
      top == "shirt" and (bottom == "skirt" or (bottom == "trousers" and rng.random() < 0.2))
    ),
    "bottom": bottom,
    "bottom_colour": top_colour if bottom == "dress" else bottom_colour,
    "bottom_length": round(rng.uniform(low, high) * 20) / 20,
    "fit": float(rng.beta(1.6, 2.4)),
    "shoes": choose(rng, {"shoes": 46, "trainers": 42, "boots": 12}),
    "shoe_colour": choose(rng, _SHOE_RATES),
    "has_socks": bool(rng.random() < 0.4),
  }


def _sample_belongings(rng, is_female, age):
  return {
    "backpack": bool(rng.random() < (0.1 if age == "senior" else 0.2)),
    "shoulder_bag": bool(rng.random() < (0.2 if is_female else 0.1)),
    "hand_bag": bool(age != "child" and rng.random() < (0.16 if is_female else 0.07)),
    "suitcase": bool(age != "child" and rng.random() < 0.04),
    "bag_side": int(rng.choice((-1, 1))),
  }
