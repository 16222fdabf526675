"""Tickets and the request worker: interruptible, fair, and nothing is left behind, whatever ends a request."""

import contextlib
import threading
import time

import psycopg
import pytest
from qdrant_client import models

from harness import Cluster, FrontHandle, new_extension_db, wait_until
from items import Items

pytestmark = pytest.mark.faults

CLUSTER = {"conf": {"max_connections": 150, "qdrant_sync.max_tickets": 64}}

QUERY = "SELECT id FROM qdrant_query('held', '[1,0]', \"timeout\" => '60s')"
POINTS = "/points/query$"


class Session:
    """A connection that runs one statement in a thread of its own."""

    def __init__(self, db, text=QUERY, settings=()):
        self.conn = db.connect()
        self.pid = self.conn.info.backend_pid
        for setting in settings:
            self.conn.execute(f"SET {setting}")
        self.rows = self.error = self.ended_at = None
        self.started_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(text,), daemon=True)
        self._thread.start()

    def _run(self, text):
        try:
            self.rows = self.conn.execute(text).fetchall()
        except psycopg.Error as e:
            self.error = e
        self.ended_at = time.monotonic()

    def ended(self, timeout=30):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the statement still runs"
        return self

    def close(self):
        with contextlib.suppress(Exception):
            self.conn.close()


@pytest.fixture
def held(db, front):
    """A collection whose queries are not answered until the front lets them go."""
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("held", [models.PointStruct(id=1, vector=[1, 0])], wait=True)
    front.faults.fault("hold", path_regex=POINTS)
    return front.faults


def requests(db):
    return db.sql("SELECT pid, state FROM qdrant_requests")


def no_requests(db, timeout=1):
    wait_until(lambda: not requests(db), timeout, lambda: f"no ticket is left: {requests(db)}")


def wait_running(db, n):
    wait_until(lambda: len(db.sql("SELECT 1 FROM qdrant_requests WHERE state = 'running'")) >= n, 10,
               lambda: f"{n} running requests: {requests(db)}")


# --- interruptible ---

def quickest(attempt, tries=3):
    """The least of what some tries took: a machine that is busy for a moment is no fault of ours."""
    return min(attempt() for _ in range(tries))


@pytest.mark.versions
def test_statement_timeout_is_in_time(db, held):
    def attempt():
        session = Session(db, settings=["statement_timeout = '200ms'"]).ended()
        assert isinstance(session.error, psycopg.errors.QueryCanceled)
        no_requests(db)
        return session.ended_at - session.started_at
    assert 0.2 <= quickest(attempt) < 0.3


def test_cancel_is_at_once(db, held):
    def attempt():
        session = Session(db)
        wait_running(db, 1)
        at = time.monotonic()
        session.conn.cancel()
        session.ended()
        assert isinstance(session.error, psycopg.errors.QueryCanceled)
        no_requests(db)
        sessions.append(session)
        return session.ended_at - at
    sessions = []
    assert quickest(attempt) < 0.1
    held.freeze()
    assert quickest(attempt) < 0.1
    # The sessions are as good as new.
    held.thaw()
    held.clear_faults()
    for session in sessions:
        assert session.conn.execute(QUERY).fetchall() == [("1",)]


@pytest.mark.versions
def test_terminate_is_at_once(db, held):
    def attempt():
        session = Session(db)
        wait_running(db, 1)
        at = time.monotonic()
        db.sql("SELECT pg_terminate_backend(%s)", (session.pid,))
        wait_until(lambda: not db.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (session.pid,)), 5,
                   interval=0.005)
        no_requests(db)
        return time.monotonic() - at
    assert quickest(attempt) < 0.1


def test_own_timeout(db, held):
    for text, settings in ((QUERY.replace("60s", "200ms"), []),
                           ("SELECT * FROM qdrant_query('held', '[1,0]')", ["qdrant_sync.request_timeout = '200ms'"])):
        def attempt():
            session = Session(db, text, settings).ended()
            assert isinstance(session.error, psycopg.errors.ConnectionFailure)
            assert "did not answer within 200 ms" in str(session.error)
            assert session.error.diag.message_hint
            return session.ended_at - session.started_at
        assert 0.2 <= quickest(attempt) < 0.3
    no_requests(db)


