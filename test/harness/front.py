"""The Qdrant of a test run: the engine's front in this process, or the server that QDRANT_URL names."""

import os

from qdrant_front import Front

from .outcome import make_client


class FrontHandle:
    """url, the official client, and `faults`: the front that can be told to misbehave, None for a real server."""

    def __init__(self, **kwargs):
        self.api_key = kwargs.get("api_key") or os.environ.get("QDRANT_API_KEY")
        self.faults = None
        self.url = os.environ.get("QDRANT_URL")
        if not self.url:
            self.faults = Front(**kwargs)
            self.faults.start()
            self.url = self.faults.url
        self.client = make_client(self.url, self.api_key)
        # Whatever a server held before the tests came is not theirs to delete.
        self._foreign = self._collections()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def _collections(self):
        return {c.name for c in self.client.get_collections().collections}

    def clear(self):
        """Ends every misbehaviour and deletes the collections that were made since the start."""
        if self.faults is not None:
            self._behave()
        for name in self._collections() - self._foreign:
            self.client.delete_collection(name)

    def _behave(self):
        """A front in its right mind, started again if a test killed it; its port stays."""
        if not self.faults._process:
            self.faults.start()
        self.faults.thaw()
        self.faults.clear_faults()
        self.faults.resume_listening()
        self.faults.release()
        self.faults.clear_log()

    def stop(self):
        if self.faults is None:
            self.clear()
        self.client.close()
        if self.faults is not None:
            self.faults.stop()
