"""Licences as text: their kinds, their order, and the licence of weights with several sources."""

import ast
import pathlib

import pytest

import hap_jax
from hap_jax.convert import families, licences, official

SOURCES = pathlib.Path(hap_jax.__file__).parent / "data" / "sources"
NAMES = sorted(path.stem for path in SOURCES.glob("*.py") if path.stem not in ("__init__", "base"))
# `folder` and `identity_folder` read the user's own pictures. `tfds` reads its licence from the packed data
# set. `synthetic_captions` has the licence of `synthetic`, and `mixed` has the licences of its data sets.
# `posed_folder` reads the licence of the joints from their folder.
UNKNOWN_SOURCES = {"folder", "identity_folder", "attribute_table"}
SOURCES_WITHOUT_TEXT = {"tfds", "synthetic_captions", "mixed", "posed_folder"}
# The published files of these families state no licence.
UNKNOWN_FAMILIES = {
  *("hap", "timm", "hf-vit", "reid-vit", "reid-lem", "attributes-vit", "text-reid"),
  *("vitpose", "hf-vitpose", "dinov2", "hf-dinov2", "mmpretrain", "google-vit"),
}

MARKET = "Market-1501: academic research, on the terms of its authors"
DRAWN = "Apache-2.0 (made by this project)"
MAE = "CC-BY-NC 4.0 if these are the published MAE weights"


@pytest.mark.parametrize(
  ("text", "kind", "hub"),
  [
    (DRAWN, "permissive", "apache-2.0"),
    ("Apache License, Version 2.0", "permissive", "apache-2.0"),
    ("the MIT License", "permissive", "mit"),
    ("BSD 3-Clause", "permissive", "bsd-3-clause"),
    ("CC0", "permissive", "cc0-1.0"),
    ("CC BY 4.0", "attribution", "cc-by-4.0"),
    ("Creative Commons Attribution 4.0 International", "attribution", "cc-by-4.0"),
    ("CC-BY-SA-4.0", "share-alike", "cc-by-sa-4.0"),
    ("GPL-3.0-or-later", "share-alike", "gpl-3.0"),
    ("ODbL", "share-alike", "odbl"),
    (MAE, "non-commercial", "cc-by-nc-4.0"),
    ("cc-by-nc-sa-4.0", "non-commercial", "cc-by-nc-sa-4.0"),
    ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0", "non-commercial", "cc-by-nc-sa-3.0"),
    ("free for non-commercial purposes", "non-commercial", None),
    (MARKET, "research only", None),
    ("LUPerson: research use, on the terms of its authors", "research only", None),
    ("non-commercial research and educational purposes", "research only", None),
    (f"{MARKET}; {MAE}", "research only", None),
    ("MIT OR Apache-2.0", "permissive", None),
    ("Apache-2.0 AND CC-BY-4.0", "attribution", None),
    ("Apache-2.0; our own terms", "unknown", None),
    ("Apache-2.0 with our own exception", "unknown", None),
    ("CC BY-ND 4.0", "unknown", "cc-by-nd-4.0"),
    ("my research group's own", "unknown", None),
    ("not known", "unknown", None),
    ("not stated; if these are official HAP weights, they are for research only", "unknown", None),
    ("other", "unknown", None),
    ("", "unknown", None),
  ],
)
def test_a_licence_has_one_kind_and_one_name_on_the_hub(text, kind, hub):
  assert (licences.classify(text), licences.hub_name(text)) == (kind, hub)


def test_sources_are_ordered_from_unknown_to_permissive():
  by_kind = {
    "permissive": "MIT",
    "attribution": "CC BY 4.0",
    "share-alike": "CC BY-SA 4.0",
    "non-commercial": "CC BY-NC 4.0",
    "research only": MARKET,
    "unknown": "not known",
  }
  found = licences.ordered(licences.source("data set", kind, text) for kind, text in by_kind.items())
  assert [item["name"] for item in found] == [item["kind"] for item in found] == list(licences.KINDS)
  assert list(licences.KINDS) == list(reversed(by_kind))  # the test lists every kind


