/*
 * upload_point.c
 *		Makes a point of each row of the query of qdrant_upload.
 *
 * Runs in users' backends, as the caller.  Columns are known by their names: id,
 * vector and payload are what they say; without vector, columns of vector types are
 * named vectors; without payload, all others are its fields.  A column that would be
 * left out is refused, so that nothing is lost in silence.  Values are written as
 * those of mirrors are.
 */
#include "capture/point_id.h"
#include "capture/upload_point.h"
#include "common/encode.h"
#include "common/vector.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* A column that is a named vector or a field of the payload. */
typedef struct Member
{
	int			column;
	const char *name;
	char	   *key;			/* "name": in UTF-8 */
	QsVectorType vector_type;	/* of a vector */
	QsPayloadWriter *writer;	/* of a field */
} Member;

struct QsUploadShape
{
	TupleDesc	desc;
	int			id;				/* columns from 0; -1: there is none */
	int			vector;
	int			payload;
	FmgrInfo	id_output;
	QsVectorType vector_type;
	QsPayloadWriter *vector_writer; /* of a vector that is JSON */
	QsPayloadWriter *payload_writer;
	Member	   *vectors;
	int			nvectors;
	Member	   *fields;
	int			nfields;
};

/* ---- columns ---- */

static const char *
column_name(const QsUploadShape *shape, int column)
{
	return NameStr(TupleDescAttr(shape->desc, column)->attname);
}

static Oid
column_type(const QsUploadShape *shape, int column)
{
	return TupleDescAttr(shape->desc, column)->atttypid;
}

/* -1: there is none. */
static int
find_column(const QsUploadShape *shape, const char *name)
{
	int			found = -1;

	for (int i = 0; i < shape->desc->natts; i++)
	{
		if (strcmp(column_name(shape, i), name) != 0)
			continue;
		if (found >= 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("the query has two columns \"%s\"", name)));
		found = i;
	}
	return found;
}

static void
find_id(QsUploadShape *shape)
{
	Oid			type;
	Oid			output;
	bool		varlena;

	shape->id = find_column(shape, "id");
	if (shape->id < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("the query has no column \"id\""),
				 errhint("Name the column of the points' ids with AS id; gen_random_uuid() AS id makes new ones.")));
	type = getBaseType(column_type(shape, shape->id));
	if (type != INT2OID && type != INT4OID && type != INT8OID && type != NUMERICOID &&
		type != UUIDOID && type != TEXTOID && type != VARCHAROID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"id\" of the query has type %s", format_type_be(type)),
				 errhint("An id is an integer, numeric, a uuid, or text of either.")));
	getTypeOutputInfo(type, &output, &varlena);
	fmgr_info(output, &shape->id_output);
}

/* Text is JSON text here, and so is what other types are written as. */
static void
find_vector(QsUploadShape *shape)
{
	Oid			type;

	shape->vector = find_column(shape, "vector");
	if (shape->vector < 0)
		return;
	type = column_type(shape, shape->vector);
	if (qs_is_vector_type(type))
		shape->vector_type = qs_vector_type(type);
	else if (getBaseType(type) != TEXTOID)
		shape->vector_writer = qs_payload_writer(type, 0, CurrentMemoryContext);
	if (shape->vector_type == QS_VECTOR_SPARSEVEC)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("a sparse vector needs a name"),
				 errhint("Give the column the name of the collection's sparse vector instead of \"vector\".")));
}

static void
find_payload(QsUploadShape *shape)
{
	shape->payload = find_column(shape, "payload");
	if (shape->payload >= 0)
		shape->payload_writer = qs_payload_writer(column_type(shape, shape->payload), 0,
												  CurrentMemoryContext);
}

static Member *
begin_member(QsUploadShape *shape, int column, Member *member)
{
	StringInfoData key;
	char	   *message;

	initStringInfo(&key);
	member->column = column;
	member->name = column_name(shape, column);
	(void) find_column(shape, member->name);
	message = qs_append_json_string(&key, member->name, strlen(member->name));
	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("name of column %d of the query: %s", column + 1, message)));
	appendStringInfoChar(&key, ':');
	member->key = key.data;
	return member;
}

