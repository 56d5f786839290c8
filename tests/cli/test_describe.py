"""`hap describe` reports family, stage, sizes, origin and usable commands of every kind of checkpoint."""

import json

import numpy as np
import pytest

from hap_jax.cli import __main__ as command
from hap_jax.convert import describe, families, run
from hap_jax.io import checkpoint_file, safetensors_file
from hap_jax.models import posemb
from tests.convert.reference_state import family_state
from tests.io import torch_bytes

GRID = (4, 2)


@pytest.fixture
def checkpoint(tmp_path):
  """Returns a function that writes a checkpoint of size ViT-Mu in a container and returns its path."""

  def write_file(family, container):
    state = family_state(family, width=128, depth=4)
    path = tmp_path / f"{family}{container}"
    if container == ".safetensors":
      safetensors_file.save(path, state, {})
    elif container in ("_zip.pth", "_legacy.pth"):
      form = {"_zip.pth": torch_bytes.zip_file, "_legacy.pth": torch_bytes.legacy_file}[container]
      path.write_bytes(form({"model": state, "arch": "vit"}))
    else:
      plain = write_file(family, ".safetensors")
      to = {"_own": "orbax", "_folder": "hf-vit"}[container]
      run.convert(plain, path, to=to, family=family, source_grid=GRID, heads=(None, 2), real=False)
    return path

  return write_file


def facts_of(path, capsys):
  assert command.main(["describe", str(path), "--json"]) == 0
  return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
  ("family", "container", "expected"),
  [
    ("hap", "_zip.pth", ("PyTorch, zip", "hap", "pre-trained, with its decoder", None)),
    ("hap", "_legacy.pth", ("PyTorch, legacy", "hap", "pre-trained, with its decoder", None)),
    (
      "hf-vit",
      ".safetensors",
      ("safetensors", "hf-vit", "encoder; the file does not state its training task", None),
    ),
    (
      "hap",
      "_folder",
      ("Hugging Face folder, model.safetensors", "hf-vit", "pre-trained, without decoder", [4, 2]),
    ),
    ("reid-lem", "_zip.pth", ("PyTorch, zip", "reid-lem", "fine-tuned for reid", None)),
    (
      "reid-lem",
      "_folder",
      ("Hugging Face folder, model.safetensors", "hf-vit", "encoder of a model fine-tuned for reid", [4, 2]),
    ),
    ("reid-vit", "_own", ("Orbax", "hap_jax", "fine-tuned for reid", [4, 2])),
  ],
)
def test_describe_reports_every_container_and_stage(checkpoint, capsys, family, container, expected):
  facts = facts_of(checkpoint(family, container), capsys)
  assert (facts["container"], facts["family"], facts["stage"], facts["model"]["grid"]) == expected
  assert (facts["model"]["variant"], facts["model"]["patch"], facts["model"]["patch_padding"]) == ("Mu", 4, 0)
  assert facts["parameters"]["encoder"] == sum(
    array.size for name, array in family_state("timm", width=128, depth=4).items()
  )
  assert facts["normalization"]["mean"] == [0.485, 0.456, 0.406]
  assert facts["licence"]
  assert len(facts["lineage"]) == (2 if container in ("_own", "_folder") else 1)


def test_describe_reports_heads_with_their_sizes(checkpoint, capsys):
  heads = facts_of(checkpoint("reid-lem", "_zip.pth"), capsys)["heads"]
  assert (heads["head"], heads["conv_fc"], heads["bn"]) == ("128 -> 5", "256 -> 5", "256 parameters")


def test_the_text_of_describe_has_the_same_facts_in_lines(checkpoint, capsys):
  path = checkpoint("reid-vit", "_own")
  assert command.main(["describe", str(path)]) == 0
  printed = capsys.readouterr().out
  for line in (
    "stage       fine-tuned for reid",
    "encoder     ViT-Mu, width 128, 4 blocks, 2 heads",
    "grid        4x2 patches, images of 16 x 8, height x width (the checkpoint's description)",
    "patches     4 x 4 pixels, padding 0",
    "decoder     none",
    "heads       head (128 -> 5)",
    "not used    nothing",
    f"can         hap embed {path} ...",
  ):
    assert f"  {line}\n" in printed


def verbs_of(facts):
  return {line.split()[1] for line in facts["commands"] if line.startswith("hap ")}


def test_describe_lists_only_commands_that_exist(checkpoint, capsys):
  facts = facts_of(checkpoint("hap", "_own"), capsys)
  assert verbs_of(facts) == {"embed", "predict", "probe", "export", "evaluate", "convert"}
  assert verbs_of(facts) <= command.verbs().keys()
  # The grid is not square, so hf-vitmae and hf-dinov2 are missing. There is no ReID head, so the ReID formats
  # are missing.
  assert "--to=orbax|dinov2|google-vit|hap|hf-vit|mae|mmpretrain|timm ..." in facts["commands"][-1]
  assert any(line.startswith("python -m hap_jax.main ") for line in facts["commands"])


