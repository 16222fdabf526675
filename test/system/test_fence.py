"""Nothing older ever overwrites something newer (hazards 1, 8), and who may write at all (hazards 23, 28).

The front holds a request; its sender gives up or dies; a newer state of the same point is acknowledged; then the held
request is let go. Without the fence the old state wins.
"""

import re

import pytest
from qdrant_client import models

from harness import FrontHandle, new_extension_db, stays, wait_until
from items import VECTOR, Items, end_worker, points_path

pytestmark = pytest.mark.faults


def alias_calls(items, since=0):
    return [entry for entry in items.db.front.faults.log(since=since, method="POST", path_regex="/collections/aliases$")]


# --- hazard 1 ---

def worker_ended(items, cluster, front):
    end_worker(cluster, items.db)


def postmaster_killed(items, cluster, front):
    cluster.kill9()
    cluster.start()


def connection_lost(items, cluster, front):
    front.faults.down()
    front.faults.up()


def wait_gone(front, number):
    wait_until(lambda: any(held["n"] == number and held["client_gone"] for held in front.faults.held()),
               what=lambda: f"the client of request {number} is gone: {front.faults.held()}")


@pytest.mark.parametrize("gives_up", [worker_ended, postmaster_killed, connection_lost], ids=lambda f: f.__name__)
@pytest.mark.parametrize("old", ["upsert", "delete"])
def test_request_in_limbo_does_not_overwrite_a_newer_one(db, cluster, front, old, gives_up):
    items = Items(db, rows=20)
    front.faults.fault("hold", path_regex=points_path(items), ids_any=[1], times=1)
    epoch = items.epoch()
    since = items.mark()
    if old == "upsert":
        items.update("id = 1")
    else:
        items.delete("id = 1")
    held, = front.faults.wait_held(1)
    gives_up(items, cluster, front)
    wait_gone(front, held["n"])
    if old == "upsert":
        items.update("id = 1")
    else:
        items.insert(1)
    assert items.wait("60s") is True
    newer = items.point(1).payload
    front.faults.release(held["n"])
    late, = [entry for entry in front.faults.log(since=since) if entry["n"] == held["n"]]
    assert (late["status"], late["applied"]) == (404, 0), late
    assert items.point(1).payload == newer
    items.converged()
    assert items.epoch() > epoch
    assert len(items.aliases()) == 1


def test_request_in_limbo_under_load_leaves_the_collection_equal(db, cluster, front):
    """A write of each round is held and its connection lost; all are let go, the oldest first, when all is done."""
    items = Items(db, rows=200)
    for n in range(3):
        front.faults.fault("hold", path_regex=points_path(items), times=1)
        items.update("id % 3 = 0")
        items.delete("id % 50 = 7")
        items.insert(1000 + 20 * n, 1019 + 20 * n)
        # Those of the rounds before are held still.
        front.faults.wait_held(n + 1)
        front.faults.down()
        front.faults.up()
        items.wait_state("live")
    items.converged(60)
    front.faults.release()
    items.converged()


def test_peer_with_a_lagging_alias_map_lets_the_old_state_in_and_it_is_sent_again(db, front):
    """The held request finds its old alias in a map of before the rename: only sending the keys once more repairs it."""
    items = Items(db, rows=5)
    front.faults.fault("stale_alias", path_regex=points_path(items), ids_any=[1], times=1, back=1)
    front.faults.fault("hold", path_regex=points_path(items), ids_any=[1], times=1)
    items.update("id = 1")
    held, = front.faults.wait_held(1)
    connection_lost(items, None, front)
    wait_gone(front, held["n"])
    items.update("id = 1")
    wait_until(lambda: items.point(1).payload["n"] == 2, 60, "the newer state arrives")
    front.faults.release(held["n"])
    late, = [entry for entry in front.faults.log() if entry["n"] == held["n"]]
    assert (late["status"], items.point(1).payload["n"]) == (200, 1), "the front has let the old state in"
    items.converged(30)


def test_worker_that_gives_up_on_nothing_waits_longer_than_the_server(db, front):
    """Qdrant is told how long it may take, and its client does not give up before that."""
    db.sql("ALTER SERVER qdrant OPTIONS (ADD timeout '1s')")
    items = Items(db, rows=3)
    epoch = items.epoch()
    since = items.mark()
    front.faults.fault("delay", seconds=3, path_regex=points_path(items), times=1)
    items.insert(4)
    assert items.wait() is True
    slow, = items.requests(since)
    assert re.search(r"(^|&)timeout=1(&|$)", slow["query"]) and "wait=true" in slow["query"]
    assert not slow["client_gone"] and items.epoch() == epoch


