"""Finds the kind of a licence and the most restrictive of several licences. Formats licences as one line.

A source is a data set, a file of weights or a body model that a checkpoint was made from. It is a dict of
JSON values:
  kind      one of `KINDS`
  role      "data set", "weights" or "body model"
  name      the name of the data set, the file or the body model
  licence   the licence as its publisher states it
  if        the condition under which the source was used; only for a source that is an assumption
"""

import re

KINDS = ("unknown", "research only", "non-commercial", "share-alike", "attribution", "permissive")
_UNKNOWN, _RESEARCH, _NON_COMMERCIAL, _SHARE_ALIKE, _ATTRIBUTION, _PERMISSIVE = KINDS

# {SPDX name: kind}. Names are in lower case and have no "-only" or "-or-later". `_CREATIVE_COMMONS`
# finds the licences of Creative Commons.
_KINDS_BY_NAME = {
  **dict.fromkeys(("0bsd", "afl-3.0", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause"), _PERMISSIVE),
  **dict.fromkeys(("bsl-1.0", "cc0-1.0", "cdla-permissive-2.0", "isc", "mit", "mit-0"), _PERMISSIVE),
  **dict.fromkeys(("pddl", "public-domain", "unlicense", "zlib"), _PERMISSIVE),
  **dict.fromkeys(("cdla-permissive-1.0", "odc-by"), _ATTRIBUTION),
  **dict.fromkeys(("agpl-3.0", "cdla-sharing-1.0", "gfdl-1.3", "gpl-2.0", "gpl-3.0"), _SHARE_ALIKE),
  **dict.fromkeys(("lgpl-2.1", "lgpl-3.0", "mpl-2.0", "odbl"), _SHARE_ALIKE),
}
# {usual short form: SPDX name}
_OTHER_NAMES = {
  "apache": "apache-2.0",
  "apache-2": "apache-2.0",
  "cc0": "cc0-1.0",
  "expat": "mit",
  "odbl-1.0": "odbl",
  "odc-by-1.0": "odc-by",
  "pddl-1.0": "pddl",
}
# Names that the Hugging Face hub does not accept for `license`.
_NOT_ON_HUB = ("0bsd", "gfdl-1.3", "mit-0", "public-domain")
# Versions of the Creative Commons licences that the hub accepts.
_VERSIONS_ON_HUB = {
  "cc-by": ("2.0", "2.5", "3.0", "4.0"),
  "cc-by-sa": ("3.0", "4.0"),
  "cc-by-nd": ("4.0",),
  "cc-by-nc": ("2.0", "3.0", "4.0"),
  "cc-by-nc-sa": ("2.0", "3.0", "4.0"),
  "cc-by-nc-nd": ("3.0", "4.0"),
}
_CREATIVE_COMMONS = re.compile(r"cc-by(-nc)?(-sa|-nd)?(-\d\.\d)?")
# (pattern, replacement) pairs that turn usual spellings of a licence into its SPDX name. They are used in
# this order.
_SPELLINGS = (
  (r"creative commons", "cc"),
  (r"\battribution\b", "by"),
  (r"\bnon[- ]?commercial\b", "nc"),
  (r"\bshare-?alike\b", "sa"),
  (r"\bno-?deriv(ative)?s\b", "nd"),
  (r"\b(the|licen[cs]e|version|international|unported|generic|universal)\b", " "),
  (r"\bv(?=\d)", ""),
  (r"-(only|or-later)$", ""),
)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9 .,+()/_-]")
# Remarks that this project adds after the name of a licence.
_REMARKS = re.compile(r" \(made by this project\)$| if these are the published MAE weights$")
# {known text that is not the name of a licence: kind}
_KINDS_BY_TEXT = {
  # COCO's annotation files name these Flickr licences: CC BY-NC-SA, BY-NC, BY-NC-ND, BY, BY-SA, BY-ND and two
  # licences without conditions. The pictures are used together, so the most restrictive licence decides.
  "COCO: annotations CC BY 4.0; each picture under the Flickr licence that its annotation file names": (
    _NON_COMMERCIAL
  ),
}
# (kind, pattern) pairs for free text, the most restrictive kind first. The first pattern that fits
# determines the kind.
_PHRASES = (
  (_UNKNOWN, r"\bnot (known|stated|recorded|given)\b|\bunknown\b|\bunspecified\b"),
  (
    _RESEARCH,
    r"\b(academic|scientific|non-?commercial) research\b|\bresearch[ -](use|purposes?|only)\b"
    r"|\bresearch and education|\bfor research\b",
  ),
  (_NON_COMMERCIAL, r"\bnon-?commercial\b|\bcc[ -]by[ -]nc\b"),
)


def classify(text):
  """Returns the kind of a licence, one of `KINDS`.

  SPDX names, their usual spellings and known texts are looked up in tables. If there are several names,
  separated by semicolons, AND or OR, the result is the most restrictive kind. Free text is "unknown", unless
  it restricts the use to research or forbids commercial use.

  Args:
    text: the licence as text, such as "CC BY-NC 4.0" or "academic research, on the terms of its authors".
  """
  if text in _KINDS_BY_TEXT:
    return _KINDS_BY_TEXT[text]
  parts = [_kind_of_name(_name_of(part)) for part in re.split(r";|\s(?:and|or|AND|OR)\s", text)]
  # If one part is not a known name, the whole text is treated as free text, because this part may restrict
  # the licences in the other parts.
  if None not in parts:
    return min(parts, key=KINDS.index)
  found = (kind for kind, phrase in _PHRASES if re.search(phrase, text.lower()))
  return next(found, _UNKNOWN)


def hub_name(text):
  """Returns the name of a licence on the Hugging Face hub, or None if the hub has no name for it."""
  name = _name_of(text)
  if _CREATIVE_COMMONS.fullmatch(name):
    terms, _, version = name.rpartition("-")
    return name if version in _VERSIONS_ON_HUB.get(terms, ()) else None
  return name if name in _KINDS_BY_NAME and name not in _NOT_ON_HUB else None


def source(role, name, licence, condition=""):
  """Returns a source, a dict as described at the top of this file. The licence determines its kind."""
  known = {"kind": classify(licence), "role": role, "name": name, "licence": licence}
  return {**known, "if": condition} if condition else known


def ordered(sources):
  """Returns each source once, the most restrictive kind first. Sources of one kind keep their order.

  If one of two equal sources has a condition, the source without the condition is kept.
  """
  # A dict keeps its order and `sorted` is stable, so sources of the same kind keep their order.
  unique = {}
  for item in sources:
    key = item["role"], item["name"], item["licence"]
    if key not in unique or "if" not in item:
      unique[key] = item
  return sorted(unique.values(), key=lambda item: KINDS.index(item["kind"]))


def line(sources):
  """Returns the licence of weights as one line, the most restrictive licence first.

  Permissive licences are named only if there are no other licences.

  Args:
    sources: the sources of the weights, in the order of `ordered`.
  """
  stricter = [item for item in sources if item["kind"] != _PERMISSIVE] or sources
  return "; ".join(dict.fromkeys(map(_words, stricter)))  # a dict removes repeated texts and keeps the order


def hub_licence(sources):
  """Returns the hub's name for the most restrictive licence of sources in the order of `ordered`.

  The result is "other" if the hub has no name for it, or if several licences are equally restrictive.
  """
  strictest = [item for item in sources if item["kind"] == sources[0]["kind"]]
  names = {hub_name(item["licence"]) for item in strictest}
  return names.pop() if len(names) == 1 and None not in names else "other"


def text(item):
  """Returns a source as a line of text."""
  condition = f" (if {item['if']})" if "if" in item else ""
  return f"{item['kind']}, {item['role']} {item['name']}: {item['licence']}{condition}"


def _words(item):
  """Returns the licence of a source as text. An unknown licence gets the name of its data set or body."""
  is_anonymous = item["kind"] == _UNKNOWN and item["role"] != "weights"
  return f"{item['role']} {item['name']}: {item['licence']}" if is_anonymous else item["licence"]


def _name_of(text):
  """Returns a text in the form of an SPDX name, in lower case: "CC BY-NC 4.0" gives "cc-by-nc-4.0".

  The result is "" if the text has characters that do not occur in SPDX names.
  """
  words = _REMARKS.sub("", text.strip()).lower()
  for pattern, short in _SPELLINGS:
    words = re.sub(pattern, short, words)
  if _NOT_IN_NAMES.search(words):
    return ""  # words in another script may restrict the licence
  name = "-".join(re.findall(r"[a-z0-9.]+", words))
  return _OTHER_NAMES.get(name, name)


def _kind_of_name(name):
  """Returns the kind of a name that `_name_of` returned, or None for an unknown name."""
  found = _CREATIVE_COMMONS.fullmatch(name)
  if not found:
    return _KINDS_BY_NAME.get(name)
  is_nc, addition, _ = found.groups()
  if is_nc:
    return _NON_COMMERCIAL
  # BY-ND forbids all derived works. None of the kinds means this, so the kind is unknown.
  return {"-sa": _SHARE_ALIKE, "-nd": _UNKNOWN, None: _ATTRIBUTION}[addition]
