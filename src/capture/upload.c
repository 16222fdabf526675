/*
 * upload.c
 *		Reads the query of qdrant_upload.
 *
 * Runs in users' backends, and the query as the caller: nothing here changes the
 * role.  The query sees what its transaction has done so far.  A few rows at a time
 * are in memory, whatever the query returns; their bodies go where the sink puts
 * them.
 */
#include "qdrant_sync.h"
#include "capture/upload.h"
#include "capture/upload_point.h"
#include "common/encode.h"

#include "executor/spi.h"
#include "utils/memutils.h"

/* Large enough that a cursor's turn is nothing, small enough for rows of megabytes. */
#define ROWS_OF_A_TURN 16

typedef struct Upload
{
	QsBodies   *bodies;
	QsUploadShape *shape;		/* NULL: no rows yet */
	QsPointsCheck check;
	MemoryContext kept;			/* until the end */
	MemoryContext turn;
	StringInfoData point;
	int64		rows;
} Upload;

static void
add_row(Upload *upload, HeapTuple row)
{
	/* A position is for messages, and ends where int does. */
	int			position = (int) Min(upload->rows + 1, PG_INT32_MAX);

	CHECK_FOR_INTERRUPTS();
	qs_upload_point(upload->shape, row, position, &upload->check, &upload->point);
	qs_bodies_add(upload->bodies, position, upload->point.data, upload->point.len);
	upload->rows++;
}

/*
 * The settings are pinned for the writing only: while the query runs they are the
 * session's.
 */
static void
add_rows(Upload *upload, SPITupleTable *rows)
{
	MemoryContext before = MemoryContextSwitchTo(upload->turn);
	int			level = NewGUCNestLevel();

	qs_pin_settings(qs_encode_settings);
	for (uint64 i = 0; i < rows->numvals; i++)
		add_row(upload, rows->vals[i]);
	AtEOXact_GUC(false, level);
	MemoryContextSwitchTo(before);
	MemoryContextReset(upload->turn);
	qs_upload_show_points(upload->rows);
}

static Portal
open_cursor(const char *query)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_NO_SCROLL);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	/* A comment alone, too. */
	if (SPI_plan_get_plan_sources(plan) == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query is empty"),
				 errhint("It is a SELECT whose rows are points, with a column \"id\".")));
	return SPI_cursor_open(NULL, plan, NULL, NULL, false);
}

static void
read_query(Upload *upload, const char *query)
{
	Portal		portal = open_cursor(query);
	bool		more = true;

	upload->shape = qs_upload_shape(portal->tupDesc);
	while (more)
	{
		SPI_cursor_fetch(portal, true, ROWS_OF_A_TURN);
		more = SPI_processed > 0;
		if (more)
			add_rows(upload, SPI_tuptable);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
}

int64
qs_upload_rows(const char *query, QsBodies *bodies)
{
	Upload		upload = {.bodies = bodies, .check = {.where = ""}};

	SPI_connect();
	upload.kept = CurrentMemoryContext;
	upload.check.context = upload.kept;
	upload.turn = AllocSetContextCreate(upload.kept, "qdrant_sync upload", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&upload.point);
	qs_upload_show();
	PG_TRY();
	{
		qs_bodies_begin(bodies);
		read_query(&upload, query);
		qs_bodies_end(bodies);
	}
	PG_FINALLY();
	{
		qs_upload_hide();
	}
	PG_END_TRY();
	SPI_finish();
	return upload.rows;
}
