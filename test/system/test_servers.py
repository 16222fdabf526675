"""One server that is down: the others' mirrors go on at full speed, it gets one probe at a time, and comes back by itself."""

import pytest

from harness import FrontHandle, assert_converged, wait_until
from items import PAYLOAD, Items

pytestmark = pytest.mark.faults

DOWN = {
    "its requests hang": lambda faults: faults.fault("hold", path_regex="."),
    "it answers 503": lambda faults: faults.fault("503", path_regex="."),
    "a proxy answers 502": lambda faults: faults.fault("502", path_regex="."),
    "nobody listens": lambda faults: faults.down(),
    "its machine is frozen": lambda faults: faults.freeze(),
}


@pytest.fixture
def second(db):
    with FrontHandle() as other:
        db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{other.url}')")
        yield other


@pytest.mark.parametrize("how", DOWN)
def test_thousands_of_rows_reach_one_server_while_the_other_is_down(db, front, second, how):
    here = Items(db, "here", rows=20, server="qdrant")
    there = [Items(db, f"there{i}", rows=20, server="second") for i in range(3)]
    DOWN[how](second.faults)
    for items in there:
        items.insert(1000, 1500)
    if how == "its requests hang":
        second.faults.wait_held(1)
    for first in range(1000, 6000, 100):
        here.insert(first, first + 99)
    here.converged(60)
    assert db.one("SELECT qdrant_wait('30s', 'here')") is True
    # Nothing of the other one has come to an end meanwhile.
    for items in there:
        assert items.row()["pending"] >= 501 and items.dead_letters() == {}
    assert db.one("SELECT qdrant_wait('100ms', 'there0')") is False
    second.faults.thaw()
    second.faults.clear_faults()
    second.faults.up()
    second.faults.release()
    for items in there:
        assert_converged(db, items.table, second, items.collection, payload=PAYLOAD, timeout=60)
        assert items.dead_letters() == {}


def overlapping(entries):
    """Requests that came before the one before them was answered."""
    entries = sorted(entries, key=lambda entry: entry["received"])
    return [(one["path"], other["path"]) for one, other in zip(entries, entries[1:])
            if other["received"] < one["answered"]]


@pytest.mark.parametrize("status", ["502", "503"])
def test_one_probe_at_a_time_for_all_mirrors_of_a_server_that_is_down(db, front, status):
    tables = [Items(db, f"t{i}", rows=5) for i in range(6)]
    front.faults.faults_add([{"action": "delay", "when": "head", "seconds": 0.1, "match": {"path_regex": "."}},
                             {"action": status, "match": {"path_regex": "."}}])
    mark = max(items.mark() for items in tables)
    with db.connect(autocommit=False) as conn:
        for items in tables:
            items.insert(10, 400, conn=conn)
        conn.commit()

    def failed():
        return [entry for entry in front.faults.log(since=mark) if entry["status"] == int(status)]
    wait_until(lambda: len(failed()) >= 10, 60, lambda: f"ten failures: {len(failed())}")
    # What was under way when the first one failed may overlap; nothing that began later does.
    answered = min(entry["answered"] for entry in failed())
    under_way = max(entry["answered"] for entry in failed() if entry["received"] < answered)
    assert overlapping([entry for entry in failed() if entry["received"] > under_way]) == []
    front.faults.clear_faults()
    for items in tables:
        items.converged(60)
        assert items.dead_letters() == {}


def test_new_mirrors_of_a_server_that_is_down_wait_behind_one_probe(db, front):
    front.faults.down()
    tables = [Items(db, f"t{i}", rows=5, live=False) for i in range(5)]
    tables[0].wait_error("(?i)connect|refused")
    front.faults.up()
    for items in tables:
        items.converged(60)