static void
add_member(QsUploadShape *shape, int column)
{
	Oid			type = column_type(shape, column);

	if (shape->vector < 0 && qs_is_vector_type(type))
		begin_member(shape, column, &shape->vectors[shape->nvectors++])->vector_type =
			qs_vector_type(type);
	else if (shape->payload < 0)
		begin_member(shape, column, &shape->fields[shape->nfields++])->writer =
			qs_payload_writer(type, 0, CurrentMemoryContext);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" of the query is no part of a point", column_name(shape, column)),
				 errdetail("With a column \"payload\" the others are \"id\" and vectors."),
				 errhint("Leave it out, or leave \"payload\" out to have all other columns as its fields.")));
}

QsUploadShape *
qs_upload_shape(TupleDesc desc)
{
	QsUploadShape *shape = palloc0(sizeof(QsUploadShape));

	shape->desc = CreateTupleDescCopy(desc);
	shape->vectors = palloc0((desc->natts + 1) * sizeof(Member));
	shape->fields = palloc0((desc->natts + 1) * sizeof(Member));
	find_id(shape);
	find_vector(shape);
	find_payload(shape);
	for (int i = 0; i < desc->natts; i++)
	{
		if (i != shape->id && i != shape->vector && i != shape->payload)
			add_member(shape, i);
	}
	return shape;
}

/* ---- values ---- */

/* The row under way. */
typedef struct Row
{
	const QsUploadShape *shape;
	HeapTuple	tuple;
	int			position;
	QsPointsCheck *check;
	StringInfo	out;			/* in UTF-8 */
} Row;

static QS_NORETURN void
refuse(const Row *row, int column, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("point %d: column \"%s\": %s", row->position, column_name(row->shape, column), message),
			 errdetail("Positions count from 1.")));
	pg_unreachable();
}

static Datum
value_of(const Row *row, int column, bool *is_null)
{
	return heap_getattr(row->tuple, column + 1, row->shape->desc, is_null);
}

static void
append_id(Row *row)
{
	bool		is_null;
	Datum		value = value_of(row, row->shape->id, &is_null);
	char	   *text;

	if (is_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("point %d: column \"id\" is NULL", row->position),
				 errdetail("Positions count from 1.")));
	text = OutputFunctionCall(&unconstify(QsUploadShape *, row->shape)->id_output, value);
	if (qs_is_unsigned_integer(text, (int) strlen(text)))
		appendStringInfoString(row->out, text);
	else if (qs_is_uuid(text, (int) strlen(text)))
		appendStringInfo(row->out, "\"%s\"", text);
	else
		refuse(row, row->shape->id, "it is neither an integer from 0 to 2^64 - 1 nor a UUID");
}

/* An array of two dimensions is a multi-vector. */
static QsVectorKind
kind_of(Datum value, QsVectorType type)
{
	if ((type == QS_VECTOR_FLOAT4_ARRAY || type == QS_VECTOR_FLOAT8_ARRAY) &&
		ARR_NDIM(DatumGetArrayTypeP(value)) == 2)
		return QS_MULTI;
	return qs_vector_kind(type);
}

/* name: "" for the unnamed one. */
static void
append_vector(Row *row, int column, const char *name, Datum value, QsVectorType type)
{
	QsVectorForm form = {0};
	char	   *message = qs_check_raw_size(value);

	if (message != NULL)
		refuse(row, column, message);
	value = PointerGetDatum(PG_DETOAST_DATUM(value));
	form.kind = kind_of(value, type);
	message = qs_append_vector(row->out, value, type, &form);
	if (message != NULL)
		refuse(row, column, message);
	if (form.kind != QS_SPARSE)
		qs_points_check_width(row->check, row->position, name, qs_vector_dimension(value, type, form.kind));
}

