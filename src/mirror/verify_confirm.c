/*
 * verify_confirm.c
 *		From a suspect to a difference: what is pending is none.
 *
 * Runs in the session that verifies.  In each round
 *
 *		the row is read (R1), everything committed until then is waited for, its point
 *		is fetched (P), and the row is read once more (R2).
 *
 * What R1 shows was committed before the wait, so P is at least as new.  Where R1 and R2
 * are the same version of the row, nothing was committed between them, and P has to be
 * what R1 says.  Where they are not, the next round decides; after MAX_ROUNDS it is said
 * to be unclear.  Versions tell a row that was changed and changed back.  The absence of
 * a row has no version: it has to be found ABSENT_ROUNDS times beside a point.
 */
#include "qdrant_sync.h"
#include "capture/key_log.h"
#include "mirror/catalog.h"
#include "mirror/verify_confirm.h"
#include "mirror/wait.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_ROUNDS 8
#define ABSENT_ROUNDS 3
#define ROUND_SLEEP_MS 20

#define MAX_EXAMPLES 10
#define MAX_EXAMPLE_BYTES 300

/* 64 bytes each. */
#define MAX_UNNAMED 100000

/* Ids that are looked at again at once. */
#define GROUP_IDS 1000

/* ---- what was found ---- */

void
qs_verify_wait(QsVerify *verify)
{
	qs_wait_for_mirror(verify->mirror->id, verify->mirror->relid,
					   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), verify->timeout));
}

char *
qs_verify_id(const QsVerify *verify, const QsRowKey *key)
{
	return qs_key_to_text(key->id, verify->mirror->key.rule != QS_KEY_INTEGER);
}

static void
append_who(StringInfo out, const QsVerify *verify, const QsRowKey *key, const char *id)
{
	if (key == NULL)
		appendStringInfoString(out, id);
	else if (key->text != NULL)
		appendStringInfo(out, "%s (%s)", key->text, qs_verify_id(verify, key));
	else
		appendStringInfoString(out, qs_verify_id(verify, key));
}

void
qs_verify_found(QsVerify *verify, QsVerifyKind kind, const QsRowKey *key, const char *id,
				const char *detail)
{
	QsVerifyFinding *finding = &verify->findings[kind];
	MemoryContext caller;
	StringInfoData text;

	finding->n++;
	if (kind == QS_VERIFY_EQUAL || list_length(finding->examples) >= MAX_EXAMPLES)
		return;
	caller = MemoryContextSwitchTo(verify->context);
	initStringInfo(&text);
	append_who(&text, verify, key, id);
	if (detail != NULL)
		appendStringInfo(&text, ": %s", detail);
	if (text.len > MAX_EXAMPLE_BYTES)
		text.data[pg_mbcliplen(text.data, text.len, MAX_EXAMPLE_BYTES)] = '\0';
	finding->examples = lappend(finding->examples, text.data);
	MemoryContextSwitchTo(caller);
}

/* As the row's trigger would, after it had changed. */
static void
mark_dirty(QsVerify *verify, const QsRowKey *key)
{
	QsArmed    *armed;

	if (!verify->repair)
		return;
	armed = qs_armed_find(verify->mirror->relid);
	if (armed == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mirror of table \"%s\" has ended", verify->table.definition->table)));
	if (armed->kind == QS_CHUNK_SWEEP)
		qs_key_log_sweep(armed);
	else if (armed->kind == QS_CHUNK_TEXTS)
		qs_key_log_add_text(armed, key->text, strlen(key->text));
	else
		qs_key_log_add(armed, key->id);
}

