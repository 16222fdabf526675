/*
 * key_log.c
 *		The keys of the current transaction, from the trigger to the outbox.
 *
 * Runs in writers' backends.  One append-only log serves all mirrors:
 *
 *		spool	chunks that are packed already, each within a subtransaction's
 *				part, after a head that says whose it is
 *		window	entries not packed yet
 *
 * A full window is compacted (sorted, and every key kept once); where that frees
 * less than half of it, it grows, and at its largest it is packed into the
 * spool.  Compacting and packing stay within the part of one subtransaction, so
 * that undoing it is cutting the log (hazard 17).  Nothing is written to the
 * outbox before PRE_COMMIT or PRE_PREPARE.
 *
 * At most 1 MB: window 384 kB, spool 256 kB, savepoints 384 kB at the worst.
 */
#include "capture/append.h"
#include "capture/key_log.h"
#include "capture/savepoints.h"
#include "capture/spool.h"
#include "capture/text_log.h"

#include "access/xact.h"
#include "utils/memutils.h"

/*
 * Entries of the window: static for a small transaction, which then allocates
 * nothing; at most a multiple of what one chunk takes, or leaving the last chunk
 * unfilled in the window would leave no room.
 */
#define WINDOW_FIRST 64
#define WINDOW_GROWTH 16
#define WINDOW_MAX 16384
StaticAssertDecl(WINDOW_MAX > 2 * QS_CHUNK_MAX_BYTES, "a chunk must not fill half the window");

#define SPOOL_MEMORY (256 * 1024)
#define TARGETS_FIRST 4

/* More keys than this at the end, and appending prefers pages of its own. */
#define BULK_ENTRIES 4000

/*
 * Tag: number of the target in the transaction, then two bits of QsChunkKind;
 * those of texts, which are not in the window, are 0.
 */
typedef struct LogEntry
{
	QsKey		key;			/* 0 with QS_CHUNK_SWEEP */
	uint32		tag;
} LogEntry;

/* Before each chunk of the spool. */
typedef struct SpoolHead
{
	uint32		target;
	uint32		length;
} SpoolHead;

/* What becomes of chunks that were packed. */
typedef void (*PackSink) (QsAppender *appender, uint32 target, QsRow *row, int length);

static LogEntry first_window[WINDOW_FIRST];
static LogEntry *window = first_window;
static int	window_size = WINDOW_FIRST;
static int	nentries = 0;

static QsTarget first_targets[TARGETS_FIRST];
static QsTarget *targets = first_targets;
static int	targets_size = TARGETS_FIRST;
static int	ntargets = 0;

static QsSpool spool;
static QsSavepoints savepoints;
static MemoryContext context = NULL;	/* of this transaction; NULL: none yet */
static uint64 serial = 1;		/* of this transaction; tells old numbers of targets */
static bool flushed = false;

static inline int
entry_compare(const LogEntry *a, const LogEntry *b)
{
	if (a->tag != b->tag)
		return a->tag < b->tag ? -1 : 1;
	return qs_key_compare(a->key, b->key, (QsChunkKind) (a->tag & 3));
}

#define ST_SORT sort_entries
#define ST_ELEMENT_TYPE LogEntry
#define ST_COMPARE(a, b) entry_compare(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

static MemoryContext
my_context(void)
{
	if (context == NULL)
	{
		context = AllocSetContextCreate(TopTransactionContext, "qdrant_sync changed keys",
										ALLOCSET_DEFAULT_SIZES);
		spool.context = context;
		spool.limit = SPOOL_MEMORY;
		savepoints.context = context;
	}
	return context;
}

/* ---- compacting and packing ---- */

/*
 * Sorts the entries and keeps each once; returns how many.  Most come ascending
 * and distinct, since a sequence made them.
 */
static int
sort_unique(LogEntry *entries, int n)
{
	int			sorted = 1;
	int			kept = 0;

	while (sorted < n && entry_compare(&entries[sorted - 1], &entries[sorted]) < 0)
		sorted++;
	if (sorted >= n)
		return n;
	sort_entries(entries, n);
	for (int i = 1; i < n; i++)
	{
		if (entry_compare(&entries[i], &entries[kept]) != 0)
			entries[++kept] = entries[i];
	}
	return kept + 1;
}

/* The first of the savepoints that lie in the window. */
static int
first_savepoint_in_window(void)
{
	int			i = savepoints.n;

	while (i > 0 && savepoints.stack[i - 1].start.spooled == spool.size)
		i--;
	return i;
}

