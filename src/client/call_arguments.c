/*
 * call_arguments.c
 *		Reads arguments of the client's functions and refuses what Qdrant would
 *		refuse less clearly.
 *
 * Runs in backends.
 */
#include "qdrant_sync.h"

#include <limits.h>

#include "client/call_arguments.h"
#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

void
qs_refuse_null(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument \"%s\" must not be NULL", name)));
	pg_unreachable();
}

char *
qs_argument_name(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		qs_refuse_null(name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

char *
qs_argument_text(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

Jsonb *
qs_argument_jsonb(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

/* Declared bigint, as LIMIT is: drivers bind int8, and a smaller integer is cast. */
int
qs_argument_int(FunctionCallInfo fcinfo, int argno, const char *name, int least, int if_null)
{
	int64		value;

	if (PG_ARGISNULL(argno))
		return if_null;
	value = PG_GETARG_INT64(argno);
	if (value < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is " INT64_FORMAT ", and must be at least %d", name, value, least)));
	if (value > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is " INT64_FORMAT ", and must be at most %d", name, value, PG_INT32_MAX)));
	return (int) value;
}

int
qs_argument_timeout(FunctionCallInfo fcinfo, int argno)
{
	Interval   *interval;
	double		ms;

	if (PG_ARGISNULL(argno))
		return 0;
	interval = PG_GETARG_INTERVAL_P(argno);
	ms = interval->time / 1000.0 + interval->day * (double) SECS_PER_DAY * 1000.0 +
		interval->month * (double) DAYS_PER_MONTH * SECS_PER_DAY * 1000.0;
	if (ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"timeout\" must be positive")));
	if (ms >= INT_MAX)
		return INT_MAX;
	return ms < 1 ? 1 : (int) ms;
}

int
qs_timeout_seconds(int timeout)
{
	return timeout < 1000 ? 1 : timeout / 1000;
}

const char *
qs_check_consistency(const char *consistency)
{
	if (strcmp(consistency, "majority") != 0 && strcmp(consistency, "quorum") != 0 &&
		strcmp(consistency, "all") != 0 &&
		(strspn(consistency, "0") == strlen(consistency) ||
		 strspn(consistency, "0123456789") != strlen(consistency)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid consistency: \"%s\"", consistency),
				 errhint("It is majority, quorum, all or a number of replicas, from 1 on.")));
	return consistency;
}
