/*
 * payload_writer.h
 *		What a payload value's writer is made of; between payload.c, json_text.c,
 *		composite.c and cast_json.c.
 */
#ifndef QS_PAYLOAD_WRITER_H
#define QS_PAYLOAD_WRITER_H

#include "common/encode.h"
#include "fmgr.h"

typedef struct QsAttributeWriter QsAttributeWriter;

/* As qs_append_payload, for a value that is not over-long. */
typedef char *(*QsAppendFunction) (StringInfo out, Datum value, QsPayloadWriter *writer);

/* varlena: the value may be toasted, and its size is looked at first. */
struct QsPayloadWriter
{
	QsAppendFunction append;
	Oid			type;			/* no domain */
	bool		varlena;
	FmgrInfo	output;			/* of types that are written as a function's text */
	int			json_depth;		/* how deep a value may nest here */
	MemoryContext context;		/* of the writer */

	/* arrays; element alone: a type that is cast to this one */
	QsPayloadWriter *element;
	Oid			element_type;
	int16		element_length;
	bool		element_by_value;
	char		element_align;

	/* composite types; composite.c */
	QsAttributeWriter *attributes;
	uint64		shape;			/* of the type when they were made */
};

extern QsPayloadWriter *qs_make_payload_writer(Oid type, int json_depth, MemoryContext context);

/* Appends a JSON text.  A message where Qdrant would not take it. */
extern char *qs_append_json_text(StringInfo out, const char *text, int length, int max_depth);

/*
 * Changes a writer of text to one of JSON, where its type is an extension's and is
 * cast to json there.
 */
extern void qs_use_cast_to_json(QsPayloadWriter *writer);

extern char *qs_append_composite(StringInfo out, Datum value, QsPayloadWriter *writer);

#endif							/* QS_PAYLOAD_WRITER_H */
