"""A private PostgreSQL cluster: made from a cached data directory, reachable by a socket only, removed at the end.

The servers run as the user postgres when the tests run as root, else as the tests' own user. The postmaster is a child
of this process in a session of its own, so it is ended by its pid and by nothing else.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from pathlib import Path

import psycopg

from . import places
from .wait import wait_until

BASE_CONF = {
    "listen_addresses": "",
    "max_connections": 60,
    "shared_buffers": "64MB",
    "max_worker_processes": 16,
    "max_wal_senders": 5,
    "max_prepared_transactions": 10,
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "jit": "off",
    "log_line_prefix": "%m [%p] %b %d: ",
    "log_checkpoints": "off",
}

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class HarnessError(Exception):
    """The harness itself could not do what it was asked."""


def server_user():
    """(name, uid, gid) of who runs PostgreSQL: it refuses to run as root."""
    entry = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    return entry.pw_name, entry.pw_uid, entry.pw_gid


def as_server_user():
    """Arguments for subprocess that make a child run as the server's user, in an environment without surprises."""
    name, uid, gid = server_user()
    env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    env.update(LC_ALL="C", TZ="UTC", HOME="/", USER=name, LOGNAME=name)
    identity = {"user": uid, "group": gid, "extra_groups": []} if os.getuid() == 0 else {}
    return {"env": env, "cwd": "/", **identity}


def is_running(pid):
    """Neither gone nor a zombie that only waits for its parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fast_directory():
    """Memory where there is plenty: SIGKILL loses no more there than on a disk, and fsync costs nothing."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30:
        return memory
    return Path("/tmp")


def private_dir(parent, prefix):
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    if os.getuid() == 0:
        os.chown(path, *server_user()[1:])
    return path


