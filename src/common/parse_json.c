/*
 * parse_json.c
 *		JSON that may be none, without an error.
 *
 * Runs in sessions.  What a caller shows of the error is its own affair: hits.c tells
 * the characters that jsonb cannot hold from text that is no answer, and so has its own.
 */
#include "qdrant_sync.h"
#include "common/parse_json.h"

#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

/* The parser touches nothing but memory, so that its errors may be caught here. */
Jsonb *
qs_parse_json(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile jsonb = NULL;

	PG_TRY();
	{
		jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (category != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) &&
			category != ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return jsonb;
}
