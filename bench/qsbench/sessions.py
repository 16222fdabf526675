"""Two hundred sessions that query at the same time: what a request costs the client's side, and how even the answers come."""

import asyncio

import psycopg

from harness import Cluster
from qsbench import process, tables
from qsbench.native import Sink
from qsbench.query import K, Times, peer
from qsbench.report import Line, say
from qsbench.tables import make_table

SESSIONS = 200
SPREAD = 3
TIMES_PEER = 15

# All begin and end at the same moments; nothing but the calls is between them.
ASK = """
CREATE FUNCTION ask(begins timestamptz, ends timestamptz) RETURNS float8[] LANGUAGE plpgsql AS $$
DECLARE
    q real[] := (SELECT embedding FROM source WHERE id = 1);
    taken float8[] := '{}';
    start timestamptz;
BEGIN
    PERFORM * FROM qdrant_query('{collection}', q, {k});
    PERFORM pg_sleep(extract(epoch FROM begins - clock_timestamp()));
    LOOP
        start := clock_timestamp();
        EXIT WHEN start >= ends;
        PERFORM * FROM qdrant_query('{collection}', q, {k});
        taken := taken || (extract(epoch FROM clock_timestamp() - start) * 1e6)::float8;
    END LOOP;
    RETURN taken;
END $$"""


async def ask_together(conninfo, seconds):
    """Microseconds of all requests, and CPU of the sessions and the request worker."""
    conns = [await psycopg.AsyncConnection.connect(conninfo, autocommit=True) for _ in range(SESSIONS)]
    try:
        pids = [conn.info.backend_pid for conn in conns]
        cursor = await conns[0].execute("SELECT pid FROM qdrant_workers WHERE kind = 'request'")
        pids.append((await cursor.fetchone())[0])

        async def ask(conn):
            cursor = await conn.execute("SELECT ask(%s::timestamptz + '3 s', %s::timestamptz + %s)",
                                        (now, now, f"{3 + seconds} s"))
            return (await cursor.fetchone())[0]

        now = (await (await conns[0].execute("SELECT clock_timestamp()")).fetchone())[0]
        asking = [asyncio.create_task(ask(conn)) for conn in conns]
        await asyncio.sleep(2.8)
        before = [process.cpu_seconds(pid) for pid in pids]
        taken = [one for times in await asyncio.gather(*asking) for one in times]
        spent = [process.cpu_seconds(pid) - start for pid, start in zip(pids, before)]
    finally:
        for conn in conns:
            await conn.close()
    return taken, spent


def sessions(options):
    seconds = 3 if options.quick else 10
    conf = {"max_connections": 250, "qdrant_sync.max_tickets": 512}
    with Sink() as sink, Cluster(conf=conf, name="bench") as c, tables.database(c, sink, 1000) as db:
        table = make_table(db, "mirror", f"items_{db.name}", 1000)
        db.sql(ASK.replace("{collection}", table).replace("{k}", str(K)))
        vector = db.one("SELECT embedding FROM source WHERE id = 1")
        say(f"sessions: {SESSIONS} of PostgreSQL")
        taken, spent = asyncio.run(ask_together(c.conninfo(db.name), seconds))
        say(f"sessions: {SESSIONS} tasks of AsyncQdrantClient")
        times, cpu = peer(sink.url, table, vector, SESSIONS, seconds)
    return lines_of(Times(taken), spent, len(taken), times, cpu, seconds)


def lines_of(ours, spent, requests, theirs, their_cpu, seconds):
    cpu = sum(spent) / requests
    return [
        Line(f"{SESSIONS} sessions querying at once, k = {K}: client CPU per request against AsyncQdrantClient",
             f"1/{their_cpu / cpu:.1f}", f"≤ 1/{TIMES_PEER}", their_cpu / cpu >= TIMES_PEER),
        Line("sessions and request worker", f"{cpu * 1e6:.0f} µs, of which the worker {spent[-1] / requests * 1e6:.0f}"),
        Line("AsyncQdrantClient, as many tasks", f"{their_cpu * 1e6:.0f} µs"),
        Line(f"{SESSIONS} sessions querying at once: p99 over p50", f"{ours.p99 / ours.p50:.1f}×", f"≤ {SPREAD}×",
             ours.p99 <= SPREAD * ours.p50),
        Line("p50, p99; requests a second", f"{ours.p50 / 1000:.1f}, {ours.p99 / 1000:.1f} ms; {requests / seconds:,.0f}"),
        Line("AsyncQdrantClient, p50, p99", f"{theirs.p50 / 1000:.1f}, {theirs.p99 / 1000:.1f} ms, "
             f"{theirs.p99 / theirs.p50:.1f}×"),
    ]
