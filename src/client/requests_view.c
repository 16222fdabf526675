/*
 * requests_view.c
 *		What the views qdrant_requests and qdrant_request_usage show: requests of
 *		all sessions, without their contents, and how much room is left for more.
 *
 * Runs in backends.  Server and method are shown to the role that asked, and to
 * those that may see everybody's statistics.
 */
#include "qdrant_sync.h"

#include "catalog/pg_authid.h"
#include "client/ticket.h"
#include "common/rows_out.h"
#include "common/settings.h"
#include "commands/dbcommands.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_requests);
PG_FUNCTION_INFO_V1(qs_request_usage);

static void
put_request(QsRowsOut *rows, const QsTicketInfo *info, bool may_see_all)
{
	bool		shown = may_see_all || has_privs_of_role(GetUserId(), info->role);
	char	   *database = get_database_name(info->database);
	Datum		values[7];
	bool		nulls[7] = {false, database == NULL, !shown, !shown, false, false, !info->mine};

	values[0] = Int32GetDatum(info->pid);
	values[1] = database ? DirectFunctionCall1(namein, CStringGetDatum(database)) : (Datum) 0;
	values[2] = CStringGetTextDatum(info->server_name);
	values[3] = CStringGetTextDatum(info->method);
	values[4] = CStringGetTextDatum(info->state);
	values[5] = TimestampTzGetDatum(info->submitted_at);
	values[6] = Int64GetDatum(info->ticket);
	qs_rows_out_put(rows, values, nulls);
}

Datum
qs_requests(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	bool		may_see_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	QsTicketInfo *infos;
	int			n;

	qs_require_preload("qdrant_requests");
	infos = qs_ticket_list(&n);
	for (int i = 0; i < n; i++)
		put_request(&rows, &infos[i], may_see_all);
	return (Datum) 0;
}

Datum
qs_request_usage(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsTicketUsage usage;
	Datum		values[7];
	bool		nulls[7] = {false};

	qs_require_preload("qdrant_request_usage");
	qs_ticket_usage(&usage);
	values[0] = Int32GetDatum(usage.tickets);
	values[1] = Int32GetDatum(qs_max_tickets);
	values[2] = Int32GetDatum(usage.waiting);
	values[3] = Int64GetDatum(usage.request_bytes);
	values[4] = Int64GetDatum(usage.request_memory);
	values[5] = Int64GetDatum(usage.answer_bytes);
	values[6] = Int64GetDatum(usage.answer_memory);
	qs_rows_out_put(&rows, values, nulls);
	return (Datum) 0;
}
