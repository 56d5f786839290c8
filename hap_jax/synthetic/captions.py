"""Describes a person: binary attributes, and two English texts with different wording."""

import numpy as np

# Only properties that are visible in pictures. Exported files and checkpoints depend on their order.
ATTRIBUTES = (
  *("female", "child", "senior", "long_hair", "bald", "beard", "glasses", "hat", "scarf"),
  *("short_sleeves", "jacket", "coat", "stripes", "plaid", "logo", "hood", "dark_top", "light_top"),
  *("shorts", "skirt_or_dress", "dark_bottom", "trainers", "boots"),
  *("backpack", "shoulder_bag", "hand_bag", "suitcase"),
)
# Only clearly dark and clearly light colours. All other colours are neither dark nor light.
_DARK = ("black", "navy", "burgundy", "brown")
_LIGHT = ("white", "beige", "light blue", "yellow", "pink")


def attributes_of(look):
  """Returns the attributes of an Appearance, [27] bool, in the order of ATTRIBUTES."""
  return np.array(
    (
      look.is_female,
      look.age == "child",
      look.age == "senior",
      look.hair in ("long", "ponytail"),
      look.hair == "bald",
      look.has_beard,
      look.has_glasses,
      look.hat != "none",
      look.has_scarf,
      look.sleeve == "short",
      look.top == "jacket",
      look.top == "coat",
      look.pattern in ("stripes", "bars"),
      look.pattern == "plaid",
      look.pattern == "logo",
      look.has_hood,
      look.top_colour in _DARK,
      look.top_colour in _LIGHT,
      look.bottom == "shorts",
      look.bottom in ("skirt", "dress"),
      look.bottom_colour in _DARK,
      look.shoes == "trainers",
      look.shoes == "boots",
      look.backpack,
      look.shoulder_bag,
      look.hand_bag,
      look.suitcase,
    )
  )


def captions_of(look):
  """Returns two texts (str, str) about an Appearance. They mention only properties visible in pictures."""
  return _describe_wearing(look), _describe_with(look)


def _describe_wearing(look):
  """Describes the person in this order: person, hair, clothes from top to bottom, bags."""
  # A dress is both top and bottom, so the text mentions it only once.
  clothes = [_article(_top(look)), *([_bottom(look)] if look.bottom != "dress" else []), _shoes(look)]
  extras = [_article(thing) for thing in _worn(look)]
  text = f"{_article(_who(look)).capitalize()} {_hair(look)}, wearing {_list(clothes)}."
  if extras:
    text += f" {_pronoun(look)} has {_list(extras)} on."
  carried = [_article(thing) for thing in _carried(look)]
  return text + (f" {_pronoun(look)} carries {_list(carried)}." if carried else "")


def _describe_with(look):
  """Describes the person in another order: bags, clothes (after "his" or "her"), hair."""
  things = [_article(thing) for thing in (*_carried(look), *_worn(look))]
  text = f"This {_who(look)} " + (f"is seen with {_list(things)}." if things else "has no bag and no hat.")
  possessive = "Her" if look.is_female else "His"
  text += f" {possessive} {_top(look)} " + (
    "is worn" if look.bottom == "dress" else f"goes with {_bottom(look)}"
  )
  if look.bottom == "dress":
    return f"{text} with {_shoes(look)}; {_head(look)}."
  return f"{text} and {_shoes(look)}; {_head(look)}."


def _who(look):
  noun = {"child": ("boy", "girl"), "adult": ("man", "woman"), "senior": ("elderly man", "elderly woman")}
  return noun[look.age][look.is_female]


def _pronoun(look):
  return "She" if look.is_female else "He"


_HAIR_WORDS = {
  "short": "short {} hair",
  "medium": "chin-length {} hair",
  "long": "long {} hair",
  "bun": "{} hair in a bun",
  "ponytail": "a {} ponytail",
}


def _hair(look):
  words = "a bald head" if look.hair == "bald" else _HAIR_WORDS[look.hair].format(look.hair_colour)
  return f"with {words}" + (" and a beard" if look.has_beard else "")


def _head(look):
  # Only men are bald (see `appearance`), so the text says "he".
  if look.hair == "bald":
    return "he is bald" + (" and bearded" if look.has_beard else "")
  words = {"bun": "tied up", "ponytail": "in a ponytail", "medium": "down to the chin"}.get(
    look.hair, look.hair
  )
  return f"the hair is {look.hair_colour} and {words}" + (", and there is a beard" if look.has_beard else "")


def _top(look):
  pattern = {
    "plain": "",
    "stripes": f" with {look.second_colour} stripes",
    "bars": f" with narrow {look.second_colour} bars",
    "plaid": f" with {look.second_colour} checks",
    "logo": f" with a {look.second_colour} print",
    "splice": f" with {look.second_colour} shoulders",
  }[look.pattern]
  if look.bottom == "dress":
    noun = f"{look.sleeve}-sleeved dress"
  else:
    noun = {"shirt": f"{look.sleeve}-sleeved shirt", "jacket": "jacket", "coat": "long coat"}[look.top]
  hood = "hooded " if look.has_hood else ""
  return f"{look.top_colour} {hood}{noun}{pattern}"


def _bottom(look):
  if look.bottom == "skirt":
    return f"a {look.bottom_colour} skirt"
  cut = ""
  # A fit between 0.2 and 0.6 is hard to see, so captions do not mention it.
  if look.bottom == "trousers":
    cut = "tight " if look.fit < 0.2 else "wide " if look.fit > 0.6 else ""
  return f"{cut}{look.bottom_colour} {look.bottom}"


def _shoes(look):
  return f"{look.shoe_colour} {look.shoes}"


def _worn(look):
  things = []
  if look.hat != "none":
    things.append(
      f"{look.hat_colour} " + {"cap": "cap", "beanie": "woolly hat", "brim": "hat with a brim"}[look.hat]
    )
  if look.has_glasses:
    things.append("pair of glasses")
  if look.has_scarf:
    things.append(f"{look.scarf_colour} scarf")
  return things


def _carried(look):
  bags = {
    "backpack": look.backpack,
    "shoulder bag": look.shoulder_bag,
    "handbag": look.hand_bag,
    "suitcase": look.suitcase,
  }
  return [f"{look.bag_colour} {name}" for name, is_carried in bags.items() if is_carried]


def _article(words):
  # The first letter decides, because no phrase starts with an exception such as "hour" or "uniform".
  return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _list(items):
  return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
