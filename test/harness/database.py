"""A database with the extension and a server that points at a Qdrant."""

import contextlib
import itertools
import os

from psycopg import sql

from .cluster import rows_of

counter = itertools.count(1)


class Db:
    def __init__(self, cluster, front, name):
        self.cluster = cluster
        self.front = front
        self.name = name
        self._conn = None

    @property
    def conn(self):
        """An autocommit connection that is opened again when a crash has broken it."""
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = self.cluster.connect(self.name)
        return self._conn

    def connect(self, user=None, autocommit=True, **kwargs):
        return self.cluster.connect(self.name, user, autocommit, **kwargs)

    def sql(self, text, params=None):
        return rows_of(self.conn, text, params)

    def one(self, text, params=None):
        rows = self.sql(text, params)
        return rows[0][0] if rows else None

    def psql(self, text, *args):
        return self.cluster.psql(text, self.name, *args)

    def collection(self, prefix="items"):
        """A name that no other test uses, also on a server that others use."""
        return f"{prefix}_{self.name}"

    def wait(self, table=None, timeout=30):
        """qdrant_wait: true once everything committed so far (of that table) is in its collection."""
        with contextlib.closing(self.connect()) as conn:
            return rows_of(conn, "SELECT qdrant_wait(%s::interval, %s::regclass)", (f"{timeout}s", table))[0][0]

    def drop(self):
        if self._conn is not None:
            self._conn.close()
        self.cluster.dropdb(self.name)


def new_extension_db(cluster, front, dbname=None, api_key=None, options=None, extensions=()):
    """A fresh database: CREATE EXTENSION, a server named qdrant and, with a key, a user mapping."""
    name = dbname or f"t{os.getpid()}_{next(counter)}"
    cluster.createdb(name)
    db = Db(cluster, front, name)
    for extension in (*extensions, "qdrant_sync"):
        db.sql(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension)))
    db.sql(sql.SQL("CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS ({})").format(
        option_list({"url": front.url, **(options or {})})))
    api_key = api_key or front.api_key
    if api_key:
        db.sql(sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER qdrant OPTIONS ({})").format(
            option_list({"api_key": api_key})))
    return db


def option_list(options):
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(str(value))) for key, value in options.items())


def worker_pids(where, kind=r"^qdrant_sync"):
    """{backend_type: [pid, …]} of the extension's processes; `where` is a connection, a Db or a Cluster."""
    query = "SELECT backend_type, pid FROM pg_stat_activity WHERE backend_type ~ %s ORDER BY pid"
    rows = where.sql(query, (kind,)) if hasattr(where, "sql") else rows_of(where, query, (kind,))
    found = {}
    for backend_type, pid in rows:
        found.setdefault(backend_type, []).append(pid)
    return found
