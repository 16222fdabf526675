/*
 * empty_trigger.c
 *		A row trigger in C that does nothing: the floor under every AFTER ROW
 *		trigger.  Runs in the backends of bench/run.
 */
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(empty_trigger);

Datum
empty_trigger(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}
