"""Tickets: made now and awaited later, side by side, each collected once, and none left behind."""

import signal

import psycopg
import pytest
from qdrant_client import models

from harness import Cluster, new_extension_db, wait_until
from test_request_path import Session
from test_search import raw  # noqa: F401

pytestmark = pytest.mark.faults

CLUSTER = {"conf": {"max_connections": 260, "qdrant_sync.max_tickets": 1024,
                    "qdrant_sync.max_session_tickets": 1024}}

POINTS = "/points/query$"
TICKET = "SELECT qdrant_query_async('items', '[1,0]', \"timeout\" => '60s')"
TEN = """SELECT n, id FROM qdrant_await_points(ARRAY(
    SELECT qdrant_query_async('items', '[1,0]', i, "timeout" => '60s') FROM generate_series(1, 10) i)) ORDER BY n, id"""
ROWS = [(n, str(id)) for n in range(1, 11) for id in range(1, min(n, 2) + 1)]


@pytest.fixture
def items(db, front):
    front.client.create_collection("items", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("items", [models.PointStruct(id=1, vector=[1, 0]), models.PointStruct(id=2, vector=[0, 1])],
                        wait=True)
    return front.faults


@pytest.fixture
def held(items):
    items.fault("hold", path_regex=POINTS)
    return items


def let_go(faults):
    faults.clear_faults()
    faults.release()


def states(db):
    return sorted(state for (state,) in db.sql("SELECT state FROM qdrant_requests"))


def none_left(db):
    wait_until(lambda: not states(db), 20, lambda: f"no ticket is left: {states(db)}")


def usage(db):
    """The row of qdrant_request_usage by column."""
    return db.one("SELECT to_jsonb(u) FROM qdrant_request_usage u")


def error(db, text, params=None):
    with pytest.raises(psycopg.Error) as caught:
        db.sql(text, params)
    return caught.value


def gone(db, ticket):
    e = error(db, "SELECT qdrant_await(%s)", (ticket,))
    assert e.sqlstate == "42704" and e.diag.message_hint


# --- side by side ---

@pytest.mark.versions
def test_ten_queries_run_side_by_side(db, held):
    session = Session(db, TEN)
    assert len(held.wait_held(10)) == 10
    let_go(held)
    assert session.ended().rows == ROWS
    session.close()
    none_left(db)


def test_queries_over_rows_of_a_table_run_side_by_side(db, held):
    db.sql("CREATE TABLE qs (v real[])")
    db.sql("INSERT INTO qs SELECT '{1,0}' FROM generate_series(1, 10)")
    session = Session(db, "SELECT count(*) FROM qdrant_await_points(ARRAY(SELECT qdrant_query_async('items', v) FROM qs))")
    assert len(held.wait_held(10)) == 10
    let_go(held)
    assert session.ended().rows == [(20,)]
    session.close()


def test_two_hundred_sessions_share_the_connections(db, held):
    held.clear_log()
    sessions = [Session(db, TEN.replace("10) i", "3) i")) for _ in range(200)]
    wait_until(lambda: len(states(db)) == 600, 60, lambda: f"{len(states(db))} requests")
    assert len(held.wait_held(16)) == 16
    let_go(held)
    for session in sessions:
        assert session.ended(60).rows == ROWS[:5]
        session.close()
    log = held.log(path_regex=POINTS)
    assert len(log) == 600 and len({entry["connection"] for entry in log}) <= 16
    none_left(db)


def test_a_cte_makes_one_after_the_other(db, held):
    session = Session(db, f"WITH t AS MATERIALIZED ({TICKET} AS t FROM generate_series(1, 3))"
                          " SELECT jsonb_array_length(qdrant_await(t) -> 'points') FROM t")
    for _ in range(3):
        (one,) = held.wait_held(1)
        assert states(db) == ["running"]
        held.release(one["n"])
    assert session.ended().rows == [(2,)] * 3
    session.close()


def test_explain_makes_no_request(db, items):
    items.clear_log()
    db.sql("EXPLAIN VERBOSE " + TEN)
    db.sql("EXPLAIN " + TICKET)
    assert states(db) == [] and items.log(path_regex=POINTS) == []


# --- collected once ---

@pytest.mark.versions
def test_a_ticket_is_collected_once(db, items):
    ticket = db.one(TICKET)
    assert [p["id"] for p in db.one("SELECT qdrant_await(%s)", (ticket,))["points"]] == [1, 2]
    gone(db, ticket)
    assert db.one("SELECT qdrant_cancel(%s)", (ticket,)) is False
    assert states(db) == []


def test_null_is_defined(db, items):
    assert db.one("SELECT qdrant_query_async('items', NULL::text)") is None
    assert db.sql("SELECT qdrant_await(NULL), qdrant_is_done(NULL), qdrant_cancel(NULL), qdrant_await_any(NULL),"
                  " qdrant_await_any('{}'), qdrant_await_any('{NULL}')") == [(None,) * 6]
    for none in ("NULL", "'{}'", "'{NULL,NULL}'"):
        assert db.sql(f"SELECT * FROM qdrant_await_points({none})") == []
    ticket = db.one(TICKET)
    assert db.sql("SELECT n, ticket, id FROM qdrant_await_points(ARRAY[NULL, %s])", (ticket,)) == [
        (2, ticket, "1"), (2, ticket, "2")]
    assert states(db) == []


def test_numbers_that_are_no_tickets(db, items):
    ticket = db.one(TICKET)
    for number in (0, -1, 1, 65535, 2**63 - 1, ticket + 1, ticket + 65536):
        gone(db, number)
        assert error(db, "SELECT qdrant_is_done(%s)", (number,)).sqlstate == "42704"
        assert error(db, "SELECT * FROM qdrant_await_points(ARRAY[%s, %s])", (ticket, number)).sqlstate == "42704"
    assert db.one("SELECT qdrant_await(%s)", (ticket,))


def test_a_ticket_survives_the_end_of_its_transaction(db, items):
    with db.connect(autocommit=False) as conn:
        ticket = conn.execute(TICKET).fetchone()[0]
        conn.rollback()
        conn.execute("SAVEPOINT s")
        other = conn.execute(TICKET).fetchone()[0]
        conn.execute("ROLLBACK TO s")
        assert conn.execute("SELECT count(*) FROM qdrant_await_points(%s)", ([ticket, other],)).fetchone() == (4,)
    none_left(db)


def test_a_ticket_whose_number_was_lost_is_found_in_the_view(db, held):
    error(db, "SELECT qdrant_query_async('items', '[1,0]') / 0")
    with db.connect() as other:
        assert other.execute("SELECT ticket FROM qdrant_requests").fetchall() == [(None,)]
    assert db.sql("SELECT qdrant_cancel(ticket) FROM qdrant_requests WHERE ticket IS NOT NULL") == [(True,)]
    none_left(db)


def test_anothers_ticket_is_refused(db, items):
    ticket = db.one(TICKET)
    with db.connect() as other:
        for call in ("qdrant_await(%s)", "qdrant_is_done(%s)", "qdrant_await_any(ARRAY[%s::bigint])"):
            with pytest.raises(psycopg.errors.UndefinedObject):
                other.execute("SELECT " + call, (ticket,))
        assert other.execute("SELECT qdrant_cancel(%s)", (ticket,)).fetchone() == (False,)
    db.sql("DROP ROLE IF EXISTS async_stranger")
    db.sql("CREATE ROLE async_stranger")
    try:
        db.sql("SET ROLE async_stranger")
        for call in ("qdrant_await(%s)", "qdrant_is_done(%s)", "qdrant_cancel(%s)"):
            assert error(db, "SELECT " + call, (ticket,)).sqlstate == "42501"
    finally:
        db.sql("RESET ROLE")
        db.sql("DROP ROLE async_stranger")
    assert db.one("SELECT qdrant_await(%s)", (ticket,))


# --- errors of one ---

def test_an_error_of_one_leaves_the_others_collectable(db, items):
    good, bad, last = (db.one(f"SELECT qdrant_query_async('{name}', '[1,0]')") for name in ("items", "none", "items"))
    e = error(db, "SELECT * FROM qdrant_await_points(%s)", ([good, bad, last],))
    assert e.sqlstate == "42704" and f"ticket {bad}" in e.diag.context
    gone(db, bad)
    assert db.sql("SELECT n, id FROM qdrant_await_points(%s)", ([good, last],)) == [
        (1, "1"), (1, "2"), (2, "1"), (2, "2")]
    assert states(db) == []


def test_answers_that_are_too_large_or_not_qdrants(db, raw):  # noqa: F811
    def ticket():
        return db.one("SELECT qdrant_query_async('x', '[1]', server => 'raw')")
    raw(b'{"result":{"points":[]},"x":"' + b"y" * (13 << 20) + b'","status":"ok","time":0}')
    bad = [(ticket(), "54000")]
    assert db.one("SELECT qdrant_await_any(%s)", ([bad[0][0]],)) == bad[0][0]
    assert usage(db)["answer_bytes"] == 0, "what came of it takes no room from the others"
    raw(b'{"result":{"points":[1]},"status":"ok","time":0}')
    bad.append((ticket(), "08P01"))
    assert db.one("SELECT qdrant_await_any(%s)", ([bad[1][0]],)) == bad[1][0]
    raw(b'{"result":{"points":[{"id":7,"payload":{"a":"\\u0000"}}]},"status":"ok","time":0}')
    good = ticket()
    for number, code in bad:
        assert error(db, "SELECT * FROM qdrant_await_points(%s)", ([good, number],)).sqlstate == code
        gone(db, number)
    notices = []
    db.conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert db.one("SELECT qdrant_await(%s)", (good,))["points"][0]["id"] == 7
    assert len(notices) == 1 and "\\u0000" in notices[0]
    assert states(db) == []


def test_a_server_that_is_dropped_still_answers(db, held):
    ticket = db.one(TICKET)
    held.wait_held(1)
    server = db.one("SELECT srvname FROM pg_foreign_server")
    db.sql("BEGIN")
    db.sql(f'DROP SERVER "{server}" CASCADE')
    let_go(held)
    assert db.one("SELECT qdrant_await(%s)", (ticket,))["points"]
    db.sql("ROLLBACK")


# --- waiting ---

@pytest.mark.versions
def test_a_wait_that_is_too_short_leaves_the_ticket(db, held):
    ticket = db.one(TICKET)
    assert db.one("SELECT qdrant_is_done(%s)", (ticket,)) is False
    for call in ("SELECT qdrant_await(%s, '50ms')", "SELECT * FROM qdrant_await_points(ARRAY[%s], '50ms')"):
        e = error(db, call, (ticket,))
        assert e.sqlstate == "55000" and "qdrant_cancel" in e.diag.message_hint
    assert db.one("SELECT qdrant_await_any(ARRAY[%s::bigint], '50ms')", (ticket,)) is None
    let_go(held)
    assert db.one("SELECT qdrant_await_any(ARRAY[%s::bigint])", (ticket,)) == ticket
    assert db.one("SELECT qdrant_is_done(%s)", (ticket,)) is True
    assert db.one("SELECT qdrant_await(%s)", (ticket,))["points"]


def test_a_wait_that_is_cancelled_leaves_the_ticket(db, held):
    ticket = db.one(TICKET)
    held.wait_held(1)
    for call in ("qdrant_await(%s)", "qdrant_await_any(ARRAY[%s::bigint])"):
        db.sql("SET statement_timeout = '50ms'")
        assert error(db, "SELECT " + call, (ticket,)).sqlstate == "57014"
        db.sql("RESET statement_timeout")
    let_go(held)
    assert db.one("SELECT qdrant_await(%s)", (ticket,))["points"]


def test_the_tickets_own_timeout_is_its_end(db, held):
    ticket = db.one("SELECT qdrant_query_async('items', '[1,0]', \"timeout\" => '50ms')")
    assert db.one("SELECT qdrant_await_any(ARRAY[%s::bigint])", (ticket,)) == ticket
    e = error(db, "SELECT qdrant_await(%s)", (ticket,))
    assert e.sqlstate == "08006" and "within 50 ms" in str(e)
    gone(db, ticket)
    none_left(db)


def test_any_is_the_one_that_is_done(db, items):
    items.fault("hold", path_regex=POINTS, times=1)
    slow = db.one(TICKET)
    items.wait_held(1)
    fast = db.one(TICKET)
    assert db.one("SELECT qdrant_await_any(%s)", ([slow, fast],)) == fast
    assert db.one("SELECT qdrant_cancel(%s)", (slow,)) is True
    assert db.one("SELECT qdrant_await(%s)", (fast,))
    none_left(db)


# --- nothing is left ---

def test_cancelled_while_being_sent(db, held):
    ticket = db.one(TICKET)
    held.wait_held(1)
    assert db.one("SELECT qdrant_cancel(%s)", (ticket,)) is True
    gone(db, ticket)
    none_left(db)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_session_that_ends_takes_its_tickets_along(db, held, end):
    conn = db.connect()
    for _ in range(40):
        conn.execute(TICKET)
    held.wait_held(16)
    assert len(states(db)) == 40
    if end == "close":
        conn.close()
    else:
        db.sql("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
    none_left(db)


@pytest.mark.versions
def test_discard_all_gives_up_the_sessions_tickets(db, held):
    """As a pooler does between two clients: the next one finds none of the first one's."""
    held.clear_faults()
    done = db.one(TICKET)
    assert db.one("SELECT qdrant_await_any(ARRAY[%s::bigint])", (done,)) == done
    held.fault("hold", path_regex=POINTS)
    running = db.one(TICKET)
    held.wait_held(1)
    with db.connect() as other:
        kept = other.execute(TICKET).fetchone()[0]
        for what in ("PLANS", "TEMP", "SEQUENCES"):
            db.sql("DISCARD " + what)
        assert db.one("SELECT qdrant_is_done(%s)", (running,)) is False
        db.sql("DISCARD ALL")
        gone(db, done)
        gone(db, running)
        db.sql("SET qdrant_sync.max_session_tickets = 1")
        assert db.one("SELECT qdrant_cancel(%s)", (db.one(TICKET),)) is True
        assert other.execute("SELECT qdrant_cancel(%s)", (kept,)).fetchone() == (True,)
    none_left(db)
    assert usage(db)["answer_bytes"] == 0


def test_a_worker_that_ends_fails_what_was_under_way(db, held, cluster):
    ticket = db.one(TICKET)
    held.wait_held(1)
    cluster.kill(cluster.pids("qdrant_sync request worker")[0])
    e = error(db, "SELECT qdrant_await(%s)", (ticket,))
    assert e.sqlstate == "57P03"
    gone(db, ticket)
    none_left(db)


def test_a_hundred_thousand_tickets_leave_nothing(db, items):
    """A tenth is collected, the others are given up in whatever state they are. No slot stays, and no byte."""
    start = usage(db)
    assert (start["tickets"], start["request_bytes"], start["answer_bytes"]) == (0, 0, 0)
    db.sql("""CREATE PROCEDURE many(rounds int) LANGUAGE plpgsql AS $$
        DECLARE tickets bigint[];
        BEGIN
            FOR i IN 1..rounds LOOP
                tickets := ARRAY(SELECT qdrant_query_async('items', '[1,0]', 1) FROM generate_series(1, 100));
                PERFORM qdrant_cancel(t) FROM unnest(tickets[1:90]) t;
                PERFORM * FROM qdrant_await_points(tickets[91:100]);
            END LOOP;
        END $$""")
    db.sql("CALL many(1000)")
    none_left(db)
    assert usage(db) == start


# --- limits ---

def test_at_the_limit_the_caller_is_told_and_loses_nothing(db, held):
    tickets = [t for (t,) in db.sql(TICKET + " FROM generate_series(1, 768)")]
    e = error(db, TICKET)
    assert e.sqlstate == "53400" and "max_tickets" in e.diag.message_hint
    let_go(held)
    assert db.one("SELECT count(*) FROM qdrant_await_points(%s)", (tickets,)) == 2 * 768
    none_left(db)


def test_a_session_has_a_limit_of_its_own(db, held):
    db.sql("SET qdrant_sync.max_session_tickets = 3")
    db.sql("SET qdrant_sync.limit_wait = '1h'")
    tickets = [db.one(TICKET) for _ in range(3)]
    e = error(db, TICKET)
    assert e.sqlstate == "53400" and "max_session_tickets" in e.diag.message_hint
    with db.connect() as other:
        assert other.execute(TICKET).fetchone()[0]
    assert db.one("SELECT qdrant_cancel(%s)", (tickets[0],)) is True
    assert db.one(TICKET)
    db.conn.close()
    none_left(db)


def test_at_the_limit_the_caller_waits_where_the_setting_says_so(db, held):
    hoarder = db.connect()
    hoarder.execute(TICKET + " FROM generate_series(1, 768)")
    db.sql("SET qdrant_sync.limit_wait = '50ms'")
    assert error(db, TICKET).sqlstate == "53400"
    db.sql("RESET qdrant_sync.limit_wait")
    session = Session(db, "SELECT count(*) FROM qdrant_await_points(ARRAY[(" + TICKET + ")])",
                      ["qdrant_sync.limit_wait = '1h'"])
    wait_until(lambda: db.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'", (session.pid,)), 10)
    assert len(states(db)) == 768
    hoarder.close()
    let_go(held)
    assert session.ended().rows == [(2,)]
    session.close()
    none_left(db)


WAITING = ["qdrant_sync.limit_wait = '1h'"]
ONE = "SELECT count(*) FROM qdrant_await_points(ARRAY[(" + TICKET + ")])"


def waiting(db, n):
    wait_until(lambda: usage(db)["waiting"] == n, 20, lambda: f"{n} wait for room: {usage(db)}")


def all_get_their_points(db, held, sessions):
    let_go(held)
    for session in sessions:
        assert session.ended().rows == [(2,)], session.error
        session.close()
    none_left(db)


def test_several_who_wait_for_a_ticket_are_served_one_by_one(db, held):
    """Each ticket that is given up serves one of them; who leaves in another way leaves nothing behind."""
    hoarder = db.connect()
    tickets = [t for (t,) in hoarder.execute(TICKET + " FROM generate_series(1, 768)")]
    sessions = [Session(db, ONE, WAITING) for _ in range(12)]
    waiting(db, 12)
    late = Session(db, ONE, ["qdrant_sync.limit_wait = '100ms'"])
    assert late.ended().error.sqlstate == "53400"
    # The first in the queue and one in its middle.
    sessions[0].conn.cancel()
    db.sql("SELECT pg_terminate_backend(%s)", (sessions[6].pid,))
    waiting(db, 10)
    assert sessions[0].ended().error.sqlstate == "57014" and sessions[6].ended().error
    # Those that run are freed by the worker, those that queue by their session.
    held.wait_held(16)
    for left, ticket in zip(range(9, 3, -1), tickets[:3] + tickets[-3:]):
        assert hoarder.execute("SELECT qdrant_cancel(%s)", (ticket,)).fetchone() == (True,)
        waiting(db, left)
        assert usage(db)["tickets"] == 768
    hoarder.close()
    waiting(db, 0)
    let_go(held)
    for n in {*range(12)} - {0, 6}:
        assert sessions[n].ended().rows == [(2,)], sessions[n].error
    for session in (late, *sessions):
        session.close()
    none_left(db)


@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_who_is_called_and_ends_instead_leaves_its_turn_to_the_next(db, held, cluster, end):
    """The first in the queue is stopped, so that it is told both of the room and of its end before it can look."""
    hoarder = db.connect()
    tickets = [t for (t,) in hoarder.execute(TICKET + " FROM generate_series(1, 768)")]
    sessions = []
    for n in (1, 2):
        sessions.append(Session(db, ONE, WAITING))
        waiting(db, n)
    cluster.kill(sessions[0].pid, signal.SIGSTOP)
    try:
        assert hoarder.execute("SELECT qdrant_cancel(%s)", (tickets[-1],)).fetchone() == (True,)
        assert usage(db)["tickets"] == 767 and usage(db)["waiting"] == 2
        db.sql(f"SELECT pg_{end}_backend(%s)", (sessions[0].pid,))
    finally:
        cluster.kill(sessions[0].pid, signal.SIGCONT)
    waiting(db, 0)
    assert sessions[0].ended().error
    assert usage(db)["tickets"] == 768
    let_go(held)
    assert sessions[1].ended().rows == [(2,)]
    for session in sessions:
        session.close()
    hoarder.close()
    none_left(db)


def test_who_waits_for_a_server_that_has_its_share_lets_others_pass(db, held, front):
    """Both servers use up all tickets; one of the second's comes free, and the first's may have no more."""
    other_name = front.url.replace("127.0.0.1", "localhost")
    db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{other_name}')")
    first, second = (text.replace("\"timeout\"", f"server => '{name}', \"timeout\"")
                     for text, name in ((TICKET, "qdrant"), (TICKET, "second")))
    hoarder = db.connect()
    hoarder.execute(first + " FROM generate_series(1, 768)")
    tickets = [t for (t,) in hoarder.execute(second + " FROM generate_series(1, 256)")]
    sessions = []
    for text in (first, first, second, first, second):
        sessions.append(Session(db, f"SELECT count(*) FROM qdrant_await_points(ARRAY[({text})])", WAITING))
        waiting(db, len(sessions))
    for left in (4, 3):
        assert hoarder.execute("SELECT qdrant_cancel(%s)", (tickets.pop(),)).fetchone() == (True,)
        waiting(db, left)
    assert db.sql("SELECT pid, server FROM qdrant_requests WHERE pid <> %s ORDER BY submitted_at",
                  (hoarder.info.backend_pid,)) == [(sessions[2].pid, "second"), (sessions[4].pid, "second")]
    hoarder.close()
    all_get_their_points(db, held, sessions)


def test_sessions_wait_for_room_for_large_requests(db, held):
    """The requests' memory has 8 MB here; a small one has room meanwhile, and one that never has is told so at once."""
    def text(megabytes):
        return (f"""SELECT qdrant_query_async('items', '[1,0]', "timeout" => '60s', filter => jsonb_build_object('must_not',
            jsonb_build_object('key', 'k', 'match', jsonb_build_object('value', repeat('x', {megabytes} << 20)))))""")
    start = usage(db)
    hoarder = db.connect()
    tickets = []
    with pytest.raises(psycopg.errors.OutOfMemory) as caught:
        while True:
            tickets.append(hoarder.execute(text(2)).fetchone()[0])
    assert len(tickets) >= 2 and "or try again" in caught.value.diag.message_hint
    sessions = [Session(db, f"SELECT count(*) FROM qdrant_await_points(ARRAY[({text(2)})])", WAITING) for _ in range(3)]
    waiting(db, 3)
    assert usage(db)["request_bytes"] >= len(tickets) << 21
    db.sql("SET qdrant_sync.limit_wait = '1h'")
    assert db.one("SELECT qdrant_cancel(%s)", (db.one(TICKET),)) is True
    e = error(db, text(9))
    assert e.sqlstate == "53200" and e.diag.message_hint == "Raise qdrant_sync.answer_memory."
    assert hoarder.execute("SELECT qdrant_cancel(%s)", (tickets.pop(),)).fetchone() == (True,)
    waiting(db, 2)
    hoarder.close()
    all_get_their_points(db, held, sessions)
    assert usage(db) == start


@pytest.fixture
def hoarder(db):
    db.sql("DROP ROLE IF EXISTS async_hoarder")
    db.sql("CREATE ROLE async_hoarder LOGIN")
    yield "async_hoarder"
    db.sql("DROP OWNED BY async_hoarder; DROP ROLE async_hoarder")


FAT = "SELECT qdrant_query_async('x', '[1]', server => 'raw', \"timeout\" => '60s')"
FAT_BODY = b'{"result":{"points":[{"id":1,"score":1,"payload":{"a":"' + b"y" * 90_000 + b'"}}]},"status":"ok","time":0}'


def test_a_role_that_hoards_answers_leaves_room_for_others(db, raw, hoarder):  # noqa: F811
    """Two of its sessions would fill the memory for answers; everybody else, and its own calls that wait, still have room."""
    raw(FAT_BODY)
    db.sql(f"GRANT USAGE ON FOREIGN SERVER raw TO {hoarder}")
    memory = usage(db)["answer_memory"]
    sessions = [db.connect(user=hoarder) for _ in range(2)]
    for conn in sessions:
        tickets = [t for (t,) in conn.execute(FAT + " FROM generate_series(1, 250)")]
        db_done = "SELECT count(*) FROM qdrant_requests WHERE state IN ('queued', 'running')"
        wait_until(lambda: db.one(db_done) == 0, 60, "all are done")
        held = usage(db)["answer_bytes"]
        # One session has half, and both together have three quarters, up to the answer that came last.
        assert held <= (memory // 2 if conn is sessions[0] else memory * 3 // 4) + (1 << 18), (held, memory)
        assert held >= memory * 45 // 100
    with pytest.raises(psycopg.errors.OutOfMemory) as caught:
        sessions[1].execute("SELECT * FROM qdrant_await_points(%s)", (tickets,))
    assert "qdrant_requests" in caught.value.diag.message_hint
    for conn in (db.conn, *sessions):
        assert len(conn.execute("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')").fetchall()) == 1
    got = [t for (t,) in db.sql(FAT + " FROM generate_series(1, 20)")]
    assert db.one("SELECT count(*) FROM qdrant_await_points(%s)", (got,)) == 20
    for conn in sessions:
        conn.close()
    none_left(db)
    assert usage(db)["answer_bytes"] == 0


def test_one_large_answer_of_a_ticket_has_room(db, raw):  # noqa: F811
    raw(b'{"result":{"points":[]},"x":"' + b"y" * (usage(db)["answer_memory"] // 2 - 1000) + b'","status":"ok","time":0}')
    ticket = db.one(FAT)
    assert db.one("SELECT qdrant_await(%s)", (ticket,)) == {"points": []}


def test_an_answer_without_room_does_not_wait(db, raw):  # noqa: F811
    """limit_wait is for requests: an answer that is on its way cannot wait."""
    raw(FAT_BODY)
    db.sql("SET qdrant_sync.limit_wait = '1h'")
    tickets = [t for (t,) in db.sql(FAT + " FROM generate_series(1, 250)")]
    e = error(db, "SELECT * FROM qdrant_await_points(%s)", (tickets,))
    assert e.sqlstate == "53200"
    db.conn.close()
    none_left(db)


# --- elsewhere ---

def test_a_database_with_hundreds_of_tickets_does_not_starve_another(db, held, cluster, front):
    """With one connection, what another database asks is the next or the one after."""
    cluster.reload({"qdrant_sync.request_connections": 1})
    other = new_extension_db(cluster, front)
    try:
        wait_until(lambda: cluster.one("SHOW qdrant_sync.request_connections") == "1", 5)
        db.sql(TICKET + " FROM generate_series(1, 500)")
        held.wait_held(1)
        ticket = other.one(TICKET)
        for _ in range(3):
            (one,) = held.wait_held(1)
            held.release(one["n"])
            if other.one("SELECT qdrant_await_any(ARRAY[%s::bigint], '500ms')", (ticket,)):
                break
        assert other.one("SELECT qdrant_is_done(%s)", (ticket,)) is True
        assert db.one("SELECT count(*) FROM qdrant_requests WHERE state = 'queued'") > 490
    finally:
        cluster.reload({"qdrant_sync.request_connections": 16})
        other.drop()
        db.conn.close()
        let_go(held)
        none_left(db)


@pytest.mark.versions
def test_a_hot_standby_has_tickets_too(front, pgversion):
    front.clear()
    front.client.create_collection("items", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("items", [models.PointStruct(id=i, vector=[1, 0]) for i in (1, 2)], wait=True)
    with Cluster(pgversion, name="primary") as primary:
        db = new_extension_db(primary, front)
        standby = primary.standby()
        primary.wait_replayed(standby)
        wait_until(lambda: standby.pids("qdrant_sync request worker"), what="a worker on the standby")
        assert standby.one("SELECT count(*) FROM (" + TEN + ") t", dbname=db.name) == len(ROWS)
        db.conn.close()
