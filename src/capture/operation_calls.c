/*
 * operation_calls.c
 *		SQL functions of explicit operations, with the argument names of Qdrant's
 *		Python client.
 *
 * Runs in users' backends.  Nothing is sent here and nobody waits for the
 * network: what can be refused without asking Qdrant is refused, and the rest is
 * kept for after the commit.  wait, ordering and timeout are not there, since
 * queued work could not honour them.
 */
#include "qdrant_sync.h"
#include "capture/armed.h"
#include "capture/field_path.h"
#include "capture/operation_batch.h"
#include "capture/operations.h"
#include "capture/points.h"
#include "capture/selector.h"
#include "capture/upload.h"
#include "client/call_arguments.h"
#include "client/request.h"
#include "client/rights.h"
#include "common/encode.h"
#include "common/server.h"
#include "mirror/owned.h"

#include "catalog/pg_type.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* As in the client. */
#define DEFAULT_BATCH_SIZE 64

PG_FUNCTION_INFO_V1(qs_upsert);
PG_FUNCTION_INFO_V1(qs_upload);
PG_FUNCTION_INFO_V1(qs_delete);
PG_FUNCTION_INFO_V1(qs_update_vectors);
PG_FUNCTION_INFO_V1(qs_delete_vectors);
PG_FUNCTION_INFO_V1(qs_set_payload);
PG_FUNCTION_INFO_V1(qs_overwrite_payload);
PG_FUNCTION_INFO_V1(qs_delete_payload);
PG_FUNCTION_INFO_V1(qs_clear_payload);
PG_FUNCTION_INFO_V1(qs_batch_update_points);

/* ---- whether the call may be made ---- */

/* Unlike keys they cannot be read again from a table, so at the limit they are refused. */
void
qs_operations_check_room(void)
{
	QsMirrorSlot *slot = qs_mirror_slot_find(MyDatabaseId, QS_OPERATIONS_MIRROR);

	if (slot != NULL && pg_atomic_read_u32(&slot->skipping) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the outbox of explicit operations is full"),
				 errdetail("Operations that were enqueued before could not be sent yet, or there are too many dead letters of them."),
				 errhint("Look at qdrant_workers, qdrant_dead_letters and the server's log; the limits are qdrant_sync.outbox_limit and qdrant_sync.max_dead_letters.")));
}

/* The server is part of what a mirror owns: the same name elsewhere is another one. */
void
qs_operations_check_collection(const char *server, const char *collection)
{
	pfree(qs_collection_path(collection, ""));
	if (OidIsValid(qs_collection_table(server, collection)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("collection \"%s\" belongs to a mirror", collection),
				 errdetail("A mirror keeps its collection equal to its table, and would remove or overwrite what is written here."),
				 errhint("Write to the mirrored table, or to another collection.")));
}

/* Argument 0 is the collection; server is the number of the argument of that name. */
static void
begin_call(FunctionCallInfo fcinfo, const char *name, int server, QsOperation *operation)
{
	char	   *function = get_func_name(fcinfo->flinfo->fn_oid);
	QsServer   *found;

	qs_require_preload(function);
	qs_check_read_write(fcinfo);
	PreventCommandIfParallelMode(psprintf("%s()", function));
	operation->collection = qs_argument_name(fcinfo, 0, "collection_name");
	qs_operations_check_room();
	found = qs_server_get(qs_argument_text(fcinfo, server),
						  GetUserId());
	operation->server = pstrdup(found->name);
	qs_server_free(found);
	operation->owner = GetUserId();
	operation->name = name;
	qs_operations_check_collection(operation->server, operation->collection);
}

/* ---- members of a body ---- */

static Jsonb *
jsonb_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		qs_refuse_null(name);
	return PG_GETARG_JSONB_P(n);
}

static void
require_object(const Jsonb *value, const char *name)
{
	if (!JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", name)));
}

/* Appends ,"name":value. */
static void
add_jsonb(StringInfo members, const char *name, Jsonb *value)
{
	appendStringInfo(members, ",\"%s\":", name);
	JsonbToCString(members, &value->root, VARSIZE(value));
}

/* In the database's encoding, as everything in a body until it is sent. */
static void
add_string(StringInfo members, const char *text)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	JsonbToCString(members, &JsonbValueToJsonb(&value)->root, 0);
}

