"""Timing functions: parts in turn, name of the machine, compile times, recompilations, share of a peak."""

import jax

from benchmarks import compiled, flops, measure


def test_parts_run_in_turn_and_untimed_rounds_come_first():
  calls = []
  parts = {name: lambda number, name=name: calls.append((name, number)) for name in "ab"}
  times = measure.time_in_turn(parts, warmup=1, repeats=2, per=4)
  assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
  assert {name: len(rounds) for name, rounds in times.items()} == {"a": 2, "b": 2}


def test_ratio_is_the_median_over_rounds():
  ours, theirs = [(2.0, 1.0), (3.0, 9.0), (8.0, 1.0)], [(1.0, 1.0), (1.0, 3.0), (2.0, 1.0)]
  assert measure.median_ratio(ours, theirs) == 3
  assert measure.median_ratio(ours, theirs, which=1) == 1


def test_line_names_machine_flags_and_versions(monkeypatch):
  jax.devices()  # XLA starts here, because it ends the process at a flag that it does not know
  monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
  line = compiled.line("x", {"speed": 1}, "numpy")
  assert (line["bench"], line["speed"]) == ("x", 1)
  assert line["machine"]["xla_flags"] == "--xla_some_flag=1"
  assert set(line["versions"]) == {"python", "jax", "jaxlib", "numpy"}
  assert line["device"]["platform"] == "cpu"


def test_processors_with_the_same_short_name_get_different_names(tmp_path):
  core = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
  (tmp_path / "cpuinfo").write_text(f"{core}\n{core.replace('17', '1')}")
  assert measure.cpu_name(tmp_path / "cpuinfo") == "AMD EPYC (family 25, model 17)"
  (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n\n")  # as on ARM
  plain = measure.cpu_name(tmp_path / "none")
  assert plain
  assert measure.cpu_name(tmp_path / "cpuinfo") == plain


def test_share_of_a_peak_is_given_only_for_bfloat16_on_known_devices():
  assert flops.utilisation(394e12, "NVIDIA H200", "bfloat16") == {"measured": 0.5, "datasheet": 0.3982}
  assert flops.utilisation(1e12, "NVIDIA H200", "float32") == {"measured": None, "datasheet": None}
  assert flops.utilisation(1e12, "cpu", "bfloat16") == {"measured": None, "datasheet": None}


def test_compiling_is_timed_cold_and_from_the_cache_and_a_new_shape_counts_as_a_recompile():
  function = jax.jit(lambda x: jax.numpy.cos(x) @ x)
  _, times = compiled.compile_times(function, jax.numpy.ones((8, 8)))
  assert set(times) == {f"{what}_seconds" for what in ("trace", "compile", "compile_cpu", "compile_cached")}
  assert times["compile_cached_seconds"] is not None  # the program was read from the cache
  events = compiled.Events()
  function(jax.numpy.ones((8, 8)))
  small, large = jax.numpy.ones((8, 8)), jax.numpy.ones((9, 9))
  with events.counting():
    function(small)
    assert events.compiled == 0
    function(large)
  assert events.compiled == 1
