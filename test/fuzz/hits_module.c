/*
 * hits_module.c
 *		fuzz_hits(seed, n): src/client/hits.c and points_reader.c before n changes of
 *		an answer, and
 *		fuzz_method(name, seed, n): that method's decoder in src/client/reads.c or
 *		collection.c; in a backend, since PostgreSQL's parser is there only.
 *
 * A library of its own, for tests.  Each text ends where its memory does: one byte
 * further is a segmentation fault.  Undefined behaviour is a trap.  In the place of
 * method.c, which asks Qdrant, stand functions that hand the text on.
 */
#include "qdrant_sync.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "capture/point_id.h"
#include "catalog/pg_type.h"
#include "client/async.h"
#include "client/hits.h"
#include "client/method.h"
#include "client/rights.h"
#include "common/rows_out.h"
#include "fuzz.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(fuzz_hits);
PG_FUNCTION_INFO_V1(fuzz_method);

/* Columns of a row: t a text, f a real, i an integer, j jsonb. */
typedef struct Method
{
	const char *name;
	PGFunction	decode;
	const char *columns;		/* NULL: one value */
} Method;

static const QsServer server = {.name = "fuzz"};
static QsAnswer answer;
static const Method *method;	/* NULL: qs_hits_decode */
static uint8_t *pages;
static size_t page_bytes;

/* What hits.c may say of an answer. */
static bool
is_known(int code)
{
	return code == ERRCODE_PROTOCOL_VIOLATION || code == ERRCODE_UNTRANSLATABLE_CHARACTER ||
		code == ERRCODE_STATEMENT_TOO_COMPLEX;
}

/* A place for a text of so many bytes with a NUL, directly before memory that nobody may read. */
static char *
place_for(size_t size)
{
	size_t		page = sysconf(_SC_PAGESIZE);

	if (pages == NULL)
	{
		page_bytes = TYPEALIGN(page, FUZZ_MAX_INPUT + 1);
		pages = mmap(NULL, page_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED || mprotect(pages + page_bytes, page, PROT_NONE) != 0)
			elog(ERROR, "no memory");
	}
	return (char *) pages + page_bytes - size - 1;
}

static void
check_hits(const QsHit *hits, int n)
{
	for (int i = 0; i < n; i++)
	{
		int			length = (int) strlen(hits[i].id);

		if (!(hits[i].is_uuid ? qs_is_uuid(hits[i].id, length) : qs_is_unsigned_integer(hits[i].id, length)))
			elog(ERROR, "id \"%s\"", hits[i].id);
		if (hits[i].has_score && !isfinite(hits[i].score))
			elog(ERROR, "score %g", hits[i].score);
	}
}

/* ---- in the place of what asks Qdrant and stores rows ---- */

bool
qs_method_request(FunctionCallInfo fcinfo, const QsMethod *table, QsRequest *request)
{
	memset(request, 0, sizeof(*request));
	request->server = &server;
	return true;
}

QsAnswer *
qs_method_send(QsRequest *request)
{
	return &answer;
}

Jsonb *
qs_method_result(QsRequest *request)
{
	return qs_answer_result(&server, &answer);
}

Jsonb *
qs_method_object(QsRequest *request)
{
	Jsonb	   *result = qs_method_result(request);

	if (!JB_ROOT_IS_OBJECT(result))
		qs_answer_not_understood(&server);
	return result;
}

int64
qs_async_submit(const QsRequest *request, QsAnswerKind kind)
{
	return 0;
}

void
qs_check_alias_actions(const QsServer *of, Jsonb *actions)
{
}

void
qs_server_free(QsServer *of)
{
}

QsRowsOut
qs_rows_out_begin(FunctionCallInfo fcinfo)
{
	return (QsRowsOut) {0};
}

/* What a reader of the row would do with it. */
void
qs_rows_out_put(QsRowsOut *rows, const Datum *values, const bool *nulls)
{
	for (int i = 0; method->columns[i]; i++)
	{
		Datum		value = values[i];

		if (nulls[i])
			continue;
		if (method->columns[i] == 'f' && !isfinite(DatumGetFloat4(value)))
			elog(ERROR, "column %d is %g", i, DatumGetFloat4(value));
		if (method->columns[i] == 't' &&
			!pg_verify_mbstr(PG_UTF8, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), true))
			elog(ERROR, "column %d is no text", i);
		if (method->columns[i] == 'j')
			(void) JsonbToCString(NULL, &DatumGetJsonbP(value)->root, VARSIZE_ANY(value));
	}
}

