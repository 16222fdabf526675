"""Qdrant as it should not be: each fault of the front's list, then table and collection are equal.

No fault but a refusal of the row itself may leave a dead letter (contract 8), and what says that the row was stored
decides alone whether it is sent again (hazard 29).
"""

import re

import pytest

from harness import FrontHandle, new_extension_db, stays, wait_until
from items import Items, WriteLoad

pytestmark = pytest.mark.faults


class Rig:
    """One mirror at a front of its own for many cases: each ends its own faults."""

    def __init__(self, db):
        self.db, self.front = db, db.front
        self.items = Items(db, rows=50)
        self.next_key = 100

    def keys(self, n):
        first = self.next_key
        self.next_key += n
        return first, first + n - 1


@pytest.fixture(scope="module")
def shared_rig(cluster):
    with FrontHandle() as front:
        db = new_extension_db(cluster, front)
        yield Rig(db)
        db.drop()


@pytest.fixture
def rig(shared_rig):
    # Few rows, so that comparing them costs little.
    shared_rig.items.delete("id > 60")
    yield shared_rig
    front = shared_rig.front.faults
    front.thaw()
    front.clear_faults()
    front.up()
    front.release()


# --- every fault ---

POINTS = "/points(/delete)?$"

FAULTS = {
    "delay in the body": dict(action="delay", seconds=0.2, when="body", times=6),
    "delay before the head": dict(action="delay", seconds=0.2, when="head", times=6),
    "delay after applying": dict(action="delay", seconds=0.2, when="after", times=6),
    "reset before the body": dict(action="reset", when="head", times=3),
    "reset in the body": dict(action="reset", when="body", times=3),
    "reset after applying": dict(action="reset", when="after", times=3),
    "truncated answer": dict(action="truncate", times=3),
    "answer byte by byte": dict(action="drip", seconds=0.001, times=3),
    "broken JSON": dict(action="garbage", times=3),
    "huge answer": dict(action="huge", bytes=8 << 20, times=2),
    "endless headers": dict(action="endless_headers", bytes=8 << 20, times=2),
    "408": dict(action="408", times=3),
    "408 though applied": dict(action="408", apply=True, times=3),
    "429 with Retry-After": dict(action="429", times=1),
    "429 without": dict(action="429_no_retry", times=3),
    "500": dict(action="500", times=3),
    "500 though applied": dict(action="500", apply=True, times=3),
    "500 before the body is read": dict(action="500", early=True, close=True, times=3),
    "502": dict(action="502", times=3),
    "503": dict(action="503", times=3),
    "504 though applied": dict(action="504", apply=True, times=3),
    "body too large": dict(action="early_400", times=3),
    "413": dict(action="answer", status=413, body="<h1>too large</h1>", content_type="text/html", times=3),
    "404 of a moment": dict(action="404", times=2),
    "a proxy's 404": dict(action="answer", status=404, body="nothing here", content_type="text/plain", times=2),
    "200 of somebody else": dict(action="answer", status=200, body="<html>hello</html>", content_type="text/html",
                                 times=2),
    "204 and nothing": dict(action="answer", status=204, body="", times=2),
    "wait_timeout": dict(action="wait_timeout", times=3),
    "wait_timeout, not applied": dict(action="wait_timeout", apply=False, times=3),
    "acknowledged and dropped": dict(action="acknowledge_and_drop", times=3),
    "clock_rejected": dict(action="answer", status=200, times=3,
                           body='{"result":{"operation_id":1,"status":"clock_rejected"},"status":"ok","time":0.001}'),
    "down for a moment": dict(action="down", seconds=0.4, times=2),
    "operation numbers go back": dict(action="operation_id", to=0, times=2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_converges_after(rig, name):
    front = rig.front
    fault = dict(FAULTS[name])
    items = rig.items
    front.faults.fault(fault.pop("action"), path_regex=POINTS, **fault)
    first, last = rig.keys(250)
    items.insert(first, last)
    items.update(f"id BETWEEN {first} AND {first + 20}")
    items.delete(f"id BETWEEN {first + 30} AND {first + 50} OR id % 50 = 3")
    items.converged(40)
    assert items.dead_letters() == {}
    assert items.wait() is True
    items.wait_state("live")
    rule, = front.faults.faults()
    assert rule["fired"] > 0, "the fault never happened"


def test_converges_after_507_full_disk(rig):
    """Mended by people: looked at again every ten seconds, and the view says what is wrong."""
    front = rig.front
    items = rig.items
    front.faults.fault("507", path_regex=POINTS)
    items.insert(*rig.keys(50))
    items.wait_error("507")
    front.faults.clear_faults()
    items.converged(40)
    assert items.dead_letters() == {}


def test_late_second_delivery_of_an_insert_does_no_harm(rig):
    """Where nothing has changed meanwhile: what was sent is a whole point, and may come again."""
    front, items = rig.front, rig.items
    since = items.mark()
    front.faults.fault("twice", seconds=0.1, path_regex=POINTS, times=5)
    items.insert(*rig.keys(400))
    items.converged()
    twice = [entry["n"] for entry in items.requests(since) if "twice" in entry["faults"]]
    assert twice
    wait_until(lambda: all(entry["applied"] == 2 for entry in items.requests(since) if entry["n"] in twice),
               what=lambda: f"each is applied twice: {items.requests(since)}")
    items.converged()


def test_converges_after_a_stall_and_a_hold(rig):
    front = rig.front
    items = rig.items
    front.faults.fault("stall", path_regex=POINTS, times=1)
    front.faults.fault("hold", path_regex=POINTS, times=1)
    items.insert(*rig.keys(200))
    front.faults.wait_held(2)
    items.update("id < 30")
    front.faults.release()
    items.converged()
    assert items.dead_letters() == {}


def test_converges_after_faults_at_random_under_write_load(rig, rng):
    """Twelve kinds together, about one request in six."""
    front = rig.front
    items = rig.items
    quick = ("500", "502", "503", "408", "reset in the body", "reset after applying", "truncated answer", "broken JSON",
             "wait_timeout", "acknowledged and dropped", "429 without", "504 though applied")
    rules = []
    for name in quick:
        rule = dict(FAULTS.get(name) or {"action": name})
        rule.pop("times", None)
        rules.append({"action": rule.pop("action"), "match": {"path_regex": POINTS}, "probability": 0.015,
                      "seed": rng.randrange(1 << 30), **rule})
    front.faults.faults_add(rules)
    items.insert(99_999)
    with WriteLoad(items.db, sessions=3, first=100_000, pause=0.01) as load:
        wait_until(lambda: sum(rule["fired"] for rule in front.faults.faults()) > 8, 60, "nine faults")
        load.wait_more(100)
    front.faults.clear_faults()
    items.converged(60)
    assert items.dead_letters() == {}


# --- faults of the way to a mirror ---

CREATION = {
    "looking": dict(method="GET", path_regex="^/collections/[^/]+$"),
    "creating": dict(method="PUT", path_regex="^/collections/[^/]+$"),
    "claiming": dict(method="POST", path_regex="^/collections/aliases$"),
    "listing": dict(method="GET", path_regex="/aliases$"),
    "asking the version": dict(method="GET", path_regex="^/$"),
    "asking for peers": dict(method="GET", path_regex="^/cluster$"),
}


@pytest.mark.parametrize("action", ["500", "502", "reset", "truncate"])
@pytest.mark.parametrize("step", CREATION)
def test_new_mirror_gets_through_a_fault_when(rig, step, action):
    front = rig.front
    db = rig.db
    more = {"when": "after"} if action == "reset" else {}
    front.faults.fault(action, times=2, **CREATION[step], **more)
    # A look of qdrant_mirror's own at the collection may meet the fault, too, and must not fail by it.
    items = Items(db, f"new_{len(front.faults.log())}", rows=10, live=False)
    try:
        items.converged()
        items.wait_state("live")
        assert len(items.aliases()) == 1
    finally:
        items.unmirror(drop_collection=True)
        db.sql(f"DROP TABLE {items.table}")


def test_collection_deleted_from_outside_is_made_and_filled_again(db, front):
    items = Items(db, rows=300)
    front.client.delete_collection(items.collection)
    items.update("id < 5")
    items.converged()
    assert len(items.aliases()) == 1 and items.dead_letters() == {}


def test_filling_goes_on_through_faults(db, front):
    front.faults.faults_add([
        {"action": "500", "match": {"path_regex": POINTS}, "probability": 0.2, "seed": 1},
        {"action": "reset", "when": "after", "match": {"path_regex": POINTS}, "times": 3}])
    items = Items(db, rows=3000)
    items.converged(60)
    assert items.dead_letters() == {}


def test_scroll_of_a_sweep_goes_on_through_faults(db, front):
    items = Items(db, rows=300)
    front.faults.faults_add([
        {"action": "500", "match": {"path_regex": "/points/scroll$"}, "times": 2},
        {"action": "truncate", "match": {"path_regex": "/points/scroll$"}, "times": 2},
        {"action": "reset", "when": "after", "match": {"path_regex": "/points/scroll$"}, "times": 1}])
    from qdrant_client.models import PointStruct
    front.client.upsert(items.collection, [PointStruct(id=9999, vector=[1, 2, 3, 4])])
    db.sql("SELECT qdrant_resync('items')")
    items.converged()


# --- what stops a mirror until somebody mends it ---

@pytest.mark.parametrize("status", ["401", "403"])
def test_denied_mirror_stops_with_a_reason_and_resume_goes_on(db, front, status):
    items = Items(db, rows=5)
    front.faults.fault(status, path_regex="^/collections/")
    items.insert(10, 30)
    row = items.wait_state("failed")
    assert status in row["last_error"]
    since = items.mark()
    # Other rows queue up behind it; nobody knocks at the door meanwhile.
    items.insert(40, 60)
    stays(lambda: items.requests(since) == [] and items.state() == "failed", 1)
    front.faults.clear_faults()
    items.resume()
    items.converged()
    items.wait_state("live")
    assert items.row()["last_error"] is None and items.dead_letters() == {}


def test_api_key_that_became_wrong_stops_the_mirror_and_a_mended_mapping_goes_on_by_itself(cluster):
    cluster.ensure_running()
    with FrontHandle(api_key="right") as front:
        db = new_extension_db(cluster, front)
        try:
            items = Items(db, rows=5)
            db.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER qdrant OPTIONS (SET api_key 'wrong')")
            items.insert(10, 30)
            assert "401" in items.wait_state("failed")["last_error"]
            db.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER qdrant OPTIONS (SET api_key 'right')")
            items.converged()
            items.wait_state("live")
            assert items.dead_letters() == {}
        finally:
            db.drop()


def test_lasting_404_is_said_and_the_work_stays_queued(db, front):
    items = Items(db, rows=5)
    front.faults.fault("404", path_regex="^/collections/.*points")
    items.insert(10, 30)
    items.wait_error("404|gone|not there|missing|doesn't exist")
    front.faults.clear_faults()
    items.resume()
    items.converged()
    assert items.dead_letters() == {}


def test_url_that_moved_goes_on_at_the_new_one(db, front):
    db.sql("ALTER SERVER qdrant OPTIONS (SET url 'http://127.0.0.1:9')")
    items = Items(db, rows=5, live=False)
    items.wait_error("(?i)connect|refused")
    db.sql(f"ALTER SERVER qdrant OPTIONS (SET url '{front.url}')")
    items.converged()


def test_too_old_server_is_said(db, front):
    front.faults.configure(version="1.10.0")
    try:
        items = Items(db, rows=5, live=False)
        items.wait_error(r"1\.10\.0.*1\.17")
    finally:
        front.faults.configure(version="1.18.3")
    db.sql(f"ALTER SERVER qdrant OPTIONS (SET url '{front.url}/')")
    items.converged()


def test_collection_made_anew_with_another_dimension_stops_the_mirror_without_a_storm(db, front):
    """Hazard 19: a thousand dead letters would say nothing about a thousand rows."""
    from qdrant_client.models import Distance, VectorParams
    items = Items(db, rows=1000)
    front.faults.fault("500", path_regex=POINTS)
    items.update()
    front.faults.wait_log(1, path_regex=POINTS)
    front.client.delete_collection(items.collection)
    front.client.create_collection(items.collection, vectors_config=VectorParams(size=7, distance=Distance.COSINE))
    front.faults.clear_faults()
    row = items.wait_state("failed")
    assert re.search("7 elements.* 4", row["last_error"])
    assert len(items.dead_letters()) <= 20


# --- hazard 29, row by row: is it sent again, and is it fenced? ---

ENVELOPE = '{"result":%s,"status":"ok","time":0.001}'

ANSWERS = [
    # name, rule, sent again, fenced
    ("completed", None, False, False),
    ("acknowledged to wait=true", dict(action="acknowledge_and_drop"), True, False),
    ("clock_rejected", dict(action="answer", status=200,
                            body=ENVELOPE % '{"operation_id":1,"status":"clock_rejected"}'), True, False),
    ("wait_timeout", dict(action="wait_timeout"), True, False),
    ("own 500", dict(action="500"), True, False),
    ("own 503", dict(action="503"), True, False),
    ("own 408", dict(action="408"), True, False),
    ("429", dict(action="429_no_retry"), True, False),
    ("a proxy's 500", dict(action="answer", status=500, body="oops", content_type="text/plain"), True, True),
    ("502", dict(action="502"), True, True),
    ("504", dict(action="504", apply=True), True, True),
    ("reset in the body", dict(action="reset", when="body"), True, True),
    ("reset after applying", dict(action="reset", when="after"), True, True),
    ("truncated answer", dict(action="truncate"), True, True),
    ("200 that is not Qdrant's", dict(action="garbage"), True, True),
]


@pytest.mark.parametrize("name, rule, again, fenced", ANSWERS, ids=[case[0] for case in ANSWERS])
def test_answer(rig, name, rule, again, fenced):
    front = rig.front
    items = rig.items
    key, _ = rig.keys(1)
    items.converged()
    epoch = items.epoch()
    since = items.mark()
    if rule:
        rule = dict(rule)
        front.faults.fault(rule.pop("action"), path_regex=POINTS, times=1, **rule)
    items.insert(key)
    items.converged()
    assert items.wait() is True
    # Of a body that was not read whole, the front knows no ids.
    requests = [entry for entry in items.requests(since) if key in entry["ids"] or not entry["ids"]]
    assert len(requests) >= 2 if again else len(requests) == 1, requests
    assert requests[-1]["status"] == 200
    wait_until(lambda: items.epoch() > epoch if fenced else items.epoch() == epoch,
               what=lambda: f"epoch {'rises' if fenced else 'stays'} (was {epoch}): {items.row()}")
    assert items.dead_letters() == {}


def test_answer_in_a_cluster_of_qdrant_is_in_doubt_with_every_5xx(db, front):
    front.faults.configure(peers=3)
    try:
        items = Items(db, rows=5)
        epoch = items.epoch()
        since = items.mark()
        front.faults.fault("500", path_regex=POINTS, times=1)
        items.update("id = 1")
        items.converged()
        wait_until(lambda: items.epoch() > epoch, what=lambda: f"the epoch rises: {items.row()}")
        assert all("ordering=medium" in entry["query"] for entry in items.requests(since))
    finally:
        front.faults.configure(peers=1)


def test_refusal_of_one_row_is_its_dead_letter_and_nothing_else(rig):
    front = rig.front
    items = rig.items
    first, last = rig.keys(40)
    front.faults.fault("poison", ids=[first + 7], path_regex=POINTS, text="Wrong input: no sevens")
    items.insert(first, last)
    items.converged(where=f"id <> {first + 7}")
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {str(first + 7)} and "no sevens" in letters[str(first + 7)]
    status, tries = rig.db.sql("SELECT http_status, tries FROM qdrant_dead_letters")[0]
    assert status == 400 and tries >= 1
    front.faults.clear_faults()
    items.delete(f"id = {first + 7}")
    items.converged()
    wait_until(lambda: not items.dead_letters(), what="the row went, and its dead letter with it")


def test_no_more_than_one_request_in_flight_after_wait_timeout(rig):
    """Each re-send logs another copy at the server: it is given room."""
    front = rig.front
    items = rig.items
    items.converged()
    since = items.mark()
    front.faults.fault("wait_timeout", path_regex=POINTS, times=4)
    front.faults.fault("delay", seconds=0.1, path_regex=POINTS)
    items.insert(*rig.keys(800))
    items.converged()
    requests = items.requests(since)
    last = max(i for i, entry in enumerate(requests) if "wait_timeout" in entry["faults"])
    slow = requests[last:]
    # From the last such answer to the next success, nobody else is under way.
    after = [entry for entry in slow[1:] if entry["received"] >= slow[0]["answered"]][:1]
    together = [entry for entry in requests if entry["received"] < after[0]["answered"]
                and entry["answered"] > after[0]["received"]]
    assert together == after
