"""Where test/setup put things: an installation of each version, the cache of data directories, notes of clusters."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("QDRANT_SYNC_HOME") or f"/var/tmp/qdrant_sync-{os.getuid()}")


def prefix(version):
    return HOME / "pg" / str(version)


def bindir(version):
    return prefix(version).resolve() / "bin"


def system_version():
    """The version that Debian's package has, or the one that PG_CONFIG named: the one most tests run on."""
    return (HOME / "pg" / "system").read_text().strip()


def available_versions():
    """Versions with the extension built and installed, the system's own first."""
    built = [d.name for d in (HOME / "build").glob("*") if (d / "stamp").exists() and prefix(d.name).exists()]
    return sorted(built, key=lambda v: (v != system_version(), int(v)))


def has_pgvector(version):
    config = bindir(version) / "pg_config"
    sharedir = subprocess.run([config, "--sharedir"], capture_output=True, text=True, check=True).stdout.strip()
    return (Path(sharedir) / "extension" / "vector.control").exists()
