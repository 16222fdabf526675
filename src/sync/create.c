/*
 * create.c
 *		A mirror's collection: found, checked or made before the first claim; and
 *		what is left of it after qdrant_unmirror.
 *
 * Sync worker only.  One request at a time (task->call); what is not known is
 * asked again.
 */
#include "qdrant_sync.h"
#include "mirror/shape.h"
#include "net/outcome.h"
#include "sync/task.h"

#include "storage/lmgr.h"
#include "utils/timestamp.h"

/* How often an empty table is looked at for a first row that has a vector. */
#define LOOK_MS 1000

/* Further on, one look has to be over in time. */
#define MAX_ROWS_SKIPPED (1024 * 1024)

/* Rows that can say whether the table's vectors have the collection's dimension. */
#define SAMPLE_ROWS 10

/* Behind what does not fit. */
#define WHAT_TO_DO "; make it fit, or delete it and it is made anew, then call qdrant_resume"

static void
later(QsTask *task, const QsHttpOutcome *outcome)
{
	QsWriteOutcome judged;

	qs_write_outcome(outcome, false, &judged);
	if (judged.verdict == QS_DENIED)
		qs_task_fail(task, "%s", judged.message);
	else
	{
		qs_endpoint_failed(task->endpoint);
		qs_task_retry_later(task, judged.message);
	}
}

static void
give_dimensions(QsTask *task)
{
	for (int i = 0; i < list_length(task->definition->vectors); i++)
		qs_reader_set_collection(task->reader, i, task->dimensions[i], task->halves[i]);
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool
qs_create_fits(const QsTask *task)
{
	if (!same_text(task->definition->indexes, task->indexed))
		return false;
	for (int i = 0; i < list_length(task->definition->vectors); i++)
	{
		const QsVectorSpec *spec = &task->definition->specs[i];

		if (spec->kind != task->kinds[i] ||
			(spec->size > 0 && task->dimensions[i] > 0 && spec->size != task->dimensions[i]))
			return false;
	}
	return true;
}

/* What the collection was found, or made, to be. */
static void
remember_shape(QsTask *task)
{
	const QsDefinition *definition = task->definition;

	task->reshaped = false;
	for (int i = 0; i < list_length(definition->vectors); i++)
		task->kinds[i] = definition->specs[i].kind;
	if (task->indexed != NULL)
		pfree(task->indexed);
	task->indexed = definition->indexes ? MemoryContextStrdup(task->context, definition->indexes) : NULL;
}

/* A worker that starts anew must not take another collection for the one that it was. */
static void
remember_dimensions(QsTask *task)
{
	if (memcmp(task->progress.dimensions, task->dimensions, sizeof(task->dimensions)) == 0)
		return;
	memcpy(task->progress.dimensions, task->dimensions, sizeof(task->dimensions));
	task->progress_dirty = true;
}

static void
collection_is_there(QsTask *task)
{
	task->empty = false;
	remember_dimensions(task);
	remember_shape(task);
	task->indexes_made = 0;
	give_dimensions(task);
	qs_task_succeeded(task);
	qs_claim_start(task);
}

static void
created(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	task->call = NULL;
	task->making = false;
	/* Not ours, or not there: nothing that the end of a rebuild has to delete. */
	if (task->row.rebuilds != 0 && outcome->status >= 400 && outcome->status < 500)
	{
		task->progress.collection_made = false;
		task->progress_dirty = true;
	}
	if (task->phase != QS_PHASE_CREATING)
		return;
	if (outcome->status != 200)
	{
		/* 409: it is there after all; its configuration is looked at again. */
		if (outcome->status == 400 || outcome->status == 422)
		{
			QsWriteOutcome judged;

			qs_write_outcome(outcome, false, &judged);
			qs_task_fail(task, "collection \"%s\" was not created: %s",
						 task->row.collection, judged.message);
		}
		else
			later(task, outcome);
		return;
	}
	/* Its aliases went with the one before (hazard 32). */
	task->progress.nonce[0] = '\0';
	task->progress.collection_made = true;
	if (task->progress.sweep_done > 0 || task->sweeping)
		qs_task_want_sweep(task);
	task->settle = false;
	if (task->definition->index_list == NIL)
		collection_is_there(task);
	else
		qs_task_succeeded(task);	/* looked at again, for its indexes */
}

/* As they were defined, or from a row. */
static void
look_for_dimensions(QsTask *task, volatile bool *all, volatile bool *unusable)
{
	for (int i = 0; i < list_length(task->definition->vectors); i++)
	{
		const QsVectorSpec *spec = &task->definition->specs[i];

		if (spec->kind == QS_SPARSE)
			continue;
		task->dimensions[i] = spec->size > 0 ? spec->size :
			qs_reader_find_dimension(task->reader, i, task->rows_skipped);
		*unusable = *unusable || task->dimensions[i] < 0;
		*all = *all && task->dimensions[i] > 0;
	}
}

/* True where the dimension of every vector is known. */
static bool
find_dimensions(QsTask *task)
{
	volatile bool all = true;
	volatile bool unusable = false;
	volatile bool locked = false;
	ErrorData  *volatile error = NULL;

	task->empty = false;
	qs_begin();
	PG_TRY();
	{
		locked = ConditionalLockRelationOid(task->row.relid, AccessShareLock);
		look_for_dimensions(task, &all, &unusable);
	}
	PG_CATCH();
	{
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error == NULL)
	{
		qs_commit();
		if (unusable)
		{
			/* They must not hide the others behind them (contract 8). */
			task->rows_skipped = Min(task->rows_skipped * 2 + QS_DIMENSION_ROWS, MAX_ROWS_SKIPPED);
			qs_task_show_error(task, "no vector in the table tells a dimension yet: those looked at are empty, or of another shape");
			return false;
		}
		/* Nothing that could be sent: whoever waits need not wait for a first row. */
		task->empty = !all && locked && task->rows_skipped == 0;
		task->rows_skipped = 0;
		return all;
	}
	/* A row whose expression raises an error must not hide all others (contract 8). */
	if (qs_is_rows_fault(error->sqlerrcode))
		task->rows_skipped = Min(task->rows_skipped * 2 + 1, MAX_ROWS_SKIPPED);
	qs_task_retry_later(task, error->message);
	FreeErrorData(error);
	return false;
}

/* Under Cosine vectors are normalised first; of a sparse one the values are kept as they are. */
static bool
overflows(const char *datatype, const char *distance)
{
	return datatype != NULL && strcmp(datatype, "float16") == 0 &&
		distance != NULL && distance[0] != '\0' && strcmp(distance, "Cosine") != 0;
}

/* Body of the request that makes the collection as it is defined. */
static char *
collection_body(const QsTask *task)
{
	QsNewVector vectors[lengthof(task->dimensions)];
	int			n = list_length(task->definition->vectors);

	for (int i = 0; i < n; i++)
	{
		const QsVectorSpec *spec = &task->definition->specs[i];

		vectors[i] = (QsNewVector) {
			.name = spec->name,
			.sparse = spec->kind == QS_SPARSE,
			.multi = spec->kind == QS_MULTI,
			.size = task->dimensions[i],
			.distance = spec->distance,
			.config = spec->config
		};
	}
	return qs_call_body(qs_json_create_collection(vectors, n, task->definition->create_config));
}

/*
 * A rebuild that is abandoned deletes the collection that was made for it, also
 * where a crash hid the answer: durable before it is made.
 */
static void
promise_to_delete(QsTask *task)
{
	if (task->row.rebuilds == 0)
		return;
	task->progress.collection_made = true;
	task->progress.owner = task->endpoint->owner;
	qs_task_save(task);
}

static void
create_collection(QsTask *task)
{
	memset(task->dimensions, 0, sizeof(task->dimensions));
	task->indexes_made = 0;
	if (!find_dimensions(task))
	{
		if (task->not_before < GetCurrentTimestamp())
			task->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS);
		return;
	}
	for (int i = 0; i < list_length(task->definition->vectors); i++)
		task->halves[i] = overflows(task->definition->specs[i].datatype, task->definition->specs[i].distance);
	promise_to_delete(task);
	task->making = true;
	task->call = qs_call_change(task->endpoint, "PUT", qs_task_collection_path(task, ""),
								collection_body(task), created, task);
}

