"""The command that runs all, the table that shows all, and what the timing itself promises."""

import dataclasses
import json

import jax
import pytest

from benchmarks import compiled, end_to_end, measure, pretrain_step, report, suite, workload
from hap_jax import sharding
from hap_jax.cli import __main__ as cli
from hap_jax.train import state as train_state


def test_suite_runs_only_commands_that_parse_and_configurations_that_hold():
  commands = suite.size_commands("S", "B", "L", "H") + suite.lever_commands()
  for _, *words in commands:
    args = pretrain_step.parse_args(words)
    config = workload.make_config(args)
    for lever in args.levers:
      pretrain_step.switched(config, lever)
  assert ["bench.pretrain_step", "--size=B", "--batch=1024"] in commands


def test_suite_packs_people_and_trains_on_them_with_the_loader(tmp_path, small_settings):
  (_, *pack), *train = suite.loader_commands(tmp_path / "people", num_pictures=64)
  assert cli.main(pack) == 0
  small = [
    f"--set={key}={value}" for key, value in {**small_settings, "batch_size": 8, "data.workers": 0}.items()
  ]
  for name, *words in train:
    assert name == "bench.end_to_end"
    args = end_to_end.parse_args([*words, *small, "--repeats=1"])
    end_to_end.make_config(args)
  line = end_to_end.measure_share(args)  # of the last: one run will do
  assert (line["source"], line["augment"], line["rounds"]) == ("tfds", "device", 1)
  assert line["share"] > 0


def test_suite_adds_lines_and_says_which_command_failed(tmp_path):
  out = tmp_path / "out.jsonl"
  assert suite.run(["bench.mask_sampler", "--batch=4", "--repeats=1"], out)
  assert suite.run(["cli", "--help"], out)  # no benchmark: no line
  assert not suite.run(["bench.report", "no_such_file"], out)
  line, failed = map(json.loads, out.read_text().splitlines())
  assert line["bench"] == "mask_sampler"
  assert (failed["bench"], failed["failed"]) == ("report", "bench.report no_such_file")
  assert "No such file" in failed["error"]


def test_suite_adds_to_no_older_file(tmp_path):
  old = tmp_path / "old.jsonl"
  old.write_text("kept")
  with pytest.raises(SystemExit, match="exists"):
    suite.main([f"--out={old}"])
  assert old.read_text() == "kept"


def test_every_lever_changes_what_it_names_and_nothing_else(small_config):
  for lever in pretrain_step.LEVERS:
    before = workload.settings(small_config)
    after = workload.settings(pretrain_step.switched(small_config, lever))
    differing = {key for key in before if before[key] != after[key]}
    names = {"blockwise": "align_block", "one_view": "views", "sampler": None}
    names |= dict.fromkeys(("remat_none", "remat_elementwise", "remat_full"), "remat")
    assert differing == {names.get(lever, lever)} - {None}


def test_report_shows_the_committed_results_and_names_the_line_that_is_none(tmp_path):
  results = report.read(sorted(report.RESULTS.glob("*.json*")))
  assert len(report.table(results).splitlines()) == 2 + len(results) > 2
  bad = tmp_path / "bad.jsonl"
  bad.write_text('{"bench": "x"}\n{"speed": 1}\n')
  with pytest.raises(ValueError, match=r"bad.jsonl:2: expected an object with the key bench"):
    report.read([bad])


def test_flags_of_xla_stand_beside_a_figure(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
  row = report.table([("a.jsonl", {"bench": "x", "speed": 1, "machine": measure.machine()})]).splitlines()[-1]
  assert "speed 1" in row
  assert "--xla_some_flag=1" in row


def test_processors_of_one_name_are_told_apart(tmp_path):
  core = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
  (tmp_path / "cpuinfo").write_text(f"{core}\n{core.replace('17', '1')}")
  assert measure.cpu_name(tmp_path / "cpuinfo") == "AMD EPYC (family 25, model 17)"
  (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n\n")  # as on ARM
  plain = measure.cpu_name(tmp_path / "none")
  assert plain
  assert measure.cpu_name(tmp_path / "cpuinfo") == plain


def test_share_of_a_peak_is_told_for_bfloat16_on_known_devices_alone():
  assert measure.utilisation(394e12, "NVIDIA H200", "bfloat16") == {"measured": 0.5, "datasheet": 0.3982}
  assert measure.utilisation(1e12, "NVIDIA H200", "float32") == {"measured": None, "datasheet": None}
  assert measure.utilisation(1e12, "cpu", "bfloat16") == {"measured": None, "datasheet": None}


def test_compiling_is_timed_cold_and_from_the_cache_and_a_new_shape_counts_as_a_recompile():
  function = jax.jit(lambda x: jax.numpy.cos(x) @ x)
  _, times = compiled.compile_times(function, jax.numpy.ones((8, 8)))
  assert set(times) == {f"{what}_seconds" for what in ("trace", "compile", "compile_cpu", "compile_cached")}
  assert times["compile_cached_seconds"] is not None  # it was read from the cache
  events = compiled.Events()
  function(jax.numpy.ones((8, 8)))
  small, large = jax.numpy.ones((8, 8)), jax.numpy.ones((9, 9))
  with events.counting():
    function(small)
    assert events.compiled == 0
    function(large)
  assert events.compiled == 1


def test_lever_that_cannot_run_here_leaves_the_others_their_lines(small_config):
  """cuDNN's attention is for GPUs; it fails when it is compiled."""
  plain = workload.changed(small_config, {"mask.blocks": False, "mask.parts": False})  # compiles soon
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  cudnn = workload.changed(plain, {"model.attention": "cudnn"})
  variants = [pretrain_step.try_variant(name, c, mesh, "step") for name, c in (("base", plain), ("a", cudnn))]
  timed, state = pretrain_step.try_all(
    variants, lambda: train_state.create(workload.make_task(plain), 0, mesh), mesh
  )
  pretrain_step.time_rounds(timed, state, mesh, warmup=2, repeats=1, steps=1)
  base, failed = (pretrain_step.line(variant, "step", 1) for variant in variants)
  assert base["images_per_s"] > 0
  assert "cuDNN" in failed["error"]
  assert "failed: " in report.table([("a.jsonl", failed)]).splitlines()[-1]


def test_variants_take_turns_on_one_state_and_none_compiles_again(small_config):
  one_view = pretrain_step.switched(small_config, "one_view")
  config = workload.changed(one_view, {"mask.blocks": False, "mask.parts": False})  # compiles soon
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  base = pretrain_step.make_variant("base", config, mesh, "step")
  variants = [base, dataclasses.replace(base, lever="again", times=[])]
  state = train_state.create(workload.make_task(config), 0, mesh)
  pretrain_step.time_rounds(variants, state, mesh, warmup=2, repeats=2, steps=1)
  for variant in variants:
    line = pretrain_step.line(variant, "step", 1)
    assert line["recompiles_after_step_2"] == 0
    assert len(variant.times) == 2
    assert json.loads(json.dumps(line))["images_per_s"] > 0
