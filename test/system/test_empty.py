"""A mirror of an empty table, whose vector's dimension only a first row tells."""

from items import Items


def test_wait_for_an_empty_table_does_not_wait_for_its_first_row(db):
    items = Items(db, live=False)
    assert items.wait("20s")
    items.insert(1, 3)
    assert items.wait("20s")
    items.converged(timeout=5)


def test_wait_for_a_locked_table_that_is_not_empty_does_not_lie(db):
    items = Items(db, rows=3, mirror=False)
    with db.connect(autocommit=False) as holder:
        items.mirror(conn=holder)
        holder.commit()
        holder.execute(f"LOCK TABLE {items.table}")
        assert items.wait("500ms") is False or items.points().keys() == {"1", "2", "3"}
    assert items.wait("20s")
    items.converged(timeout=5)


def test_vectors_that_tell_no_dimension_do_not_hide_those_behind_them(db):
    items = Items(db, live=False)
    db.sql("INSERT INTO items SELECT i, 'empty', 0, '{}' FROM generate_series(1, 3000) i")
    assert "dimension" in items.wait_error("dimension")["last_error"]
    items.insert(5001, 5003)
    items.wait_state("live")
    items.converged(where="id > 5000")
    assert items.dead_letters().keys() == {str(i) for i in range(1, 3001)}
    items.delete("id < 5000")
    assert items.wait()
    items.converged()
    assert items.dead_letters() == {}