# Each form of a call: waiting, by a ticket, joined to rows, and raw.
CALLS = {
    "qdrant_query": "SELECT * FROM qdrant_query('held', '[1,0]'{})",
    "qdrant_count": "SELECT qdrant_count('held'{})",
    "qdrant_query_async": "SELECT qdrant_await(t) FROM (SELECT qdrant_query_async('held', '[1,0]'{}) AS t OFFSET 0) q",
    "qdrant_count_async": "SELECT qdrant_await(t) FROM (SELECT qdrant_count_async('held'{}) AS t OFFSET 0) q",
    "qdrant_search": "SELECT * FROM qdrant_search(NULL::own_time, '[1,0,0,0]'{})",
    "qdrant_request": "SELECT qdrant_request('GET', '/collections/held'{})",
}


@pytest.mark.parametrize("form", CALLS)
def test_a_server_that_stalls_has_a_timeout_of_its_own(db, held, form):
    """The server's option comes before the setting, which nobody could wait for, and after the call's argument."""
    if form == "qdrant_search":
        held.clear_faults()
        Items(db, "own_time", rows=1)
    held.fault("hold", path_regex="/held|/query$")

    def within(db, argument=""):
        session = Session(db, CALLS[form].format(argument), ["qdrant_sync.request_timeout = '1h'"]).ended()
        assert session.error.sqlstate == "08006", session.error
        hint = session.error.diag.message_hint
        assert "option request_timeout" in hint and "qdrant_sync.request_timeout" in hint
        session.close()
        return str(session.error).split(" did not answer within ")[1].splitlines()[0]

    db.sql("ALTER SERVER qdrant OPTIONS (ADD request_timeout '300ms')")
    assert within(db) == "300 ms"
    db.sql("ALTER SERVER qdrant OPTIONS (SET request_timeout '150')")
    assert within(db) == "150 ms"
    assert within(db, ", \"timeout\" => '100ms'") == "100 ms"
    # A longer one wins, too: it is still under way when another call has been given up.
    long = Session(db, CALLS[form].format(", \"timeout\" => '60s'"))
    wait_running(db, 1)
    assert within(db) == "150 ms"
    held.clear_faults()
    held.release()
    assert long.ended().error is None
    long.close()
    no_requests(db)


def test_alter_server_changes_the_timeout_of_a_session_that_goes_on(db, held):
    """As with every option: by the catalogs' invalidation alone."""
    def within():
        with pytest.raises(psycopg.errors.ConnectionFailure) as caught:
            db.sql("SELECT * FROM qdrant_query('held', '[1,0]')")
        return str(caught.value).split(" did not answer within ")[1].splitlines()[0]
    with db.connect() as owner:
        for given, seen in (("ADD request_timeout '50ms'", "50 ms"), ("SET request_timeout '70ms'", "70 ms")):
            owner.execute(f"ALTER SERVER qdrant OPTIONS ({given})")
            assert within() == seen
        owner.execute("ALTER SERVER qdrant OPTIONS (DROP request_timeout)")
    db.sql("SET qdrant_sync.request_timeout = '60ms'")
    assert within() == "60 ms"
    held.clear_faults()
    held.release()
    # What Qdrant is told follows, in its whole seconds.
    db.sql("ALTER SERVER qdrant OPTIONS (ADD request_timeout '7s')")
    held.clear_log()
    db.sql("SELECT * FROM qdrant_query('held', '[1,0]')")
    db.sql("SELECT qdrant_count('held')")
    assert [entry["query"] for entry in held.log()] == ["timeout=7"] * 2


def test_an_error_is_caught_by_a_block_and_leaves_nothing(db, held):
    db.sql("""DO $$ BEGIN
        FOR i IN 1..20 LOOP
            BEGIN
                PERFORM qdrant_query('held', '[1,0]', "timeout" => '5ms');
                RAISE 'answered';
            EXCEPTION WHEN connection_failure THEN NULL;
            END;
        END LOOP; END $$""")
    no_requests(db)


# --- nothing stays ---

def test_a_thousand_pending_requests_of_sessions_that_end(db, held):
    """Hazard R4: terminated, disconnected or cancelled, all slots are free within a second."""
    for round in range(23):
        sessions = [Session(db) for _ in range(45)]
        # One that is being written has neither state yet.
        wait_until(lambda: {state for _, state in requests(db)} == {"queued", "running"} and len(requests(db)) == 45, 10,
                   lambda: f"45 requests: {requests(db)}")
        assert sum(state == "running" for _, state in requests(db)) <= 16
        if round % 3 == 0:
            db.sql("SELECT pg_terminate_backend(pid) FROM qdrant_requests")
        elif round % 3 == 1:
            for session in sessions:
                session.conn.cancel()
        else:
            # The client vanishes; the server finds out when it is told to, and then ends the statement.
            db.sql("SELECT pg_cancel_backend(pid) FROM qdrant_requests")
        no_requests(db)
        for session in sessions:
            session.ended().close()
    held.clear_faults()
    assert db.sql(QUERY) == [("1",)]
    assert db.cluster.pids("qdrant_sync request worker")


