"""The errors of the front, worded as Qdrant words them."""

from __future__ import annotations


class QdrantError(Exception):
    """An error answer: `message` becomes status.error, or the whole text body if `plain`."""

    def __init__(self, status: int, message: str, *, headers: dict | None = None, plain: bool = False):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
        self.plain = plain


def wrong_input(text: str) -> QdrantError:
    return QdrantError(400, f"Wrong input: {text}")


def bad_format(text: str) -> QdrantError:
    return QdrantError(400, f"Format error in JSON body: {text}")


def invalid(where: str, text: str, *, part: str = "JSON body") -> QdrantError:
    return QdrantError(422, f"Validation error in {part}: [{where}: {text}]")


def not_found(text: str) -> QdrantError:
    return QdrantError(404, f"Not found: {text}")


def no_collection(name: str) -> QdrantError:
    return not_found(f"Collection `{name}` doesn't exist!")


def collection_exists(name: str) -> QdrantError:
    return QdrantError(409, f"Wrong input: Collection `{name}` already exists!")


def forbidden(text: str) -> QdrantError:
    return QdrantError(403, f"Forbidden: {text}")


def from_edge(error: Exception) -> QdrantError:
    """Edge raises one exception type; its text tells what it was."""
    text = str(error)
    if text.startswith("No point with id"):
        return not_found(text if text.endswith("found") else f"{text} found")
    if text.startswith(("Service runtime error", "Service internal error", "IO Error", "Out of memory")):
        return QdrantError(500, f"Service internal error: {text}")
    return wrong_input(text)
