/*
 * owner.c
 *		Who writes a collection: an identity and a beat in its metadata.
 *
 * Sync worker only.  A copy of a data directory has the original's state, nonce
 * of the alias included, so the alias alone would let it displace the original
 * (hazard 9).  A worker that finds another's identity therefore watches for a
 * while whether that one's beat still moves, and yields if it does.  Advisory:
 * what decides between two that both write is the alias.
 */
#include "qdrant_sync.h"
#include "net/outcome.h"
#include "sync/task.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/hashfn.h"
#include "utils/timestamp.h"

#define BEAT_MS (10 * 1000)

/* Two beats and half of one: an incumbent that is only slow is not taken for dead. */
#define WATCH_MS (25 * 1000)
#define LOOK_MS (5 * 1000)

/*
 * The same for every start of this database on this data directory, another one
 * for a copy of it: system identifier and database, host, and the directory's
 * place on its disk.
 */
static const char *
identity(void)
{
	static char text[65] = "";
	char		host[256] = "";
	struct stat directory;
	uint64		place;

	if (text[0] != '\0')
		return text;
	if (gethostname(host, sizeof(host) - 1) != 0 || stat(DataDir, &directory) != 0)
		memset(&directory, 0, sizeof(directory));
	place = hash_bytes_extended((unsigned char *) host, strlen(host),
								(uint64) directory.st_dev ^ ((uint64) directory.st_ino << 20));
	snprintf(text, sizeof(text), UINT64_FORMAT "-%u-%016llx",
			 GetSystemIdentifier(), MyDatabaseId, (unsigned long long) place);
	return text;
}

static bool
is_mine(const QsWriter *writer)
{
	return writer->owner[0] == '\0' || strcmp(writer->owner, identity()) == 0;
}

/*
 * Called with the collection's document before the claim.  False: not in this
 * turn, or the task failed.
 */
bool
qs_owner_agrees(QsTask *task, const char *document, Size length)
{
	TimestampTz now = GetCurrentTimestamp();
	QsWriter	writer;

	qs_json_writer(document, length, &writer);
	if (is_mine(&writer) || task->progress.nonce[0] == '\0' ||
		qs_task_may_take_over(task))
		return true;
	if (task->watch_until == 0 || strcmp(task->watched_owner, writer.owner) != 0)
	{
		strlcpy(task->watched_owner, writer.owner, sizeof(task->watched_owner));
		strlcpy(task->watched_beat, writer.beat, sizeof(task->watched_beat));
		task->watch_until = TimestampTzPlusMilliseconds(now, WATCH_MS);
	}
	if (strcmp(task->watched_beat, writer.beat) != 0)
	{
		task->watch_until = 0;
		qs_task_fail_contested(task);
		return false;
	}
	if (now >= task->watch_until)
	{
		task->watch_until = 0;
		return true;
	}
	qs_task_retry_later(task, "another server wrote the collection last; watching whether it still does");
	task->not_before = Min(TimestampTzPlusMilliseconds(now, LOOK_MS), task->watch_until);
	return false;
}

static void
beaten(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	task->beat_call = NULL;
	/* A key that may only write points says nothing of itself. */
	if (outcome->status == 401 || outcome->status == 403 || outcome->status == 405)
		task->silent = true;
}

/* Says that this worker lives; of a mirror that is active. */
void
qs_owner_beat(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();
	QsWriter	writer;

	if (task->silent || task->beat_call != NULL || now < task->beat_after ||
		task->endpoint->failures > 0 || task->progress.fence_by_time)
		return;
	task->beat_after = TimestampTzPlusMilliseconds(now, BEAT_MS);
	strlcpy(writer.owner, identity(), sizeof(writer.owner));
	snprintf(writer.beat, sizeof(writer.beat), INT64_FORMAT, (int64) now);
	task->beat_call = qs_call_change(task->endpoint, "PATCH", qs_task_collection_path(task, ""),
									 qs_call_body(qs_json_set_writer(&writer)), beaten, task);
}
