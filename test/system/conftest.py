"""Fixtures of the system tests: a version, a Qdrant, a cluster a module, a fresh database a test."""

import os
import random
import zlib

import pytest

from harness import Cluster, FrontHandle, has_pgvector, new_extension_db, system_version


@pytest.fixture(scope="session")
def pgversion(request):
    return request.config.getoption("--pg") or system_version()


@pytest.fixture(scope="session")
def front():
    with FrontHandle() as handle:
        yield handle


@pytest.fixture(scope="module")
def cluster(request, pgversion):
    """A cluster for the module; its CLUSTER = {"conf": {...}, ...} gives arguments."""
    with Cluster(pgversion, **getattr(request.module, "CLUSTER", {})) as made:
        yield made


@pytest.fixture
def db(cluster, front):
    """A database with the extension and a server; the module's cluster is up again if a test left it down."""
    cluster.ensure_running()
    front.clear()
    made = new_extension_db(cluster, front)
    yield made
    cluster.ensure_running()
    made.drop()
    front.clear()


@pytest.fixture(scope="session")
def seed(request):
    return request.config.getoption("--seed") or 0


@pytest.fixture(scope="session")
def minutes(request):
    return request.config.getoption("--minutes")


@pytest.fixture
def rng(seed, request):
    """Random numbers that depend on the seed and on the test's name alone."""
    return random.Random(seed ^ zlib.crc32(request.node.name.encode()))


def pytest_runtest_setup(item):
    if item.get_closest_marker("faults") and os.environ.get("QDRANT_URL"):
        pytest.skip("a real server cannot be told to misbehave (QDRANT_URL is set)")
    if item.get_closest_marker("pgvector"):
        version = item.config.getoption("--pg") or system_version()
        if not has_pgvector(version):
            pytest.skip(f"PostgreSQL {version} has no pgvector here, and no other version is set up")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """On failure the end of each cluster's log tells more than the test can."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "cluster" in getattr(item, "funcargs", {}):
        report.sections.append(("the server's log ends", item.funcargs["cluster"].log_tail(30)))
