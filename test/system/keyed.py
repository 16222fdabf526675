"""Mirrored tables with keys of any kind: what the ids of their points have to be, computed here a second time."""

import contextlib
import json
import uuid

from harness import wait_until
from harness.outcome import Point, collection_points, compare_points
from items import Items

NAMESPACE = uuid.UUID("881fdee9-b213-5fb4-90aa-e79b7dbde8a1")

# Under these the server writes a value as it is in a key.
CANONICAL = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "IntervalStyle": "iso_8601", "extra_float_digits": "1",
             "bytea_output": "hex", "lc_monetary": "C"}

# And under these it writes as many things as can be in another way.
ODD = {"DateStyle": "SQL, DMY", "TimeZone": "Asia/Kathmandu", "IntervalStyle": "sql_standard",
       "extra_float_digits": "-3", "bytea_output": "escape"}


def key_id(*texts):
    """As doc/mapping.md says."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(texts, ensure_ascii=False, separators=(",", ":"))))


class Keyed(Items):
    """A table (key columns, n, embedding); `columns` is their DDL, `keys` their names, in the key's order."""

    def __init__(self, db, keys, columns, rows="", table="keyed", primary=True, options="", mirror=True, live=True,
                 hashed=True, **arguments):
        self._name(db, table, arguments)
        self.key, self.hashed = keys, hashed
        constraint = f", PRIMARY KEY ({', '.join(keys)})" if primary else ""
        db.sql(f"CREATE TABLE {table} ({columns}, n integer NOT NULL DEFAULT 0, "
               f"embedding real[] DEFAULT '{{1,2,3,4}}'{constraint}) {options}")
        if rows:
            db.sql(f"INSERT INTO {table} ({', '.join(keys)}) VALUES {rows}")
        if mirror:
            self.mirror()
        if mirror and live and rows:
            self.wait_state("live")

    def expected(self, where="true"):
        """{id: Point} as the table says; the texts of the keys are its own output functions'."""
        names = ", ".join(f"format('%%s', {column})" for column in self.key)
        points = {}
        with contextlib.closing(self.db.connect()) as conn:
            for name, value in CANONICAL.items():
                conn.execute(f"SET {name} = '{value}'")
            query = f"SELECT ARRAY[{names}], n, embedding FROM {self.table} WHERE {where}"
            for texts, n, embedding in conn.execute(query.replace("%%", "%")):
                if embedding is None:
                    continue
                point_id = key_id(*texts) if self.hashed else texts[0]
                payload = {"n": n, **({"_qs_key": texts} if self.hashed else {})}
                points[point_id] = Point(point_id, embedding, payload)
        return points

    def differences(self, where="true"):
        try:
            found = collection_points(self.db.front, self.collection)
        except Exception as e:  # noqa: BLE001 - the collection may not be there yet
            return [str(e)]
        missing = [f"{point.id}: key column {column} is no field" for point in found.values() for column in self.key
                   if column.strip('"') not in point.payload]
        for point in found.values():
            point.payload = {name: value for name, value in point.payload.items() if name in ("n", "_qs_key")}
        return missing + compare_points(self.expected(where), found)

    def equal(self, timeout=30, where="true"):
        """Waits until the collection holds the table's rows under the right ids; returns how many."""
        state = {}

        def check():
            state["differences"] = self.differences(where)
            return not state["differences"]

        try:
            wait_until(check, timeout, "table and collection equal", 0.05)
        except TimeoutError:
            raise AssertionError("\n".join([f"{self.table} and {self.collection} differ; {self.row()}, "
                                            f"{self.dead_letters()}", *state["differences"][:10]])) from None
        return len(self.expected(where))