/* An integer, a string, an array of them, or {"target", "fallback"}. */
static void
add_shard_key(StringInfo members, FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *value;
	JsonbValue	selector = {.type = jbvBinary};

	if (PG_ARGISNULL(n))
		return;
	value = PG_GETARG_JSONB_P(n);
	selector.val.binary.data = &value->root;
	selector.val.binary.len = VARSIZE(value) - VARHDRSZ;
	qs_check_shard_key("shard_key_selector", &selector);
	add_jsonb(members, "shard_key", value);
}

static void
add_update_filter(StringInfo members, FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *filter;

	if (PG_ARGISNULL(n))
		return;
	filter = PG_GETARG_JSONB_P(n);
	require_object(filter, "update_filter");
	qs_check_filter("update_filter", &filter->root);
	add_jsonb(members, "update_filter", filter);
}

static void
add_update_mode(StringInfo members, FunctionCallInfo fcinfo, int n)
{
	char	   *mode;

	if (PG_ARGISNULL(n))
		return;
	mode = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(mode, "upsert") != 0 && strcmp(mode, "insert_only") != 0 &&
		strcmp(mode, "update_only") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("update_mode \"%s\" is not known", mode),
				 errhint("It is upsert, insert_only or update_only.")));
	appendStringInfo(members, ",\"update_mode\":\"%s\"", mode);
}

/* ,"name":["a","b"]; returns how many there are.  Names are of vectors, or paths of fields. */
static int
add_names(StringInfo members, const char *json_name, FunctionCallInfo fcinfo, int n, const char *name,
		  bool paths)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(n))
		qs_refuse_null(name);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	appendStringInfo(members, ",\"%s\":[", json_name);
	for (int i = 0; i < count; i++)
	{
		char	   *item;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of %s is NULL", i + 1, name)));
		item = TextDatumGetCString(elements[i]);
		if (paths)
			qs_check_field_path(psprintf("element %d of %s", i + 1, name), item);
		if (i > 0)
			appendStringInfoChar(members, ',');
		add_string(members, item);
	}
	appendStringInfoChar(members, ']');
	return count;
}

static void
add_payload(StringInfo members, FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *payload = jsonb_argument(fcinfo, n, "payload");

	require_object(payload, "payload");
	qs_json_check("payload", &payload->root);
	add_jsonb(members, "payload", payload);
}

/* ---- points in full ---- */

static void
write_points(QsOperation *operation, Jsonb *points, const char *members)
{
	QsBodies	bodies = {.before = "{\"points\":[", .element = "point",
		.sink = qs_operation_log, .arg = operation};

	bodies.after = psprintf("]%s}", members);
	qs_bodies_begin(&bodies);
	qs_points_write(&points->root, &bodies);
	qs_bodies_end(&bodies);
	qs_operation_log_end_call();
}

/* collection_name, points, shard_key_selector, update_filter, update_mode, server */
Datum
qs_upsert(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	QsPointsCheck check = {.where = ""};
	StringInfoData members;
	Jsonb	   *points;

	begin_call(fcinfo, "upsert", 5, &operation);
	points = jsonb_argument(fcinfo, 1, "points");
	qs_points_check(&check, &points->root);
	initStringInfo(&members);
	add_shard_key(&members, fcinfo, 2);
	add_update_filter(&members, fcinfo, 3);
	add_update_mode(&members, fcinfo, 4);
	write_points(&operation, points, members.data);
	PG_RETURN_VOID();
}

/* collection_name, query, batch_size, shard_key_selector, update_filter, update_mode, server */
Datum
qs_upload(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	QsBodies	bodies = {.before = "{\"points\":[", .element = "point",
		.sink = qs_operation_log, .arg = &operation};
	StringInfoData members;
	char	   *query;
	int64		points;

	begin_call(fcinfo, "upsert", 6, &operation);
	query = qs_argument_name(fcinfo, 1, "query");
	bodies.most = qs_argument_int(fcinfo, 2, "batch_size", 1, DEFAULT_BATCH_SIZE);
	initStringInfo(&members);
	add_shard_key(&members, fcinfo, 3);
	add_update_filter(&members, fcinfo, 4);
	add_update_mode(&members, fcinfo, 5);
	bodies.after = psprintf("]%s}", members.data);
	points = qs_upload_rows(query, &bodies);
	qs_operation_log_end_call();
	PG_RETURN_INT64(points);
}

