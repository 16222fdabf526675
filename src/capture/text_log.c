/*
 * text_log.c
 *		Texts of hashed keys, from the trigger to the outbox.
 *
 * Runs in writers' backends.  An append-only spool of records, of which
 * PRE_COMMIT reads a bounded part at a time, sorts it, keeps every key once and
 * packs it into chunks.  Undoing a savepoint is cutting the spool.
 *
 * At most 640 kB: spool 128 kB, savepoints 384 kB at the worst, and 128 kB for
 * the records that are sorted.
 */
#include "capture/savepoints.h"
#include "capture/spool.h"
#include "capture/text_log.h"

#include "access/xact.h"
#include "utils/memutils.h"

#define SPOOL_MEMORY (128 * 1024)

/* Records that are sorted together. */
#define BATCH_BYTES (96 * 1024)
#define BATCH_RECORDS 1024
StaticAssertDecl(BATCH_BYTES > 2 * QS_KEY_TEXT_MAX, "a batch must hold a record");

typedef struct RecordHead
{
	uint32		target;
	uint32		types;
	uint32		length;
} RecordHead;

typedef struct Record
{
	RecordHead	head;
	const char *text;			/* in the batch's bytes */
} Record;

static QsSpool spool;
static QsSavepoints savepoints;
static MemoryContext context = NULL;	/* of this transaction; NULL: none yet */

/* What was added last, while nothing was cut: a loop over one row notes it once. */
static RecordHead last_head;
static char *last_text;
static uint64 last_end = 0;		/* the spool's size behind it; 0: none */

static void
make_context(void)
{
	context = AllocSetContextCreate(TopTransactionContext, "qdrant_sync texts of keys",
									ALLOCSET_DEFAULT_SIZES);
	spool.context = context;
	spool.limit = SPOOL_MEMORY;
	savepoints.context = context;
	last_text = MemoryContextAlloc(context, QS_KEY_TEXT_MAX);
	last_end = 0;
}

/* An entry of an enclosing subtransaction lives as long as this one, or longer. */
static bool
is_last(const RecordHead *head, const char *text)
{
	return last_end > 0 && last_end == spool.size &&
		memcmp(&last_head, head, sizeof(RecordHead)) == 0 &&
		memcmp(last_text, text, head->length) == 0;
}

void
qs_text_log_add(uint32 target, uint32 types, const char *text, int length)
{
	RecordHead	head = {target, types, length};
	int			level = GetCurrentTransactionNestLevel();
	QsPlace		now;

	if (context == NULL)
		make_context();
	if (is_last(&head, text))
		return;
	now.spooled = spool.size;
	now.kept = 0;
	if (level > 1)
		qs_savepoints_note(&savepoints, level, now);
	qs_spool_append(&spool, &head, sizeof(head));
	qs_spool_append(&spool, text, length);
	last_head = head;
	memcpy(last_text, text, length);
	last_end = spool.size;
}

bool
qs_text_log_is_empty(void)
{
	return spool.size == 0;
}

void
qs_text_log_sub_commit(int level)
{
	qs_savepoints_commit(&savepoints, level);
}

void
qs_text_log_sub_abort(int level)
{
	QsPlace		start;

	if (!qs_savepoints_abort(&savepoints, level, &start))
		return;
	qs_spool_cut(&spool, start.spooled);
	last_end = 0;
}

/* ---- to the outbox ---- */

static inline int
record_compare(const Record *a, const Record *b)
{
	if (a->head.target != b->head.target)
		return a->head.target < b->head.target ? -1 : 1;
	if (a->head.types != b->head.types)
		return a->head.types < b->head.types ? -1 : 1;
	return qs_text_compare(a->text, a->head.length, b->text, b->head.length);
}

#define ST_SORT sort_records
#define ST_ELEMENT_TYPE Record
#define ST_COMPARE(a, b) record_compare(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Fills the batch from place on; returns the place of the next record. */
static uint64
read_batch(uint64 place, Record *records, int *n, char *bytes)
{
	int			used = 0;

	*n = 0;
	while (place < spool.size && *n < BATCH_RECORDS)
	{
		Record	   *record = &records[*n];

		qs_spool_read(&spool, place, &record->head, sizeof(RecordHead));
		if (used + record->head.length > BATCH_BYTES)
			break;
		qs_spool_read(&spool, place + sizeof(RecordHead), bytes + used, record->head.length);
		record->text = bytes + used;
		used += record->head.length;
		place += sizeof(RecordHead) + record->head.length;
		(*n)++;
	}
	return place;
}

static bool
same_chunk(const RecordHead *a, const RecordHead *b)
{
	return a->target == b->target && a->types == b->types;
}

/* One chunk, as many records as fit; returns how many records it took. */
static int
pack_chunk(const Record *records, int n, QsAppender *appender, const QsTarget *targets)
{
	QsRow		row;
	QsTextChunkWriter chunk;
	int			taken = 0;

	qs_text_chunk_begin(&chunk, records[0].head.types, row.chunk, QS_CHUNK_MAX_BYTES);
	while (taken < n && same_chunk(&records[0].head, &records[taken].head))
	{
		const Record *record = &records[taken];

		if ((taken == 0 || record_compare(record - 1, record) != 0) &&
			!qs_text_chunk_add(&chunk, record->text, record->head.length))
			break;
		taken++;
	}
	qs_append_chunk(appender, &targets[records[0].head.target], &row, chunk.used);
	return taken;
}

void
qs_text_log_flush(QsAppender *appender, const QsTarget *targets)
{
	Record	   *records;
	char	   *bytes;

	if (spool.size == 0)
		return;
	records = MemoryContextAlloc(context, BATCH_RECORDS * sizeof(Record));
	bytes = MemoryContextAlloc(context, BATCH_BYTES);
	for (uint64 place = 0; place < spool.size;)
	{
		int			n;

		CHECK_FOR_INTERRUPTS();
		place = read_batch(place, records, &n, bytes);
		sort_records(records, n);
		for (int i = 0; i < n;)
			i += pack_chunk(records + i, n - i, appender, targets);
	}
	pfree(bytes);
	pfree(records);
	qs_spool_close(&spool);
	qs_spool_cut(&spool, 0);
	last_end = 0;
}

/* The memory went, or will go, with TopTransactionContext. */
void
qs_text_log_reset(void)
{
	if (context == NULL)
		return;
	memset(&spool, 0, sizeof(spool));
	memset(&savepoints, 0, sizeof(savepoints));
	last_end = 0;
	context = NULL;
}
