"""Qdrant's engine behind a REST front that can be told to misbehave; see README.md."""

from .front import Front

__all__ = ["Front"]
