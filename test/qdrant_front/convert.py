"""From the client's models to Edge's objects: filters, queries, selectors, index schemas, configs.

Ids inside queries (which Edge does not resolve) are turned into vectors by the caller's `resolve`.
"""

from __future__ import annotations

import datetime
from typing import Any, Callable

import numpy
import qdrant_edge as edge
from qdrant_client.http import models

from .errors import QdrantError, bad_format, invalid, wrong_input
from .validate import at_least, check_vector, is_inference, is_sparse, pair_as_sparse, point_id, within

# ---------------------------------------------------------------- vectors


def vector(value: Any) -> Any:
    """A vector as sent (JSON) in Edge's form."""
    if is_sparse(value):
        return edge.SparseVector(value["indices"], value["values"])
    if is_inference(value):
        return embed(value, query=False)
    if isinstance(value, dict):
        return {name: vector(part) for name, part in value.items()}
    return value


def embed(value: dict, *, query: bool) -> edge.SparseVector:
    """The only model that a server runs by itself."""
    if value.get("model", "").lower() != "qdrant/bm25" or "text" not in value:
        raise QdrantError(500, "Service internal error: InferenceService URL not configured - "
                               "please provide valid address in config.yaml file")
    known = {"k", "b", "avg_len", "lowercase", "ascii_folding", "min_token_len", "max_token_len"}
    options = {key: val for key, val in (value.get("options") or {}).items() if key in known}
    model = edge.Bm25(edge.Bm25Config(**options))
    return (model.embed_query if query else model.embed_document)(value["text"])


# ---------------------------------------------------------------- filters


def filter_(value: models.Filter | None) -> edge.Filter | None:
    if value is None:
        return None
    least = value.min_should
    return edge.Filter(
        must=_conditions(value.must),
        should=_conditions(value.should),
        must_not=_conditions(value.must_not),
        min_should=least and edge.MinShould(_conditions(least.conditions), least.min_count),
    )


def _conditions(value: Any) -> list | None:
    if value is None:
        return None
    return [condition(part) for part in (value if isinstance(value, list) else [value])]


def condition(value: Any) -> Any:
    if isinstance(value, models.Filter):
        return filter_(value)
    if isinstance(value, models.FieldCondition):
        return _field(value)
    if isinstance(value, models.HasIdCondition):
        return edge.HasIdCondition({point_id(one) for one in value.has_id})
    if isinstance(value, models.IsEmptyCondition):
        return edge.IsEmptyCondition(value.is_empty.key)
    if isinstance(value, models.IsNullCondition):
        return edge.IsNullCondition(value.is_null.key)
    if isinstance(value, models.HasVectorCondition):
        return edge.HasVectorCondition(value.has_vector)
    if isinstance(value, models.NestedCondition):
        return edge.NestedCondition(value.nested.key, filter_(value.nested.filter))
    if isinstance(value, models.SliceCondition):
        raise bad_format("Expected some form of condition")  # of 1.19
    raise wrong_input(f"unsupported condition {type(value).__name__}")


def _field(value: models.FieldCondition) -> edge.FieldCondition:
    box, radius, polygon, count = (
        value.geo_bounding_box, value.geo_radius, value.geo_polygon, value.values_count)
    if not value.key:
        raise bad_format("Invalid json path: ''")
    if all(getattr(value, name) is None for name in type(value).model_fields if name != "key"):
        raise invalid("filter", "At least one field condition must be specified")
    return edge.FieldCondition(
        value.key,
        match=_match(value.match),
        range=_range(value.range),
        geo_bounding_box=box and edge.GeoBoundingBox(_geo(box.top_left), _geo(box.bottom_right)),
        geo_radius=radius and edge.GeoRadius(_geo(radius.center), radius.radius),
        geo_polygon=polygon and edge.GeoPolygon(
            [_geo(point) for point in polygon.exterior.points],
            [[_geo(point) for point in ring.points] for ring in polygon.interiors or []] or None),
        values_count=count and edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte),
        is_empty=value.is_empty,
        is_null=value.is_null,
    )