/* In Qdrant's own form. */
static void
append_json_vector(Row *row, Datum value)
{
	const QsUploadShape *shape = row->shape;
	StringInfoData written;
	Jsonb	   *json;
	char	   *server;
	const char *utf8;
	int			length;
	char	   *message;

	initStringInfo(&written);
	if (shape->vector_writer == NULL)
		server = TextDatumGetCString(value);
	else
	{
		message = qs_append_payload(&written, value, shape->vector_writer);
		if (message != NULL)
			refuse(row, shape->vector, message);
		server = pg_any_to_server(written.data, written.len, PG_UTF8);
	}
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(server)));
	qs_points_check_vector(row->check, row->position, json);
	resetStringInfo(&written);
	(void) JsonbToCString(&written, &json->root, VARSIZE(json));
	message = qs_to_utf8(written.data, written.len, &utf8, &length);
	if (message != NULL)
		refuse(row, shape->vector, message);
	appendBinaryStringInfo(row->out, utf8, length);
}

/* One that is NULL is left out; a point may have none. */
static void
append_named_vectors(Row *row)
{
	int			n = 0;

	appendStringInfoChar(row->out, '{');
	for (int i = 0; i < row->shape->nvectors; i++)
	{
		const Member *member = &row->shape->vectors[i];
		bool		is_null;
		Datum		value = value_of(row, member->column, &is_null);

		if (is_null)
			continue;
		if (n++ > 0)
			appendStringInfoChar(row->out, ',');
		appendStringInfoString(row->out, member->key);
		append_vector(row, member->column, member->name, value, member->vector_type);
	}
	appendStringInfoChar(row->out, '}');
}

static void
append_vectors(Row *row)
{
	const QsUploadShape *shape = row->shape;
	bool		is_null = true;
	Datum		value = 0;

	if (shape->vector >= 0)
		value = value_of(row, shape->vector, &is_null);
	if (is_null)
		append_named_vectors(row);
	else if (shape->vector_type != QS_VECTOR_NONE)
		append_vector(row, shape->vector, "", value, shape->vector_type);
	else
		append_json_vector(row, value);
}

/* ---- payload ---- */

/* Any type that is written as an object: JSON, a composite type, hstore. */
static void
append_whole_payload(Row *row)
{
	const QsUploadShape *shape = row->shape;
	int			begin = row->out->len;
	bool		is_null;
	Datum		value = value_of(row, shape->payload, &is_null);
	char	   *message;

	if (is_null)
	{
		appendStringInfoString(row->out, "null");
		return;
	}
	message = qs_append_payload(row->out, value, shape->payload_writer);
	if (message != NULL)
		refuse(row, shape->payload, message);
	begin += strspn(row->out->data + begin, " \t\r\n");
	if (row->out->data[begin] != '{' && row->out->data[begin] != 'n')
		refuse(row, shape->payload, "it is neither a JSON object nor null");
}

static void
append_fields(Row *row)
{
	appendStringInfoChar(row->out, '{');
	for (int i = 0; i < row->shape->nfields; i++)
	{
		const Member *member = &row->shape->fields[i];
		bool		is_null;
		Datum		value = value_of(row, member->column, &is_null);
		char	   *message = NULL;

		if (i > 0)
			appendStringInfoChar(row->out, ',');
		appendStringInfoString(row->out, member->key);
		if (is_null)
			appendStringInfoString(row->out, "null");
		else
			message = qs_append_payload(row->out, value, member->writer);
		if (message != NULL)
			refuse(row, member->column, message);
	}
	appendStringInfoChar(row->out, '}');
}

/* ---- the point ---- */

/* All that is written was in the database's encoding, or is ASCII, so it has a way back. */
static void
to_database_encoding(StringInfo out)
{
	char	   *server = pg_any_to_server(out->data, out->len, PG_UTF8);

	if (server == out->data)
		return;
	resetStringInfo(out);
	appendStringInfoString(out, server);
	pfree(server);
}

void
qs_upload_point(const QsUploadShape *shape, HeapTuple tuple, int position, QsPointsCheck *check,
				StringInfo out)
{
	Row			row = {shape, tuple, position, check, out};

	resetStringInfo(out);
	appendStringInfoString(out, "{\"id\":");
	append_id(&row);
	appendStringInfoString(out, ",\"vector\":");
	append_vectors(&row);
	appendStringInfoString(out, ",\"payload\":");
	if (shape->payload >= 0)
		append_whole_payload(&row);
	else
		append_fields(&row);
	appendStringInfoChar(out, '}');
	to_database_encoding(out);
}
