"""Which processes run when: launcher, sync workers, request worker; and DDL that needs a database without them."""

import contextlib
import re
import signal
import subprocess
import time

import psycopg
import pytest

from harness import Cluster, new_extension_db, stays, wait_until, worker_pids
from harness.cluster import as_server_user
from items import Items, points_path, workers

LAUNCHER = "qdrant_sync launcher"
REQUEST = "qdrant_sync request worker"
SYNC = "qdrant_sync worker"

# What "at once" means on a loaded machine: PostgreSQL's own patience with a connection is 5 s.
AT_ONCE = 3


def one_worker(cluster, db):
    """Pid of the database's only sync worker, waited for."""
    def found():
        pids = workers(cluster, db)
        assert len(pids) <= 1, f"{len(pids)} sync workers in one database"
        return pids[0] if pids else None
    return wait_until(found, what=f"a sync worker in {db.name}")


def no_worker(cluster, name):
    return not cluster.one(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = %s AND datname = %s", (SYNC, name))


def worker_row(cluster, db, name=None):
    """State and note of a database's worker as another database's qdrant_workers shows it; (None, None) without one."""
    rows = db.sql("SELECT state, note FROM qdrant_workers WHERE kind = 'sync' AND database = %s", (name or db.name,))
    return rows[0] if rows else (None, None)


@contextlib.contextmanager
def at_once(what):
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took < AT_ONCE, f"{what} took {took:.1f} s"


# --- the extension comes and goes ---

def test_create_and_drop_extension_are_noticed_without_a_restart(cluster, front):
    cluster.createdb("noticed")
    with contextlib.closing(cluster.connect("noticed")) as conn:
        stays(lambda: no_worker(cluster, "noticed"), 0.5, "no worker without the extension")
        for _ in range(3):
            conn.execute("CREATE EXTENSION qdrant_sync")
            wait_until(lambda: not no_worker(cluster, "noticed"), what="a worker")
            conn.execute("DROP EXTENSION qdrant_sync")
            wait_until(lambda: no_worker(cluster, "noticed"), what="the worker leaves")
    cluster.dropdb("noticed")


def test_create_extension_that_is_rolled_back_leaves_no_worker(cluster):
    cluster.createdb("undone")
    with contextlib.closing(cluster.connect("undone", autocommit=False)) as conn:
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.rollback()
        stays(lambda: no_worker(cluster, "undone"), 1, "no worker")
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.commit()
    wait_until(lambda: not no_worker(cluster, "undone"), what="a worker")
    cluster.dropdb("undone")


def test_extension_that_is_dropped_and_made_again_in_one_transaction_goes_on(db, cluster):
    one_worker(cluster, db)
    with db.connect(autocommit=False) as conn:
        conn.execute("DROP EXTENSION qdrant_sync CASCADE")
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.commit()
    one_worker(cluster, db)
    db.sql(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{db.front.url}')")
    if db.front.api_key:
        db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key '{db.front.api_key}')")
    Items(db, rows=3).converged()


def test_dropping_the_extension_with_a_live_mirror_leaves_nothing_behind(db, cluster):
    items = Items(db, rows=10)
    db.sql("DROP EXTENSION qdrant_sync CASCADE")
    wait_until(lambda: no_worker(cluster, db.name), what="the worker leaves")
    assert db.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'qdrant_internal'") == 0
    assert db.one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass") == 0
    items.insert(11)


# --- several databases ---

def test_every_database_with_the_extension_has_one_worker_and_no_other(front, pgversion):
    with Cluster(pgversion, conf={"max_worker_processes": 24}) as cluster:
        with_extension = [new_extension_db(cluster, front, f"with_{i}") for i in range(6)]
        for i in range(12):
            cluster.createdb(f"without_{i}")
        for _ in range(2):
            for db in with_extension:
                one_worker(cluster, db)
            assert {name for name, in cluster.sql(
                "SELECT datname FROM pg_stat_activity WHERE backend_type = %s AND datname LIKE 'without%%'",
                (SYNC,))} == set()
            cluster.restart()
        for db in with_extension:
            one_worker(cluster, db)
        wait_until(lambda: not cluster.one(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = %s AND datname LIKE 'without%%'", (SYNC,)),
            what="the databases without the extension are left alone")
        assert len(cluster.pids(f"^{SYNC}$")) == 6
        for db in with_extension:
            assert worker_row(cluster, db) == ("running", None)
        # Slots of databases that were only looked at are free again.
        assert with_extension[0].one("SELECT count(*) FROM qdrant_workers WHERE kind = 'sync'") == 6


def test_no_worker_in_a_template_database(db, cluster):
    one_worker(cluster, db)
    cluster.sql(f"ALTER DATABASE {db.name} IS_TEMPLATE true")
    wait_until(lambda: no_worker(cluster, db.name), what="the worker leaves the template")
    stays(lambda: no_worker(cluster, db.name), 1, "no worker in a template database")
    cluster.sql(f"ALTER DATABASE {db.name} IS_TEMPLATE false")
    one_worker(cluster, db)


def test_database_that_takes_no_connections_has_no_worker(db, cluster):
    one_worker(cluster, db)
    cluster.sql(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS false")
    wait_until(lambda: no_worker(cluster, db.name), what="the worker leaves")
    cluster.sql(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS true")
    one_worker(cluster, db)


# --- DDL on databases (hazard 14) ---

def busy(db, front):
    """A mirror in the middle of a request that nobody answers."""
    items = Items(db, rows=5)
    front.faults.fault("hold", method="PUT", path_regex=points_path(items), times=None)
    items.insert(10, 500)
    wait_until(front.faults.held, what="a request under way")
    return items


@pytest.mark.faults
@pytest.mark.parametrize("force", ["", " WITH (FORCE)"])
def test_drop_database_in_the_middle_of_a_request(cluster, front, force):
    for _ in range(3):
        db = new_extension_db(cluster, front)
        busy(db, front)
        db.conn.close()
        mark = cluster.log_mark()
        with at_once("DROP DATABASE"):
            cluster.sql(f"DROP DATABASE {db.name}{force}")
        front.clear()
        wait_until(lambda: no_worker(cluster, db.name), what="no worker")
        stays(lambda: "FATAL" not in cluster.log_text(mark).replace(
            "FATAL:  terminating", ""), 0.5, "nobody tries to go back")


@pytest.mark.faults
def test_rename_database_in_the_middle_of_a_request(cluster, front):
    db = new_extension_db(cluster, front)
    items = busy(db, front)
    db.conn.close()
    with at_once("ALTER DATABASE … RENAME"):
        cluster.sql(f"ALTER DATABASE {db.name} RENAME TO renamed")
    front.faults.clear_faults()
    db.name = "renamed"
    front.faults.release()
    one_worker(cluster, db)
    items.converged()
    db.drop()


@pytest.mark.faults
def test_copy_of_a_database_in_the_middle_of_a_request(cluster, front):
    db = new_extension_db(cluster, front)
    items = busy(db, front)
    db.conn.close()
    with at_once("CREATE DATABASE … TEMPLATE"):
        cluster.sql(f"CREATE DATABASE copied TEMPLATE {db.name}")
    front.faults.clear_faults()
    front.faults.release()
    one_worker(cluster, db)
    items.converged()
    # The copy has the extension, so it has a worker; its mirror is not armed.
    wait_until(lambda: not no_worker(cluster, "copied"), what="a worker in the copy")
    assert cluster.sql("SELECT state FROM qdrant_mirrors", dbname="copied") == [("restored",)]
    cluster.dropdb("copied")
    db.drop()


@pytest.mark.faults
def test_set_tablespace_in_the_middle_of_a_request(cluster, front):
    db = new_extension_db(cluster, front)
    items = busy(db, front)
    db.conn.close()
    with contextlib.closing(cluster.connect()) as conn:
        conn.execute("SET allow_in_place_tablespaces = on")
        conn.execute("CREATE TABLESPACE elsewhere LOCATION ''")
    with at_once("ALTER DATABASE … SET TABLESPACE"):
        cluster.sql(f"ALTER DATABASE {db.name} SET TABLESPACE elsewhere")
    front.faults.clear_faults()
    front.faults.release()
    items.converged()
    db.drop()
    cluster.sql("DROP TABLESPACE elsewhere")


def test_rename_that_is_rolled_back_brings_the_worker_back(db, cluster):
    items = Items(db, rows=2)
    db.conn.close()
    with contextlib.closing(cluster.connect(autocommit=False)) as conn:
        conn.execute(f"ALTER DATABASE {db.name} RENAME TO never")
        stays(lambda: no_worker(cluster, db.name), 1, "no worker while the transaction is open")
        conn.rollback()
    one_worker(cluster, db)
    items.insert(3)
    items.converged()


def test_session_that_is_killed_in_the_middle_of_a_rename_brings_the_worker_back(db, cluster):
    one_worker(cluster, db)
    db.conn.close()
    conn = cluster.connect(autocommit=False)
    conn.execute(f"ALTER DATABASE {db.name} RENAME TO never")
    wait_until(lambda: no_worker(cluster, db.name), what="the worker left")
    cluster.sql("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
    one_worker(cluster, db)


def test_command_that_fails_brings_the_worker_back(db, cluster):
    one_worker(cluster, db)
    db.sql("SELECT 'this session is in the way'")
    with pytest.raises(psycopg.errors.ObjectInUse):
        cluster.sql(f"DROP DATABASE {db.name}")
    one_worker(cluster, db)


def test_command_that_is_not_allowed_ends_no_worker(db, cluster):
    before = one_worker(cluster, db)
    cluster.sql("DROP ROLE IF EXISTS nobody_much; CREATE ROLE nobody_much LOGIN")
    for command in (f"DROP DATABASE {db.name}", f"ALTER DATABASE {db.name} RENAME TO mine",
                    f"CREATE DATABASE mine TEMPLATE {db.name}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            cluster.sql(command, user="nobody_much")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        with contextlib.closing(cluster.connect(autocommit=False)) as conn:
            conn.execute("SELECT 1")
            conn.execute(f"DROP DATABASE {db.name}")
    assert one_worker(cluster, db) == before


def test_database_made_and_dropped_again_and_again(cluster, front):
    """The launcher's look at a new database and its DROP come at the same moment."""
    db = new_extension_db(cluster, front)
    db.conn.close()
    with contextlib.closing(cluster.connect()) as conn:
        for i in range(15):
            conn.execute(f"CREATE DATABASE brief_{i} TEMPLATE {db.name}")
            with at_once("DROP DATABASE"):
                conn.execute(f"DROP DATABASE brief_{i}")
    one_worker(cluster, db)
    db.drop()


# --- ends and restarts ---

@pytest.mark.parametrize("kind", [LAUNCHER, REQUEST, SYNC])
def test_comes_back_after_sigterm(db, cluster, kind):
    items = Items(db, rows=5)
    before = worker_pids(cluster)
    victim = one_worker(cluster, db) if kind == SYNC else before[kind][0]
    cluster.kill(victim)
    wait_until(lambda: victim not in worker_pids(cluster).get(kind, [victim]) and
               len(worker_pids(cluster).get(kind, [])) == len(before[kind]), 30, f"another {kind}")
    after = worker_pids(cluster)
    # Nobody else was ended, nor started twice.
    assert {k: pids for k, pids in after.items() if k != kind} == {k: pids for k, pids in before.items() if k != kind}
    items.insert(6)
    items.converged()
    assert db.one("SELECT count(*) FROM qdrant_query(%s, '[1, 0, 0, 0]', 3)", (items.collection,)) == 3


def test_launcher_that_came_back_looks_after_workers_of_the_one_before(db, cluster):
    items = Items(db, rows=2)
    before = one_worker(cluster, db)
    launcher = worker_pids(cluster)[LAUNCHER][0]
    cluster.kill(launcher)
    wait_until(lambda: worker_pids(cluster).get(LAUNCHER, [launcher]) != [launcher], what="another launcher")
    assert one_worker(cluster, db) == before
    cluster.kill(before)
    wait_until(lambda: workers(cluster, db) not in ([], [before]), what="another sync worker")
    items.insert(3)
    items.converged()
    # Both kinds of news still reach it.
    db.sql("DROP EXTENSION qdrant_sync CASCADE")
    wait_until(lambda: no_worker(cluster, db.name), what="the worker leaves")
    db.sql("CREATE EXTENSION qdrant_sync")
    one_worker(cluster, db)


def test_worker_that_ends_again_and_again_is_started_with_growing_pauses(db, cluster):
    started = []
    for _ in range(4):
        pid = one_worker(cluster, db)
        started.append(time.monotonic())
        cluster.kill(pid)
        wait_until(lambda: pid not in workers(cluster, db), what="it has ended")
    # 1, 2 and 4 s, less what the test takes to see it.
    pauses = [later - earlier for earlier, later in zip(started, started[1:])]
    assert pauses[0] > 0.7 and pauses[1] > 1.5 and pauses[2] > 3, pauses
    wait_until(lambda: worker_row(cluster, db)[0] == "ended", what="qdrant_workers says so")
    state, note = worker_row(cluster, db)
    assert state == "ended" and "started again at" in note
    one_worker(cluster, db)


def test_sighup_applies_settings(db, cluster):
    items = Items(db, rows=1)
    items.wait()

    def requests_of(rows, first):
        before = items.row()["requests"]
        items.insert(first, first + rows - 1)
        items.converged()
        return items.row()["requests"] - before

    assert requests_of(60, 100) < 10
    cluster.reload(conf={"qdrant_sync.batch_rows": 5})
    wait_until(lambda: db.one("SHOW qdrant_sync.batch_rows") == "5", what="the session sees the setting")
    try:
        assert requests_of(60, 200) >= 12
    finally:
        cluster.reload(conf={"qdrant_sync.batch_rows": 100})


# --- too few places ---

def test_too_few_worker_processes_is_said_and_mended_by_a_restart(front, pgversion):
    # Logical replication's launcher, ours and the request worker take three.
    with Cluster(pgversion, conf={"max_worker_processes": 3}) as cluster:
        db = new_extension_db(cluster, front)
        cluster.wait_log("no background worker is free for the sync worker of: .*" + db.name)
        cluster.wait_log(r"HINT:  Raise max_worker_processes \(now 3\)")
        wait_until(lambda: worker_row(cluster, db)[0] == "no slot", what="qdrant_workers says so")
        assert "max_worker_processes" in worker_row(cluster, db)[1]
        # Writers go on, and a wait says what is wrong.
        items = Items(db, rows=5, live=False)
        items.insert(6, 20)
        with pytest.raises(psycopg.errors.InsufficientResources, match="could not be started"):
            items.wait()
        cluster.restart(conf={"max_worker_processes": 8})
        items.converged()


def test_more_databases_than_max_databases_is_said(front, pgversion):
    with Cluster(pgversion, conf={"qdrant_sync.max_databases": 1}) as cluster:
        first = new_extension_db(cluster, front)
        one_worker(cluster, first)
        second = new_extension_db(cluster, front)
        cluster.wait_log("no slot is free for the sync worker of: (.*, )?" + second.name)
        cluster.wait_log(r"HINT:  Raise qdrant_sync.max_databases \(now 1\)")
        # The place goes to the other as soon as it is free.
        first.sql("DROP EXTENSION qdrant_sync CASCADE")
        one_worker(cluster, second)


# --- without the library in shared_preload_libraries ---

def test_without_preload(front, pgversion):
    with Cluster(pgversion, preload=False) as cluster:
        db = new_extension_db(cluster, front)
        with pytest.raises(psycopg.errors.FdwInvalidOptionName, match='invalid option "host"'):
            db.sql("ALTER SERVER qdrant OPTIONS (ADD host 'localhost')")
        db.sql("CREATE TABLE items (id bigint PRIMARY KEY, embedding real[])")
        for call in ("qdrant_mirror('items')", "qdrant_wait('1s')", "qdrant_unmirror('items')",
                     "qdrant_pause('items')", "qdrant_resume('items')", "qdrant_resync('items')"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
                db.sql(f"SELECT {call}")
            assert "shared_preload_libraries" in error.value.diag.message_hint
        for view in ("mirrors", "backfills", "dead_letters", "workers"):
            assert db.sql(f"SELECT * FROM qdrant_{view}") == []
        assert worker_pids(cluster) == {}
        # Writes of a table that was mirrored before are no errors.
        db.sql("CREATE TRIGGER qdrant_sync AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW "
               "EXECUTE FUNCTION qdrant_internal.capture('version', '1')")
        db.sql("INSERT INTO items VALUES (1, '{1}')")


def test_mirror_goes_on_after_a_time_without_the_library(front, pgversion):
    with Cluster(pgversion) as cluster:
        items = Items(new_extension_db(cluster, front), rows=5)
        cluster.restart(conf={"shared_preload_libraries": ""})
        items.db.sql("SELECT 1")
        assert items.state() == "live"
        assert items.row()["pending"] is None
        cluster.restart(conf={"shared_preload_libraries": "qdrant_sync"})
        items.insert(6)
        items.converged()


def test_nothing_runs_during_pg_upgrade(front, pgversion):
    """pg_upgrade starts the server in binary-upgrade mode: -b."""
    with Cluster(pgversion) as cluster:
        db = new_extension_db(cluster, front)
        one_worker(cluster, db)
        db.conn.close()
        cluster.stop()
        mark = cluster.log_mark()
        result = cluster.tool("postgres", "-D", cluster.datadir, "-b", "-C", "shared_preload_libraries")
        assert result.stdout.strip() == "qdrant_sync"
        with open(cluster.logfile, "ab") as log:
            server = subprocess.Popen([cluster.bindir / "postgres", "-D", cluster.datadir, "-b"], stdout=log, stderr=log,
                                      start_new_session=True, **as_server_user())
        try:
            wait_until(lambda: re.search("ready to accept connections", cluster.log_text(mark)), what="it runs")
            kinds = cluster.sql("SELECT DISTINCT backend_type FROM pg_stat_activity WHERE backend_type ~ 'qdrant'")
            assert kinds == []
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        cluster.start()
        one_worker(cluster, db)


# --- a standby ---

def test_standby_has_the_request_worker_only_until_it_is_promoted(front, pgversion):
    with Cluster(pgversion) as cluster:
        db = new_extension_db(cluster, front)
        items = Items(db, rows=5)
        standby = cluster.standby()
        assert set(wait_until(lambda: worker_pids(standby), what="the request worker")) == {REQUEST}
        cluster.wait_replayed(standby)
        assert standby.one("SELECT count(*) FROM qdrant_query(%s, '[1, 0, 0, 0]', 3)", (items.collection,),
                           dbname=db.name) == 3
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.sql("SELECT qdrant_pause('items')", dbname=db.name)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="standby"):
            standby.sql("SELECT qdrant_wait('1s')", dbname=db.name)
        cluster.stop()
        standby.promote()
        wait_until(lambda: len(worker_pids(standby).get(SYNC, [])) == 1, what="a sync worker after promotion")
