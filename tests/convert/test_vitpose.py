"""Files of ViTPose and folders of transformers' VitPose are read, run and written."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import finetune_pose2d_coco_b16
from hap_jax import config as config_lib
from hap_jax import sharding
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import families, names, numpy_vit, read, run, verify
from hap_jax.convert import write as writing
from hap_jax.convert.weights import flatten
from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.evaluation.evaluate import make_evaluate
from hap_jax.inference import scoring
from hap_jax.io import safetensors_file, torch_file
from hap_jax.models import layers, posemb, vit
from hap_jax.tasks import base
from tests.convert.reference_state import GRID, family_state
from tests.data import pose_files

HEADS = ("classic", "simple")
KNOWN = {"source_grid": GRID, "heads": (2, None), "real": False}
CLASS_TOKEN, OTHER_HEAD = "backbone.cls_token", "associate_heads.0.final_layer.bias"


def state_of(family, head="classic", **sizes):
  """Returns the tensors of a file with the names in the file."""
  state = family_state(family, variant=HEADS.index(head), **sizes)
  return {families.load(family).in_file(name): array for name, array in state.items()}


def official_content(state):
  """Returns the content of an official file as it is published."""
  meta = {"epoch": 210, "mmpose_version": "0.24.0", "hook_msgs": {"best_score": np.float64(0.75)}}
  optimizer = {"state": {0: {"step": 9, "exp_avg": np.ones((2, 2), np.float32)}}, "param_groups": []}
  width = state["backbone.pos_embed"].shape[-1]
  unused = {CLASS_TOKEN: np.ones((1, 1, width), np.float32), OTHER_HEAD: np.ones(14, np.float32)}
  return {"meta": meta, "state_dict": {**unused, **state}, "optimizer": optimizer}


@pytest.fixture
def folder(tmp_path):
  """Returns a function that writes a folder of transformers and returns its path."""

  def write_folder(state, config=None, name="folder"):
    path = tmp_path / name
    path.mkdir()
    safetensors_file.save(path / "model.safetensors", state, {})
    if config is not None:
      (path / "config.json").write_text(json.dumps(config))
    return path

  return write_folder


def hf_config(**changes):
  """Returns a config.json like the published ones, which leave out the default values."""
  backbone = {"model_type": "vitpose_backbone", "out_features": ["stage2"], "out_indices": [2]}
  backbone |= {"hidden_size": 24, "num_hidden_layers": 2, **changes.pop("backbone", {})}
  return {"model_type": "vitpose", "backbone_config": backbone, "scale_factor": 4, **changes}


def assert_same(got, want):
  assert got.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


# Reading and writing


@pytest.mark.parametrize(
  ("head", "skeleton", "codec", "fit_aspect"),
  [
    ("classic", COCO17, "udp", True),
    ("simple", COCO17, "udp", True),
    ("classic", MPII16, "udp", False),
    ("simple", AIC14, "msra", True),
  ],
)
def test_a_published_file_gives_the_rules_of_the_data_set_with_its_joints(
  write, head, skeleton, codec, fit_aspect
):
  K = len(skeleton.joints)
  state = state_of("vitpose", head, grid=(16, 12), num_classes=K)
  weights = read.read(write(official_content(state)))
  assert (weights.family, weights.task, weights.grid) == ("vitpose", "pose2d", (16, 12))
  assert weights.grid_from == "assumed: 2D pose at 256 x 192"
  counters = {name for name in state if name.endswith("num_batches_tracked")}
  assert set(weights.unused) == {CLASS_TOKEN, OTHER_HEAD, *counters}
  assert len(counters) == (2 if head == "classic" else 0)
  encoder, network = weights.description.encoder, weights.description.network
  assert (encoder.patch_padding, encoder.class_token) == (2, False)
  assert weights.description.classes == {"joints": list(skeleton.joints)}
  assert network == {
    "num_joints": K,
    "skeleton": skeleton.name,
    "head": head,
    "head_channels": [8, 6] if head == "classic" else [],
    "codec": codec,
    "fit_aspect": fit_aspect,
    "assumed": (
      f"the joints of {skeleton.name}, codec {codec}, fit_aspect {fit_aspect}: the file has {K} joints and "
      "does not record its data set"
    ),
  }


def test_joints_of_an_unknown_number_have_no_names(write):
  weights = read.read(write({"state_dict": state_of("vitpose", num_classes=133)}))
  assert weights.description.classes == {}
  network = weights.description.network
  assert (network["skeleton"], network["codec"], network["num_joints"]) == ("unknown", "udp", 133)
  assert network["assumed"].startswith("codec udp, fit_aspect True: the file has 133 joints")


@pytest.mark.parametrize("head", HEADS)
def test_an_official_file_comes_back_bit_for_bit_after_two_conversions(write, tmp_path, head):
  state = state_of("vitpose", head, num_classes=17)
  there = run.convert(write(official_content(state)), tmp_path / "own", **KNOWN)
  assert there["proof"]["outputs"].keys() == {"tokens", "heatmaps"}
  back = run.convert(tmp_path / "own", tmp_path / "back.pth", to="vitpose", real=False)
  assert back["proof"]["max_abs_error"] == 0
  written = torch_file.load(tmp_path / "back.pth")
  assert {"meta", "state_dict"} <= written.keys()
  assert_same(written["state_dict"], state)
  described, own = (read.read(tmp_path / name).description for name in ("back.pth", "own"))
  assert (described.network, described.classes) == (own.network, own.classes)


@pytest.mark.parametrize(
  ("key", "wrong"), [("num_joints", 99), ("head", "simple"), ("head_channels", [8, 7])]
)
def test_sizes_are_read_from_the_arrays_if_the_record_states_others(write, tmp_path, key, wrong):
  weights = read.read(write({"state_dict": state_of("vitpose")}), grid=GRID).with_encoder(num_heads=2)
  path = tmp_path / "odd.pth"
  writing.write(path, weights.with_network(**{key: wrong}), "vitpose")
  assert torch_file.load(path)["hap_jax"]["model"][key] == wrong
  found = read.read(path).description.network
  assert found == weights.description.network
  writing.write(tmp_path / "own", weights.with_network(**{key: wrong}), writing.OWN)
  assert read.read(tmp_path / "own").description.network == found


def test_settings_that_a_record_does_not_have_are_not_assumed(write, tmp_path):
  weights = read.read(write({"state_dict": state_of("vitpose", "simple", num_classes=14)}), grid=GRID)
  weights = weights.with_encoder(num_heads=2)
  described = dataclasses.replace(weights.description, network={"codec": "udp"})
  path = tmp_path / "old.pth"
  writing.write(path, dataclasses.replace(weights, description=described), "vitpose")
  again = read.read(path)
  sizes = {"num_joints": 14, "head": "simple", "head_channels": []}
  assert again.description.network == {"codec": "udp", **sizes}
  with pytest.raises(ValueError, match=r"the record of old\.pth has no fit_aspect: use --to=vitpose"):
    writing.check_target(again, "hf-vitpose")


def test_a_folder_has_one_label_per_joint_if_the_record_has_other_names(write, tmp_path):
  weights = read.read(write({"state_dict": state_of("vitpose", "simple", num_classes=14)}), grid=GRID)
  weights = weights.with_encoder(num_heads=2)
  described = dataclasses.replace(weights.description, classes={"joints": ["a", "b"]})
  # transformers makes one heat map per name, so a list of another length must not be written.
  writing.write(tmp_path / "folder", dataclasses.replace(weights, description=described), "hf-vitpose")
  labels = json.loads((tmp_path / "folder/config.json").read_text())["id2label"]
  assert list(labels.values()) == [f"LABEL_{k}" for k in range(14)]


@pytest.mark.parametrize("head", HEADS)
def test_a_folder_of_transformers_becomes_an_official_file_and_comes_back(folder, tmp_path, head):
  state = state_of("hf-vitpose", head, num_classes=14)
  # The official code has another epsilon than transformers.
  run.convert(folder(state), tmp_path / "official.pth", to="vitpose", norm_eps=1e-6, **KNOWN)
  names_there = torch_file.load(tmp_path / "official.pth")["state_dict"].keys()
  assert names_there == state_of("vitpose", head).keys()
  back = run.convert(tmp_path / "official.pth", tmp_path / "back", to="hf-vitpose", real=False)
  assert back["proof"]["outputs"].keys() == {"tokens", "heatmaps"}
  assert_same(safetensors_file.load(tmp_path / "back/model.safetensors")[0], state)
  config = json.loads((tmp_path / "back/config.json").read_text())
  assert config["use_simple_decoder"] == (head == "simple")
  assert list(config["id2label"].values()) == list(AIC14.joints)
  backbone = config["backbone_config"]
  assert (backbone["image_size"], backbone["patch_size"], backbone["out_indices"]) == ([32, 16], [8, 8], [2])
  card = (tmp_path / "back/README.md").read_text()
  assert "trained with the codec `msra`. The processor of transformers always uses UDP" in card
  assert "VitPoseImageProcessor.from_pretrained" in card


@pytest.mark.parametrize("head", HEADS)
def test_the_second_forward_pass_gives_the_heat_maps_of_the_official_network(golden, head):
  stored = golden(f"pose_vit_{head}")
  sizes, state = (
    {name.removeprefix(group): array for name, array in stored.items() if name.startswith(group)}
    for group in ("cfg/", "param/")
  )
  family = families.load("vitpose")
  variant = (family, *family.variants)[HEADS.index(head)]
  rows = names.table(variant, depth=int(sizes["depth"]), decoder_depth=0)
  expected = {row.reference for row in rows} | {item.reference for item in variant.placeholders}
  assert {family.in_file(name) for name in expected} == state.keys()
  grid = tuple(int(side) // int(sizes["patch_size"]) for side in sizes["img_size"])
  image = stored["images"].transpose(0, 2, 3, 1)
  forward = numpy_vit.Forward(
    network=family.network_of({name.removeprefix("backbone."): array for name, array in state.items()}),
    batch=verify.Batch(image=image, ids_keep=None, ids_restore=None),
    num_heads=int(sizes["num_heads"]),
    sizes={},
    grids=(grid, grid),
    epsilon=layers.LAYER_NORM_EPSILON,
    padding=family.patch_padding,
  )
  found = family.outputs.in_numpy(forward)["heatmaps"]
  assert np.abs(found - stored["eval/heatmaps"].transpose(0, 2, 3, 1)).max() < 1e-5


@pytest.mark.parametrize(("head", "num_entries"), [("classic", 163), ("simple", 151)])
def test_the_number_of_names_is_the_number_of_entries_of_an_official_file(head, num_entries):
  family = families.load("vitpose")
  variant = (family, *family.variants)[HEADS.index(head)]
  assert len(names.table(variant, depth=12, decoder_depth=0)) + len(variant.placeholders) == num_entries


def test_the_small_model_of_vitpose_has_12_heads(write):
  sizes = vit.VARIANTS["S"]
  state = state_of("vitpose", "simple", grid=(16, 12), width=sizes.width, depth=sizes.depth)
  encoder = read.read(write({"state_dict": state})).description.encoder
  assert (encoder.num_heads, encoder.variant) == (12, "S12")


# config.json of transformers

LABELS = ["Nose", *(f"{side}_{name}" for name in ("Eye", "Ear", "Shoulder", "Elbow") for side in "LR")]
LABELS += [f"{side}_{name}" for name in ("Wrist", "Hip", "Knee", "Ankle") for side in "LR"]


def test_a_published_folder_has_the_default_sizes_and_its_own_names_of_joints(folder):
  labels = {str(k): label for k, label in enumerate(LABELS)}
  state = state_of("hf-vitpose", "simple", grid=(16, 12), width=24, patch=16, num_classes=17)
  weights = read.read(folder(state, hf_config(id2label=labels)))
  assert (weights.family, weights.grid, weights.num_heads) == ("hf-vitpose", (16, 12), 12)
  assert weights.grid_from == "recorded in the file"
  assert weights.description.classes == {"joints": list(COCO17.joints)}
  assert weights.description.network["skeleton"] == "coco17"
  assert weights.description.network["assumed"].startswith("codec udp, fit_aspect True: ")
  # The same number of joints with other names is another data set.
  changed = hf_config(id2label={**labels, "0": "Tail"})
  weights = read.read(folder(state, changed, "animals"))
  assert weights.description.network["skeleton"] == "unknown"
  assert weights.description.classes["joints"][:2] == ["tail", "left_eye"]


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"scale_factor": 2}, "scale_factor is 2, but the head of this project enlarges .* by 4"),
    (
      {"backbone": {"out_indices": [1]}},
      r"out_indices of the backbone is \[1\], expected its last block, \[2\]",
    ),
    ({"backbone": {"out_features": ["stem"]}}, r"out_features .* expected its last block, \['stage2'\]"),
    ({"backbone": {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
    ({"backbone": {"layer_norm_eps": "0.1"}}, "layer_norm_eps is '0.1'"),
    ({"backbone": {"num_attention_heads": 7}}, "records 7 heads of its encoder"),
  ],
)
def test_a_folder_with_another_network_is_refused(folder, changes, match):
  state = state_of("hf-vitpose", "simple", grid=(16, 12), width=24, patch=16)
  with pytest.raises(ValueError, match=match):
    read.read(folder(state, hf_config(**changes)))


# Files and targets that do not fit


def test_an_encoder_without_a_head_and_a_patch_below_the_padding_are_refused(write):
  state = state_of("vitpose", "simple")
  bare = {name: array for name, array in state.items() if not name.startswith("keypoint_head.")}
  with pytest.raises(ValueError, match=r"missing tensors of the vitpose family: keypoint_head\."):
    read.read(write({"state_dict": bare}))
  with pytest.raises(ValueError, match=r"weights\.pth: patch_padding=2 does not fit patch=4"):
    read.read(write({"state_dict": state_of("vitpose", "simple", patch=4)}))


def test_a_classic_head_without_one_of_its_tensors_is_not_taken_for_a_simple_head(write):
  state = state_of("vitpose")
  del state["keypoint_head.deconv_layers.3.weight"]
  with pytest.raises(ValueError, match=r"missing tensors .*: keypoint_head\.deconv_layers\.3\.weight$"):
    read.read(write({"state_dict": state}))
  state = state_of("vitpose", "simple")
  state["keypoint_head.final_layer.weight"] = state["keypoint_head.final_layer.weight"][..., :1, :1]
  with pytest.raises(
    ValueError, match=r"final_layer\.weight has shape \(5, 16, 1, 1\), expected \(5, 16, 3, 3\)"
  ):
    read.read(write({"state_dict": state}))


def test_a_classic_head_with_other_channels_and_odd_mlps_are_refused_for_transformers(write, tmp_path):
  path = write({"state_dict": state_of("vitpose")})
  with pytest.raises(ValueError, match=r"has 256 channels, but the head of .* has 8 and 6: use --to=vitpose"):
    run.convert(path, tmp_path / "out", to="hf-vitpose", **KNOWN)
  state = state_of("vitpose", "simple", mlp_ratios=(3, 4))
  for name in list(state):
    if "mlp.fc1" in name:
      state[name] = state[name][:40]
    elif name.endswith("mlp.fc2.weight"):
      state[name] = state[name][:, :40]
  path = write({"state_dict": state})
  with pytest.raises(ValueError, match=r"for MLPs, but .* has 2\.5 times the width: use --to=vitpose"):
    run.convert(path, tmp_path / "out", to="hf-vitpose", **KNOWN)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["hap", "mae", "timm", "hf-vit", "reid-vit"])
def test_a_target_with_a_class_token_refuses_the_encoder_by_name(write, tmp_path, target):
  path = write({"state_dict": state_of("vitpose")})
  out = tmp_path / ("out" if target == "hf-vit" else "out.pth")
  with pytest.raises(
    ValueError, match=rf"--to={target}: its files are for encoders with patch padding 0 and a "
  ):
    run.convert(path, out, to=target, **KNOWN)


@pytest.mark.parametrize("target", ["vitpose", "hf-vitpose"])
def test_an_encoder_with_a_class_token_is_refused_for_vitpose(tmp_path, target):
  safetensors_file.save(tmp_path / "hap.safetensors", family_state("hap"), {})
  out = tmp_path / ("out" if target == "hf-vitpose" else "out.pth")
  with pytest.raises(ValueError, match=rf"--to={target}: .* with patch padding 2 and no class token"):
    run.convert(tmp_path / "hap.safetensors", out, to=target, family="hap", source_grid=GRID, heads=(2, 2))


# Use


def test_describe_names_task_joints_head_and_codec(write, capsys):
  path = write(official_content(state_of("vitpose", width=128, depth=4, num_classes=17, grid=(16, 12))))
  assert hap(["describe", str(path)]) == 0
  text = capsys.readouterr().out
  assert "fine-tuned for pose2d" in text
  assert "num_joints 17, skeleton coco17, head classic, head_channels [64, 6], codec udp, fit_aspect" in text
  assert "  assumed     the joints of coco17, codec udp, fit_aspect True: the file has 17 joints" in text
  assert f"hap evaluate {path} --config=FILE" in text
  assert "--to=orbax|vitpose" in text
  assert hap(["describe", str(path), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["task"], facts["model"]["codec"]) == ("pose2d", "udp")


# One family is enough in `make test`: test_verify.py compares the outputs of both with NumPy.
@pytest.mark.parametrize(
  ("family", "head"),
  [("vitpose", "classic"), pytest.param("hf-vitpose", "simple", marks=pytest.mark.soak)],
)
def test_a_run_that_starts_from_a_file_evaluates_as_the_file_does(
  folder, tmp_path, monkeypatch, family, head
):
  monkeypatch.setitem(vit.VARIANTS, "Mu", vit.Variant(12, 1, 2))
  root, lines = tmp_path / "data", []
  for split in ("train", "val"):
    pose_files.write_coco(root, split=split)
  state = state_of(family, head, grid=(4, 3), width=12, depth=1, num_classes=17)
  table = next(name for name in state if "pos" in name)
  state[table] = posemb.sincos_table((4, 3), 12)
  path = folder(state)
  config = finetune_pose2d_coco_b16.get_config()
  config.update_from_flattened_dict(
    {
      "batch_size": 2,
      "eval_batch_size": 8,
      "total_steps": 1,
      "flip_test": False,
      "model.remat": "none",
      "model.variant": "Mu",
      "model.image_size": (32, 24),
      "model.patch": 8,
      "model.head": head,
      "model.head_channels": 6,
      "data.root": str(root),
      "data.workers": 0,
    }
  )
  scores = scoring.score(path, config=config, out=tmp_path / "scores", say=lines.append)
  assert any("codec udp, fit_aspect True: the file has 17 joints" in line for line in lines)

  weights = read.read(path)
  task = config_lib.load("tasks", "pose2d").make(
    config_lib.finalize(config), base.Start(weights.lineage, weights.description)
  )
  variables, report = task.load(jax.tree.map(np.asarray, jax.jit(task.init)(jax.random.key(0))), weights)
  assert report.missing == report.resized == ()
  assert_same(flatten(variables), flatten(weights.variables))
  mesh = sharding.make_mesh()
  found, rows = make_evaluate(task.evaluation, mesh)(sharding.put_replicated(variables, mesh))
  assert found == scores
  task.evaluation.write_results(rows, tmp_path)
  results = [json.loads((place / "keypoints.json").read_text()) for place in (tmp_path, tmp_path / "scores")]
  assert results[0] == results[1]
  assert np.ptp(results[0][0]["keypoints"]) > 1
