"""Reads what writers put into the outbox: the chunks of a mirror's two segments, decoded here a second time."""

import uuid

SWEEP = "sweep"


def decode(chunk):
    """Keys of a chunk (src/common/chunk.h); [SWEEP] for one without keys."""
    kind, body = chunk[0], chunk[5:]
    if kind == 3:
        assert not body
        return [SWEEP]
    if kind == 4:
        return texts(body[4:])
    if kind == 2:
        assert body and len(body) % 16 == 0
        return [uuid.UUID(bytes=body[i:i + 16]) for i in range(0, len(body), 16)]
    assert kind == 1
    numbers, number, shift = [], 0, 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    assert numbers and shift == 0
    keys = [(numbers[0] >> 1) ^ -(numbers[0] & 1)]
    for difference in numbers[1:]:
        assert difference > 0
        keys.append(keys[-1] + difference)
    return keys


def varint(body, at):
    number = shift = 0
    while True:
        number |= (body[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if body[at - 1] < 0x80:
            return number, at


def texts(body):
    """Of hashed keys: each after the bytes that it shares with the one before."""
    found, text, at = [], b"", 0
    while at < len(body):
        shared, at = varint(body, at)
        more, at = varint(body, at)
        text = text[:shared] + body[at:at + more]
        at += more
        found.append(text.decode())
    assert found and found == sorted(set(found), key=str.encode)
    return found


def make_readable(db, segment):
    """A superuser says that this materialized view is populated, so that SELECT shows its rows as they are visible."""
    db.sql("UPDATE pg_class SET relispopulated = true WHERE oid = %s AND NOT relispopulated", (segment,))


class Outbox:
    """The committed chunks of one table's mirror. Nothing may empty it meanwhile: its server does not answer."""

    def __init__(self, db, table):
        self.db = db
        self.segments = [oid for row in db.sql(
            "SELECT segment_a, segment_b FROM qdrant_internal.mirror WHERE relid = %s::regclass AND NOT dropped",
            (table,)) for oid in row]
        assert len(self.segments) == 2
        for segment in self.segments:
            make_readable(db, segment)
        self.seen = set()
        self.chunks()

    def chunks(self):
        """Chunks that committed since the last call, as lists of keys."""
        found = []
        for segment in self.segments:
            name = self.db.one("SELECT %s::regclass::text", (segment,))
            for tid, chunk in self.db.sql(f"SELECT ctid::text, chunk::text FROM {name}"):
                if (segment, tid) not in self.seen:
                    self.seen.add((segment, tid))
                    found.append(decode(bytes.fromhex(chunk.removeprefix("\\x"))))
        return found

    def keys(self):
        """Keys of those chunks, sorted, each as often as it is there."""
        return sorted((key for keys in self.chunks() for key in keys), key=lambda key: (isinstance(key, str), key))

    def rows(self):
        """How many chunks there are in all, also those seen before."""
        return sum(self.db.one(f"SELECT count(*) FROM {self.db.one('SELECT %s::regclass::text', (segment,))}")
                   for segment in self.segments)
