/*
 * spool.c
 *		A transaction's bytes in memory and, beyond a limit, in a temporary file.
 *
 * Runs in writers' backends.  The file belongs to the whole transaction,
 * whatever savepoint is open when it is made, and is removed with it.  A spool
 * is only cut and appended to; what it holds is the caller's affair.
 */
#include "capture/spool.h"

#include "utils/memutils.h"
#include "utils/resowner.h"

#define SPOOL_FIRST_BYTES 8192

/*
 * Owned by the transaction, not by the subtransaction or portal that happens to
 * be current: it has to outlive both.  An abort removes it by itself.
 */
static void
open_file(QsSpool *spool)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = MemoryContextSwitchTo(spool->context);

	CurrentResourceOwner = TopTransactionResourceOwner;
	spool->file = BufFileCreateTemp(false);
	spool->file_place = 0;
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(context);
}

/* A seek flushes the file's buffer, so it is left out where it changes nothing. */
static void
seek_file(QsSpool *spool, uint64 place)
{
	if (spool->file_place == place)
		return;
	if (BufFileSeek(spool->file, 0, (off_t) place, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not seek in a temporary file of the changes of this transaction")));
	spool->file_place = place;
}

static void
append_to_file(QsSpool *spool, const char *data, Size length)
{
	if (spool->file == NULL)
		open_file(spool);
	seek_file(spool, spool->size - spool->limit);
	BufFileWrite(spool->file, unconstify(char *, data), length);
	spool->file_place += length;
	spool->size += length;
}

/* Doubles up to the limit, which the caller has left room below. */
static void
append_to_memory(QsSpool *spool, const char *data, Size length)
{
	Size		wanted = spool->size + length;

	if (wanted > spool->memory_size)
	{
		Size		size = Max(spool->memory_size * 2, SPOOL_FIRST_BYTES);

		while (size < wanted)
			size *= 2;
		size = Min(size, spool->limit);
		if (spool->memory == NULL)
			spool->memory = MemoryContextAlloc(spool->context, size);
		else
			spool->memory = repalloc(spool->memory, size);
		spool->memory_size = size;
	}
	memcpy(spool->memory + spool->size, data, length);
	spool->size = wanted;
}

void
qs_spool_append(QsSpool *spool, const void *data, Size length)
{
	const char *bytes = data;

	if (spool->size < spool->limit)
	{
		Size		kept = Min(length, spool->limit - spool->size);

		append_to_memory(spool, bytes, kept);
		bytes += kept;
		length -= kept;
	}
	if (length > 0)
		append_to_file(spool, bytes, length);
}

static void
read_from_file(QsSpool *spool, uint64 place, char *data, Size length)
{
	seek_file(spool, place);
	if (BufFileRead(spool->file, data, length) != length)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read a temporary file of the changes of this transaction")));
	spool->file_place += length;
}

void
qs_spool_read(QsSpool *spool, uint64 place, void *data, Size length)
{
	char	   *bytes = data;

	Assert(place + length <= spool->size);
	if (place < spool->limit)
	{
		Size		kept = Min(length, spool->limit - place);

		memcpy(bytes, spool->memory + place, kept);
		place += kept;
		bytes += kept;
		length -= kept;
	}
	if (length > 0)
		read_from_file(spool, place - spool->limit, bytes, length);
}

void
qs_spool_cut(QsSpool *spool, uint64 size)
{
	/* What is behind it, in memory or in the file, is overwritten by what comes. */
	Assert(size <= spool->size);
	spool->size = size;
}

void
qs_spool_close(QsSpool *spool)
{
	if (spool->file != NULL)
		BufFileClose(spool->file);
	spool->file = NULL;
	spool->size = 0;
}