def test_sources_of_one_kind_keep_their_order():
  found = [licences.source("data set", name, "MIT") for name in ("newest", "middle", "oldest")]
  assert licences.ordered(found) == found


def test_a_repeated_source_is_listed_once_and_without_its_condition():
  certain = licences.source("data set", "market1501", MARKET)
  assumed = licences.source("data set", "market1501", MARKET, "it is official")
  assert licences.ordered([assumed, certain]) == licences.ordered([certain, assumed]) == [certain]
  assert licences.text(assumed) == f"research only, data set market1501: {MARKET} (if it is official)"


@pytest.mark.parametrize(
  "text", ["MIT (仅限学术研究使用)", "CC BY 4.0 仅供研究", "не для коммерции MIT", "MIT?"]
)
def test_a_text_with_unknown_words_is_an_unknown_licence(text):
  assert licences.classify(text) == "unknown"
  assert licences.hub_name(text) is None


@pytest.mark.parametrize(
  ("texts", "line", "hub"),
  [
    ((DRAWN,), DRAWN, "apache-2.0"),
    ((DRAWN, MARKET), MARKET, "other"),
    ((DRAWN, "CC BY 4.0"), "CC BY 4.0", "cc-by-4.0"),
    (("CC BY-SA 4.0", DRAWN, MAE), f"{MAE}; CC BY-SA 4.0", "cc-by-nc-4.0"),
    (("MIT", "Apache-2.0"), "MIT; Apache-2.0", "other"),
    ((MAE, "not known", MARKET), f"data set 1: not known; {MARKET}; {MAE}", "other"),
  ],
)
def test_the_most_restrictive_licence_comes_first_and_permissive_ones_only_without_others(texts, line, hub):
  found = licences.ordered(licences.source("data set", str(k), text) for k, text in enumerate(texts))
  assert (licences.line(found), licences.hub_licence(found)) == (line, hub)


def texts_of(name):
  """Returns the licence texts in the module of a source, without opening its data."""
  found = []
  # The module assigns the text to a name, or passes it as the keyword `licence` or in a dict of keywords.
  for node in ast.walk(ast.parse((SOURCES / f"{name}.py").read_text())):
    values = [k.value for k in getattr(node, "keywords", ()) if k.arg == "licence"]
    if isinstance(node, ast.Dict):
      values += [
        value
        for key, value in zip(node.keys, node.values, strict=True)
        if key is not None and ast.unparse(key) == "'licence'"  # a key is None for `**others`
      ]
    if isinstance(node, ast.Assign) and {"licence", "_LICENCE"} & {
      getattr(t, "id", "") for t in node.targets
    }:
      values.append(node.value)
    found += [value.value for value in values if isinstance(value, ast.Constant)]
  return found


@pytest.mark.parametrize("name", NAMES)
def test_the_licence_of_every_source_is_classified(name):
  texts = texts_of(name)
  assert bool(texts) == (name not in SOURCES_WITHOUT_TEXT)
  for text in texts:
    assert (licences.classify(text) == "unknown") == (name in UNKNOWN_SOURCES), text


def test_the_licence_of_coco_is_non_commercial():
  assert [licences.classify(text) for text in texts_of("coco_persons")] == ["non-commercial"]


@pytest.mark.parametrize("family", families.load_all(), ids=lambda family: family.name)
def test_the_licence_of_every_family_is_classified(family):
  assert (licences.classify(family.licence) == "unknown") == (family.name in UNKNOWN_FAMILIES)
  known = [licences.source(*facts) for facts in family.made_from]
  assert "unknown" not in {item["kind"] for item in known}
  assert bool(known) == (family.licence in (official.OF_HAP, official.OF_VITPOSE))


def test_the_family_and_the_source_have_the_same_licence_text_for_luperson():
  assert families.load("hap").made_from[0][1:3] == ("luperson", *texts_of("luperson"))
