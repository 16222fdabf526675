"""The C programs of test/unit, and the check of imported symbols, as tests of test/run."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.places import ROOT, available_versions, bindir, system_version

HERE = Path(__file__).resolve().parent


def environment(version):
    return {**os.environ, "PG_CONFIG": str(bindir(version) / "pg_config")}


@pytest.mark.parametrize("program", sorted(path.stem for path in HERE.glob("test_*.c")))
def test_program(program, tmp_path):
    built = tmp_path / program
    subprocess.run([HERE / "build", HERE / f"{program}.c", built], check=True, env=environment(system_version()))
    result = subprocess.run([built], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("version", available_versions())
def test_no_symbol_of_a_library_is_taken_from_postgres(version):
    config = bindir(version) / "pg_config"
    directory = subprocess.run([config, "--pkglibdir"], capture_output=True, text=True, check=True).stdout.strip()
    result = subprocess.run([ROOT / "test" / "check_symbols", Path(directory) / "qdrant_sync.so"],
                            capture_output=True, text=True, env=environment(version))
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_symbol_that_postgres_has_too_is_found(tmp_path):
    """The check itself: a library that uses jansson's json_object."""
    source = tmp_path / "clash.c"
    source.write_text("#include <curl/curl.h>\n#include <jansson.h>\n"
                      "json_t *made(void);\njson_t *made(void) { curl_easy_init(); return json_object(); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "clash.so", source, "-lcurl", "-ljansson"], check=True)
    result = subprocess.run([ROOT / "test" / "check_symbols", tmp_path / "clash.so"], capture_output=True, text=True,
                            env=environment(system_version()))
    assert result.returncode == 1 and "json_object" in result.stdout