# --- hazard 8 ---

def test_body_that_got_a_500_is_never_sent_again_once_its_row_has_changed(db, front):
    items = Items(db, rows=3)
    front.faults.configure(bodies=2000)
    front.faults.fault("500", path_regex=points_path(items), ids_any=[1])
    since = items.mark()
    items.update("id = 1")
    front.faults.wait_log(1, since=since, method="PUT")
    items.update("id = 1")
    changed = items.mark()
    front.faults.clear_faults()
    items.converged()
    # One may have been on its way while the row changed; what it carried was refused with 500.
    done = [entry for entry in items.requests(since) if entry["status"] == 200]
    assert done and all('"n":2' in re.sub(r"\s", "", entry["body"]) for entry in done), done
    assert [entry for entry in items.requests(changed) if '"n":1,' in entry["body"] and entry["status"] == 200] == []


def test_two_requests_for_one_point_are_never_in_flight_together(db, front):
    items = Items(db, rows=3)
    front.faults.fault("delay", seconds=0.05, path_regex=points_path(items))
    since = items.mark()
    for _ in range(40):
        items.update("id = 1")
    items.converged()
    spans = sorted((entry["received"], entry["answered"]) for entry in items.requests(since) if 1 in entry["ids"])
    assert len(spans) > 1
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))


def test_backfill_does_not_overtake_a_live_change(db, front):
    """The filling's read of a row is held; the row changes; the change must be what stays."""
    items = Items(db, rows=2000, mirror=False)
    front.faults.fault("hold", method="PUT", path_regex="/points$", times=2)
    items.mirror()
    held = front.faults.wait_held(2)
    items.update("id IN (SELECT unnest(%s::bigint[]))" % f"'{{{','.join(str(i) for h in held for i in h['ids'])}}}'")
    items.delete("id % 97 = 0")
    front.faults.release()
    items.converged()


# --- hazard 23: the claim ---

def rename_path():
    return "^/collections/aliases$"


@pytest.mark.parametrize("when", ["head", "body", "after"])
@pytest.mark.parametrize("nth", [1, 2], ids=["seed", "rename"])
def test_claim_whose_answer_was_lost_is_found_out(db, front, nth, when):
    front.faults.fault("reset", when=when, path_regex=rename_path(), nth=nth)
    items = Items(db, rows=10)
    items.converged()
    alias, = items.aliases()
    assert re.fullmatch(re.escape(items.collection) + r"__qs_\d+_\w+", alias)


@pytest.mark.parametrize("when", ["head", "after"])
def test_claim_after_doubt_whose_answer_was_lost_is_found_out(db, front, when):
    items = Items(db, rows=10)
    before = items.aliases()
    front.faults.fault("reset", when="after", path_regex=points_path(items), times=1)
    front.faults.fault("reset", when=when, path_regex=rename_path(), times=1)
    items.update("id < 4")
    items.converged()
    wait_until(lambda: len(items.aliases()) == 1 and items.aliases() != before, what="one alias, and a new one")
    items.update("id < 4")
    items.converged()


def test_worker_ended_in_the_middle_of_its_claim_knows_its_alias_again(db, cluster, front):
    items = Items(db, rows=10)
    front.faults.fault("hold", path_regex=rename_path(), times=1)
    end_worker(cluster, db)
    held, = front.faults.wait_held(1)
    end_worker(cluster, db)
    front.faults.release(held["n"])
    items.update("id < 4")
    items.converged()
    assert items.wait_state("live") and len(items.aliases()) == 1


def test_late_rename_of_a_given_up_claim_does_not_stop_the_mirror(db, cluster, front):
    """The rename is applied only after the next worker has claimed."""
    items = Items(db, rows=10)
    front.faults.fault("hold", path_regex=rename_path(), times=1)
    end_worker(cluster, db)
    held, = front.faults.wait_held(1)
    end_worker(cluster, db)
    items.update("id < 4")
    items.converged()
    front.faults.release(held["n"])
    items.update("id < 4")
    items.converged()
    assert len(items.aliases()) == 1


def add_alias(front, items, alias):
    front.client.update_collection_aliases([models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=items.collection, alias_name=alias))])


def delete_alias(front, alias):
    front.client.update_collection_aliases([models.DeleteAliasOperation(
        delete_alias=models.DeleteAlias(alias_name=alias))])


def rename_alias(front, old, new):
    front.client.update_collection_aliases([models.RenameAliasOperation(
        rename_alias=models.RenameAlias(old_alias_name=old, new_alias_name=new))])