/* The error of the key's dead letter, which no repair can mend; NULL: it has none. */
static char *
dead_letter(QsVerify *verify, const QsRowKey *key)
{
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(verify->mirror->id), (Datum) 0};
	MemoryContext caller = CurrentMemoryContext;
	char	   *error = NULL;
	QsIdentity	saved;

	values[1] = CStringGetTextDatum(key->text ? key->text : qs_verify_id(verify, key));
	qs_as_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("SELECT error FROM " QS_SCHEMA ".dead_letter WHERE mirror = $1 AND key = $2",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read dead letters");
	if (SPI_processed > 0)
		error = MemoryContextStrdup(caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	qs_as_before(&saved);
	return error;
}

static bool
has_dead_letters(const QsVerify *verify)
{
	int64		parameters[] = {verify->mirror->id};

	return qs_execute_as_owner("SELECT FROM " QS_SCHEMA ".dead_letter WHERE mirror = $1 LIMIT 1", 1, parameters) > 0;
}

static void
found_of_row(QsVerify *verify, QsVerifyKind kind, const QsVerifyRow *row, const char *detail,
			 bool dead_letters)
{
	char	   *error = dead_letters ? dead_letter(verify, &row->key) : NULL;

	if (error != NULL)
	{
		qs_verify_found(verify, QS_VERIFY_REFUSED, &row->key, NULL, error);
		return;
	}
	qs_verify_found(verify, kind, &row->key, NULL, detail);
	mark_dirty(verify, &row->key);
}

/* ---- one round ---- */

/* Suspects that were read together, what was read, and their points. */
typedef struct Slice
{
	QsVerifyRows first;
	QsVerifyRows second;
	QsVerifySuspect **suspects; /* of first.rows */
	bool		rows;			/* they are rows; else points */
	bool		dead_letters;
} Slice;

static const QsVerifyRow *
find_row(const QsVerifyRows *rows, QsKey id, int next)
{
	for (int i = 0; i < rows->n; i++)
	{
		const QsVerifyRow *row = &rows->rows[(next + i) % rows->n];

		if (qs_key_equal(row->key.id, id))
			return row;
	}
	return NULL;
}

static bool
same_version(const QsVerifyRow *first, const QsVerifyRow *second)
{
	if (second == NULL || second->kind != first->kind || second->version != first->version)
		return false;
	return first->kind != QS_ROW_POINT || strcmp(first->json, second->json) == 0;
}

static void
judge_row(QsVerify *verify, Slice *slice, const QsVerifyRow *row, QsVerifyPoints *points, int i)
{
	char	   *difference;

	if (!slice->rows)
		return;
	if (row->kind == QS_ROW_BAD)
		qs_verify_found(verify, QS_VERIFY_REFUSED, &row->key, NULL, row->error);
	else if (points->points[i] == NULL)
		found_of_row(verify, QS_VERIFY_MISSING, row, NULL, slice->dead_letters);
	else if ((difference = qs_verify_compare(&verify->remote, points, i, row->json)) == NULL)
		qs_verify_found(verify, QS_VERIFY_EQUAL, NULL, NULL, NULL);
	else
		found_of_row(verify, QS_VERIFY_STALE, row, difference, slice->dead_letters);
}

/* False: the next round decides. */
static bool
judge(QsVerify *verify, Slice *slice, int i, QsVerifyPoints *points, int place)
{
	const QsVerifyRow *row = &slice->first.rows[i];
	QsVerifySuspect *suspect = slice->suspects[i];

	if (!same_version(row, find_row(&slice->second, row->key.id, i)))
		return false;
	if (row->kind != QS_ROW_ABSENT)
	{
		judge_row(verify, slice, row, points, place);
		return true;
	}
	if (points->points[place] == NULL)
		return true;
	if (++suspect->absent < ABSENT_ROUNDS)
		return false;
	qs_verify_found(verify, QS_VERIFY_LEFT_OVER, &row->key, NULL, NULL);
	mark_dirty(verify, &row->key);
	return true;
}

static void
read_again(QsVerify *verify, Slice *slice)
{
	QsRowKey   *keys = palloc((slice->first.n + 1) * sizeof(QsRowKey));

	for (int i = 0; i < slice->first.n; i++)
		keys[i] = slice->first.rows[i].key;
	qs_verify_renew_table(&verify->table);
	qs_verify_read_keys(&verify->table, keys, slice->first.n, &slice->second);
}

/* Suspects from first to end - 1 of the slice; what stays undecided goes to *left. */
static void
judge_group(QsVerify *verify, Slice *slice, QsVerifyPoints *points, int first, int end,
			QsVerifySuspect **left, int *nleft)
{
	for (int i = first; i < end; i++)
	{
		if (!judge(verify, slice, i, points, i - first))
			left[(*nleft)++] = slice->suspects[i];
	}
}

/* Points of all, in as few answers as their size allows; then the rows once more. */
typedef struct Fetched
{
	int			first;
	int			end;
	QsVerifyPoints *points;		/* NULL: one point, too large for an answer */
} Fetched;

static List *
fetch_groups(QsVerify *verify, Slice *slice, int first, int end, List *groups)
{
	char	  **ids = palloc((end - first + 1) * sizeof(char *));
	QsVerifyPoints *points;
	Fetched	   *group;

	for (int i = first; i < end; i++)
		ids[i - first] = slice->suspects[i]->id;
	points = qs_verify_fetch(&verify->remote, ids, end - first);
	if (points == NULL && end - first > 1)
	{
		int			middle = (first + end) / 2;

		groups = fetch_groups(verify, slice, first, middle, groups);
		return fetch_groups(verify, slice, middle, end, groups);
	}
	group = palloc(sizeof(Fetched));
	group->first = first;
	group->end = end;
	group->points = points;
	return lappend(groups, group);
}

static void
decide_slice(QsVerify *verify, Slice *slice, QsVerifySuspect **left, int *nleft)
{
	List	   *groups;
	ListCell   *cell;

	qs_verify_wait(verify);
	groups = fetch_groups(verify, slice, 0, slice->first.n, NIL);
	read_again(verify, slice);
	slice->dead_letters = slice->rows && has_dead_letters(verify);
	foreach(cell, groups)
	{
		Fetched	   *group = lfirst(cell);

		if (group->points != NULL)
			judge_group(verify, slice, group->points, group->first, group->end, left, nleft);
		else
			qs_verify_found(verify, QS_VERIFY_UNCLEAR, &slice->suspects[group->first]->key, NULL,
							"its point is larger than qdrant_sync.answer_memory lets one answer be");
	}
}

/* Which of the suspects were read; the others are moved behind them.  Returns how many. */
static int
match_rows(Slice *slice, QsVerifySuspect **suspects, int n)
{
	int			matched = 0;

	slice->suspects = palloc((slice->first.n + 1) * sizeof(QsVerifySuspect *));
	for (int i = 0; i < slice->first.n; i++)
	{
		int			j = matched;

		while (j < n && !qs_key_equal(suspects[j]->key.id, slice->first.rows[i].key.id))
			j++;
		if (j == n)
			elog(ERROR, "a row was read that was not asked for");
		slice->suspects[i] = suspects[j];
		suspects[j] = suspects[matched];
		suspects[matched++] = slice->suspects[i];
	}
	return matched;
}

/* The first few of the suspects; returns how many that were. */
static int
run_slice(QsVerify *verify, QsVerifySuspect **suspects, int n, bool rows, QsVerifySuspect **left,
		  int *nleft)
{
	MemoryContext caller = MemoryContextSwitchTo(verify->slice);
	QsRowKey   *keys = palloc(n * sizeof(QsRowKey));
	Slice		slice = {.rows = rows};
	int			matched;

	for (int i = 0; i < n; i++)
		keys[i] = suspects[i]->key;
	qs_verify_renew_table(&verify->table);
	qs_verify_read_keys(&verify->table, keys, n, &slice.first);
	matched = match_rows(&slice, suspects, n);
	decide_slice(verify, &slice, left, nleft);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(verify->slice);
	return matched;
}

/* Leaves in suspects what is still undecided; returns how many. */
static int
run_round(QsVerify *verify, QsVerifySuspect **suspects, int n, bool rows)
{
	QsVerifySuspect **left = palloc_extended((n + 1) * sizeof(QsVerifySuspect *), MCXT_ALLOC_HUGE);
	int			nleft = 0;

	for (int i = 0; i < n;)
	{
		i += run_slice(verify, suspects + i, Min(QS_VERIFY_ROWS, n - i), rows, left, &nleft);
		CHECK_FOR_INTERRUPTS();
	}
	memcpy(suspects, left, nleft * sizeof(QsVerifySuspect *));
	pfree(left);
	return nleft;
}

void
qs_verify_confirm(QsVerify *verify, QsVerifySuspect *suspects, int n, bool rows)
{
	QsVerifySuspect **open = palloc_extended((n + 1) * sizeof(QsVerifySuspect *), MCXT_ALLOC_HUGE);

	if (verify->slice == NULL)
		verify->slice = AllocSetContextCreate(verify->context, "qdrant_verify slice", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
		open[i] = &suspects[i];
	for (int round = 0; n > 0 && round < MAX_ROUNDS; round++)
	{
		if (round > 0)
			qs_verify_sleep(ROUND_SLEEP_MS * round);
		n = run_round(verify, open, n, rows);
	}
	for (int i = 0; i < n; i++)
		qs_verify_found(verify, QS_VERIFY_UNCLEAR, &open[i]->key, NULL, "it changes too often to be compared");
	pfree(open);
}

/* ---- points that do not say their key ---- */

static void
found_unknown(QsVerify *verify, const char *id, const char *detail)
{
	qs_verify_found(verify, QS_VERIFY_LEFT_OVER, NULL, id, detail);
	verify->sweep |= verify->repair;
}

static void
look_again(QsVerify *verify, char **ids, int n)
{
	QsVerifyPage *page = qs_verify_look_again(&verify->remote, ids, n);
	QsVerifySuspect *suspects = palloc0((page->n + 1) * sizeof(QsVerifySuspect));
	int			nsuspects = 0;

	for (int i = 0; i < page->n; i++)
	{
		QsVerifySuspect *suspect = &suspects[nsuspects];
		char	   *text;

		suspect->id = page->ids[i];
		suspect->origin = qs_point_origin(&verify->mirror->key, page->ids[i], page->keys[i],
										  &suspect->key.id, &text);
		suspect->key.text = text;
		if (suspect->origin == QS_POINT_OF_KEY)
			nsuspects++;
		else
			found_unknown(verify, page->ids[i], suspect->origin == QS_POINT_FOREIGN ?
						  "no key of the table makes this id" : "it does not say its key");
	}
	qs_verify_confirm(verify, suspects, nsuspects, false);
}

void
qs_verify_confirm_ids(QsVerify *verify, char **ids, int n)
{
	if (n == 0)
		return;
	/* A sweep that is under way may remove them. */
	qs_verify_wait(verify);
	for (int i = 0; i < n; i += GROUP_IDS)
		look_again(verify, ids + i, Min(GROUP_IDS, n - i));
}

bool
qs_verify_remember_unnamed(QsVerify *verify, const QsVerifySuspect *suspect)
{
	if (verify->unnamed == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(QsKey), .entrysize = sizeof(QsKey)};

		control.hcxt = verify->context;
		verify->unnamed = hash_create("qdrant_verify points", 256, &control,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	if (hash_get_num_entries(verify->unnamed) >= MAX_UNNAMED)
		return false;
	(void) hash_search(verify->unnamed, &suspect->key.id, HASH_ENTER, NULL);
	return true;
}

void
qs_verify_forget_unnamed(QsVerify *verify, QsKey id)
{
	if (verify->unnamed != NULL)
		(void) hash_search(verify->unnamed, &id, HASH_REMOVE, NULL);
}

void
qs_verify_confirm_unnamed(QsVerify *verify)
{
	MemoryContext caller = MemoryContextSwitchTo(verify->page);
	HASH_SEQ_STATUS scan;
	QsKey	   *id;
	char	  **ids;
	int			n = 0;

	if (verify->unnamed != NULL)
	{
		ids = palloc((hash_get_num_entries(verify->unnamed) + 1) * sizeof(char *));
		hash_seq_init(&scan, verify->unnamed);
		while ((id = hash_seq_search(&scan)) != NULL)
			ids[n++] = qs_key_to_text(*id, true);
		qs_verify_confirm_ids(verify, ids, n);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(verify->page);
}
