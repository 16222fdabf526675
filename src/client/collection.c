/*
 * collection.c
 *		Administration: collections, their indexes, named vectors and aliases.
 *
 * Runs in backends.  Immediate, as in Qdrant's own client: ROLLBACK does not undo
 * it, and it overtakes writes that are queued.  What a mirror owns is refused.
 */
#include "qdrant_sync.h"

#include "client/call_arguments.h"
#include "client/hits.h"
#include "client/method.h"
#include "client/rights.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(qs_create_collection);
PG_FUNCTION_INFO_V1(qs_recreate_collection);
PG_FUNCTION_INFO_V1(qs_update_collection);
PG_FUNCTION_INFO_V1(qs_delete_collection);
PG_FUNCTION_INFO_V1(qs_update_collection_aliases);
PG_FUNCTION_INFO_V1(qs_create_payload_index);
PG_FUNCTION_INFO_V1(qs_delete_payload_index);
PG_FUNCTION_INFO_V1(qs_create_vector_name);
PG_FUNCTION_INFO_V1(qs_delete_vector_name);

/* ---- the tables ------------------------------------------------------- */

static const QsMethod create_collection = {"PUT", "", true, QS_RIGHT_OWN, 17, 16, {
		{1, "vectors", QS_ARG_JSONB},
		{2, "sparse_vectors", QS_ARG_JSONB},
		{3, "shard_number", QS_ARG_COUNT},
		{4, "sharding_method", QS_ARG_TEXT},
		{5, "replication_factor", QS_ARG_COUNT},
		{6, "write_consistency_factor", QS_ARG_COUNT},
		{7, "on_disk_payload", QS_ARG_BOOL},
		{8, "hnsw_config", QS_ARG_JSONB},
		{9, "optimizers_config", QS_ARG_JSONB},
		{10, "wal_config", QS_ARG_JSONB},
		{11, "quantization_config", QS_ARG_JSONB},
		{13, "strict_mode_config", QS_ARG_JSONB},
		{14, "metadata", QS_ARG_JSONB},
		{15, "payload", QS_ARG_JSONB},
		{16, "id_tracker", QS_ARG_JSONB},
		{12, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod update_collection = {"PATCH", "", true, QS_RIGHT_OWN, 10, 9, {
		{1, "optimizers_config", QS_ARG_JSONB},
		{2, "params", QS_ARG_JSONB},
		{3, "vectors", QS_ARG_JSONB},
		{4, "hnsw_config", QS_ARG_JSONB},
		{5, "quantization_config", QS_ARG_JSONB},
		{7, "sparse_vectors", QS_ARG_JSONB},
		{8, "strict_mode_config", QS_ARG_JSONB},
		{9, "metadata", QS_ARG_JSONB},
		{6, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod delete_collection = {"DELETE", "", true, QS_RIGHT_OWN, 2, 1,
{{1, NULL, QS_ARG_TIMEOUT}}};

/* Before recreate_collection makes it: the arguments are create_collection's. */
static const QsMethod delete_before = {"DELETE", "", true, QS_RIGHT_OWN, 17, 1,
{{12, NULL, QS_ARG_TIMEOUT}}};

static const QsMethod update_aliases = {"POST", "/collections/aliases", false, QS_RIGHT_OWN, 2, 2, {
		{0, "actions", QS_ARG_JSONB},
		{1, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod create_payload_index = {"PUT", "/index", true, QS_RIGHT_OWN, 7, 5, {
		{1, "field_name", QS_ARG_NAME},
		{2, "field_schema", QS_ARG_WORD},
		{4, NULL, QS_ARG_WAIT},
		{5, NULL, QS_ARG_ORDERING},
		{6, NULL, QS_ARG_TIMEOUT}
}};

/* As the client does where only the old name is given. */
static const QsMethod create_payload_index_by_type = {"PUT", "/index", true, QS_RIGHT_OWN, 7, 5, {
		{1, "field_name", QS_ARG_NAME},
		{3, "field_schema", QS_ARG_WORD},
		{4, NULL, QS_ARG_WAIT},
		{5, NULL, QS_ARG_ORDERING},
		{6, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod delete_payload_index = {"DELETE", "/index", true, QS_RIGHT_OWN, 5, 4, {
		{1, "field_name", QS_ARG_SEGMENT},
		{2, NULL, QS_ARG_WAIT},
		{3, NULL, QS_ARG_ORDERING},
		{4, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod create_vector_name = {"PUT", "/vectors", true, QS_RIGHT_OWN, 6, 5, {
		{1, "vector_name", QS_ARG_SEGMENT},
		{2, "vector_name_config", QS_ARG_BODY},
		{3, NULL, QS_ARG_WAIT},
		{4, NULL, QS_ARG_ORDERING},
		{5, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod delete_vector_name = {"DELETE", "/vectors", true, QS_RIGHT_OWN, 5, 4, {
		{1, "vector_name", QS_ARG_SEGMENT},
		{2, NULL, QS_ARG_WAIT},
		{3, NULL, QS_ARG_ORDERING},
		{4, NULL, QS_ARG_TIMEOUT}
}};

/* ---- answers ---------------------------------------------------------- */

static bool
is_boolean(Jsonb *result)
{
	return JB_ROOT_IS_SCALAR(result) && getIthJsonbValueFromContainer(&result->root, 0)->type == jbvBool;
}

static bool
is_object(Jsonb *result)
{
	return JB_ROOT_IS_OBJECT(result);
}

/* What was answered cannot be read, and the change may have been made all the same. */
QS_NORETURN static void
throw_in_doubt(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->detail == NULL)
		error->detail = pstrdup(QS_IN_DOUBT);
	ReThrowError(error);
	pg_unreachable();
}

static Jsonb *
change(QsRequest *request, bool (*fits) (Jsonb *result))
{
	QsAnswer   *answer = qs_method_send(request);
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile result = NULL;

	PG_TRY();
	{
		result = qs_answer_result(request->server, answer);
		if (!fits(result))
			qs_answer_not_understood(request->server);
	}
	PG_CATCH();
	{
		throw_in_doubt(context);
	}
	PG_END_TRY();
	return result;
}

/* ---- collections ------------------------------------------------------ */

static bool
is_done(QsRequest *request)
{
	Jsonb	   *result = change(request, is_boolean);

	return getIthJsonbValueFromContainer(&result->root, 0)->val.boolean;
}

static Datum
boolean(FunctionCallInfo fcinfo, const QsMethod *method)
{
	QsRequest	request;

	qs_method_request(fcinfo, method, &request);
	PG_RETURN_BOOL(is_done(&request));
}

Datum
qs_create_collection(PG_FUNCTION_ARGS)
{
	return boolean(fcinfo, &create_collection);
}

Datum
qs_update_collection(PG_FUNCTION_ARGS)
{
	return boolean(fcinfo, &update_collection);
}

Datum
qs_delete_collection(PG_FUNCTION_ARGS)
{
	return boolean(fcinfo, &delete_collection);
}

/* Both are built before the first is sent, so that a wrong argument deletes nothing. */
Datum
qs_recreate_collection(PG_FUNCTION_ARGS)
{
	QsRequest	delete;
	QsRequest	create;

	qs_method_request(fcinfo, &create_collection, &create);
	qs_method_request(fcinfo, &delete_before, &delete);
	is_done(&delete);
	PG_RETURN_BOOL(is_done(&create));
}

/* ---- aliases ---------------------------------------------------------- */

Datum
qs_update_collection_aliases(PG_FUNCTION_ARGS)
{
	QsRequest	request;

	if (PG_ARGISNULL(0))
		qs_refuse_null("change_aliases_operations");
	qs_method_request(fcinfo, &update_aliases, &request);
	qs_check_alias_actions(request.server, PG_GETARG_JSONB_P(0));
	PG_RETURN_BOOL(is_done(&request));
}

/* ---- indexes and named vectors ---------------------------------------- */

static Datum
document(FunctionCallInfo fcinfo, const QsMethod *method)
{
	QsRequest	request;

	qs_method_request(fcinfo, method, &request);
	return JsonbPGetDatum(change(&request, is_object));
}

Datum
qs_create_payload_index(PG_FUNCTION_ARGS)
{
	return document(fcinfo, PG_ARGISNULL(3) ? &create_payload_index : &create_payload_index_by_type);
}

Datum
qs_delete_payload_index(PG_FUNCTION_ARGS)
{
	return document(fcinfo, &delete_payload_index);
}

Datum
qs_create_vector_name(PG_FUNCTION_ARGS)
{
	return document(fcinfo, &create_vector_name);
}

Datum
qs_delete_vector_name(PG_FUNCTION_ARGS)
{
	return document(fcinfo, &delete_vector_name);
}
