"""Keys and what they allow: a full key, a read-only key, and one scoped to collections.

The scoped key stands for a JWT with read-write access to collections: it may do anything with points and
indexes of a collection by its real name, and knows nothing of aliases (hazard 28).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from .errors import QdrantError, forbidden


@dataclass(frozen=True)
class Keys:
    full: str | None = None
    read_only: str | None = None
    no_alias: str | None = None

    def access(self, api_key: str | None, authorization: str | None) -> "Access":
        known = {"full": self.full, "read_only": self.read_only, "no_alias": self.no_alias}
        if not any(known.values()):
            return Access("full")
        given = api_key
        if given is None and authorization is not None and authorization.startswith("Bearer "):
            given = authorization.removeprefix("Bearer ")
        if given is None:
            raise QdrantError(401, "Must provide an API key or an Authorization bearer token", plain=True)
        for role, key in known.items():
            if key is not None and hmac.compare_digest(key.encode(), given.encode()):
                return Access(role)
        raise QdrantError(401, "Invalid API key or JWT", plain=True)


@dataclass(frozen=True)
class Access:
    role: str

    def over_all(self, *, manage: bool = False) -> None:
        """Operations on the whole server: list of peers, creation of collections, aliases."""
        if self.role == "no_alias":
            raise forbidden("Global access is required")
        if manage and self.role == "read_only":
            raise forbidden("Global manage access is required")

    def over(self, name: str, aliases: dict[str, str], *, write: bool = False, manage: bool = False) -> None:
        """Operations on one collection, by the name that the request gave."""
        if self.role == "read_only" and (write or manage):
            raise forbidden("Global manage access is required")
        if self.role == "no_alias":
            if name in aliases:
                raise forbidden(f"Access to collection {name} is required")
            if manage:
                raise forbidden("Manage access for this operation is required")

    @property
    def sees_aliases(self) -> bool:
        return self.role != "no_alias"