def test_answers_that_nobody_takes_free_their_memory(db, front):
    """Many more bytes than there are, in answers to cancelled, timed-out and broken requests."""
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("held", [models.PointStruct(id=i, vector=[1, 0], payload={"text": "x" * 100_000})
                                 for i in range(60)], wait=True)
    text = "SELECT sum(length(payload->>'text')) FROM qdrant_query('held', '[1,0]', 60)"
    for fault in (None, dict(action="reset", when="after"), dict(action="truncate"), dict(action="garbage"), None):
        front.faults.clear_faults()
        if fault:
            front.faults.fault(path_regex=POINTS, **fault)
        for _ in range(8):
            session = Session(db, text).ended()
            assert (session.rows == [(6_000_000,)]) == (fault is None), (fault, session.error)
            session.close()
    front.faults.clear_faults()
    front.faults.fault("drip", path_regex=POINTS, seconds=0)
    for _ in range(20):
        session = Session(db, text, ["statement_timeout = '30ms'"]).ended()
        assert isinstance(session.error, psycopg.errors.QueryCanceled)
        session.close()
    front.faults.clear_faults()
    no_requests(db)
    assert db.sql(text) == [(6_000_000,)]


# --- the worker ---

@pytest.mark.versions
def test_worker_ended_with_requests_under_way(db, held, cluster):
    """What runs is failed, what waits goes on with the next worker; it comes back by itself (hazard R5)."""
    running = [Session(db) for _ in range(16)]
    wait_running(db, 16)
    queued = [Session(db) for _ in range(4)]
    wait_until(lambda: len(requests(db)) == 20, 10)
    old = cluster.pids("qdrant_sync request worker")
    at = time.monotonic()
    cluster.sql("SELECT pg_terminate_backend(%s)", (old[0],))
    for session in running:
        session.ended()
        assert session.error.sqlstate == "57P03" and "restarted" in str(session.error)
        assert session.ended_at - at < 1
    held.clear_faults()
    held.release()
    for session in queued:
        assert session.ended().rows == [("1",)]
    new = wait_until(lambda: cluster.pids("qdrant_sync request worker"), what="a new worker")
    assert new != old
    no_requests(db)


def test_no_worker_is_an_error_in_five_seconds(pgversion, front):
    with Cluster(pgversion, conf={"max_worker_processes": 0}, name="noworker") as cluster:
        db = new_extension_db(cluster, front)
        session = Session(db).ended(20)
        assert session.error.sqlstate == "57P03" and "max_worker_processes" in session.error.diag.message_hint
        assert 5 <= session.ended_at - session.started_at < 6
        no_requests(db)


def test_sighup_changes_the_number_of_connections(db, held, cluster):
    sessions = [Session(db) for _ in range(20)]
    wait_running(db, 16)
    cluster.reload({"qdrant_sync.request_connections": 18})
    try:
        # A further arrival is not needed: the worker looks at its queue when it is told.
        wait_running(db, 18)
    finally:
        cluster.reload({"qdrant_sync.request_connections": 16})
    db.sql("SELECT pg_cancel_backend(pid) FROM qdrant_requests")
    for session in sessions:
        session.ended().close()


@pytest.mark.versions
def test_drop_database_does_not_wait_for_requests(db, held, cluster):
    """The worker takes part in every barrier, also while nothing answers (contract 6)."""
    held.freeze()
    sessions = [Session(db) for _ in range(3)]
    wait_running(db, 3)
    cluster.createdb("bystander")
    at = time.monotonic()
    cluster.sql("DROP DATABASE bystander")
    # A worker that takes no part in barriers holds this up until the requests' time-out, a minute.
    assert time.monotonic() - at < 5
    held.thaw()
    for session in sessions:
        session.conn.cancel()
        session.ended()


# --- fair ---