def _geo(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(point.lon, point.lat)


def _match(value: Any) -> Any:
    if value is None:
        return None
    kinds = {
        # A bool of Python's own would be taken for an integer.
        models.MatchValue: lambda m: edge.MatchValue(
            numpy.bool_(m.value) if isinstance(m.value, bool) else m.value),
        models.MatchText: lambda m: edge.MatchText(m.text),
        models.MatchTextAny: lambda m: edge.MatchTextAny(m.text_any),
        models.MatchPhrase: lambda m: edge.MatchPhrase(m.phrase),
        models.MatchAny: lambda m: edge.MatchAny(m.any),
        models.MatchExcept: lambda m: edge.MatchExcept(m.except_),
    }
    if type(value) not in kinds:
        # What 1.19 has added.
        raise bad_format("data did not match any variant of untagged enum MatchInterface")
    return kinds[type(value)](value)


def _range(value: Any) -> Any:
    if value is None:
        return None
    bounds = {key: getattr(value, key) for key in ("gte", "gt", "lte", "lt")}
    if isinstance(value, models.DatetimeRange):
        return edge.RangeDateTime(**{key: _datetime(bound) for key, bound in bounds.items()})
    return edge.RangeFloat(**bounds)


def _datetime(value: Any) -> str | None:
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value


# ---------------------------------------------------------------- selectors


def with_payload(value: Any, default: bool) -> Any:
    if value is None:
        return default
    if isinstance(value, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(value.include)
    if isinstance(value, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(value.exclude)
    return value


def with_vector(value: Any) -> Any:
    return False if value is None else value


def order_by(value: Any) -> edge.OrderBy | None:
    if value is None:
        return None
    if isinstance(value, str):
        return edge.OrderBy(value)
    direction = value.direction and getattr(edge.Direction, value.direction.value.capitalize())
    return edge.OrderBy(value.key, direction, _datetime(value.start_from))


def search_params(value: models.SearchParams | None) -> edge.SearchParams | None:
    if value is None:
        return None
    at_least(value.hnsw_ef, 0, "params.hnsw_ef")
    quantization, acorn = value.quantization, value.acorn
    if quantization:
        at_least(quantization.oversampling, 1.0, "params.quantization.oversampling")
    if acorn:
        within(acorn.max_selectivity, 0.0, 1.0, "params.acorn.max_selectivity")
    return edge.SearchParams(
        hnsw_ef=value.hnsw_ef,
        exact=bool(value.exact),
        indexed_only=bool(value.indexed_only),
        quantization=quantization and edge.QuantizationSearchParams(
            bool(quantization.ignore), quantization.rescore, quantization.oversampling),
        acorn=acorn and edge.AcornSearchParams(bool(acorn.enable), acorn.max_selectivity),
    )


# ---------------------------------------------------------------- queries


class QueryBuilder:
    """One query of a request: resolves ids, remembers them so that they can be left out."""

    def __init__(self, lookup: Callable[[Any, str, Any], Any], own: str, using: str | None, lookup_from: Any,
                 limit: int):
        self._lookup = lookup
        self._using = using or ""
        self._lookup_from = lookup_from
        # Ids of the searched collection are left out, also where lookup_from names it.
        self._leaves_out = lookup_from is None or lookup_from.collection == own
        self._limit = limit
        self.referenced: list[int | str] = []

    def _vector(self, value: Any) -> Any:
        """A VectorInput: dense, sparse, multi, id or inference object."""
        if isinstance(value, models.SparseVector):
            plain = {"indices": value.indices, "values": value.values}
            check_vector(plain, "query")
            return vector(plain)
        if isinstance(value, (models.Document, models.Image, models.InferenceObject)):
            return embed(value.model_dump(exclude_none=True), query=True)
        if isinstance(value, list):
            if value:
                check_vector(value, "query")
            return value
        canonical = point_id(value)
        if self._leaves_out:
            self.referenced.append(canonical)
        return self._lookup(canonical, self._using, self._lookup_from)

    def build(self, query: Any) -> Any:
        using = self._using or None
        if query is None:
            return None
        name = type(query).__name__
        if name.endswith("Query"):
            handler = getattr(self, "_" + name, None)
            if handler is None:
                raise wrong_input(f"{name} is not supported by the front")
            return handler(query, using)
        return edge.Query.Nearest(self._vector(query), using)

    def _NearestQuery(self, query, using):
        target = self._vector(query.nearest)
        if query.mmr is None:
            return edge.Query.Nearest(target, using)
        diversity = 0.5 if query.mmr.diversity is None else query.mmr.diversity
        within(diversity, 0.0, 1.0, "query.mmr.diversity")
        within(query.mmr.candidates_limit, 0, 16384, "query.mmr.candidates_limit")
        candidates = self._limit if query.mmr.candidates_limit is None else query.mmr.candidates_limit
        return edge.Mmr(target, 1.0 - diversity, candidates, using)

    def _RecommendQuery(self, query, using):
        body = query.recommend
        positives = self._examples(body.positive)
        negatives = self._examples(body.negative)
        if not positives and not negatives:
            raise invalid("query.recommend.positives, negatives",
                          "At least one positive or negative vector/id must be provided")
        strategy = body.strategy or "average_vector"
        if strategy == "average_vector":
            if not positives:
                raise wrong_input("At least one positive vector ID required with this strategy")
            return edge.Query.Nearest(average(positives, negatives), using)
        examples = edge.RecommendQuery(positives, negatives)
        make = (edge.Query.RecommendBestScore if strategy == "best_score"
                else edge.Query.RecommendSumScores)
        return make(examples, using)

    def _examples(self, value: Any) -> list:
        return [self._vector(one) for one in value or []]

    def _pairs(self, context: Any) -> list:
        pairs = context if isinstance(context, list) else [] if context is None else [context]
        return [edge.ContextPair(self._vector(pair.positive), self._vector(pair.negative)) for pair in pairs]

    def _DiscoverQuery(self, query, using):
        body = query.discover
        return edge.Query.Discover(
            edge.DiscoverQuery(self._vector(body.target), self._pairs(body.context)), using)

    def _ContextQuery(self, query, using):
        return edge.Query.Context(edge.ContextQuery(self._pairs(query.context)), using)

    def _RelevanceFeedbackQuery(self, query, using):
        body = query.relevance_feedback
        naive = body.strategy.naive
        items = [edge.FeedbackItem(self._vector(item.example), item.score) for item in body.feedback]
        return edge.Query.FeedbackNaive(
            edge.FeedbackNaiveQuery(self._vector(body.target), items,
                                    edge.NaiveFeedbackStrategy(naive.a, naive.b, naive.c)), using)

    def _OrderByQuery(self, query, using):
        return order_by(query.order_by)

    def _SampleQuery(self, query, using):
        return edge.Sample.Random

    def _FusionQuery(self, query, using):
        return fusion(query.fusion, None, None)

    def _RrfQuery(self, query, using):
        at_least(query.rrf.k, 1, "query.rrf.k")
        return fusion("rrf", query.rrf.k, query.rrf.weights)

    def _FormulaQuery(self, query, using):
        return edge.Formula(expression(query.formula), query.defaults or {})


def fusion(kind: str, k: int | None, weights: list[float] | None) -> Any:
    if kind == "dbsf":
        return edge.Fusion.Dbsf()
    return edge.Fusion.Rrf(2 if k is None else k, weights)


def average(positives: list, negatives: list) -> Any:
    """The average_vector strategy, which Edge leaves to its caller; dense vectors only."""
    if all(isinstance(example, edge.SparseVector) for example in positives + negatives):
        return _sparse_average(positives, negatives)
    if not all(isinstance(example, list) and not isinstance(example[0], list)
               for example in positives + negatives):
        raise wrong_input("average_vector of multi vectors is not supported by the front")

    def mean(vectors):
        return [sum(column) / len(vectors) for column in zip(*vectors)]

    up = mean(positives)
    if not negatives:
        return up
    return [2 * p - n for p, n in zip(up, mean(negatives))]


def _sparse_average(positives: list, negatives: list) -> edge.SparseVector:
    sums: dict[int, float] = {}
    for examples, sign in ((positives, 2 if negatives else 1), (negatives, -1)):
        for example in examples:
            for index, number in zip(example.indices, example.values):
                sums[index] = sums.get(index, 0) + sign * number / len(examples)
    return edge.SparseVector(sorted(sums), [sums[index] for index in sorted(sums)])


def as_parsed(parsed: Any) -> Any:
    """A query as the parser of 1.18 sees it: pairs of rows are sparse vectors, and `idf` is not known."""
    if not isinstance(parsed, dict):
        return parsed
    out = dict(parsed)
    query = out.get("query")
    out["query"] = pair_as_sparse(query) or query
    if isinstance(query, dict) and pair_as_sparse(query.get("nearest")):
        out["query"] = {**query, "nearest": pair_as_sparse(query["nearest"])}
    if query is None:
        out.pop("query")
    if isinstance(query, dict) and isinstance(query.get("discover"), dict) and query["discover"].get("context", 1) is None:
        out["query"] = {"discover": {**query["discover"], "context": []}}
    if isinstance(out.get("params"), dict):
        out["params"] = {key: value for key, value in out["params"].items() if key != "idf"}
    if isinstance(out.get("prefetch"), list):
        out["prefetch"] = [as_parsed(one) for one in out["prefetch"]]
    elif isinstance(out.get("prefetch"), dict):
        out["prefetch"] = as_parsed(out["prefetch"])
    return out


def expression(value: Any) -> Any:
    """A formula; the models of its parts have one field each, named like the operation."""
    make = edge.Expression
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return make.Constant(float(value))
    if isinstance(value, str):
        return make.Variable(value)
    name = type(value).__name__.removesuffix("Expression")
    if name in ("Mult", "Sum"):
        return getattr(make, name)([expression(part) for part in getattr(value, name.lower())])
    if name in ("Max", "Min"):
        return getattr(make, name)([expression(part) for part in getattr(value, name.lower())])
    if name in ("Neg", "Abs", "Sqrt", "Exp", "Ln", "Log10", "Acosh"):
        return getattr(make, name)(expression(getattr(value, name.lower())))
    if name == "Pow":
        return make.Pow(expression(value.pow.base), expression(value.pow.exponent))
    if name == "Div":
        return make.Div(expression(value.div.left), expression(value.div.right), value.div.by_zero_default)
    if name == "Datetime":
        return make.Datetime(value.datetime)
    if name == "DatetimeKey":
        return make.DatetimeKey(value.datetime_key)
    if name == "GeoDistance":
        return make.GeoDistance(_geo(value.geo_distance.origin), value.geo_distance.to)
    for field, kind in (("lin_decay", "Lin"), ("exp_decay", "Exp"), ("gauss_decay", "Gauss")):
        if hasattr(value, field):
            body = getattr(value, field)
            target = None if body.target is None else expression(body.target)
            return make.Decay(getattr(edge.DecayKind, kind), expression(body.x), target,
                              body.midpoint, body.scale)
    return make.Condition(condition(value))


# ---------------------------------------------------------------- configuration

DISTANCES = {name: getattr(edge.Distance, name) for name in ("Cosine", "Euclid", "Dot", "Manhattan")}
DATATYPES = {"float32": "Float32", "float16": "Float16", "uint8": "Uint8"}


def _datatype(value: Any) -> Any:
    name = DATATYPES.get(getattr(value, "value", value))
    return name and getattr(edge.VectorStorageDatatype, name)


def dense_params(value: models.VectorParams) -> edge.EdgeVectorParams:
    return edge.EdgeVectorParams(
        value.size, DISTANCES[getattr(value.distance, "value", value.distance)],
        multivector_config=value.multivector_config and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=_datatype(value.datatype))


def sparse_params(value: models.SparseVectorParams | None) -> edge.EdgeSparseVectorParams:
    if value is None:
        return edge.EdgeSparseVectorParams()
    return edge.EdgeSparseVectorParams(
        modifier=edge.Modifier.Idf if value.modifier == "idf" else None,
        datatype=_datatype(value.index.datatype) if value.index else None)


def index_schema(value: Any) -> tuple[Any, str]:
    """A field_schema (type name or params) as Edge's schema, and its type name."""
    kinds = {"keyword": "Keyword", "integer": "Integer", "float": "Float", "geo": "Geo", "text": "Text",
             "bool": "Bool", "datetime": "Datetime", "uuid": "Uuid"}
    if not hasattr(value, "model_dump"):
        name = getattr(value, "value", value)
        return getattr(edge.PayloadSchemaType, kinds[name]), name
    given = value.model_dump(exclude_none=True, mode="json")
    name = given.pop("type")
    if given.get("lookup") is False and given.get("range") is False:
        raise invalid("field_schema.lookup", "the 'lookup' and 'range' capabilities can't be both disabled")
    # Only what changes results is passed on; placement on disk means nothing here.
    passed = {key: given[key] for key in
              ("lookup", "range", "min_token_len", "max_token_len", "lowercase", "ascii_folding",
               "phrase_matching", "prefix") if key in given}
    if "tokenizer" in given:
        passed["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].capitalize())
    return getattr(edge, kinds[name] + "IndexParams")(**passed), name
