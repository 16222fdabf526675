"""The decoders of what a server answers, before bytes that no Qdrant sends: no read beyond the end, no undefined behaviour,
no hang, and nothing but what their headers promise."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.places import bindir, system_version

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))

# Changed inputs of each seed, and seconds of libFuzzer: about half a minute in all.
CHANGES = {"http": "40", "json": "200", "outcome": "200"}
SECONDS = {"http": 7, "json": 7, "outcome": 4}

# palloc is malloc in these programs, and what only the end of a memory context frees is no leak.
OPTIONS = {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def build(kind, target, output):
    env = {**os.environ, "PG_CONFIG": str(bindir(system_version()) / "pg_config")}
    return subprocess.run([HERE / "build", kind, HERE / f"fuzz_{target}.c", output], env=env, capture_output=True, text=True)


def skip_without_libfuzzer(built):
    if built.returncode != 0 and any(text in built.stderr for text in ("clang: not found", "libclang_rt.fuzzer")):
        pytest.skip("CLANG WITH LIBFUZZER IS MISSING: Debian's packages clang and libclang-rt-N-dev")


def run(command, **env):
    return subprocess.run(command, env={**os.environ, **OPTIONS, **env}, capture_output=True, text=True, errors="replace",
                          timeout=120)


def shown(result, path):
    kept = path.read_bytes() if path.exists() else b""
    return f"{result.stderr[-6000:]}\nthe input: {kept!r}"


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_whole_cut_and_changed(target, tmp_path):
    """The same inputs in every run, with any compiler that has the sanitizers."""
    program, last = tmp_path / "replay", tmp_path / "last"
    built = build("replay", target, program)
    assert built.returncode == 0, built.stderr
    seeds = sorted((HERE / "seeds" / target).iterdir())
    result = run([program, CHANGES[target], *seeds], QS_FUZZ_LAST=str(last))
    assert result.returncode == 0, shown(result, last)
    assert int(result.stdout.split()[0]) > len(seeds) * int(CHANGES[target])


@pytest.mark.parametrize("target", TARGETS)
def test_libfuzzer_finds_nothing(target, tmp_path, request):
    """Longer with more than the usual half minute: test/run --minutes 10 test_libfuzzer_finds_nothing."""
    program, corpus, found = tmp_path / "fuzz", tmp_path / "corpus", tmp_path / "found"
    built = build("libfuzzer", target, program)
    skip_without_libfuzzer(built)
    assert built.returncode == 0, built.stderr[-4000:]
    corpus.mkdir()
    minutes = request.config.getoption("--minutes")
    seconds = int(minutes * 60) if minutes > 0.5 else SECONDS[target]
    result = run([program, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192",
                  f"-exact_artifact_path={found}", corpus, HERE / "seeds" / target])
    assert result.returncode == 0, shown(result, found)
    assert "Done " in result.stderr and not found.exists(), shown(result, found)


@pytest.mark.parametrize("kind", ["replay", "libfuzzer"])
def test_the_sanitizers_are_there(kind, tmp_path):
    """The check itself: a target that reads one byte too far does not pass."""
    source = tmp_path / "fuzz_broken.c"
    source.write_text('#include "fuzz.h"\nint LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)\n'
                      '{ volatile uint8_t byte = data[size]; (void) byte; return 0; }\n')
    seed = tmp_path / "seed"
    seed.write_bytes(b"x")
    env = {**os.environ, "PG_CONFIG": str(bindir(system_version()) / "pg_config")}
    built = subprocess.run([HERE / "build", kind, source, tmp_path / "broken"], env=env, capture_output=True, text=True)
    skip_without_libfuzzer(built)
    assert built.returncode == 0, built.stderr
    result = run([tmp_path / "broken", *(["1"] if kind == "replay" else []), seed])
    assert result.returncode != 0 and "heap-buffer-overflow" in result.stderr