def test_one_server_that_does_not_answer_leaves_room_for_others(db, held):
    """Three quarters of all tickets, and the error says which limit it was."""
    with FrontHandle() as other:
        other.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
        db.sql(f"CREATE SERVER other FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{other.url}')")
        text = QUERY.replace("\"timeout\"", "server => 'qdrant', \"timeout\"")
        sessions = [Session(db, text) for _ in range(48)]
        wait_until(lambda: len(requests(db)) == 48, 10)
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='server "qdrant"') as caught:
            db.sql(text)
        assert "qdrant_sync.max_tickets" in caught.value.diag.message_hint
        at = time.monotonic()
        for _ in range(20):
            assert db.sql("SELECT * FROM qdrant_query('held', '[1,0]', server => 'other')") == []
        assert time.monotonic() - at < 2
        db.sql("SELECT pg_cancel_backend(pid) FROM qdrant_requests")
        for session in sessions:
            session.ended().close()


def test_one_database_does_not_starve_another(db, front, cluster):
    """Forty requests wait in one database; one of another is the next or the one after."""
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    other = new_extension_db(cluster, front)
    cluster.reload({"qdrant_sync.request_connections": 1})
    try:
        wait_until(lambda: cluster.one("SHOW qdrant_sync.request_connections") == "1", 5)
        front.faults.fault("delay", seconds=0.1, path_regex=POINTS)
        many = [Session(db) for _ in range(40)]
        wait_until(lambda: len(requests(db)) >= 30, 10)
        at = time.monotonic()
        assert other.sql(QUERY) == []
        assert time.monotonic() - at < 1
        assert len(requests(db)) > 20
        front.faults.clear_faults()
        for session in many:
            session.ended().close()
    finally:
        cluster.reload({"qdrant_sync.request_connections": 16})
        other.drop()


def test_two_hundred_requests_share_the_connections(db, front):
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.faults.clear_log()
    sessions = [Session(db, f"SELECT count(*) FROM generate_series(1, 5) i, LATERAL qdrant_query('held', '[1,0]', i)")
                for _ in range(40)]
    for session in sessions:
        assert session.ended().rows == [(0,)]
        session.close()
    log = front.faults.log(path_regex=POINTS)
    assert len(log) == 200 and {entry["status"] for entry in log} == {200}
    assert len({entry["connection"] for entry in log}) <= 16


def test_nobody_who_waits_for_a_ticket_is_forgotten(db, front, rng):
    """More sessions than tickets, some of which give up in the middle; the others all come to their end."""
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    many = "SELECT count(*) FROM generate_series(1, {}) i, LATERAL qdrant_query('held', '[1,0]', i)"
    wait = "qdrant_sync.limit_wait = '1h'"
    impatient = [Session(db, many.format(100000), [wait, f"statement_timeout = {rng.randrange(20, 2000)}"])
                 for _ in range(30)]
    patient = [Session(db, many.format(30), [wait]) for _ in range(70)]
    for session in patient:
        assert session.ended(120).rows == [(0,)], session.error
        session.close()
    for session in impatient:
        assert session.ended(120).error.sqlstate == "57014"
        session.close()
    no_requests(db, 10)
    assert db.one("SELECT waiting FROM qdrant_request_usage") == 0


# --- elsewhere ---

@pytest.mark.versions
def test_hot_standby_searches(front, pgversion):
    """The request worker runs there, and lives through the promotion."""
    front.clear()
    front.client.create_collection("held", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("held", [models.PointStruct(id=1, vector=[1, 0])], wait=True)
    with Cluster(pgversion, name="primary") as primary:
        db = new_extension_db(primary, front)
        db.sql("CREATE TABLE items (id int PRIMARY KEY, embedding real[])")
        db.sql("INSERT INTO items VALUES (1, '{1,0}'), (2, '{0,1}')")
        db.sql("SELECT qdrant_mirror('items', collection => %s)", (db.collection(),))
        assert db.one("SELECT qdrant_wait('30s', 'items')")
        standby = primary.standby()
        primary.wait_replayed(standby)
        worker = wait_until(lambda: standby.pids("qdrant_sync request worker"), what="a worker on the standby")
        search = "SELECT (hit).id FROM qdrant_search(NULL::items, '[0,1]', 1)"
        assert standby.sql(QUERY, dbname=db.name) == [("1",)]
        assert standby.sql(search, dbname=db.name) == [(2,)]
        db.conn.close()
        primary.stop()
        standby.promote()
        assert standby.sql(search, dbname=db.name) == [(2,)]
        assert standby.pids("qdrant_sync request worker") == worker