/* Savepoints move along with the entries that they stand before. */
static void
compact(void)
{
	int			from = 0;
	int			kept = 0;

	for (int i = first_savepoint_in_window(); i <= savepoints.n; i++)
	{
		int			to = i < savepoints.n ? savepoints.stack[i].start.kept : nentries;
		int			n = sort_unique(window + from, to - from);

		if (kept != from)
			memmove(window + kept, window + from, n * sizeof(LogEntry));
		kept += n;
		from = to;
		if (i < savepoints.n)
			savepoints.stack[i].start.kept = kept;
	}
	nentries = kept;
}

/*
 * Packs n compacted entries, and gives each chunk to the sink.  With leave_last
 * a last chunk that is not full is left; returns how many entries were packed.
 */
static int
pack(const LogEntry *entries, int n, bool leave_last, PackSink sink, QsAppender *appender)
{
	QsRow		row;
	QsChunkWriter chunk;
	int			i = 0;

	while (i < n)
	{
		int			start = i;
		uint32		tag = entries[i].tag;

		qs_chunk_begin(&chunk, (QsChunkKind) (tag & 3), row.chunk, QS_CHUNK_MAX_BYTES);
		if (chunk.kind == QS_CHUNK_SWEEP)
			i++;
		else
		{
			while (i < n && entries[i].tag == tag && qs_chunk_add(&chunk, entries[i].key))
				i++;
			if (i == n && leave_last)
				return start;
		}
		sink(appender, tag >> 2, &row, chunk.used);
	}
	return n;
}

static void
chunk_to_spool(QsAppender *appender, uint32 target, QsRow *row, int length)
{
	SpoolHead	head = {target, length};

	qs_spool_append(&spool, &head, sizeof(head));
	qs_spool_append(&spool, row->chunk, length);
}

static void
chunk_to_outbox(QsAppender *appender, uint32 target, QsRow *row, int length)
{
	qs_append_chunk(appender, &targets[target], row, length);
}

/*
 * Empties the window but for a last chunk that is not full, which the next
 * entries may fill.  Each part is packed by itself, so that every savepoint
 * stands between two chunks.
 */
static void
spill(void)
{
	int			from = 0;
	int			packed;

	for (int i = first_savepoint_in_window(); i < savepoints.n; i++)
	{
		QsPlace    *start = &savepoints.stack[i].start;

		pack(window + from, start->kept - from, false, chunk_to_spool, NULL);
		from = start->kept;
		start->kept = 0;
		start->spooled = spool.size;
	}
	packed = from + pack(window + from, nentries - from, true, chunk_to_spool, NULL);
	nentries -= packed;
	memmove(window, window + packed, nentries * sizeof(LogEntry));
}

/* Not repalloc: the first window is static. */
static void
grow(void)
{
	int			size = Min(window_size * WINDOW_GROWTH, WINDOW_MAX);
	LogEntry   *larger = MemoryContextAlloc(my_context(), size * sizeof(LogEntry));

	memcpy(larger, window, nentries * sizeof(LogEntry));
	if (window != first_window)
		pfree(window);
	window = larger;
	window_size = size;
}

/* Leaves at least half of the window free, so its work is shared by as many keys. */
static void
make_room(void)
{
	compact();
	if (nentries <= window_size / 2)
		return;
	if (window_size < WINDOW_MAX)
		grow();
	else
	{
		my_context();
		spill();
	}
}

/* ---- adding ---- */

static void
add_target(QsTarget *target)
{
	if (ntargets == targets_size)
	{
		int			size = targets_size * 2;
		QsTarget   *larger = MemoryContextAlloc(my_context(), size * sizeof(QsTarget));

		memcpy(larger, targets, ntargets * sizeof(QsTarget));
		if (targets != first_targets)
			pfree(targets);
		targets = larger;
		targets_size = size;
	}
	qs_target_find_slot(target);
	targets[ntargets++] = *target;
}

/* The first change of this relation in the transaction; leaves share one target. */
static void
begin_target(QsArmed *armed)
{
	int			number = 0;

	while (number < ntargets && targets[number].mirror != armed->target.mirror)
		number++;
	if (number == ntargets)
		add_target(&armed->target);
	armed->tag = ((uint32) number << 2) | (armed->kind == QS_CHUNK_TEXTS ? 0 : armed->kind);
	armed->serial = serial;
}

