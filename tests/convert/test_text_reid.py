"""The official file of text-to-image ReID, best.pth.tar, is read, run and written, with its text encoder."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest

from hap_jax import config as config_lib
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import (
  constants,
  families,
  numpy_layers,
  numpy_text,
  numpy_vit,
  read,
  run,
  text_encoder,
  verify,
)
from hap_jax.convert import write as writing
from hap_jax.convert.families import text_reid
from hap_jax.convert.weights import flatten
from hap_jax.inference import embed
from hap_jax.io import checkpoint_file, torch_file
from hap_jax.models import layers
from hap_jax.pixels.normalize import normalize
from hap_jax.train import initial_text
from tests.convert.reference_state import BERT, WORDS, family_state, write_words
from tests.io import torch_bytes

GRID = (24, 8)  # the published grid, so it need not be given
UNUSED = [
  "ImageExtract.model.fc.bias",
  "ImageExtract.model.fc.weight",
  "TextExtract.text_embed.embeddings.position_ids",
  "TextExtract.text_embed.pooler.dense.bias",
  "TextExtract.text_embed.pooler.dense.weight",
]


def official_content(**sizes):
  """Returns the content of an official file. Its unused tensors have random values."""
  state = family_state("text-reid", **{"grid": GRID, **sizes})
  rng = np.random.default_rng(3)
  for name in UNUSED:
    if not name.endswith("position_ids"):
      state[name] = rng.standard_normal(state[name].shape, np.float32)
  classifier = {name: state.pop(name) for name in ("W.block.weight", "W.block.bias")}
  optimizer = {"state": {0: {"step": 4, "exp_avg": np.ones(3, np.float32)}}, "param_groups": [{"lr": 1e-3}]}
  return {"test_best": 0.5, "network": state, "optimizer": optimizer, "W": classifier, "epoch": 7}


@pytest.fixture
def official(tmp_path):
  """Returns a function that writes an official file, with changes by a function, and returns its path."""

  def write(change=None, **sizes):
    content = copy.deepcopy(official_content(**sizes))
    if change:
      change(content)
    path = tmp_path / "best.pth.tar"
    path.write_bytes(torch_bytes.zip_file(content))
    return path

  return write


@pytest.fixture
def words(tmp_path):
  """Returns a BERT folder with the words of the official file, without tensors."""
  return write_words(tmp_path / "bert")


def convert(path, out, *options):
  assert hap(["convert", str(path), f"--out={out}", "--no_real_class", *map(str, options)]) == 0
  return out


def write_own(path, out, words=""):
  """Writes an official file as a checkpoint of this project, without the proof, which takes seconds."""
  weights = read.read(path).with_encoder(num_heads=2)
  writing.write(out, families.load("text-reid").add_text_encoder(weights, words), writing.OWN)
  return out


def error_of(capsys, *command):
  """Runs a command that must fail. Returns its error, which must be one line."""
  capsys.readouterr()
  assert hap(list(map(str, command))) == 1
  lines = capsys.readouterr().err.splitlines()
  return lines[-1]


def assert_same(got, want):
  got, want = flatten(got), flatten(want)
  assert got.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


# Reading


def test_both_entries_are_read_and_the_text_encoder_is_a_constant(official):
  content = official_content()
  weights = read.read(official())
  assert (weights.family, weights.task, weights.grid) == ("text-reid", "text_reid", GRID)
  assert weights.grid_from == "assumed: text ReID at 384 x 128"
  assert sorted(weights.unused) == UNUSED
  assert weights.params.keys() == {"encoder", "lstm", "projection", "head"}
  assert weights.constants.keys() == {"bert"}
  projection = content["network"]["conv_1X1_2.block.0.weight"]
  np.testing.assert_array_equal(weights.params["projection"]["kernel"], projection[:, :, 0, 0].T, strict=True)
  used = [name for names in weights.source_names.values() for name in names]
  assert sorted([*used, *UNUSED]) == sorted([*content["network"], *content["W"]])


@pytest.mark.parametrize("rows", [3102, 4100])
def test_a_classifier_with_rows_that_no_person_uses_is_read_as_it_is(official, rows):
  weights = read.read(official(num_classes=rows))
  want = official_content(num_classes=rows)["W"]["W.block.weight"]
  np.testing.assert_array_equal(weights.params["head"]["kernel"], want.T, strict=True)
  assert weights.description.network["num_classes"] == rows


def test_the_network_is_described_without_guesses(official):
  network = read.read(official()).description.network
  assert network == {
    "embedding_dim": 6,
    "num_classes": 5,
    "pooling": "floor",
    "max_tokens": BERT["Q"],
    "text": {
      "width": BERT["W"],
      "depth": 2,
      "num_heads": None,
      "hidden": BERT["I"],
      "vocab_size": BERT["V"],
      "max_positions": BERT["Q"],
      "num_segments": BERT["S"],
    },
    "text_is_trained": False,
    "text_digest": "",
  }


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.pop("W"), "missing tensors of the text-reid family: W.block.weight, W.block.bias"),
    (
      lambda c: c["network"].pop("TextExtract.lstm.weight_hh_l0_reverse"),
      "missing tensors of the text-reid family: TextExtract.lstm.weight_hh_l0_reverse",
    ),
    (
      lambda c: c["network"].pop("TextExtract.text_embed.encoder.layer.0.output.dense.bias"),
      "missing tensors of the text-reid family: TextExtract.text_embed.encoder.layer.0.output.dense.bias",
    ),
    (
      lambda c: [c["network"].pop(name) for name in list(c["network"]) if ".layer.0." in name],
      "has 1 blocks TextExtract.text_embed.encoder.layer.N but no block with number 0",
    ),
    (
      lambda c: c["network"].update({"TextExtract.lstm.bias_ih_l0": np.ones(64, np.float32)}),
      "expected names of the text-reid family, found TextExtract.lstm.bias_ih_l0",
    ),
    (
      lambda c: c["W"].update({"W.block.bias": np.ones(4, np.float32)}),
      "tensor W.block.bias has shape (4,), expected (5) by W.block.weight",
    ),
    (
      lambda c: c["network"].update(
        {"conv_1X1_2.block.0.weight": np.full((6, 16, 1, 1), np.nan, np.float32)}
      ),
      "tensor conv_1X1_2.block.0.weight has 96 values that are NaN, infinite or beyond float32",
    ),
    (
      lambda c: c["network"].update({"W.block.bias": np.ones(5, np.float32)}),
      "expected each tensor once, found in two entries: W.block.bias",
    ),
    (
      lambda c: c.update({"W": {"W.block.bias": "text"}}),
      "missing tensors of the text-reid family: W.block.weight",
    ),
  ],
)
def test_a_damaged_file_is_an_error_of_one_line(official, words, tmp_path, capsys, change, message):
  path = official(change)
  found = error_of(capsys, "convert", path, f"--out={tmp_path / 'own'}", f"--text_encoder={words}")
  assert f"{path}: " in found
  assert message in found
  assert not (tmp_path / "own").exists()


def test_a_cut_off_file_is_an_error_of_one_line(official, tmp_path, capsys):
  path = official()
  path.write_bytes(path.read_bytes()[:-5000])
  assert f"{path}: truncated or corrupt zip" in error_of(capsys, "convert", path, f"--out={tmp_path / 'own'}")


# In and out


def test_an_official_file_comes_back_bit_for_bit_and_its_words_are_recorded(
  official, words, tmp_path, capsys
):
  content, path = official_content(), official()
  own = convert(path, tmp_path / "own", f"--text_encoder={words}", "--num_heads=2")
  report = json.loads((own / run.REPORT).read_text())
  assert sorted(report["unused"]) == UNUSED
  assert report["proof"]["outputs"].keys() == {
    *("tokens", "image_embedding", "image_logits", "text_embedding", "text_logits")
  }
  for folder in words.iterdir():
    folder.unlink()  # the checkpoint has its own copy of the words
  (digest,) = (folder.name for folder in (own / "text_encoder").iterdir())
  description = read.read(own).description
  assert description.network["text_digest"] == digest
  assert initial_text.of_checkpoint(description).vocabulary == WORDS
  assert checkpoint_file.read(own)[0].keys() == {"params"}

  capsys.readouterr()
  back = convert(own, tmp_path / "back.pth.tar", "--to=text-reid")
  assert "placeholders: ImageExtract.model.fc.weight, ImageExtract.model.fc.bias" in capsys.readouterr().out
  written = torch_file.load(back)
  assert written.keys() == {"test_best", "network", "W", "epoch", "hap_jax"}
  assert_same(written["W"], content["W"])
  assert written["network"].keys() == content["network"].keys()
  for name, array in content["network"].items():
    expected = np.zeros_like(array) if name in UNUSED and "position_ids" not in name else array
    np.testing.assert_array_equal(written["network"][name], expected, err_msg=name, strict=True)

  again = write_own(back, tmp_path / "again")  # the words are recorded, so no BERT folder is needed
  assert_same(read.read(again).variables, read.read(own).variables)
  one, other = (folder / "text_encoder" / digest for folder in (own, again))
  assert_same(text_encoder.read_folder(other).params, text_encoder.read_folder(one).params)


def test_a_safetensors_file_and_both_suffixes_of_pytorch_are_written(official, words, tmp_path):
  weights = read.read(official(), grid=GRID).with_encoder(num_heads=2)
  for name in ("a.pth", "b.pth.tar", "c.safetensors"):
    writing.check_container(tmp_path / name, "text-reid")
    writing.write(tmp_path / name, weights, "text-reid")
    assert_same(read.read(tmp_path / name).variables, weights.variables)
  with pytest.raises(ValueError, match=r"--to=orbax makes a folder, not a \.pth\.tar file"):
    writing.check_container(tmp_path / "best.pth.tar", writing.OWN)
  with pytest.raises(ValueError, match=r"expected a name in \.pth, \.pth\.tar"):
    writing.check_container(tmp_path / "best.tar", "text-reid")


def test_a_text_encoder_that_a_run_trained_becomes_a_constant(official, words, tmp_path):
  own = write_own(official(), tmp_path / "own", words)
  variables, description = checkpoint_file.read(own)
  params = initial_text.of_checkpoint(read.read(own).description).params
  variables["params"]["bert"] = params
  description["model"] |= {"text_is_trained": True, "text_digest": ""}
  checkpoint_file.write(tmp_path / "trained", variables, description)
  same = convert(tmp_path / "trained", tmp_path / "same")
  assert_same(read.read(same).variables, variables)
  assert not (same / "text_encoder").exists()
  back = convert(same, tmp_path / "back.pth.tar", "--to=text-reid")
  content = official_content()["network"]
  name = "TextExtract.text_embed.encoder.layer.1.attention.self.value.weight"
  np.testing.assert_array_equal(torch_file.load(back)["network"][name], content[name])
  frozen = read.read(write_own(back, tmp_path / "frozen"))
  assert not frozen.description.network["text_is_trained"]
  assert_same(initial_text.of_checkpoint(frozen.description).params, params)


def test_the_image_encoder_alone_is_converted_without_the_words(official, tmp_path, capsys):
  convert(official(), tmp_path / "hap.pth", "--to=hap", "--num_heads=2")
  assert read.read(tmp_path / "hap.pth").params.keys() == {"encoder"}
  assert "outputs before and after: tokens differ by 0 " in capsys.readouterr().out


def test_a_classifier_of_captions_is_not_written_as_a_classifier_of_person_reid(official):
  weights = read.read(official()).with_encoder(num_heads=2)
  with pytest.raises(
    ValueError, match=r"--to=reid-vit: the part head of its files is for the task reid, but"
  ):
    writing.check_target(weights, "reid-vit")


# The words


@pytest.mark.parametrize("target", ["orbax", "text-reid"])
def test_a_file_without_words_asks_for_the_bert_folder(official, tmp_path, capsys, target):
  path, out = official(), tmp_path / ("out" if target == "orbax" else "out.pth.tar")
  found = error_of(capsys, "convert", path, f"--out={out}", f"--to={target}", "--num_heads=2")
  assert "neither its vocabulary nor its number of heads; give --text_encoder=DIR, the BERT folder" in found
  assert not out.exists()


def test_describe_says_what_is_missing_and_names_only_commands_that_work(official, capsys):
  path = official(width=384, depth=12)
  capsys.readouterr()
  assert hap(["describe", str(path)]) == 0
  printed = capsys.readouterr().out
  assert "family      text-reid" in printed
  assert (
    f"hap convert {path} --to=orbax|text-reid ...: holds a text encoder, but neither its vocabulary"
    in printed
  )
  assert f"hap embed {path} ..." in printed
  assert "hap predict" not in printed
  assert "hap evaluate" not in printed
  number = sum(leaf.size for leaf in flatten(read.read(path).constants).values())
  assert f", bert {number:,}, heads " in printed  # the text encoder is not one of the heads


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"hidden_size": 16}, "config.json: hidden_size is 16, but the text encoder has 8: use the folder"),
    ({"num_hidden_layers": 3}, "config.json: num_hidden_layers is 3, but the text encoder has 2"),
    (
      {"num_attention_heads": 3},
      "config.json: num_attention_heads is 3, which does not divide hidden_size 8",
    ),
    ({"hidden_act": "relu"}, "config.json: hidden_act is 'relu'"),
  ],
)
def test_a_bert_folder_of_another_text_encoder_is_an_error(official, tmp_path, capsys, change, message):
  folder = write_words(tmp_path / "bert", **change)
  options = f"--out={tmp_path / 'own'}", f"--text_encoder={folder}", "--num_heads=2"
  found = error_of(capsys, "convert", official(), *options)
  assert str(folder) in found
  assert message in found


def test_a_bert_folder_without_words_or_for_another_family_is_an_error(official, write, tmp_path, capsys):
  path, out = official(), f"--out={tmp_path / 'own'}"
  folder = write_words(tmp_path / "bert")
  (folder / "vocab.txt").unlink()
  assert "vocab.txt: no such file" in error_of(capsys, "convert", path, out, f"--text_encoder={folder}")
  (folder / "config.json").unlink()
  assert "config.json: no such file" in error_of(capsys, "convert", path, out, f"--text_encoder={folder}")
  other = write({"model": family_state("hap"), "arch": "vit"})
  found = error_of(capsys, "convert", other, out, f"--text_encoder={folder}")
  assert "expected a file of a family with a text encoder" in found


@pytest.mark.parametrize(
  ("recorded", "message"),
  [
    (list(WORDS[:-1]), "has 10 words, but the word table of the tensors has 11 rows"),
    ("words", "its vocabulary is 'words', expected a list of words"),
    (list(reversed(WORDS)), "[PAD]"),
  ],
)
def test_a_damaged_list_of_words_in_a_file_is_an_error_of_one_line(
  official, tmp_path, capsys, recorded, message
):
  weights = read.read(official()).with_encoder(num_heads=2)
  weights = weights.with_network(text={**weights.description.network["text"], "num_heads": 2})
  described = dataclasses.replace(weights.description, more={"vocabulary": recorded})
  path = tmp_path / "odd.pth.tar"
  writing.write(path, dataclasses.replace(weights, description=described), "text-reid")
  found = error_of(capsys, "convert", path, f"--out={tmp_path / 'own'}")
  assert f"{path}: " in found
  assert message in found


@pytest.mark.parametrize("num_heads", [3, 0, -2, "2", 2.0, True])
@pytest.mark.parametrize("target", ["orbax", "hap"])
def test_a_recorded_number_of_heads_that_does_not_fit_is_an_error_of_one_line(
  official, tmp_path, capsys, num_heads, target
):
  weights = read.read(official()).with_encoder(num_heads=2)
  weights = weights.with_network(text={**weights.description.network["text"], "num_heads": num_heads})
  path, out = tmp_path / "odd.pth.tar", tmp_path / ("own" if target == "orbax" else "hap.pth")
  writing.write(path, weights, "text-reid")
  found = error_of(capsys, "convert", path, f"--out={out}", f"--to={target}")
  assert f"{path}: records {num_heads!r} heads of its text encoder, expected a number that" in found
  assert not out.exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"text_digest": 7}, "text_digest=7"),
    ({"text_digest": None}, "text_is_trained=False and text_digest='', expected"),
    ({"text": {"num_heads": 3}}, "has 3 heads, expected a number that divides its width 8"),
    ({"text": {"depth": 3}}, "states other sizes or words than this folder"),
    ({"text": {"hidden": 16}}, "states other sizes or words than this folder"),
  ],
)
def test_a_description_that_does_not_fit_its_text_encoder_is_an_error(
  official, words, tmp_path, change, message
):
  own = write_own(official(), tmp_path / "own", words)
  variables, description = checkpoint_file.read(own)
  text = {**description["model"]["text"], **change.get("text", {})}
  description["model"] |= {**change, "text": text}
  if change.get("text_digest", "") is None:
    del description["model"]["text_digest"]
  checkpoint_file.write(tmp_path / "odd", variables, description)
  (own / "text_encoder").rename(tmp_path / "odd" / "text_encoder")
  with pytest.raises(ValueError, match=message):
    constants.complete(read.read(tmp_path / "odd"))


@pytest.mark.parametrize("config", [{"text": "none"}, {"text": {"init_from": 7}}, {"text": None}])
def test_a_recorded_folder_that_is_no_text_is_ignored(official, words, tmp_path, config):
  own = write_own(official(), tmp_path / "own", words)
  variables, description = checkpoint_file.read(own)
  checkpoint_file.write(tmp_path / "odd", variables, {**description, "config": config})
  with pytest.raises(ValueError, match="is in none of"):
    constants.complete(read.read(tmp_path / "odd"))


def test_the_sizes_of_a_trained_text_encoder_are_read_from_the_arrays(official, words, tmp_path):
  own = write_own(official(), tmp_path / "own", words)
  variables, description = checkpoint_file.read(own)
  variables["params"]["bert"] = initial_text.of_checkpoint(read.read(own).description).params
  right = description["model"]["text"]
  description["model"] |= {"text_is_trained": True, "text_digest": "", "text": {**right, "hidden": 99}}
  checkpoint_file.write(tmp_path / "odd", variables, description)
  assert read.read(tmp_path / "odd").description.network["text"] == right


def test_pictures_are_embedded_with_the_official_file_itself(official):
  path = official()
  weights = read.read(path).with_encoder(num_heads=2)
  extractor = embed.make_extractor(path, weights)
  assert extractor.kind == "embedding"
  images = np.random.default_rng(0).integers(0, 256, (2, *extractor.image_size, 3), np.uint8)
  found = jax.jit(extractor.extract)(extractor.variables, images)
  setting = verify.Setting.of(weights, GRID)
  mean, std = (weights.normalization[key] for key in ("mean", "std"))
  forward = numpy_vit.Forward(
    network=setting.family.network_of(official_content()["network"] | official_content()["W"]),
    batch=verify.Batch(np.asarray(normalize(images, mean, std)), None, None),
    num_heads=2,
    sizes=weights.description.network,
    grids=(GRID, GRID),
    epsilon=layers.LAYER_NORM_EPSILON,
  )
  want = setting.family.outputs.in_numpy(forward)["image_embedding"]
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  np.testing.assert_allclose(found, want, atol=1e-5, rtol=0)


def test_commands_that_need_the_text_encoder_in_a_folder_name_the_conversion(official, tmp_path, capsys):
  path = official(width=384, depth=12)
  options = f"--gallery={tmp_path}", f"--out={tmp_path / 'out'}"
  (tmp_path / "a.png").write_bytes(b"")
  found = error_of(capsys, "predict", path, "a person in red", *options)
  assert f"run `hap convert {path} --out=DIR --text_encoder=BERT_FOLDER` first" in found


# The independent network


def test_the_second_forward_pass_gives_the_activations_of_the_official_network(golden):
  file = golden("text_model")
  state = {name.removeprefix("param/"): value for name, value in file.items() if name.startswith("param/")}
  width, heads = int(file["cfg/embed_dim"]), int(file["cfg/bert_num_attention_heads"])
  # The golden network has no final norm. It has no effect on the embedding.
  state |= {f"ImageExtract.model.norm.{kind}": np.ones(width, np.float32) for kind in ("weight", "bias")}
  family = families.load("text-reid")
  network = family.network_of(state)
  grid = layers.grid_of(tuple(map(int, file["cfg/img_size"])), int(file["cfg/patch_size"]))
  forward = numpy_vit.Forward(
    network=network,
    batch=verify.Batch(image=file["images"].transpose(0, 2, 3, 1), ids_keep=None, ids_restore=None),
    num_heads=int(file["cfg/num_heads"]),
    sizes={"text": {"num_heads": None}, "pooling": "floor"},
    grids=(grid, grid),
    epsilon=layers.LAYER_NORM_EPSILON,
  )
  found = family.outputs.in_numpy(forward)
  np.testing.assert_allclose(forward.raw_patches, file["image_tokens"], atol=5e-5, rtol=0)
  np.testing.assert_allclose(found["image_embedding"], file["image_embedding"], atol=5e-5, rtol=0)
  project = state["conv_1X1_2.block.0.weight"][:, :, 0, 0], np.zeros((), np.float32)
  for row, (ids, length) in enumerate(zip(file["input_ids"], file["lengths"], strict=True)):
    hidden = numpy_text.token_features(network.text, ids[:length], heads)
    np.testing.assert_allclose(hidden, file["text_hidden"][row, :length], atol=5e-5, rtol=0)
    tokens = numpy_text.run_lstm(network.text, hidden)
    np.testing.assert_allclose(tokens, file["text_sequence"][row, :length], atol=5e-5, rtol=0)
    for pooling in ("floor", "masked"):
      embedding = numpy_layers.linear(numpy_text.pool(tokens, pooling)[None], project)[0]
      expected = file[f"text_embedding_{pooling}"][row]
      np.testing.assert_allclose(embedding, expected, atol=5e-5, rtol=0)


# The official network in PyTorch


class Official:
  """Builds a twin of the official network in PyTorch. Its modules have the official names."""

  def __init__(self, torch, transformers, state):
    from tests.convert.test_clients import TorchViT

    nn, width = torch.nn, state["ImageExtract.model.norm.bias"].shape[0]
    image = TorchViT(width, depth=2, heads=2, patch=4, tokens=1 + GRID[0] * GRID[1])
    image.fc = nn.Linear(width, 1000)
    config = transformers.BertConfig(
      hidden_size=BERT["W"],
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=BERT["I"],
      vocab_size=BERT["V"],
      max_position_embeddings=BERT["Q"],
      type_vocab_size=BERT["S"],
    )
    text = transformers.BertModel(config)
    # The transformers of the official code saves this table.
    text.embeddings.register_buffer("position_ids", torch.arange(BERT["Q"])[None])
    lstm = nn.LSTM(BERT["W"], width, bidirectional=True, bias=False, batch_first=True)
    branch = nn.ModuleDict({"text_embed": text, "lstm": lstm})
    shared = nn.ModuleDict({"block": nn.Sequential(nn.Conv2d(width, 6, 1, bias=False))})
    self.torch = torch
    self.network = nn.ModuleDict(
      {"ImageExtract": nn.ModuleDict({"model": image}), "TextExtract": branch, "conv_1X1_2": shared}
    )
    self.classifier = nn.ModuleDict({"W": nn.ModuleDict({"block": nn.Linear(6, 5)})})

  def load(self, path):
    content = self.torch.load(path, weights_only=True)
    self.network.load_state_dict(content["network"], strict=True)
    self.classifier.load_state_dict(content["W"], strict=True)
    self.network.eval()
    return content["test_best"], content["epoch"]

  def embeddings(self, image, ids, lengths):
    """Returns the embeddings of pictures [B, H, W, 3] and captions. The captions are padded as officially."""
    torch, F = self.torch, self.torch.nn.functional
    vit, text = self.network["ImageExtract"]["model"], self.network["TextExtract"]
    x = vit.patch_embed["proj"](torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).flatten(2)
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x.transpose(1, 2)], 1) + vit.pos_embed
    for block in vit.blocks:
      x = x + vit.attend(block["attn"], block["norm1"](x))
      x = x + block["mlp"]["fc2"](F.gelu(block["mlp"]["fc1"](block["norm2"](x))))
    ids, lengths = torch.from_numpy(ids).long(), torch.from_numpy(lengths).long()
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    hidden = text["text_embed"](ids, attention_mask=mask)[0]
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
    states, _ = rnn.pad_packed_sequence(text["lstm"](packed)[0], batch_first=True)
    y = (states[..., : states.shape[-1] // 2] + states[..., states.shape[-1] // 2 :]) / 2
    project = self.network["conv_1X1_2"]["block"]
    pooled = (x[:, 1:].max(dim=1).values, y.max(dim=1).values)
    return [project(p[:, :, None, None])[:, :, 0, 0].numpy() for p in pooled]


def test_the_official_network_loads_a_written_file_strictly_and_agrees_with_ours(official, words, tmp_path):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  family, path = families.load("text-reid"), tmp_path / "back.pth.tar"
  weights = family.add_text_encoder(read.read(official()).with_encoder(num_heads=2), words)
  writing.write(path, weights, "text-reid")
  twin = Official(torch, transformers, official_content()["network"])
  shapes = {name: tuple(tensor.shape) for name, tensor in twin.network.state_dict().items()}
  assert {name: array.shape for name, array in torch_file.load(path)["network"].items()} == shapes
  best, _ = twin.load(path)
  assert best == 0  # its training compares later scores with this number

  description, batch = weights.description, verify.make_batch(verify.Setting.of(weights, GRID))
  network = config_lib.load("tasks", "text_reid").network(description)
  found = family.outputs.in_jax(network, weights.variables, batch, description)
  ids, lengths = text_reid.captions(description.network["text"])
  # The official maximum includes the padding up to the longest caption of the batch. So the value of "floor"
  # is the official value of every caption but the longest one. Here this is a further caption.
  T = BERT["Q"]
  ids = np.concatenate([np.pad(ids[1:], ((0, 0), (0, T - ids.shape[1]))), np.full((1, T), 5, np.int32)])
  with torch.no_grad():
    image, text = twin.embeddings(batch.image, ids, np.array([lengths[1], T]))
  np.testing.assert_allclose(found["image_embedding"], image, atol=1e-5, rtol=0)
  np.testing.assert_allclose(found["text_embedding"][1], text[0], atol=1e-6, rtol=0)
