"""The other way to ask: AsyncQdrantClient, as one would use it today.

peer_query.py URL COLLECTION TASKS SECONDS

So many tasks ask one query after the other, with the vector on standard input as JSON. Prints JSON: microseconds of each
request, and seconds of this process's CPU for each.
"""

import asyncio
import json
import sys
import time

from qdrant_client import AsyncQdrantClient

K = 10


async def ask(client, collection, vector, stop, taken):
    while True:
        start = time.perf_counter()
        if start >= stop:
            return
        await client.query_points(collection, query=vector, limit=K)
        taken.append((time.perf_counter() - start) * 1e6)


async def main():
    url, collection, tasks, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    vector = json.load(sys.stdin)
    client = AsyncQdrantClient(url=url, check_compatibility=False, timeout=60)

    async def together(duration):
        taken = []
        stop = time.perf_counter() + duration
        await asyncio.gather(*(ask(client, collection, vector, stop, taken) for _ in range(tasks)))
        return taken

    await together(0.5)     # connections, and what is made once
    before = time.process_time()
    taken = await together(seconds)
    spent = time.process_time() - before
    await client.close()
    print(json.dumps({"microseconds": taken, "cpu": spent / len(taken)}))


asyncio.run(main())
