/*
 * payload_index.c
 *		Payload indexes of a mirror: made before its collection is claimed, and so
 *		before it is filled, which is when they cost least.
 *
 * Sync worker only.  One at a time: after each the collection is looked at again.
 */
#include "qdrant_sync.h"
#include "mirror/shape.h"
#include "net/outcome.h"
#include "sync/task.h"

static void
index_made(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	QsWriteOutcome judged;
	QsIndex    *index;

	task->call = NULL;
	if (task->phase != QS_PHASE_CREATING || task->indexes_made >= list_length(task->definition->index_list))
		return;
	index = list_nth(task->definition->index_list, task->indexes_made);
	qs_write_outcome(outcome, false, &judged);
	switch (judged.verdict)
	{
		case QS_DONE:
			/* Not asked for again, whatever name Qdrant shows it by. */
			task->indexes_made++;
			qs_task_succeeded(task);
			break;
		case QS_REFUSED:
		case QS_DENIED:
			qs_task_fail(task, "the index on \"%s\" of collection \"%s\" was not made: %s",
						 index->field, task->row.collection, judged.message);
			break;
		case QS_MISSING:
			qs_task_retry_later(task, judged.message);
			break;
		default:
			qs_endpoint_failed(task->endpoint);
			qs_task_retry_later(task, judged.message);
	}
}

static void
make_index(QsTask *task, const QsIndex *index)
{
	task->call = qs_call_change(task->endpoint, "PUT", qs_task_collection_path(task, "/index?wait=true"),
								qs_call_body(qs_json_create_index(index->path, index->type)),
								index_made, task);
}

/*
 * Called with the collection's document.  False: one is being made, or the task
 * failed.
 */
bool
qs_indexes_are_there(QsTask *task, const char *document, Size length)
{
	List	   *indexes = task->definition->index_list;

	for (; task->indexes_made < list_length(indexes); task->indexes_made++)
	{
		const QsIndex *index = list_nth(indexes, task->indexes_made);
		QsMismatch	mismatch;
		bool		there;

		if (!qs_shape_index(index, document, length, &there, &mismatch))
		{
			qs_task_fail(task, "collection \"%s\" does not fit the mirror: %s; drop that index and call qdrant_resume",
						 task->row.collection, mismatch.what);
			return false;
		}
		if (!there)
		{
			make_index(task, index);
			return false;
		}
	}
	return true;
}
