/*
 * collection.c
 *		qdrant_create_collection.
 *
 * Runs in backends.  Immediate, as in Qdrant's own client: ROLLBACK does not undo
 * it, and it overtakes writes that are queued.
 */
#include "qdrant_sync.h"

#include "client/body.h"
#include "client/call_arguments.h"
#include "client/request.h"
#include "client/rights.h"
#include "net/qdrant_json.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(qs_create_collection);

typedef enum ArgumentKind
{
	KIND_JSONB,
	KIND_TEXT,
	KIND_INT,
	KIND_BOOL
} ArgumentKind;

enum
{
	ARG_TIMEOUT = 12,
	ARG_SERVER = 17
};

/* Arguments, and what REST calls them. */
static const struct
{
	int			argno;
	const char *key;
	ArgumentKind kind;
}			create_arguments[] = {
	{1, "vectors", KIND_JSONB},
	{2, "sparse_vectors", KIND_JSONB},
	{3, "shard_number", KIND_INT},
	{4, "sharding_method", KIND_TEXT},
	{5, "replication_factor", KIND_INT},
	{6, "write_consistency_factor", KIND_INT},
	{7, "on_disk_payload", KIND_BOOL},
	{8, "hnsw_config", KIND_JSONB},
	{9, "optimizers_config", KIND_JSONB},
	{10, "wal_config", KIND_JSONB},
	{11, "quantization_config", KIND_JSONB},
	{13, "strict_mode_config", KIND_JSONB},
	{14, "metadata", KIND_JSONB},
	{15, "payload", KIND_JSONB},
	{16, "id_tracker", KIND_JSONB}
};

static void
add_argument(StringInfo body, FunctionCallInfo fcinfo, int i)
{
	const char *key = create_arguments[i].key;
	int			argno = create_arguments[i].argno;

	if (PG_ARGISNULL(argno))
		return;
	switch (create_arguments[i].kind)
	{
		case KIND_JSONB:
			qs_body_jsonb(body, key, PG_GETARG_JSONB_P(argno));
			break;
		case KIND_TEXT:
			qs_body_text(body, key, text_to_cstring(PG_GETARG_TEXT_PP(argno)));
			break;
		case KIND_INT:
			qs_body_int(body, key, qs_argument_int(fcinfo, argno, key, 1, 0));
			break;
		case KIND_BOOL:
			qs_body_bool(body, key, PG_GETARG_BOOL(argno));
			break;
	}
}

static void
build_body(StringInfo body, FunctionCallInfo fcinfo)
{
	qs_body_begin(body);
	for (int i = 0; i < (int) lengthof(create_arguments); i++)
		add_argument(body, fcinfo, i);
	qs_body_end(body);
}

Datum
qs_create_collection(PG_FUNCTION_ARGS)
{
	char	   *collection = qs_argument_name(fcinfo, 0, "collection_name");
	QsServer   *server = qs_server_get(qs_argument_text(fcinfo, ARG_SERVER), GetUserId());
	QsRequest	request = {.server = server, .method = "PUT"};
	StringInfoData body;
	QsAnswer   *answer;
	QsEnvelope	envelope;

	qs_check_not_mirrored(server, collection);
	build_body(&body, fcinfo);
	request.body = body.data;
	request.length = body.len;
	request.timeout = qs_argument_timeout(fcinfo, ARG_TIMEOUT);
	request.path = psprintf("%s?timeout=%d", qs_collection_path(collection, ""),
							qs_timeout_seconds(request.timeout));
	answer = qs_send_request(&request, true);
	qs_server_free(server);
	qs_json_envelope(answer->body, answer->length, &envelope);
	PG_RETURN_BOOL(envelope.result_true);
}
