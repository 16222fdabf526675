/*
 * hits_module.c
 *		fuzz_hits(seed, n): src/client/hits.c and points_reader.c before n changes of an answer, in a
 *		backend, since PostgreSQL's parser is there only.
 *
 * A library of its own, for tests.  Each text ends where its memory does: one byte
 * further is a segmentation fault.  Undefined behaviour is a trap.
 */
#include "../../src/client/hits.c"
#include "../../src/client/points_reader.c"

#include <sys/mman.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "fuzz.h"
#include "utils/array.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(fuzz_hits);

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

/* False: refused, with an error that is meant. */
static bool
decode(char *text, size_t size)
{
	QsServer	server = {.name = "fuzz"};
	QsAnswer	answer = {.status = 200, .body = text, .length = size};
	MemoryContext before = CurrentMemoryContext;
	volatile bool decoded = false;

	PG_TRY();
	{
		int			n;
		QsHit	   *hits = qs_hits_decode(&server, &answer, &n);

		check_hits(hits, n);
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

Datum
fuzz_hits(PG_FUNCTION_ARGS)
{
	text	   *seed = PG_GETARG_TEXT_PP(0);
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(each);
	int32		counts[3] = {0};
	Datum		result[3];

	for (int i = 0; i < PG_GETARG_INT32(1); i++)
	{
		CHECK_FOR_INTERRUPTS();
		decode_changed(VARDATA_ANY(seed), VARSIZE_ANY_EXHDR(seed), counts);
		MemoryContextReset(each);
	}
	MemoryContextSwitchTo(before);
	for (int i = 0; i < 3; i++)
		result[i] = Int32GetDatum(counts[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, 3, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}