/* collection_name, points, shard_key_selector, update_filter, server */
Datum
qs_update_vectors(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	QsPointsCheck check = {.where = "", .only_vectors = true};
	StringInfoData members;
	Jsonb	   *points;

	begin_call(fcinfo, "update_vectors", 4, &operation);
	points = jsonb_argument(fcinfo, 1, "points");
	qs_points_check(&check, &points->root);
	initStringInfo(&members);
	add_shard_key(&members, fcinfo, 2);
	add_update_filter(&members, fcinfo, 3);
	write_points(&operation, points, members.data);
	PG_RETURN_VOID();
}

/* ---- points by ids or filter ---- */

static void
write_selected(QsOperation *operation, FunctionCallInfo fcinfo, int points, const char *points_name,
			   int shard_key, StringInfo members)
{
	QsSelector	selector;

	qs_selector_read(fcinfo, points, points_name, &selector);
	if (selector.shard_key != NULL && !PG_ARGISNULL(shard_key))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is a shard key both in %s and in shard_key_selector", points_name)));
	if (selector.shard_key != NULL)
		appendStringInfo(members, ",\"shard_key\":%s", selector.shard_key);
	add_shard_key(members, fcinfo, shard_key);
	qs_selector_write(&selector, members->data, qs_operation_log, operation);
	qs_operation_log_end_call();
}

/* collection_name, points_selector, shard_key_selector, server */
static Datum
selected_only(FunctionCallInfo fcinfo, const char *name)
{
	QsOperation operation;
	StringInfoData members;

	begin_call(fcinfo, name, 3, &operation);
	initStringInfo(&members);
	write_selected(&operation, fcinfo, 1, "points_selector", 2, &members);
	PG_RETURN_VOID();
}

Datum
qs_delete(PG_FUNCTION_ARGS)
{
	return selected_only(fcinfo, "delete");
}

Datum
qs_clear_payload(PG_FUNCTION_ARGS)
{
	return selected_only(fcinfo, "clear_payload");
}

/* collection_name, vectors, points, shard_key_selector, server */
Datum
qs_delete_vectors(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	StringInfoData members;

	begin_call(fcinfo, "delete_vectors", 4, &operation);
	initStringInfo(&members);
	if (add_names(&members, "vector", fcinfo, 1, "vectors", false) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("vectors is empty"),
				 errhint("Name the vectors to delete; the unnamed one is ''.")));
	write_selected(&operation, fcinfo, 2, "points", 3, &members);
	PG_RETURN_VOID();
}

/* collection_name, keys, points, shard_key_selector, server */
Datum
qs_delete_payload(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	StringInfoData members;

	begin_call(fcinfo, "delete_payload", 4, &operation);
	initStringInfo(&members);
	(void) add_names(&members, "keys", fcinfo, 1, "keys", true);
	write_selected(&operation, fcinfo, 2, "points", 3, &members);
	PG_RETURN_VOID();
}

/* collection_name, payload, points, key, shard_key_selector, server */
Datum
qs_set_payload(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	StringInfoData members;

	begin_call(fcinfo, "set_payload", 5, &operation);
	initStringInfo(&members);
	add_payload(&members, fcinfo, 1);
	if (!PG_ARGISNULL(3))
	{
		char	   *key = qs_argument_text(fcinfo, 3);

		qs_check_field_path("key", key);
		appendStringInfoString(&members, ",\"key\":");
		add_string(&members, key);
	}
	write_selected(&operation, fcinfo, 2, "points", 4, &members);
	PG_RETURN_VOID();
}

/* collection_name, payload, points, shard_key_selector, server */
Datum
qs_overwrite_payload(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	StringInfoData members;

	begin_call(fcinfo, "overwrite_payload", 4, &operation);
	initStringInfo(&members);
	add_payload(&members, fcinfo, 1);
	write_selected(&operation, fcinfo, 2, "points", 3, &members);
	PG_RETURN_VOID();
}

/* ---- several operations ---- */

/* collection_name, update_operations, server */
Datum
qs_batch_update_points(PG_FUNCTION_ARGS)
{
	QsOperation operation;
	Jsonb	   *operations;

	begin_call(fcinfo, "batch_update_points", 2, &operation);
	operations = jsonb_argument(fcinfo, 1, "update_operations");
	qs_operation_batch_check(operations);
	qs_operation_batch_write(operations, qs_operation_log, &operation);
	qs_operation_log_end_call();
	PG_RETURN_VOID();
}
