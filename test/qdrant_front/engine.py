"""Collections, aliases and points, kept by Edge shards: one shard a collection.

Everything here runs in the server's one thread, so each call is atomic.  Names reach this file as the
request gave them; `Engine.find` resolves aliases, and is called only once the body was read and parsed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from typing import Any, Callable
from uuid import UUID

import numpy
import orjson
import qdrant_edge as edge
from qdrant_client.http import models

from . import convert
from .errors import (QdrantError, bad_format, collection_exists, from_edge, invalid, no_collection, not_found,
                     wrong_input)
from .validate import (at_least, check_bounds, check_vector, collection_name, empty_update, is_inference,
                       is_sparse, pair_as_sparse, point_id, shape, upsert_points, vector_name_problem)

Update = edge.UpdateOperation


def run(call, *args):
    """A call into Edge, with its errors in Qdrant's words."""
    try:
        return call(*args)
    except QdrantError:
        raise
    except Exception as error:
        raise from_edge(error) from None
    except BaseException as error:
        # A panic of the extension module is no Exception; it must not end the server.
        if type(error).__name__ != "PanicException":
            raise
        raise QdrantError(500, f"Service internal error: panic: {error}") from None


def not_null(parsed: dict, name: str) -> None:
    """For members that may be left out, but not be null."""
    if name in parsed and parsed[name] is None:
        raise bad_format(f"invalid type: null, expected a value of `{name}`")


# ---------------------------------------------------------------- answers


def shown_id(identifier: Any) -> int | str:
    return str(identifier) if isinstance(identifier, UUID) else identifier


def shown_vector(value: Any) -> Any:
    """Single precision, so that the serialiser writes the shortest form, as the server does."""
    if value is None:
        return None
    if isinstance(value, edge.SparseVector):
        return {"indices": list(value.indices), "values": numpy.asarray(value.values, numpy.float32)}
    if isinstance(value, dict):
        return {name: shown_vector(part) for name, part in value.items()}
    if value and isinstance(value[0], list):
        return [numpy.asarray(row, numpy.float32) for row in value]
    return numpy.asarray(value, numpy.float32)


def shown_record(record: Any, with_payload: Any, with_vector: Any, extra: dict | None = None) -> dict:
    out = {"id": shown_id(record.id), **(extra or {})}
    if with_payload is not False:
        out["payload"] = record.payload if record.payload is not None else {}
    if with_vector is not False:
        out["vector"] = shown_vector({} if record.vector is None else record.vector)
    if record.order_value is not None:
        out["order_value"] = record.order_value
    return out


def shown_hit(hit: Any, with_payload: Any, with_vector: Any) -> dict:
    return shown_record(hit, with_payload, with_vector,
                        {"version": hit.version, "score": numpy.float32(hit.score)})


NO_VECTOR = "front-none"


