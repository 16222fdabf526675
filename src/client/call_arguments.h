/*
 * call_arguments.h
 *		Arguments that several functions of the client have.
 *
 * An optional argument that is NULL means its default.
 */
#ifndef QS_CALL_ARGUMENTS_H
#define QS_CALL_ARGUMENTS_H

#include "qdrant_sync.h"
#include "utils/jsonb.h"

/* ERROR 22004: an argument that must be there is NULL. */
QS_NORETURN extern void qs_refuse_null(const char *name);

/* Text that must be there. */
extern char *qs_argument_name(FunctionCallInfo fcinfo, int argno, const char *name);

/* NULL where it is NULL. */
extern char *qs_argument_text(FunctionCallInfo fcinfo, int argno);
extern Jsonb *qs_argument_jsonb(FunctionCallInfo fcinfo, int argno);

/* Of a bigint; ERROR 22023 below least, and beyond what an integer holds. */
extern int	qs_argument_int(FunctionCallInfo fcinfo, int argno, const char *name,
							int least, int if_null);

/* Milliseconds; 0 where it is NULL. ERROR 22023 unless positive. */
extern int	qs_argument_timeout(FunctionCallInfo fcinfo, int argno);

/* What Qdrant is told as timeout=: whole seconds, at least 1. */
extern int	qs_timeout_seconds(int timeout);

/* "majority", "quorum", "all" or a number of replicas, from 1 on; ERROR 22023 otherwise. */
extern const char *qs_check_consistency(const char *consistency);

#endif							/* QS_CALL_ARGUMENTS_H */
