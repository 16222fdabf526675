"""Bounded memory: a transaction of a million rows, and rows that no request can hold (contract 7, hazard 19)."""

import re

import pytest

from harness import wait_until
from items import PAYLOAD, Items, workers

CLUSTER = {"conf": {"qdrant_sync.batch_rows": "5000", "qdrant_sync.batch_bytes": "4MB"}}

MB = 1024 * 1024


def status(pid, name):
    """Bytes, as /proc says."""
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{name}:\s*(\d+) kB", f.read(), re.M)[1]) * 1024


class Peak:
    """How much the worker grows at the most, and what of it stays."""

    def __init__(self, cluster, db):
        self.pid, = workers(cluster, db)
        with open(f"/proc/{self.pid}/clear_refs", "w") as f:
            f.write("5")
        self.before = status(self.pid, "RssAnon")

    def growth(self):
        return status(self.pid, "VmHWM") - status(self.pid, "VmRSS") + self.kept()

    def kept(self):
        return status(self.pid, "RssAnon") - self.before


@pytest.fixture
def warm(db):
    """A mirror whose worker has read and sent rows already."""
    items = Items(db, rows=2000)
    items.update()
    items.converged()
    return items


@pytest.mark.faults
def test_million_rows_in_a_transaction_take_bounded_memory_and_hold_up_nobody(db, front, cluster, warm):
    front.faults.fault("answer", path_regex="^/collections/big_.*/points", status=200,
                       body='{"result":{"operation_id":1,"status":"completed"},"status":"ok","time":0.001}')
    big = Items(db, "big", rows=1)
    peak = Peak(cluster, db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO big SELECT i, NULL, 0, '{1,2,3,4}' FROM generate_series(2, 1000000) i")
        ours = conn.execute("SELECT coalesce(sum(total_bytes), 0) FROM pg_backend_memory_contexts "
                            "WHERE name LIKE 'qdrant_sync%'").fetchone()[0]
        assert 0 < ours <= 1.1 * MB, ours
        conn.commit()
    # Another mirror's row arrives while those are under way.
    warm.insert(5000)
    wait_until(lambda: warm.point(5000), 30, "the other mirror's row")
    row = big.row()
    assert row["points_sent"] < 1_000_000, row
    wait_until(lambda: big.row()["points_sent"] >= 1_000_000, 120, lambda: f"all are sent: {big.row()}")
    assert db.one("SELECT qdrant_wait('30s')") is True
    assert peak.growth() <= 64 * MB, peak.growth()
    assert big.dead_letters() == {}
    warm.converged()


HUGE = {
    "one value": ("repeat('x', 300000000), 0, '{1,2,3,4}', '{}'", "title.*300000004 bytes|the row has 3"),
    "many values": ("repeat('x', 30000000), 0, '{1,2,3,4}', "
                    "ARRAY(SELECT repeat('y', 40000000) FROM generate_series(1, 5))", "the row has 2|parts.*bytes"),
    "a vector": ("'x', 0, array_fill(0.5::real, ARRAY[50000000]), '{}'", "embedding.*bytes|the row has 2"),
}


@pytest.mark.parametrize("what", HUGE)
def test_row_of_hundreds_of_megabytes_is_refused_before_it_is_detoasted(db, cluster, what):
    items = Items(db, rows=20, columns=", parts text[] DEFAULT '{}'")
    columns = (*PAYLOAD, "parts")
    items.update()
    items.converged(payload=columns)
    values, error = HUGE[what]
    peak = Peak(cluster, db)
    db.sql(f"INSERT INTO items VALUES (100, {values})")
    items.insert(101, 120)
    items.update("id < 10")
    items.converged(where="id <> 100", payload=columns)
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {"100"} and re.search(error, letters["100"]), letters
    assert peak.growth() < 50 * MB, peak.growth()
    db.sql("UPDATE items SET title = 'x', embedding = '{1,2,3,4}', parts = '{}' WHERE id = 100")
    items.converged(payload=columns)
    wait_until(lambda: items.dead_letters() == {}, what="no dead letter")


ESCAPED = {
    "control characters": "repeat(chr(1), 20000000), 0, '{1,2,3,4}', NULL",
    "quotes": "repeat('\"', 30000000), 0, '{1,2,3,4}', NULL",
    "base64": "'x', 0, '{1,2,3,4}', decode(repeat('00', 30000000), 'hex')",
}


@pytest.mark.parametrize("what", ESCAPED)
def test_row_that_is_too_large_only_as_json_is_its_own_dead_letter(db, cluster, what):
    items = Items(db, rows=20, columns=", bytes bytea")
    items.update()
    items.converged(where="bytes IS NULL")
    peak = Peak(cluster, db)
    db.sql(f"INSERT INTO items VALUES (100, {ESCAPED[what]})")
    items.insert(101, 120)
    items.converged(where="id <> 100")
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {"100"} and re.search("bytes", letters["100"]), letters
    assert peak.growth() < 250 * MB, peak.growth()
    wait_until(lambda: peak.kept() < 20 * MB, what=lambda: f"it is given back: {peak.kept()}")
    items.delete("id = 100")
    items.converged(where="bytes IS NULL")


def test_rows_whose_bodies_are_large_together_go_in_several_requests(db):
    """Six of 8 MB, written at once: none of them is to blame."""
    items = Items(db, rows=3)
    db.sql("INSERT INTO items SELECT i, repeat(chr(97 + i % 26), 8000000), 0, '{1,2,3,4}' FROM generate_series(100, 105) i")
    items.converged(60)
    assert items.dead_letters() == {}
