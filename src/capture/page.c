/*
 * page.c
 *		Another tuple on the page to which this backend appended last.
 *
 * Runs in writers' backends, for transactions of few chunks.  It does what
 * heap_insert does, and writes the same WAL, without relcache entry and buffer
 * table, which are a third of what appending costs.  Whatever is not the plain
 * case it leaves to heap_insert: a page that is full, empty, all-visible or not
 * in its buffer any more, and storage that may do without WAL.
 *
 * The lock on the segment keeps others from truncating, rewriting or dropping
 * it.  What they did before is known by then: taking the lock reads their
 * invalidations, and storage that was truncated has left the buffers.
 *
 * Nobody reads segments in SERIALIZABLE transactions, so no conflict is looked
 * for; and nobody reads their statistics.
 */
#include "capture/page.h"

#include "access/heapam_xlog.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/resowner.h"

/* Segments that are remembered, each at its OID's place: enough for a few tables. */
#define PAGES 8

typedef struct LastPage
{
	Oid			segment;		/* InvalidOid: none */
	RelFileLocator locator;
	RelFileNumber number;		/* of it */
	BlockNumber block;
	Buffer		buffer;			/* that held the block; checked at use */
} LastPage;

static LastPage pages[PAGES];

/*
 * Owns the pin while a tuple is added, where nothing raises.  The transaction's
 * own would allocate room for pins each time.
 */
static ResourceOwner pin_owner = NULL;

static void
forget(Datum arg, Oid relid)
{
	if (!OidIsValid(relid))
		memset(pages, 0, sizeof(pages));
	else if (pages[relid % PAGES].segment == relid)
		pages[relid % PAGES].segment = InvalidOid;
}

static void
prepare(void)
{
	if (pin_owner != NULL)
		return;
	CacheRegisterRelcacheCallback(forget, (Datum) 0);
	pin_owner = ResourceOwnerCreate(NULL, "qdrant_sync page");
}

void
qs_page_remember(Relation rel, ItemPointer tid)
{
	LastPage   *last = &pages[RelationGetRelid(rel) % PAGES];
	Buffer		buffer;

	/* Storage that is as new as this transaction may do without WAL. */
	if (!RelationNeedsWAL(rel))
		return;
	prepare();
	buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
	last->segment = RelationGetRelid(rel);
	last->locator = qs_locator(rel);
	last->number = qs_relfilenumber(rel);
	last->block = ItemPointerGetBlockNumber(tid);
	last->buffer = buffer;
	ReleaseBuffer(buffer);
}

static void
set_inserter(HeapTupleHeader header, TransactionId xid, CommandId cid)
{
	HeapTupleHeaderSetXmin(header, xid);
	HeapTupleHeaderSetCmin(header, cid);
	HeapTupleHeaderSetXmax(header, InvalidTransactionId);
	header->t_infomask |= HEAP_XMAX_INVALID;
}

/*
 * A page without any tuple may have to be initialised in WAL, and one that is
 * all-visible has a bit elsewhere to be cleared.
 */
static bool
has_room(Page page, HeapTuple tuple)
{
	return PageGetMaxOffsetNumber(page) > 0 && !PageIsAllVisible(page) &&
		PageGetHeapFreeSpace(page) >= MAXALIGN(tuple->t_len);
}

static void
put(Page page, BlockNumber block, HeapTuple tuple)
{
	OffsetNumber offset = PageAddItem(page, (Item) tuple->t_data, tuple->t_len,
									  InvalidOffsetNumber, false, true);

	if (offset == InvalidOffsetNumber)
		elog(PANIC, "could not add a tuple to a page with room for it");
	ItemPointerSet(&tuple->t_self, block, offset);
	((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, offset)))->t_ctid = tuple->t_self;
}

/* What WAL keeps of a tuple's header lies together, before the tuple's data. */
#define LOGGED_FROM offsetof(HeapTupleHeaderData, t_infomask2)
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_infomask) - LOGGED_FROM ==
				 offsetof(xl_heap_header, t_infomask), "headers differ");
StaticAssertDecl(offsetof(HeapTupleHeaderData, t_hoff) - LOGGED_FROM ==
				 offsetof(xl_heap_header, t_hoff), "headers differ");
StaticAssertDecl(SizeofHeapTupleHeader - LOGGED_FROM == SizeOfHeapHeader, "headers differ");

/* The record of an INSERT that logical decoding passes over. */
static XLogRecPtr
log_put(Buffer buffer, HeapTuple tuple)
{
	xl_heap_insert insert = {.offnum = ItemPointerGetOffsetNumber(&tuple->t_self)};

	XLogBeginInsert();
	XLogRegisterData((char *) &insert, SizeOfHeapInsert);
	XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
	XLogRegisterBufData(0, (char *) tuple->t_data + LOGGED_FROM, tuple->t_len - LOGGED_FROM);
	return XLogInsert(RM_HEAP_ID, XLOG_HEAP_INSERT);
}

/* Pins the page, and lets it go again. */
static bool
add_to_page(const LastPage *last, HeapTuple tuple)
{
	Page		page;
	XLogRecPtr	lsn;
	bool		room;

	if (!ReadRecentBuffer(last->locator, MAIN_FORKNUM, last->block, last->buffer))
		return false;
	LockBuffer(last->buffer, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(last->buffer);
	room = has_room(page, tuple);
	if (room)
	{
		START_CRIT_SECTION();
		put(page, last->block, tuple);
		MarkBufferDirty(last->buffer);
		lsn = log_put(last->buffer, tuple);
		PageSetLSN(page, lsn);	/* a macro up to 15, which evaluates it twice */
		END_CRIT_SECTION();
	}
	UnlockReleaseBuffer(last->buffer);
	return room;
}

bool
qs_page_append(Oid segment, HeapTuple tuple, CommandId cid, RelFileNumber *storage)
{
	LastPage   *last = &pages[segment % PAGES];
	ResourceOwner owner = CurrentResourceOwner;
	bool		added;

	if (last->segment != segment)
		return false;
	set_inserter(tuple->t_data, GetCurrentTransactionId(), cid);
	CurrentResourceOwner = pin_owner;
	added = add_to_page(last, tuple);
	CurrentResourceOwner = owner;
	if (!added)
		last->segment = InvalidOid;
	*storage = last->number;
	return added;
}