class Collection:
    """One Edge shard, and what the server keeps beside it: configuration, metadata, operation numbers."""

    def __init__(self, name: str, config: models.CreateCollection, path: str, *, durable: bool,
                 operations: int = 0, schema: dict | None = None, fresh: bool = True):
        self.name = name
        self.config = config
        self.path = path
        self.durable = durable
        self.operations = operations
        self.schema: dict[str, Any] = schema or {}
        # What an update has set of `params`.
        self.params: dict[str, Any] = {}
        vectors = config.vectors
        self.unnamed = isinstance(vectors, models.VectorParams)
        if vectors is None:
            self.dense: dict[str, models.VectorParams] = {}
        elif self.unnamed:
            self.dense = {"": vectors}
        else:
            self.dense = dict(vectors)
        self.sparse: dict[str, models.SparseVectorParams | None] = dict(config.sparse_vectors or {})
        self.metadata: dict | None = None if config.metadata is None else dict(config.metadata)
        self.shard = run(edge.EdgeShard.create, path, self._edge_config()) if fresh else run(edge.EdgeShard.load, path)

    def _edge_config(self) -> edge.EdgeConfig:
        return edge.EdgeConfig(
            vectors={name: convert.dense_params(one) for name, one in self.dense.items()},
            sparse_vectors={name: convert.sparse_params(one) for name, one in self.sparse.items()}
            # Edge wants a vector, where Qdrant takes a collection without any.
            or ({} if self.dense else {NO_VECTOR: edge.EdgeSparseVectorParams()}),
            wal_enabled=False, max_search_threads=1)

    def close(self) -> None:
        try:
            self.shard.close()
        finally:
            shutil.rmtree(self.path, ignore_errors=True)

    # ---- writes

    def next_operation(self) -> int:
        number = self.operations
        self.operations += 1
        return number

    def check_limit(self, limit: int) -> None:
        """Of strict mode the front has nothing else."""
        strict = self.config.strict_mode_config
        if strict and strict.enabled and strict.max_query_limit and limit > strict.max_query_limit:
            raise QdrantError(400, f"Bad request: Limit exceeded {limit} > {strict.max_query_limit} for \"limit\". Help: "
                                   f"Reduce the \"limit\" parameter to or below {strict.max_query_limit}.")

    def apply(self, operation: Any) -> None:
        run(self.shard.update, operation)
        if self.durable:
            run(self.shard.flush)

    def check_dimension(self, vector: Any) -> None:
        """The server's look before its log (1.18.1): dimensions only, unknown names pass."""
        if isinstance(vector, list):
            self._check_one("", vector)
        elif isinstance(vector, dict) and not is_inference(vector):
            for name, part in vector.items():
                if isinstance(part, list):
                    self._check_one(name, part)

    def _check_one(self, name: str, vector: list) -> None:
        params = self.dense.get(name)
        if params is None:
            return
        got = len(vector[0]) if isinstance(vector[0], list) else len(vector)
        if got != params.size:
            suffix = f" for vector '{name}'" if name else ""
            raise wrong_input(f"Vector dimension error: expected dim: {params.size}, got {got}{suffix}")

    def edge_vector(self, vector: Any) -> Any:
        return self._one_edge_vector("", vector) if not isinstance(vector, dict) or is_inference(vector) else {
            name: self._one_edge_vector(name, part) for name, part in vector.items()}

    def _one_edge_vector(self, name: str, vector: Any) -> Any:
        """A flat list for a multi-vector is a multi-vector of one row."""
        params = self.dense.get(name)
        if params is not None and params.multivector_config and isinstance(vector, list) \
                and not isinstance(vector[0], list):
            return [vector]
        # Of a vector without a name Qdrant's parser makes a multi-vector at once.
        if name and pair_as_sparse(vector):
            vector = pair_as_sparse(vector)
        if name in self.sparse and isinstance(vector, list):
            raise wrong_input(f"Conversion between sparse and regular vectors failed: {name}")
        if name in self.dense and is_sparse(vector):
            raise wrong_input(f"Conversion between sparse and regular vectors failed: {name}")
        return convert.vector(vector)

    # ---- information

    def info(self) -> dict:
        seen = self.shard.info()
        config = self.config
        params = {"shard_number": config.shard_number or 1,
                  "replication_factor": config.replication_factor or 1,
                  "write_consistency_factor": config.write_consistency_factor or 1,
                  "on_disk_payload": True if config.on_disk_payload is None else config.on_disk_payload,
                  **self.params}
        params["vectors"] = (plain(self.dense[""]) if self.unnamed and list(self.dense) == [""]
                             else {name: plain(one) for name, one in self.dense.items()})
        if self.sparse:
            params["sparse_vectors"] = {name: plain(one) or {} for name, one in self.sparse.items()}
        if config.sharding_method:
            params["sharding_method"] = config.sharding_method
        shown = {
            "params": params,
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000,
                            "max_indexing_threads": 0, "on_disk": False, **(plain(config.hnsw_config) or {})},
            "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                                 "default_segment_number": 0, "max_segment_size": None,
                                 "memmap_threshold": None, "indexing_threshold": 10000,
                                 "flush_interval_sec": 5, "max_optimization_threads": None,
                                 "prevent_unoptimized": None, **(plain(config.optimizers_config) or {})},
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1,
                           **(plain(config.wal_config) or {})},
            "quantization_config": plain(config.quantization_config),
        }
        if shown["optimizer_config"]["max_optimization_threads"] == "auto":
            shown["optimizer_config"]["max_optimization_threads"] = None
        if config.strict_mode_config is not None:
            shown["strict_mode_config"] = plain(config.strict_mode_config)
        if self.metadata is not None:
            shown["metadata"] = self.metadata
        queue = {"length": 0}
        if shown["optimizer_config"]["prevent_unoptimized"]:
            queue["deferred_points"] = 0
        indexes = {}
        for field, index in seen.payload_schema.items():
            given = self.schema.get(field, "keyword")
            indexes[field] = {"data_type": given if isinstance(given, str) else given["type"],
                              **({} if isinstance(given, str) else {"params": given}), "points": index.points}
        return {"status": "green", "optimizer_status": "ok",
                "indexed_vectors_count": seen.indexed_vectors_count, "points_count": seen.points_count,
                "segments_count": seen.segments_count, "config": shown, "payload_schema": indexes,
                "update_queue": queue}

    def saved(self) -> dict:
        return {"name": self.name, "path": os.path.basename(self.path), "operations": self.operations,
                "schema": self.schema, "config": {
                    **plain(self.config),
                    "vectors": (plain(self.dense[""]) if self.unnamed and list(self.dense) == [""]
                                else {name: plain(one) for name, one in self.dense.items()}),
                    "sparse_vectors": {name: plain(one) or {} for name, one in self.sparse.items()},
                    "metadata": self.metadata}}


