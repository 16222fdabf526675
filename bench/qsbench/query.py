"""One query at a time: through the request worker, and by a libcurl handle that the backend keeps alive itself."""

import json
import subprocess
import sys
from pathlib import Path

from harness import Cluster, FrontHandle, new_extension_db
from qsbench import native, tables
from qsbench.native import Sink
from qsbench.report import Line, say
from qsbench.tables import make_table

PEER = Path(__file__).with_name("peer_query.py")

K = 10
BLOCK = 25
RATIO = 1.15
MICROSECONDS = 80

# Each timed as a whole in the backend, microseconds; the variables are the same for all.
WAYS = {
    "worker": "PERFORM * FROM qdrant_query('{collection}', q, {k})",
    "rows": "PERFORM * FROM jsonb_to_recordset(own_curl('{url}', own_body(q))::jsonb -> 'result' -> 'points') "
            "AS p (id text, score real, payload jsonb)",
    "bytes": "PERFORM own_curl('{url}', body)",
}

OWN_BODY = """
CREATE FUNCTION own_body(q real[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{"query":' || to_json(q) || ',"limit":{k},"with_payload":true}'
$$"""

# Some of each way in turn, so that a slow moment hits all of them; not one, which would find its process asleep.
TIMER = """
CREATE FUNCTION time_all(n int, OUT worker float8[], OUT rows float8[], OUT bytes float8[]) LANGUAGE plpgsql AS $$
DECLARE
    q real[] := (SELECT embedding FROM source WHERE id = 1);
    body text := own_body(q);
    start timestamptz;
BEGIN
    FOR block IN 0..n / {block} - 1 LOOP{turns}
    END LOOP;
END $$"""

TURN = """
        FOR i IN block * {block} + 1 .. (block + 1) * {block} LOOP
            start := clock_timestamp();
            {statement};
            {way}[i] := extract(epoch FROM clock_timestamp() - start) * 1e6;
        END LOOP;"""


def query(options):
    queries = 1000 if options.quick else 4000
    lines = []
    with Cluster(name="bench") as c:
        with Sink() as sink:
            lines += against(c, tables.Server(sink), "a sink that answers at once", queries)
        with FrontHandle() as front:
            lines += against(c, front, "Qdrant's engine behind test/'s front", queries // 4)
    return lines


def against(cluster, server, what, queries):
    say(f"query: {what}")
    db = new_extension_db(cluster, server)
    try:
        tables.make_source(db, 1000)
        table = make_table(db, "mirror", f"items_{db.name}", 1000)
        times = time_ways(db, f"{server.url}/collections/{table}/points/query", table, queries)
        client, _ = peer(server.url, table, db.one("SELECT embedding FROM source WHERE id = 1"), 1, 2 if queries < 1000 else 4)
    finally:
        db.drop()
    worker, own, floor = (times[way] for way in ("worker", "rows", "bytes"))
    met = worker.p50 <= RATIO * own.p50 or worker.p50 <= own.p50 + MICROSECONDS
    return [
        Line(f"one query, k = {K}, through the worker, p50; {what}",
             f"{worker.p50:.0f} µs, {worker.p50 / own.p50:.2f}×, {worker.p50 - own.p50:+.0f} µs",
             f"≤ {RATIO}× or +{MICROSECONDS} µs", met),
        Line("own kept-alive curl, to rows by SQL's own JSON", f"{own.p50:.0f} µs"),
        Line("own kept-alive curl, answer not looked at, request made before",
             f"{floor.p50:.0f} µs; the worker {worker.p50 - floor.p50:+.0f} µs"),
        Line("AsyncQdrantClient, one after the other, p50", f"{client.p50:.0f} µs"),
        Line("p99: worker, own to rows, own, AsyncQdrantClient",
             f"{worker.p99:.0f}, {own.p99:.0f}, {floor.p99:.0f}, {client.p99:.0f} µs"),
    ]


def peer(url, collection, vector, tasks, seconds):
    """(Times, seconds of CPU for each request) of AsyncQdrantClient."""
    command = [sys.executable, PEER, url, collection, tasks, seconds]
    result = subprocess.run(list(map(str, command)), input=json.dumps(vector), capture_output=True, text=True, timeout=300)
    if result.returncode != 0:
        raise RuntimeError(result.stderr[-2000:])
    found = json.loads(result.stdout)
    return Times(found["microseconds"]), found["cpu"]


class Times:
    def __init__(self, microseconds):
        ordered = sorted(microseconds)
        self.p50 = ordered[len(ordered) // 2]
        self.p99 = ordered[len(ordered) * 99 // 100]


def time_ways(db, url, collection, queries):
    """{way: Times}; what is measured before the plans and connections are there does not count."""
    turns = "".join(TURN.format(way=way, block=BLOCK, statement=statement.format(url=url, collection=collection, k=K))
                    for way, statement in WAYS.items())
    with db.connect() as conn:
        conn.execute(f"CREATE FUNCTION own_curl(text, text) RETURNS text LANGUAGE c STRICT "
                     f"AS '{native.module('own_curl', '-lcurl')}'")
        conn.execute(OWN_BODY.replace("{k}", str(K)))
        conn.execute(TIMER.replace("{block}", str(BLOCK)).replace("{turns}", turns))
        conn.execute("SELECT time_all(50)")
        taken = conn.execute("SELECT (time_all(%s)).*", (queries,)).fetchone()
    return dict(zip(WAYS, map(Times, taken)))