def test_collection_that_somebody_else_claims_is_left_alone_until_taken_over(db, cluster, front):
    items = Items(db, rows=10)
    foreign = f"{items.collection}__qs_7_0123456789abcdef"
    rename_alias(front, items.aliases()[0], foreign)
    since = items.mark()
    items.update("id < 4")
    row = items.wait_state("failed")
    assert "another" in row["last_error"]
    assert items.aliases() == [foreign], "nothing of ours is left beside it"
    assert all(entry["status"] == 404 for entry in items.requests(since))
    items.resume()
    stays(lambda: items.aliases() == [foreign], 1, "a resume alone takes nothing")
    items.wait_state("failed")
    items.resume(take_over=True)
    items.converged()
    assert items.aliases() != [foreign] and len(items.aliases()) == 1


def test_rival_alias_beside_ours_stops_the_mirror_with_a_reason(db, cluster, front):
    """Two aliases at a claim: contested."""
    items = Items(db, rows=10)
    foreign = f"{items.collection}__qs_7_0123456789abcdef"
    add_alias(front, items, foreign)
    end_worker(cluster, db)
    row = items.wait_state("failed")
    assert "another" in row["last_error"]
    items.update("id < 4")
    stays(lambda: not any(point.payload["n"] for point in items.points().values()), 1, "nothing is written meanwhile")
    delete_alias(front, foreign)
    items.resume()
    items.update()
    items.converged()


def test_alias_deleted_by_hand_is_claimed_anew(db, front):
    items = Items(db, rows=10)
    delete_alias(front, items.aliases()[0])
    items.update("id < 4")
    items.converged()
    assert len(items.aliases()) == 1


def test_server_that_lost_our_rename_gets_it_again(db, cluster, front):
    """Restored from before the claim: what is listed is an earlier nonce of ours."""
    items = Items(db, rows=10)
    earlier, = items.aliases()
    end_worker(cluster, db)
    wait_until(lambda: items.aliases() not in ([], [earlier]), what="the next claim")
    items.wait_state("live")
    rename_alias(front, items.aliases()[0], earlier)
    items.update("id < 4")
    items.converged()
    assert len(items.aliases()) == 1 and items.aliases() != [earlier]


def test_second_database_that_takes_the_collection_over_stops_the_first(db, cluster, front):
    first = Items(db, rows=20)
    other = new_extension_db(cluster, front)
    try:
        with pytest.raises(Exception, match="(?s)points|take_over"):
            Items(other, collection=first.collection, rows=5)
        other.sql("DROP TABLE IF EXISTS items")
        second = Items(other, collection=first.collection, rows=5, take_over=True)
        second.converged()
        first.update("id < 4")
        assert "another" in first.wait_state("failed")["last_error"]
        second.update()
        second.converged()
    finally:
        other.drop()


# --- hazard 28: what the key allows ---

def test_three_kinds_of_key(cluster, pgversion):
    """Full: fenced by alias. Without the right to manage aliases: by time, and the view says so. Read only: stopped."""
    keys = {"api_key": "k-full", "no_alias_key": "k-scoped", "read_only_key": "k-read"}
    cluster.ensure_running()
    with FrontHandle(**keys) as front:
        full = new_extension_db(cluster, front, api_key="k-full")
        scoped = new_extension_db(cluster, front, api_key="k-scoped")
        reader = new_extension_db(cluster, front, api_key="k-read")
        try:
            items = Items(full, rows=10)
            items.converged()
            assert items.row()["fence"] == "alias" and len(items.aliases()) == 1

            refused = Items(reader, rows=10, live=False)
            assert "403" in refused.wait_state("failed")["last_error"]

            # A key of one collection cannot make it.
            name = scoped.collection()
            front.client.create_collection(name, vectors_config=models.VectorParams(
                size=4, distance=models.Distance.COSINE))
            timed = Items(scoped, rows=10, collection=name)
            timed.converged()
            assert timed.row()["fence"] == "time" and timed.aliases() == []
            assert timed.requests()[0]["path"].endswith(f"/{timed.collection}/points")

            # A request in limbo: without an alias it is applied; what is sent again afterwards repairs it.
            front.faults.fault("hold", path_regex=points_path(timed), ids_any=[1], times=1)
            timed.update("id = 1")
            held, = front.faults.wait_held(1)
            connection_lost(timed, cluster, front)
            wait_gone(front, held["n"])
            timed.update("id = 1")
            front.faults.release(held["n"])
            timed.converged(60)

            # Mended: the mapping of the reader gets the key that may write.
            reader.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER qdrant OPTIONS (SET api_key 'k-full')")
            refused.converged()
        finally:
            for db in (full, scoped, reader):
                db.drop()