@pytest.mark.parametrize(
  ("family", "container", "is_evaluated"),
  [
    ("hap", "_own", True),
    ("timm", "_own", False),
    ("reid-vit", "_own", True),
    ("reid-lem", "_own", True),
    ("attributes-vit", "_own", True),
  ],
)
def test_a_checkpoint_can_be_evaluated_if_its_task_can_build_the_network(
  checkpoint, capsys, family, container, is_evaluated
):
  facts = facts_of(checkpoint(family, container), capsys)
  assert ("evaluate" in verbs_of(facts)) == is_evaluated


def test_a_decoder_with_unknown_heads_can_be_evaluated(tmp_path):
  state = family_state("hap", width=128, depth=4)
  safetensors_file.save(tmp_path / "hap.safetensors", state, {})
  facts = describe.describe(tmp_path / "hap.safetensors", family="hap", grid=GRID)
  assert facts["model"]["decoder"]["num_heads"] is None
  assert "evaluate" in verbs_of(facts)


def test_a_checkpoint_of_an_unknown_task_is_described_but_not_evaluated(checkpoint, tmp_path, capsys):
  variables, description = checkpoint_file.read(checkpoint("timm", "_own"))
  variables["params"]["steps"] = {"kernel": np.zeros((16, 3), np.float32)}
  checkpoint_file.write(tmp_path / "dance", variables, description | {"task": "dance"})
  facts = facts_of(tmp_path / "dance", capsys)
  assert (facts["stage"], facts["heads"]) == ("fine-tuned for dance", {"steps": "16 -> 3"})
  assert verbs_of(facts) == {"embed", "predict", "probe", "export", "convert"}


def test_describe_reports_the_options_that_a_checkpoint_needs(checkpoint, tmp_path, capsys):
  facts = facts_of(checkpoint("hap", "_zip.pth"), capsys)
  assert facts["model"]["grid"] is None
  assert len(facts["commands"]) == 1
  assert "--source_grid=HxW" in facts["commands"][0]
  state = family_state("timm", width=16)
  # The grid is recognised from a sine-cosine table. The number of heads does not follow from a width of 16.
  state["pos_embed"] = posemb.sincos_table(GRID, 16)
  safetensors_file.save(tmp_path / "odd.safetensors", state, {})
  facts = facts_of(tmp_path / "odd.safetensors", capsys)
  assert facts["model"]["grid"] == [4, 2]
  assert "--num_heads=N" in facts["commands"][-1]


def test_an_encoder_without_its_norm_can_only_start_a_training(tmp_path, capsys):
  state = family_state("mae", grid=(3, 3), width=128, depth=4)
  state = {name: array for name, array in state.items() if "decoder" not in name and name != "mask_token"}
  for kind in ("weight", "bias"):
    # MAE classifiers on the mean patch have fc_norm in place of norm.
    state[f"fc_norm.{kind}"] = state.pop(f"norm.{kind}")
    state[f"head.{kind}"] = np.ones((7, 128) if kind == "weight" else 7, np.float32)
  (tmp_path / "classifier.pth").write_bytes(torch_bytes.zip_file({"model": state}))
  facts = facts_of(tmp_path / "classifier.pth", capsys)
  assert facts["stage"] == "encoder of a classifier"
  assert [line.split()[0] for line in facts["commands"]] == ["python"]
  assert facts["unused"] == ["fc_norm.weight", "head.weight", "fc_norm.bias", "head.bias"]


@pytest.mark.parametrize("family", families.names())
def test_every_family_is_described(checkpoint, family):
  facts = describe.describe(checkpoint(family, ".safetensors"), family=family, grid=GRID)
  assert facts["family"] == family
  assert describe.text(facts)
  assert family == "hf-vitmae" or any(family in line for line in facts["commands"][-1:])


def test_a_long_list_of_the_network_is_counted():
  model = {"hidden": 16, "start": [0.25] * 157, "stages": [1, 2]}
  assert describe._network_text(model) == "hidden 16, start (157 values), stages [1, 2]"


def test_a_description_without_the_range_of_pixels_is_described(tmp_path, capsys):
  path = tmp_path / "weights.safetensors"
  safetensors_file.save(path, family_state("hap"), {})
  facts = describe.describe(path, family="hap", grid=GRID)
  del facts["normalization"]["range"]
  assert "scaled to [0, 1], minus [0.485" in "\n".join(describe.text(facts))