/* PRE_COMMIT has passed: another extension writes in its own callback. */
static void
write_at_once(const LogEntry *entry)
{
	QsAppender	appender = {0};

	pack(entry, 1, false, chunk_to_outbox, &appender);
	qs_append_end(&appender);
}

static void
note_savepoint(int level)
{
	QsPlace		now = {spool.size, nentries};

	my_context();
	qs_savepoints_note(&savepoints, level, now);
}

static inline void
add(QsKey key, uint32 tag)
{
	LogEntry   *entry;
	int			level = GetCurrentTransactionNestLevel();

	if (unlikely(flushed))
	{
		LogEntry	late = {key, tag};

		write_at_once(&late);
		return;
	}
	/* An entry of an enclosing subtransaction lives as long as this one, or longer. */
	if (nentries > 0)
	{
		entry = &window[nentries - 1];
		if (entry->key.lo == key.lo && entry->tag == tag && entry->key.hi == key.hi)
			return;
	}
	if (level > 1)
		note_savepoint(level);
	if (nentries == window_size)
		make_room();
	entry = &window[nentries++];
	entry->key = key;
	entry->tag = tag;
}

void
qs_key_log_add(QsArmed *armed, QsKey key)
{
	if (armed->serial != serial)
		begin_target(armed);
	add(key, armed->tag);
}

/* A text too long to be noted leaves its mirror to be compared (hazard 10). */
void
qs_key_log_add_text(QsArmed *armed, const char *text, int length)
{
	if (length > QS_KEY_TEXT_MAX)
	{
		qs_key_log_sweep(armed);
		return;
	}
	if (armed->serial != serial)
		begin_target(armed);
	qs_text_log_add(armed->tag >> 2, armed->types, text, length);
	if (unlikely(flushed))
	{
		QsAppender	appender = {0};

		qs_text_log_flush(&appender, targets);
		qs_append_end(&appender);
	}
}

void
qs_key_log_sweep(QsArmed *armed)
{
	QsKey		none = {0, 0};

	if (armed->serial != serial)
		begin_target(armed);
	add(none, (armed->tag & ~(uint32) 3) | QS_CHUNK_SWEEP);
}

bool
qs_key_log_is_empty(void)
{
	return nentries == 0 && spool.size == 0 && qs_text_log_is_empty();
}

/* ---- savepoints and the end ---- */

void
qs_key_log_sub_commit(int level)
{
	qs_savepoints_commit(&savepoints, level);
	qs_text_log_sub_commit(level);
}

void
qs_key_log_sub_abort(int level)
{
	QsPlace		start;

	qs_text_log_sub_abort(level);
	if (!qs_savepoints_abort(&savepoints, level, &start))
		return;
	qs_spool_cut(&spool, start.spooled);
	nentries = start.kept;
}

static void
append_spool(QsAppender *appender)
{
	QsRow		row;
	SpoolHead	head;
	uint64		place = 0;

	while (place < spool.size)
	{
		CHECK_FOR_INTERRUPTS();
		qs_spool_read(&spool, place, &head, sizeof(head));
		place += sizeof(head);
		qs_spool_read(&spool, place, row.chunk, head.length);
		place += head.length;
		chunk_to_outbox(appender, head.target, &row, head.length);
	}
}

/*
 * In PRE_COMMIT no subtransaction is open any more: all of the window is one
 * part.  The spool's chunks are appended as they are; a key that is in two of
 * them is looked at once by the worker, which collects keys before it reads.
 */
void
qs_key_log_flush(void)
{
	QsAppender	appender = {0};

	flushed = true;
	if (qs_key_log_is_empty())
		return;
	appender.bulk = nentries > BULK_ENTRIES || spool.size > 0;
	qs_text_log_flush(&appender, targets);
	if (spool.size > 0)
		append_spool(&appender);
	nentries = sort_unique(window, nentries);
	pack(window, nentries, false, chunk_to_outbox, &appender);
	qs_append_end(&appender);
	if (spool.context != NULL)
		qs_spool_close(&spool);
}

/* The memory went, or will go, with TopTransactionContext. */
void
qs_key_log_reset(void)
{
	flushed = false;
	if (ntargets == 0)
		return;
	window = first_window;
	window_size = WINDOW_FIRST;
	nentries = 0;
	targets = first_targets;
	targets_size = TARGETS_FIRST;
	ntargets = 0;
	memset(&spool, 0, sizeof(spool));
	memset(&savepoints, 0, sizeof(savepoints));
	context = NULL;
	serial++;
	qs_text_log_reset();
}