/*
 * After qdrant_resume a collection may have another dimension than before, if the
 * table's vectors have it, too.  The first rows decide; where there are none yet,
 * or they cannot be read now, those that come will.  0: not known.
 */
static int
dimension_in_table(QsTask *task, int number, int size)
{
	ErrorData  *volatile error = NULL;
	volatile int found = 0;

	qs_begin();
	PG_TRY();
	{
		for (int skip = 0; skip < SAMPLE_ROWS && found != size; skip++)
		{
			int			dimension = qs_reader_find_dimension(task->reader, number, skip);

			if (dimension <= 0)
				break;
			found = dimension;
		}
	}
	PG_CATCH();
	{
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error == NULL)
		qs_commit();
	else
		FreeErrorData(error);
	return found;
}

/* 0: it fits; else the dimension of the mirror's vectors. */
static int
other_dimension(QsTask *task, int number, int size)
{
	const QsVectorSpec *spec = &task->definition->specs[number];
	int			known = spec->size > 0 ? spec->size : task->dimensions[number];
	int			before = task->progress.dimensions[number];

	if (spec->kind == QS_SPARSE)
		return 0;
	if (known == 0 && before != 0 && before != size)
		known = dimension_in_table(task, number, size);
	return known == size ? 0 : known;
}

/* Compares an existing collection with the definition; false: the task failed. */
bool
qs_create_check(QsTask *task, const QsCollectionInfo *info)
{
	for (int i = 0; i < list_length(task->definition->vectors); i++)
	{
		const QsVectorSpec *spec = &task->definition->specs[i];
		QsMismatch	mismatch;
		const QsVectorConfig *config = qs_shape_vector(spec, info, &mismatch);
		int			other;

		if (config == NULL)
		{
			qs_task_fail(task, "collection \"%s\" does not fit the mirror: %s" WHAT_TO_DO,
						 task->row.collection, mismatch.what);
			return false;
		}
		/* Somebody made it anew, or altered the column: no row is to blame (hazard 19). */
		other = other_dimension(task, i, config->size);
		if (other > 0)
		{
			qs_task_fail(task, "collection \"%s\" now has vectors of %d elements, and the mirror's have %d" WHAT_TO_DO,
						 task->row.collection, config->size, other);
			return false;
		}
		task->dimensions[i] = config->size;
		task->halves[i] = overflows(config->datatype, config->distance);
	}
	return true;
}