def plain(value: Any) -> Any:
    return None if value is None else value.model_dump(mode="json", exclude_none=True)


def enabled(value: Any) -> Any:
    """A quantization, or None for the word that ends it."""
    return None if getattr(value, "value", value) == "Disabled" else value


def check_size(size: int, where: str) -> None:
    if not 1 <= size <= 65536:
        raise invalid(where, f"value {size} invalid, must be from 1 to 65536")


Resolve = Callable[[], Collection]

OPERATIONS = ("upsert", "delete", "set_payload", "overwrite_payload", "delete_payload", "clear_payload",
              "update_vectors", "delete_vectors")


class Engine:
    """All collections and aliases; `keep` is a directory that survives, else all is gone at the end."""

    STATE = "front.json"

    def __init__(self, directory: str, *, keep: bool):
        self.directory = directory
        self.keep = keep
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        # Every alias map there was, the present one last, for the fault "stale_alias".
        self.alias_history: list[dict[str, str]] = [{}]
        self._made = 0
        if keep:
            self._load()

    # ---- the directory

    def _load(self) -> None:
        path = os.path.join(self.directory, self.STATE)
        if not os.path.exists(path):
            return
        with open(path, "rb") as file:
            state = orjson.loads(file.read())
        self._made = state["made"]
        for one in state["collections"]:
            config = shape(models.CreateCollection, one["config"])
            self.collections[one["name"]] = Collection(
                one["name"], config, os.path.join(self.directory, one["path"]), durable=True,
                operations=one["operations"], schema=one["schema"], fresh=False)
        self._set_aliases(state["aliases"])

    def save(self) -> None:
        if not self.keep:
            return
        state = {"made": self._made, "aliases": self.aliases,
                 "collections": [one.saved() for one in self.collections.values()]}
        path = os.path.join(self.directory, self.STATE)
        with open(path + ".new", "wb") as file:
            file.write(orjson.dumps(state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)

    def close(self) -> None:
        self.save()
        if self.keep:
            for one in self.collections.values():
                one.shard.close()
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    # ---- names

    def find(self, name: str, stale: int = 0) -> Collection:
        """The collection of that name or alias; `stale` asks the alias map of so many changes ago."""
        collection_name(name)
        real = self._aliases_at(stale).get(name, name)
        found = self.collections.get(real)
        if found is None:
            raise no_collection(name if real == name else real)
        return found

    def _aliases_at(self, stale: int) -> dict[str, str]:
        return self.aliases if not stale else self.alias_history[max(0, len(self.alias_history) - 1 - stale)]

    def _set_aliases(self, aliases: dict[str, str]) -> None:
        self.aliases = aliases
        self.alias_history.append(dict(aliases))
        del self.alias_history[:-1000]
        self.save()

    # ---- collections

    def create(self, name: str, parsed: Any) -> bool:
        collection_name(name, new=True)
        config = shape(models.CreateCollection, parsed)
        not_null(parsed, "vectors")
        if name in self.collections:
            raise collection_exists(name)
        if name in self.aliases:
            raise wrong_input(f"Can't create collection with name {name}. Alias with the same name already exists")
        self._check_config(config)
        self._made += 1
        path = os.path.join(self.directory, f"c{self._made}")
        self.collections[name] = Collection(name, config, path, durable=self.keep)
        self.save()
        return True

    @staticmethod
    def _check_config(config: models.CreateCollection) -> None:
        vectors = config.vectors
        params = {"": vectors} if isinstance(vectors, models.VectorParams) else vectors or {}
        for name, one in params.items():
            if one.size < 1:
                raise bad_format("data did not match any variant of untagged enum VectorsConfig")
            check_size(one.size, f"vectors{'.' + name if name else ''}.size")
        check_bounds(config)
        for kind, names in (("dense", params), ("sparse", config.sparse_vectors or {})):
            for name in names:
                if vector_name_problem(name):
                    raise wrong_input(f"Invalid {kind} vector name `{name}`: {vector_name_problem(name)}")
        if "" in (config.sparse_vectors or {}):
            raise wrong_input("Sparse vector name cannot be empty")
        if set(params) & set(config.sparse_vectors or {}):
            raise wrong_input("Dense and sparse vectors cannot have the same name")

    def update(self, name: str, parsed: Any) -> bool:
        change = shape(models.UpdateCollection, parsed)
        if change.params is not None and 0 in (change.params.replication_factor,
                                               change.params.write_consistency_factor):
            raise bad_format("invalid value: integer `0`, expected a nonzero u32")
        check_bounds(change)
        target = self.find(name)
        for name_ in [*(change.vectors or {}), *(change.sparse_vectors or {})]:
            if name_ not in target.dense and name_ not in target.sparse:
                raise wrong_input(f"Not existing vector name error: {name_}")
        for part in ("optimizers_config", "hnsw_config", "strict_mode_config"):
            given = getattr(change, part)
            if given is not None:
                merged = {**(plain(getattr(target.config, part)) or {}), **plain(given)}
                kind = {"optimizers_config": models.OptimizersConfigDiff, "hnsw_config": models.HnswConfigDiff,
                        "strict_mode_config": models.StrictModeConfig}[part]
                setattr(target.config, part, shape(kind, merged))
        if change.quantization_config is not None:
            target.config.quantization_config = enabled(change.quantization_config)
        if change.params is not None:
            target.params.update(plain(change.params))
        for name_, diff in (change.vectors or {}).items():
            self._update_vector(target.dense[name_], diff)
        for name_, diff in (change.sparse_vectors or {}).items():
            merged = {**(plain(target.sparse[name_]) or {}), **plain(diff)}
            merged["index"] = {**((plain(target.sparse[name_]) or {}).get("index") or {}), **merged.get("index", {})}
            if not merged["index"]:
                del merged["index"]
            target.sparse[name_] = shape(models.SparseVectorParams, merged)
        if change.metadata is not None and target.metadata is None:
            target.metadata = {}
        for key, value in (change.metadata or {}).items():
            if value is None:
                target.metadata.pop(key, None)
            else:
                target.metadata[key] = value
        self.save()
        return True

    @staticmethod
    def _update_vector(params: models.VectorParams, diff: models.VectorParamsDiff) -> None:
        if diff.on_disk is not None:
            params.on_disk = diff.on_disk
        if diff.hnsw_config is not None:
            merged = {**(plain(params.hnsw_config) or {}), **plain(diff.hnsw_config)}
            params.hnsw_config = shape(models.HnswConfigDiff, merged) if merged else None
        if diff.quantization_config is not None:
            params.quantization_config = enabled(diff.quantization_config)

    def delete(self, name: str) -> bool:
        """By its real name only; takes its aliases along."""
        collection_name(name)
        target = self.collections.pop(name, None)
        left = {alias: real for alias, real in self.aliases.items() if real != name}
        if left != self.aliases:
            self._set_aliases(left)
        if target is None:
            return False
        target.close()
        self.save()
        return True

    def change_aliases(self, parsed: Any) -> bool:
        """Action by action; what came before a failing one stays."""
        actions = shape(models.ChangeAliasesOperation, parsed).actions
        for action in actions:
            aliases = dict(self.aliases)
            if isinstance(action, models.CreateAliasOperation):
                alias, target = action.create_alias.alias_name, action.create_alias.collection_name
                if target not in self.collections:
                    raise no_collection(target)
                if alias in self.collections:
                    raise collection_exists(alias)
                aliases[alias] = target
            elif isinstance(action, models.DeleteAliasOperation):
                aliases.pop(action.delete_alias.alias_name, None)
            else:
                old, new = action.rename_alias.old_alias_name, action.rename_alias.new_alias_name
                if old not in aliases:
                    raise not_found(f"Alias {old} does not exists!")
                aliases[new] = aliases.pop(old)
            self._set_aliases(aliases)
        return True

    def restore_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            self._set_aliases(aliases)

    def list_aliases(self, collection: str | None = None) -> list[dict]:
        return [{"alias_name": alias, "collection_name": real} for alias, real in sorted(self.aliases.items())
                if collection is None or real == collection]

    # ---- vectors and indexes of a collection

    def create_index(self, target: Collection, body: models.CreateFieldIndex) -> None:
        if body.field_schema is None:
            raise wrong_input("Field type autodetection is not supported by the front")
        schema, name = convert.index_schema(body.field_schema)
        target.apply(Update.create_field_index(body.field_name, schema))
        target.schema[body.field_name] = (
            plain(body.field_schema) if hasattr(body.field_schema, "model_dump") else name)
        self.save()

    def delete_index(self, target: Collection, field: str) -> None:
        target.apply(Update.delete_field_index(field))
        target.schema.pop(field, None)
        self.save()

    def create_vector(self, target: Collection, name: str, body: Any) -> None:
        if isinstance(body, models.DenseVectorNameConfig):
            given = {key: val for key, val in plain(body.dense).items()
                     if key in ("size", "distance", "datatype", "multivector_config")}
            asked = shape(models.VectorParams, given)
        if name in target.dense or name in target.sparse:
            dense = isinstance(body, models.DenseVectorNameConfig)
            self._check_same_vector(target, name, asked if dense else None,
                                    None if dense else body.sparse.modifier)
            return
        if isinstance(body, models.DenseVectorNameConfig):
            given = {key: val for key, val in plain(body.dense).items()
                     if key in ("size", "distance", "datatype", "multivector_config")}
            params = shape(models.VectorParams, given)
            made = convert.dense_params(params)
            target.apply(Update.create_dense_vector(
                name, made.size, made.distance, made.multivector_config, made.datatype))
            target.dense[name] = params
        else:
            given = {key: val for key, val in (plain(body.sparse) or {}).items() if key == "modifier"}
            params = shape(models.SparseVectorParams, given)
            target.apply(Update.create_sparse_vector(name, convert.sparse_params(params).modifier))
            target.sparse[name] = params
        self.save()

    @staticmethod
    def _check_same_vector(target: Collection, name: str, asked: models.VectorParams | None, modifier: Any) -> None:
        """Nothing to do where there is the same already."""
        there = target.dense.get(name)
        if asked is None and there is None and getattr(target.sparse[name], "modifier", None) != modifier:
            raise wrong_input(f"Sparse vector `{name}` already exists with a different configuration")
        if (there is None) != (asked is None) or (asked is not None and (
                there.size, there.distance, there.datatype, there.multivector_config) != (
                asked.size, asked.distance, asked.datatype, asked.multivector_config)):
            raise wrong_input(f"Vector `{name}` already exists with a different configuration")

    def delete_vector(self, target: Collection, name: str) -> None:
        if name not in target.dense and name not in target.sparse:
            return
        target.apply(Update.delete_vector_name(name))
        target.dense.pop(name, None)
        target.sparse.pop(name, None)
        self.save()

    # ---- point writes, in the server's three steps: `prepare_…(body)` refuses what is refused while the
    #      body is parsed, the function it returns (given the collection) what is refused before the log,
    #      and the function that this returns applies the operation.

    def prepare_upsert(self, parsed: Any):
        rows = upsert_points(parsed)
        condition = mode = None
        if parsed.get("update_filter") is not None:
            condition = convert.filter_(shape(models.Filter, parsed["update_filter"]))
        if parsed.get("update_mode") is not None:
            mode = {"upsert": edge.UpdateMode.Upsert, "insert_only": edge.UpdateMode.InsertOnly,
                    "update_only": edge.UpdateMode.UpdateOnly}[parsed["update_mode"]]

        def check(target: Collection):
            if not rows:
                raise empty_update()
            for _, vector, _ in rows:
                target.check_dimension(vector)

            def apply():
                points = [edge.Point(identifier, target.edge_vector(vector), payload)
                          for identifier, vector, payload in rows]
                target.apply(Update.upsert_points(points, condition, mode))
            return apply
        return check

    @staticmethod
    def _unchecked(operation: Any, ids: list | None = None):
        """An operation of which only this is checked before it is logged: that a list of ids has some."""
        def check(target: Collection):
            if ids == []:
                raise empty_update()
            return lambda: target.apply(operation)
        return check

    def _on_selected(self, body: Any, by_ids, by_filter):
        """An operation on points named by the client's PointIdsList or FilterSelector."""
        if isinstance(body, models.PointIdsList):
            return self._unchecked(by_ids([point_id(one) for one in body.points]), body.points)
        return self._unchecked(by_filter(convert.filter_(body.filter)))

    def _on_points(self, body: Any, by_ids, by_filter):
        """An operation whose body has `points` or `filter` among its own fields."""
        if body.points is None and body.filter is None:
            raise QdrantError(400, "Bad request: Either list of point ids or filter must be provided")
        if body.points is not None:
            return self._unchecked(by_ids([point_id(one) for one in body.points]), body.points)
        return self._unchecked(by_filter(convert.filter_(body.filter)))

    def prepare_delete(self, parsed: Any):
        return self._on_selected(shape(models.PointsSelector, parsed),
                                 Update.delete_points, Update.delete_points_by_filter)

    def prepare_clear_payload(self, parsed: Any):
        return self._on_selected(shape(models.PointsSelector, parsed),
                                 Update.clear_payload, Update.clear_payload_by_filter)

    def prepare_set_payload(self, parsed: Any):
        body = shape(models.SetPayload, parsed)
        return self._on_points(
            body, lambda ids: Update.set_payload(ids, body.payload, body.key),
            lambda cond: Update.set_payload_by_filter(cond, body.payload, body.key))

    def prepare_overwrite_payload(self, parsed: Any):
        body = shape(models.SetPayload, parsed)
        return self._on_points(
            body, lambda ids: Update.overwrite_payload(ids, body.payload),
            lambda cond: Update.overwrite_payload_by_filter(cond, body.payload))

    def prepare_delete_payload(self, parsed: Any):
        body = shape(models.DeletePayload, parsed)
        return self._on_points(
            body, lambda ids: Update.delete_payload(ids, body.keys),
            lambda cond: Update.delete_payload_by_filter(cond, body.keys))

    def prepare_delete_vectors(self, parsed: Any):
        body = shape(models.DeleteVectors, parsed)
        if not body.vector:
            raise invalid("vector", "must specify vector names to delete")
        return self._on_points(
            body, lambda ids: Update.delete_vectors(ids, body.vector),
            lambda cond: Update.delete_vectors_by_filter(cond, body.vector))

    def prepare_update_vectors(self, parsed: Any):
        body = shape(models.UpdateVectors, parsed)
        rows = [(point_id(one["id"]), one["vector"]) for one in parsed["points"]]
        if not rows:
            raise invalid("points", "must specify points to update")
        for number, (_, vector) in enumerate(rows):
            if vector == {}:
                raise invalid(f"points[{number}].vector", "must specify vectors to update for point")
            check_vector(vector, f"points[{number}].vector")
        condition = convert.filter_(body.update_filter)

        def check(target: Collection):
            def apply():
                changes = [edge.PointVectors(identifier, target.edge_vector(vector))
                           for identifier, vector in rows]
                target.apply(Update.update_vectors(changes, condition))
            return apply
        return check

    def prepare_batch(self, parsed: Any) -> list:
        """The operations of points/batch, prepared in their order."""
        shape(models.UpdateOperations, parsed)
        prepared = []
        for operation in parsed["operations"]:
            kind = next(key for key in operation if key in OPERATIONS)
            prepared.append(getattr(self, f"prepare_{kind}")(operation[kind]))
        return prepared

    # ---- reads: the body's shape first, then the collection

    def retrieve(self, target: Collection, ids: list, with_payload: Any, with_vector: Any) -> list[dict]:
        found = {shown_id(one.id): one for one in run(target.shard.retrieve, ids, with_payload, with_vector)}
        wanted = [found[one] for one in dict.fromkeys(ids) if one in found]
        return [shown_record(one, with_payload, with_vector) for one in wanted]

    def points(self, resolve: Resolve, parsed: Any) -> list[dict]:
        body = shape(models.PointRequest, parsed)
        not_null(parsed, "with_vector")
        target = resolve()
        return self.retrieve(target, [point_id(one) for one in body.ids],
                             convert.with_payload(body.with_payload, False), convert.with_vector(body.with_vector))

    def scroll(self, resolve: Resolve, parsed: Any) -> dict:
        body = shape(models.ScrollRequest, parsed)
        not_null(parsed, "with_vector")
        target = resolve()
        at_least(body.limit, 1, "limit")
        if body.order_by is not None and body.offset is not None:
            raise wrong_input("Cannot use an `offset` when using `order_by`. "
                              "The alternative for paging is to use `order_by.start_from` and a filter "
                              "to exclude the IDs that you've already seen for the `order_by.start_from` value")
        target.check_limit(body.limit or 0)
        with_payload = convert.with_payload(body.with_payload, True)
        with_vector = convert.with_vector(body.with_vector)
        records, after = run(target.shard.scroll, edge.ScrollRequest(
            offset=None if body.offset is None else point_id(body.offset),
            limit=10 if body.limit is None else body.limit,
            filter=convert.filter_(body.filter), with_payload=with_payload, with_vector=with_vector,
            order_by=convert.order_by(body.order_by)))
        return {"points": [shown_record(one, with_payload, with_vector) for one in records],
                "next_page_offset": None if after is None or body.order_by is not None else shown_id(after)}

    def count(self, resolve: Resolve, parsed: Any) -> dict:
        body = shape(models.CountRequest, parsed)
        not_null(parsed, "exact")
        target = resolve()
        exact = True if body.exact is None else body.exact
        return {"count": run(target.shard.count, edge.CountRequest(exact, convert.filter_(body.filter)))}

    def facet(self, resolve: Resolve, parsed: Any) -> dict:
        body = shape(models.FacetRequest, parsed)
        target = resolve()
        at_least(body.limit, 1, "limit")
        answer = run(target.shard.facet, edge.FacetRequest(
            body.key, 10 if body.limit is None else body.limit, bool(body.exact), convert.filter_(body.filter)))
        return {"hits": [{"value": shown_id(hit.value), "count": hit.count} for hit in answer.hits]}

    # ---- queries

    def _lookup(self, target: Collection):
        def lookup(identifier: Any, using: str, location: Any) -> Any:
            place, name = target, using
            if location is not None:
                place = self.find(location.collection)
                name = using if location.vector is None else location.vector
            found = run(place.shard.retrieve, [identifier], False, [name] if name else True)
            if not found:
                raise not_found(f"No point with id {identifier} found")
            vector = found[0].vector
            if isinstance(vector, dict):
                vector = vector.get(name)
            if vector is None:
                raise wrong_input(f"Point {identifier} does not have vector {name!r}")
            return vector
        return lookup

    def _scoring(self, target: Collection, body: Any, limit: int) -> tuple[Any, Any]:
        """The query with ids resolved, and these ids."""
        builder = convert.QueryBuilder(self._lookup(target), target.name, body.using, body.lookup_from, limit)
        query = builder.build(body.query)
        if body.score_threshold is not None and body.query is None:
            raise QdrantError(400, "Bad request: A query is needed to use the score_threshold. "
                                   "Can't have score_threshold without defining a query.")
        if isinstance(query, edge.Fusion) and body.using:
            raise QdrantError(400, "Bad request: Fusion queries cannot be combined with the 'using' field.")
        return query, builder.referenced

    def _prefetches(self, target: Collection, value: Any, referenced: list) -> list | None:
        if value is None:
            return None
        out = []
        for body in value if isinstance(value, list) else [value]:
            at_least(body.limit, 1, "prefetch.limit")
            limit = 10 if body.limit is None else body.limit
            query, ids = self._scoring(target, body, limit)
            referenced += ids
            out.append(edge.Prefetch(limit, query, self._prefetches(target, body.prefetch, referenced),
                                     convert.search_params(body.params), convert.filter_(body.filter),
                                     body.score_threshold))
        return out

    def _hits(self, target: Collection, body: Any, limit: int, offset: int, with_payload: Any, with_vector: Any):
        query, referenced = self._scoring(target, body, limit)
        prefetches = self._prefetches(target, body.prefetch, referenced)
        condition = convert.filter_(body.filter)
        if referenced:
            # Those of the prefetches, too; the engine hands this filter down to them.
            condition = edge.Filter(must=[condition] if condition else None,
                                    must_not=[edge.HasIdCondition(set(referenced))])
        if isinstance(query, (edge.Formula, edge.Fusion)) and not prefetches:
            kind = "fusion" if isinstance(query, edge.Fusion) else "formula"
            raise QdrantError(400, f"Bad request: {kind.capitalize()} queries cannot be combined with the 'using' "
                                   "field or used without prefetches")
        return run(target.shard.query, edge.QueryRequest(
            limit, offset=offset, query=query, prefetches=prefetches, with_vector=with_vector,
            with_payload=with_payload, filter=condition, score_threshold=body.score_threshold,
            params=convert.search_params(body.params)))

    def query(self, resolve: Resolve, parsed: Any) -> dict:
        body = shape(models.QueryRequest, convert.as_parsed(parsed))
        target = resolve()
        at_least(body.limit, 1, "limit")
        target.check_limit(10 if body.limit is None else body.limit)
        with_payload = convert.with_payload(body.with_payload, False)
        with_vector = convert.with_vector(body.with_vector)
        hits = self._hits(target, body, 10 if body.limit is None else body.limit, body.offset or 0,
                          with_payload, with_vector)
        return {"points": [shown_hit(hit, with_payload, with_vector) for hit in hits]}

    def query_batch(self, resolve: Resolve, parsed: Any) -> list[dict]:
        shape(models.QueryRequestBatch, parsed)
        target = resolve()
        return [self.query(lambda: target, one) for one in parsed["searches"]]

    def query_groups(self, resolve: Resolve, parsed: Any) -> dict:
        """All hits, grouped here: right for the sizes of tests."""
        body = shape(models.QueryGroupsRequest, convert.as_parsed(parsed))
        if not GROUP_PATH.fullmatch(body.group_by):
            raise bad_format(f"Invalid json path: '{body.group_by}'")
        target = resolve()
        at_least(body.limit, 1, "limit")
        at_least(body.group_size, 1, "group_size")
        groups_wanted = 10 if body.limit is None else body.limit
        size = 3 if body.group_size is None else body.group_size
        with_payload = convert.with_payload(body.with_payload, False)
        with_vector = convert.with_vector(body.with_vector)
        everything = max(1, run(target.shard.count, edge.CountRequest()))
        groups: dict[Any, list] = {}
        for hit in self._hits(target, body, everything, 0, True, with_vector):
            for value in payload_values(hit.payload or {}, body.group_by):
                if value not in groups and len(groups) >= groups_wanted:
                    continue
                if len(groups.setdefault(value, [])) < size:
                    groups[value].append(hit)
        return {"groups": [{
            "id": value,
            "hits": [shown_hit(self._with_payload(target, hit, with_payload), with_payload, with_vector)
                     for hit in hits],
            **self._lookup_group(body.with_lookup, value)} for value, hits in groups.items()]}

    def _with_payload(self, target: Collection, hit: Any, with_payload: Any) -> Any:
        if isinstance(with_payload, bool):
            return hit
        picked = run(target.shard.retrieve, [hit.id], with_payload, False)[0].payload
        return _Hit(hit, picked)

    def _lookup_group(self, where: Any, value: Any) -> dict:
        if where is None:
            return {}
        if isinstance(where, str):
            where = models.WithLookup(collection=where)
        place = self.find(where.collection)
        try:
            identifier = point_id(value)
        except QdrantError:
            return {}
        records = self.retrieve(place, [identifier],
                                convert.with_payload(where.with_payload, True),
                                convert.with_vector(where.with_vectors))
        return {"lookup": records[0]} if records else {}

    def matrix(self, resolve: Resolve, parsed: Any) -> list[tuple]:
        """(a, b, score) of each sampled point's nearest among the sample."""
        body = shape(models.SearchMatrixRequest, parsed)
        target = resolve()
        at_least(body.sample, 2, "sample")
        at_least(body.limit, 1, "limit")
        using = body.using or ""
        if using not in target.dense and using not in target.sparse:
            raise wrong_input(f"Vector with name `{using}` is not configured in this collection, "
                              f"available names: {', '.join([*target.dense, *target.sparse])}")
        sample = 10 if body.sample is None else body.sample
        limit = 3 if body.limit is None else body.limit
        having = edge.Filter(must=[edge.HasVectorCondition(using)] + (
            [convert.filter_(body.filter)] if body.filter else []))
        records = run(target.shard.scroll, edge.ScrollRequest(
            limit=max(1, run(target.shard.count, edge.CountRequest())), filter=having, with_vector=True))[0]
        chosen = random.sample(records, min(sample, len(records)))
        ids = {shown_id(one.id) for one in chosen}
        pairs = []
        for one in sorted(chosen, key=lambda record: str(record.id)):
            vector = one.vector[using] if isinstance(one.vector, dict) else one.vector
            hits = run(target.shard.query, edge.QueryRequest(
                limit, query=edge.Query.Nearest(vector, using or None),
                filter=edge.Filter(must=[edge.HasIdCondition(ids)],
                                   must_not=[edge.HasIdCondition({shown_id(one.id)})])))
            pairs += [(shown_id(one.id), shown_id(hit.id), numpy.float32(hit.score)) for hit in hits]
        return pairs


GROUP_PATH = re.compile(r'(?:[\w-]+|"[^"]+")(?:\[\d*\])*(?:\.(?:[\w-]+|"[^"]+")(?:\[\d*\])*)*')


class _Hit:
    """A hit with another payload."""

    def __init__(self, hit: Any, payload: Any):
        self.id, self.version, self.score, self.vector = hit.id, hit.version, hit.score, hit.vector
        self.order_value, self.payload = hit.order_value, payload


def payload_values(payload: Any, path: str) -> list:
    """The values at a dotted path that can name a group."""
    level = [payload]
    for key in path.split("."):
        below = []
        for node in level:
            part = node.get(key.removesuffix("[]")) if isinstance(node, dict) else None
            below.extend(part if isinstance(part, list) else [part])
        level = below
    return [value for value in dict.fromkeys(v for v in level if isinstance(v, (str, int)))
            if not isinstance(value, bool)]