#define DECLARE(name) extern PGDLLEXPORT Datum qs_##name(PG_FUNCTION_ARGS)
DECLARE(get_collections);
DECLARE(get_collection);
DECLARE(collection_exists);
DECLARE(get_aliases);
DECLARE(get_collection_aliases);
DECLARE(retrieve);
DECLARE(scroll);
DECLARE(count);
DECLARE(facet);
DECLARE(query_batch_points);
DECLARE(query_points_groups);
DECLARE(search_matrix_pairs);
DECLARE(search_matrix_offsets);
DECLARE(create_collection);
DECLARE(create_payload_index);

#define METHOD(name, columns) {#name, qs_##name, columns}
#define POINT "tfjjijj"

static const Method methods[] = {
	METHOD(get_collections, "t"),
	METHOD(get_collection, NULL),
	METHOD(collection_exists, NULL),
	METHOD(get_aliases, "tt"),
	METHOD(get_collection_aliases, "tt"),
	METHOD(retrieve, POINT),
	METHOD(scroll, POINT "t"),
	METHOD(count, NULL),
	METHOD(facet, "ji"),
	METHOD(query_batch_points, "i" POINT),
	METHOD(query_points_groups, "j" POINT "j"),
	METHOD(search_matrix_pairs, "ttf"),
	METHOD(search_matrix_offsets, NULL),
	METHOD(create_collection, NULL),
	METHOD(create_payload_index, NULL),
};

static const Method *
method_of(const char *name)
{
	for (int i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i].name, name) == 0)
			return &methods[i];
	}
	elog(ERROR, "no method %s", name);
}

/* Of all arguments only those that are looked at before anything is sent. */
static void
call_method(void)
{
	LOCAL_FCINFO(fcinfo, 20);
	Datum		none = DirectFunctionCall1(jsonb_in, CStringGetDatum("[]"));

	InitFunctionCallInfoData(*fcinfo, NULL, 20, InvalidOid, NULL, NULL);
	for (int i = 0; i < 20; i++)
	{
		fcinfo->args[i].value = i == 1 ? none : (Datum) 0;
		fcinfo->args[i].isnull = i != 1;
	}
	(void) method->decode(fcinfo);
}

/* ---- one text ---- */

/* False: refused, with an error that is meant. */
static bool
decode(char *text, size_t size)
{
	MemoryContext before = CurrentMemoryContext;
	volatile bool decoded = false;

	answer = (QsAnswer) {.status = 200, .body = text, .length = size};
	PG_TRY();
	{
		if (method != NULL)
			call_method();
		else
		{
			int			n;
			QsHit	   *hits = qs_hits_decode(&server, &answer, &n);

			check_hits(hits, n);
		}
		decoded = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(before);
		if (!is_known(geterrcode()))
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return decoded;
}

/* How many were decoded, refused, and no text of the database at all, which request.c refuses. */
static void
decode_changed(const char *seed, size_t length, int32 *counts)
{
	uint8_t    *changed = palloc(FUZZ_MAX_INPUT);
	size_t		size = length;
	char	   *text;

	memcpy(changed, seed, length);
	for (uint64_t k = fuzz_random(5); k > 0; k--)
		size = fuzz_change(changed, size);
	if (fuzz_random(8) == 0)
		size = fuzz_random(size + 1);
	text = place_for(size);
	memcpy(text, changed, size);
	text[size] = '\0';
	if (memchr(text, '\0', size) != NULL || !pg_verify_mbstr(PG_UTF8, text, (int) size, true))
		counts[2]++;
	else
		counts[decode(text, size) ? 0 : 1]++;
}

static Datum
decode_many(text *seed, int n)
{
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(each);
	int32		counts[3] = {0};
	Datum		result[3];

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		decode_changed(VARDATA_ANY(seed), VARSIZE_ANY_EXHDR(seed), counts);
		MemoryContextReset(each);
	}
	MemoryContextSwitchTo(before);
	for (int i = 0; i < 3; i++)
		result[i] = Int32GetDatum(counts[i]);
	return PointerGetDatum(construct_array(result, 3, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

Datum
fuzz_hits(PG_FUNCTION_ARGS)
{
	method = NULL;
	return decode_many(PG_GETARG_TEXT_PP(0), PG_GETARG_INT32(1));
}

Datum
fuzz_method(PG_FUNCTION_ARGS)
{
	method = method_of(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	return decode_many(PG_GETARG_TEXT_PP(1), PG_GETARG_INT32(2));
}