def conf_value(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("'", "''") + "'"


class Cluster:
    user = "postgres"

    def __init__(self, version=None, conf=None, preload=True, wal_level="replica", fsync=True, name="",
                 template=True, port=None, directory=None):
        """template=False makes a new data directory by initdb: one with a system identifier of its own.

        `directory` is where the cluster's own one is made: for measurements, one on a disk.
        """
        self.version = str(version or places.system_version())
        self.bindir = places.bindir(self.version)
        if not (self.bindir / "postgres").exists():
            raise HarnessError(f"PostgreSQL {self.version} is not set up: run test/setup --pg {self.version}")
        self.name = name or "main"
        self.port = port or free_port()
        self._template = template
        preload = {True: "qdrant_sync", False: ""}.get(preload, preload)
        self._settings = {**BASE_CONF, "shared_preload_libraries": preload, "wal_level": wal_level, "fsync": fsync,
                          **(conf or {})}
        self._postmaster = None
        self._connections = weakref.WeakSet()
        self._standbys = []
        # A socket's path has at most 107 bytes, so this is not below the home.
        self.base = private_dir(directory or fast_directory(), f"qs-{self.name}-")
        self._note = note_cluster(self.base)
        self.socketdir = self.base
        self.datadir = self.base / "data"
        self.logfile = self.base / "log"

    # --- life ---

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *exc):
        self.remove()

    def create(self):
        """Makes the data directory."""
        if self.datadir.exists():
            return
        if self._template:
            self._run(["cp", "-a", "--reflink=auto", str(template_for(self.version)), str(self.datadir)])
        else:
            initdb(self.bindir, self.datadir)
        self._write_conf()

    def start(self, timeout=60, wait=True):
        if self.running():
            raise HarnessError("already running")
        self.create()
        (self.datadir / "postmaster.opts").unlink(missing_ok=True)
        log = os.open(self.logfile, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            self._postmaster = subprocess.Popen(
                [self.bindir / "postgres", "-D", self.datadir], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **as_server_user())
        finally:
            os.close(log)
        if wait:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=60):
        """Until it accepts connections (a standby: read-only ones)."""
        def ready():
            if self._postmaster.poll() is not None:
                return "died"
            # The eighth line of the pid file is what pg_ctl waits for, too.
            lines = (self.datadir / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")
        wait_until(ready, timeout, lambda: f"PostgreSQL {self.version} ready; its log:\n{self.log_tail()}")
        if self._postmaster.poll() is not None:
            raise HarnessError(f"PostgreSQL {self.version} did not start:\n{self.log_tail()}")

    def ensure_running(self, timeout=60):
        """Started if it is down, and ready again if it is about to restart by itself after a crash."""
        if not self.running():
            self.start(timeout)
        wait_until(lambda: self.one("SELECT 1"), timeout, lambda: f"it answers again; its log:\n{self.log_tail()}")

    def stop(self, mode="fast", timeout=60):
        """Ends the postmaster; one that does not end in time is an error, but it is gone then too."""
        self.close_connections()
        if not self.running():
            return
        self._postmaster.send_signal(STOP_SIGNALS[mode])
        try:
            self._postmaster.wait(timeout)
        except subprocess.TimeoutExpired:
            left = [(pid, command_line(pid)) for pid in self.children()]
            self.kill9()
            raise HarnessError(f"PostgreSQL did not stop ({mode}) within {timeout} s; still there: {left}") from None

    def restart(self, mode="fast", conf=None, timeout=60):
        self.stop(mode, timeout)
        if conf:
            self.configure(**conf)
        return self.start(timeout)

    def kill9(self):
        """SIGKILL for the postmaster and every child, as when the machine loses them all at once."""
        if not self.running():
            return
        # Stopped, the postmaster starts nobody while its children are counted.
        self._postmaster.send_signal(signal.SIGSTOP)
        pids = self.children()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._postmaster.kill()
        self._postmaster.wait()
        wait_until(lambda: not any(map(is_running, pids)), 30, f"processes {pids} gone")
        self.close_connections()

    kill9_postmaster = kill9

    def kill(self, pid, sig=signal.SIGTERM):
        """Signals one process of this cluster."""
        if pid != self.pid and parent_of(pid) != self.pid:
            raise HarnessError(f"process {pid} is not of this cluster")
        os.kill(pid, sig)

    def remove(self):
        """Ends what runs and removes every file."""
        for standby in self._standbys:
            standby.remove()
        try:
            self.stop("immediate", timeout=20)
        finally:
            if self._postmaster is not None:
                self.kill9()
            shutil.rmtree(self.base, ignore_errors=True)
            self._note.unlink(missing_ok=True)

    def keep(self):
        """Leaves it running after this process has ended."""
        self._note.unlink(missing_ok=True)

    # --- what it is doing ---

    @property
    def pid(self):
        return self._postmaster.pid if self._postmaster else None

    def running(self):
        return self._postmaster is not None and self._postmaster.poll() is None

    def children(self):
        """Pids of all processes under the postmaster."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [pid for pid in pids if parent_of(pid) == self.pid]

    def pids(self, backend_type):
        """Pids of the processes whose backend_type matches this regular expression."""
        return [row[0] for row in self.sql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type ~ %s ORDER BY backend_start", (backend_type,))]

    def log_text(self, since=0):
        if not self.logfile.exists():
            return ""
        return self.logfile.read_bytes()[since:].decode("utf-8", "replace")

    def log_mark(self):
        """A place in the log, for `since`."""
        return self.logfile.stat().st_size if self.logfile.exists() else 0

    def wait_log(self, regex, timeout=30, since=0):
        return wait_until(lambda: re.search(regex, self.log_text(since)), timeout,
                          lambda: f"/{regex}/ in the log; it ends:\n{self.log_tail()}")

    def log_tail(self, lines=40):
        """The log's last lines."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    # --- settings ---

    def configure(self, **settings):
        """Writes settings; they take effect at reload() or restart()."""
        self._settings.update(settings)
        self._write_conf()

    def reload(self, conf=None):
        if conf:
            self.configure(**conf)
        self._postmaster.send_signal(signal.SIGHUP)

    def _write_conf(self):
        settings = {**self._settings, "port": self.port, "unix_socket_directories": self.socketdir}
        text = "".join(f"{key} = {conf_value(value)}\n" for key, value in settings.items())
        (self.datadir / "harness.conf").write_text(text)
        main = self.datadir / "postgresql.conf"
        include = "include 'harness.conf'\n"
        if include not in main.read_text():
            with main.open("a") as f:
                f.write("\n" + include)
        if os.getuid() == 0:
            os.chown(self.datadir / "harness.conf", *server_user()[1:])

    # --- connections ---

    def conninfo(self, dbname="postgres", user=None):
        return f"host={self.socketdir} port={self.port} dbname={dbname} user={user or self.user}"

    def connect(self, dbname="postgres", user=None, autocommit=True, **kwargs):
        """A psycopg connection; it is closed with the cluster."""
        conn = psycopg.connect(host=str(self.socketdir), port=self.port, dbname=dbname, user=user or self.user,
                               autocommit=autocommit, **kwargs)
        self._connections.add(conn)
        return conn

    def close_connections(self):
        for conn in list(self._connections):
            with contextlib.suppress(Exception):
                conn.close()

    def sql(self, text, params=None, dbname="postgres", user=None):
        """The rows of the last statement with any, as tuples, on a connection of its own."""
        with contextlib.closing(self.connect(dbname, user)) as conn:
            return rows_of(conn, text, params)

    def one(self, text, params=None, dbname="postgres", user=None):
        rows = self.sql(text, params, dbname, user)
        return rows[0][0] if rows else None

    def createdb(self, name, template=None):
        self.sql(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))

    def dropdb(self, name, force=True):
        self.sql(f'DROP DATABASE IF EXISTS "{name}"' + (" WITH (FORCE)" if force else ""))

    # --- PostgreSQL's programs ---

    def tool(self, name, *args, check=True, input=None, timeout=120):
        """Runs a program of this version as the server's user, connected to this cluster."""
        how = as_server_user()
        how["env"].update(PGHOST=str(self.socketdir), PGPORT=str(self.port), PGUSER=self.user, PGDATABASE="postgres")
        result = subprocess.run([self.bindir / name, *map(str, args)], input=input, capture_output=True, text=True,
                                timeout=timeout, **how)
        if check and result.returncode != 0:
            raise HarnessError(f"{name} failed ({result.returncode}): {result.stderr or result.stdout}")
        return result

    def psql(self, text, dbname="postgres", *args):
        """What psql prints, unaligned and without headers."""
        return self.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dbname, *args, input=text).stdout

    def dump(self, dbname, *args):
        return self.tool("pg_dump", "-d", dbname, *args).stdout

    def restore_sql(self, text, dbname):
        self.psql(text, dbname)

    # --- standby ---

    def standby(self, conf=None, name="standby"):
        """A streaming hot standby of this cluster, started."""
        other = Cluster(self.version, name=name)
        other._settings = {**self._settings, **(conf or {})}
        self._standbys.append(other)
        self.tool("pg_basebackup", "-D", other.datadir, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        other._write_conf()
        other.start()
        wait_until(lambda: self.one("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"), 30,
                   "the standby streams")
        return other

    def promote(self, timeout=60):
        self.sql(f"SELECT pg_promote(true, {int(timeout)})")
        wait_until(lambda: not self.one("SELECT pg_is_in_recovery()"), timeout, "the standby is promoted")

    def wait_replayed(self, standby, timeout=30):
        """Until the standby has replayed all that this cluster has written so far."""
        lsn = self.one("SELECT pg_current_wal_lsn()")
        wait_until(lambda: standby.one("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (str(lsn),)), timeout,
                   f"the standby replayed {lsn}")

    def _run(self, command):
        result = subprocess.run(command, capture_output=True, text=True, **as_server_user())
        if result.returncode != 0:
            raise HarnessError(f"{command[0]} failed: {result.stderr}")


def rows_of(conn, text, params=None):
    """Executes and returns the rows of the last statement that has some."""
    cursor = conn.execute(text, params)
    rows = []
    while True:
        if cursor.description is not None:
            rows = cursor.fetchall()
        if not cursor.nextset():
            return rows


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return "?"


def initdb(bindir, datadir):
    result = subprocess.run(
        [bindir / "initdb", "-D", datadir, "-U", Cluster.user, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True, text=True, **as_server_user())
    if result.returncode != 0:
        raise HarnessError(f"initdb failed: {result.stderr}")


def template_for(version):
    """A data directory that initdb made once for exactly this build of PostgreSQL."""
    binary = places.bindir(version) / "postgres"
    build = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    key = re.sub(r"[^0-9A-Za-z.]+", "-", build).strip("-")
    parent = places.HOME / "template"
    template = parent / f"{key}-{server_user()[0]}"
    if not template.exists():
        work = private_dir("/tmp", "qs-initdb-")
        try:
            initdb(binary.parent, work / "data")
            subprocess.run(["cp", "-a", work / "data", parent / f".{key}-{os.getpid()}"], check=True)
            # Two runs may make it at once: the first one's stays.
            with contextlib.suppress(OSError):
                (parent / f".{key}-{os.getpid()}").rename(template)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return template


# --- clusters whose process ended without removing them ---

def note_cluster(base):
    """Notes that this process answers for the cluster there."""
    notes = places.HOME / "run"
    notes.mkdir(exist_ok=True)
    note = notes / base.name
    note.write_text(f"{os.getpid()} {base}")
    return note


def remove_abandoned():
    """Ends and removes the clusters whose process is gone."""
    for note in (places.HOME / "run").glob("*"):
        owner, _, base = note.read_text().partition(" ")
        if is_running(int(owner)):
            continue
        with contextlib.suppress(OSError, ValueError):
            pid = int((Path(base) / "data" / "postmaster.pid").read_text().split()[0])
            # The number may be another process's by now.
            if base in command_line(pid):
                os.kill(pid, signal.SIGQUIT)
                wait_until(lambda: not is_running(pid), 20, f"postmaster {pid} gone")
        shutil.rmtree(base, ignore_errors=True)
        note.unlink(missing_ok=True)
