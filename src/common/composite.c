/*
 * composite.c
 *		Values of composite types as JSON objects, as to_jsonb writes them.
 *
 * Sync worker.  An attribute is written as a column of its type would be; one that is
 * NULL is null, whatever the mirror does with columns that are NULL.
 */
#include "qdrant_sync.h"
#include "common/payload_writer.h"

#include "access/htup_details.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

struct QsAttributeWriter
{
	QsPayloadWriter *writer;	/* NULL: a dropped attribute */
	char	   *key;			/* "name": */
	int			key_length;
};

/* A message where the name has no equivalent in UTF-8. */
static char *
make_attribute(QsAttributeWriter *attribute, Form_pg_attribute of, QsPayloadWriter *writer)
{
	StringInfoData key;
	char	   *message;

	initStringInfo(&key);
	message = qs_append_json_string(&key, NameStr(of->attname), strlen(NameStr(of->attname)));
	if (message != NULL)
		return psprintf("attribute \"%s\": %s", qs_ascii_only(NameStr(of->attname)), message);
	appendStringInfoChar(&key, ':');
	attribute->key = key.data;
	attribute->key_length = key.len;
	attribute->writer = qs_make_payload_writer(of->atttypid, writer->json_depth - 1, writer->context);
	return NULL;
}

/* What an earlier shape has left is freed with the writer. */
static char *
make_attributes(QsPayloadWriter *writer, TupleDesc desc, uint64 shape)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->context);
	QsAttributeWriter *attributes = palloc0(desc->natts * sizeof(QsAttributeWriter));
	char	   *message = NULL;

	for (int i = 0; i < desc->natts && message == NULL; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped)
			message = make_attribute(&attributes[i], attribute, writer);
	}
	if (message == NULL)
	{
		writer->attributes = attributes;
		writer->shape = shape;
	}
	MemoryContextSwitchTo(caller);
	return message;
}

static char *
append_attributes(StringInfo out, QsPayloadWriter *writer, int n, const Datum *values, const bool *nulls)
{
	char	   *message = NULL;

	appendStringInfoCharMacro(out, '{');
	for (int i = 0; i < n && message == NULL; i++)
	{
		QsAttributeWriter *attribute = &writer->attributes[i];

		if (attribute->writer == NULL)
			continue;
		if (out->data[out->len - 1] != '{')
			appendStringInfoCharMacro(out, ',');
		appendBinaryStringInfo(out, attribute->key, attribute->key_length);
		if (nulls[i])
			appendBinaryStringInfo(out, "null", 4);
		else
			message = qs_append_payload(out, values[i], attribute->writer);
	}
	appendStringInfoCharMacro(out, '}');
	return message;
}

/* ALTER TYPE may have given the type another shape since the last row. */
char *
qs_append_composite(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	uint64		shape = lookup_type_cache(writer->type, TYPECACHE_TUPDESC)->tupDesc_identifier;
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(writer->type, -1);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};
	char	   *message = NULL;

	ItemPointerSetInvalid(&tuple.t_self);
	if (writer->attributes == NULL || writer->shape != shape)
		message = make_attributes(writer, desc, shape);
	if (message != NULL)
		return message;
	heap_deform_tuple(&tuple, desc, values, nulls);
	return append_attributes(out, writer, desc->natts, values, nulls);
}