static bool
is_somebody_elses(const QsTask *task, const QsCollectionInfo *info)
{
	return info->points > 0 && !task->progress.collection_made &&
		task->progress.nonce[0] == '\0' && task->progress.next_nonce[0] == '\0' &&
		!qs_task_may_take_over(task);
}

static void
looked_at(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	QsCollectionInfo info;

	task->call = NULL;
	if (task->phase != QS_PHASE_CREATING)
		return;
	if (outcome->status == 404)
	{
		/* Where the server was changed meanwhile, the new one is asked first. */
		if (task->endpoint->server != NULL)
			create_collection(task);
		return;
	}
	if (outcome->status != 200)
	{
		later(task, outcome);
		return;
	}
	qs_json_collection_info(outcome->answer, outcome->answer_length, &info);
	if (!info.valid)
	{
		qs_endpoint_failed(task->endpoint);
		qs_task_retry_later(task, "the answer is not Qdrant's");
	}
	else if (is_somebody_elses(task, &info))
		qs_task_fail(task, "collection \"%s\" exists and has points; resume with take_over => true to make it this mirror's",
					 task->row.collection);
	else if (qs_create_check(task, &info) &&
			 qs_owner_agrees(task, outcome->answer, outcome->answer_length) &&
			 qs_indexes_are_there(task, outcome->answer, outcome->answer_length))
		collection_is_there(task);
}

void
qs_create_step(QsTask *task)
{
	if (task->call != NULL || GetCurrentTimestamp() < task->not_before)
		return;
	task->call = qs_call_read(task->endpoint, "GET", qs_task_collection_path(task, ""),
							  NULL, looked_at, task);
}

/* Of an unmirrored table's collection: gone, or written by nobody any more. */
static void
remote_dropped(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	task->call = NULL;
	/* Whoever lost the right to do this has nothing to give back either. */
	if (outcome->status == 200 || (outcome->status >= 400 && outcome->status < 500 &&
								   outcome->status != 408 && outcome->status != 429))
	{
		if (qs_switch_drops_collection(task) || task->next_withdrawn ||
			task->progress.next_nonce[0] == '\0')
			qs_task_remote_dropped(task);
		task->next_withdrawn = true;
	}
	else
	{
		qs_endpoint_failed(task->endpoint);
		qs_task_retry_later(task, "the server does not answer");
	}
}

static void
drop_remote(QsTask *task)
{
	QsProgress *progress = &task->progress;
	char	   *alias;

	if (qs_switch_drops_collection(task))
	{
		task->call = qs_call_change(task->endpoint, "DELETE", qs_task_collection_path(task, ""),
									NULL, remote_dropped, task);
		return;
	}
	/* A claim was under way: its alias may be there instead of the last one's. */
	if (progress->next_nonce[0] != '\0' && !task->next_withdrawn)
		alias = qs_task_alias(task, progress->epoch + 1, progress->next_nonce);
	else if (progress->nonce[0] != '\0')
		alias = qs_task_alias(task, progress->epoch, progress->nonce);
	else
	{
		qs_task_remote_dropped(task);
		return;
	}
	task->call = qs_call_change(task->endpoint, "POST", "/collections/aliases",
								qs_call_body(qs_json_delete_alias(alias)), remote_dropped, task);
}

/* Server and key of the last claim; false: there is nobody to tell. */
static bool
find_endpoint(QsTask *task)
{
	bool		found;

	if (!OidIsValid(task->progress.owner))
		return false;
	task->endpoint = qs_endpoint_get(task->row.server, task->progress.owner);
	if (task->endpoint->server != NULL)
		return true;
	qs_begin();
	found = qs_endpoint_resolve(task->endpoint);
	qs_commit();
	return found;
}

void
qs_drop_step(QsTask *task)
{
	TimestampTz until;

	if (task->call != NULL || task->remote_dropped ||
		GetCurrentTimestamp() < task->not_before)
		return;
	if (qs_switch_old_stays(task, &until))
		task->not_before = until;
	else if (!find_endpoint(task))
		qs_task_remote_dropped(task);
	else if (qs_endpoint_ready(task->endpoint) &&
			 qs_endpoint_open(task->endpoint, GetCurrentTimestamp()) &&
			 !qs_switch_gives_alias_back(task))
		drop_remote(task);
}
