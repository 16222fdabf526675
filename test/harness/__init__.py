"""What the tests and the demo share: clusters, the extension in a database, a Qdrant, and comparisons from outside."""

from .cluster import Cluster, HarnessError
from .database import Db, new_extension_db, worker_pids
from .front import FrontHandle
from .outcome import Point, assert_converged, collection_points, compare_points, table_points
from .places import available_versions, has_pgvector, system_version
from .recorder import Recorder
from .tls import Authority, Forward, TlsFront, server_file, tls_context
from .wait import stays, wait_until

__all__ = [
    "Authority", "Cluster", "Db", "Forward", "FrontHandle", "HarnessError", "Point", "Recorder", "TlsFront",
    "assert_converged", "available_versions", "collection_points", "compare_points", "has_pgvector",
    "new_extension_db", "server_file", "stays", "system_version", "table_points", "tls_context", "wait_until",
    "worker_pids",
]
