"""The other way to do the worker's work: a script with psycopg and AsyncQdrantClient, as one would write it today.

peer_client.py CONNINFO URL TABLE ROWS points|batch

Reads rows by key, a thousand at a time, and upserts them a hundred at a time, four requests in flight. Prints JSON:
rows for each second of CPU, its own and that of its backend.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import psycopg
from qdrant_client import AsyncQdrantClient, models

READ = 1000
BATCH = 100
IN_FLIGHT = 4


def points_of(rows, form):
    if form == "batch":
        return models.Batch(ids=[row[0] for row in rows], vectors=[row[1] for row in rows],
                            payloads=[payload_of(row) for row in rows])
    return [models.PointStruct(id=row[0], vector=row[1], payload=payload_of(row)) for row in rows]


def payload_of(row):
    return {"title": row[2], "category": row[3], "price": float(row[4])}


async def send_all(conn, client, collection, table, keys, form):
    query = f"SELECT id, embedding, title, category, price FROM {table} WHERE id = ANY(%s)"
    free = asyncio.Semaphore(IN_FLIGHT)

    async def send(rows):
        try:
            await client.upsert(collection, points_of(rows, form), wait=True)
        finally:
            free.release()

    tasks = []
    for start in range(0, len(keys), READ):
        cursor = await conn.execute(query, (keys[start:start + READ],), binary=True)
        rows = await cursor.fetchall()
        for first in range(0, len(rows), BATCH):
            await free.acquire()
            tasks.append(asyncio.create_task(send(rows[first:first + BATCH])))
    await asyncio.gather(*tasks)


def backend_cpu(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def main():
    conninfo, url, table, rows, form = sys.argv[1:]
    client = AsyncQdrantClient(url=url, check_compatibility=False, timeout=60)
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
        keys = list(range(1, int(rows) + 1))
        await send_all(conn, client, table, table, keys[:READ], form)
        before = time.process_time() + backend_cpu(conn.info.backend_pid)
        await send_all(conn, client, table, table, keys, form)
        spent = time.process_time() + backend_cpu(conn.info.backend_pid) - before
    await client.close()
    print(json.dumps({"rate": len(keys) / spent}))


asyncio.run(main())
