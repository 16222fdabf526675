/*
 * qdrant_json.c
 *		Qdrant's own JSON documents: built and inspected with jansson.
 *
 * Runs in both workers and in backends.  The only file that includes jansson.h,
 * and it includes no header of PostgreSQL: every postgres binary exports a
 * json_object of its own, which wins the lookup of symbols (hazard R1), so
 * objects are made with json_pack("{}") here and test/check_symbols watches over
 * what we import.
 *
 * Refuses documents that are nested deeper than QS_JSON_DEPTH.  It does not
 * decode what SQL users get: PostgreSQL's own parser is faster and exact (R12).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/qdrant_json.h"

/* Qdrant's own documents nest less than 16 deep; payloads, at most 128, are not read here. */
#define QS_JSON_DEPTH 128

/* A 64-bit integer that may exceed jansson's signed one has at least this many digits. */
#define QS_LONG_INTEGER 19

/* ------------------------------------------------------------------ parsing */

/*
 * Qdrant's ids and peer numbers go up to 2^64-1, where jansson refuses the whole
 * document; decoding integers as doubles would silently change them.  So every
 * integer of 19 digits or more is put in quotes before jansson sees it: as the
 * string of its digits it is exact, and no uuid looks like it.
 */
typedef struct Scan
{
	const char *text;
	size_t		length;
	size_t		at;
	int			depth;
	size_t		long_integers;	/* how many need quotes */
	char	   *out;			/* NULL: only look */
	size_t		out_length;
} Scan;

static void
scan_copy(Scan *scan, size_t from, size_t to)
{
	if (scan->out != NULL)
		memcpy(scan->out + scan->out_length, scan->text + from, to - from);
	scan->out_length += to - from;
}

static void
scan_quote(Scan *scan)
{
	if (scan->out != NULL)
		scan->out[scan->out_length] = '"';
	scan->out_length++;
}

/* Steps over a string, whose opening quote is at scan->at. */
static void
scan_string(Scan *scan)
{
	size_t		start = scan->at++;

	while (scan->at < scan->length && scan->text[scan->at] != '"')
		scan->at += (scan->text[scan->at] == '\\') ? 2 : 1;
	scan->at++;
	if (scan->at > scan->length)	/* unterminated: jansson will say so */
		scan->at = scan->length;
	scan_copy(scan, start, scan->at);
}

/* Steps over a number, and quotes it where it is a long integer. */
static void
scan_number(Scan *scan)
{
	size_t		start = scan->at;
	size_t		digits = 0;
	bool		integer = true;

	for (; scan->at < scan->length; scan->at++)
	{
		char		c = scan->text[scan->at];

		if (c >= '0' && c <= '9')
			digits++;
		else if (c == '.' || c == 'e' || c == 'E' || c == '+')
			integer = false;
		else if (c != '-')
			break;
	}
	if (integer && digits >= QS_LONG_INTEGER)
	{
		scan->long_integers++;
		scan_quote(scan);
		scan_copy(scan, start, scan->at);
		scan_quote(scan);
	}
	else
		scan_copy(scan, start, scan->at);
}

/* False: nested too deep. */
static bool
scan_document(Scan *scan)
{
	while (scan->at < scan->length)
	{
		char		c = scan->text[scan->at];

		if (c == '"')
			scan_string(scan);
		else if (c == '-' || (c >= '0' && c <= '9'))
			scan_number(scan);
		else
		{
			if (c == '{' || c == '[')
				scan->depth++;
			else if (c == '}' || c == ']')
				scan->depth--;
			if (scan->depth > QS_JSON_DEPTH)
				return false;
			scan_copy(scan, scan->at, scan->at + 1);
			scan->at++;
		}
	}
	return true;
}

/* The document as jansson's tree, with long integers as strings; or NULL. */
static json_t *
parse(const char *text, size_t length)
{
	Scan		scan = {.text = text, .length = length};
	json_t	   *document;

	if (text == NULL || !scan_document(&scan))
		return NULL;
	if (scan.long_integers > 0)
	{
		Scan		copy = {.text = text, .length = length};

		copy.out = malloc(scan.out_length);
		if (copy.out == NULL)
			return NULL;
		scan_document(&copy);
		document = json_loadb(copy.out, copy.out_length, JSON_ALLOW_NUL, NULL);
		free(copy.out);
		return document;
	}
	return json_loadb(text, length, JSON_ALLOW_NUL, NULL);
}

/* "result" of an answer, borrowed from document; NULL where it is none of Qdrant's. */
static json_t *
result_of(json_t *document)
{
	if (!json_is_object(document) || json_object_get(document, "time") == NULL)
		return NULL;
	return json_object_get(document, "result");
}

/*
 * Copies text into out, cut to fit without splitting a character of UTF-8, and
 * with control characters as spaces: it goes into one line of a log or a view.
 */
static void
copy_text(char *out, size_t size, const char *text)
{
	size_t		length = strlen(text);

	if (length >= size)
	{
		length = size - 1;
		while (length > 0 && ((unsigned char) text[length] & 0xC0) == 0x80)
			length--;
	}
	for (size_t i = 0; i < length; i++)
		out[i] = ((unsigned char) text[i] < 0x20 || text[i] == 0x7F) ? ' ' : text[i];
	out[length] = '\0';
}

/* ------------------------------------------------------------------ answers */

/*
 * Takes one UpdateResult into the envelope.  A list of operations answers with a
 * list of these: what counts is the first that is not completed, and the highest
 * operation_id.
 */
static void
take_update_result(json_t *update, QsEnvelope *envelope)
{
	const char *status = json_string_value(json_object_get(update, "status"));
	json_t	   *operation = json_object_get(update, "operation_id");

	if (status != NULL &&
		(envelope->update_status[0] == '\0' || strcmp(envelope->update_status, "completed") == 0))
		copy_text(envelope->update_status, sizeof(envelope->update_status), status);
	if (json_is_integer(operation) && json_integer_value(operation) > envelope->operation_id)
		envelope->operation_id = json_integer_value(operation);
}

static void
take_result(json_t *result, QsEnvelope *envelope)
{
	size_t		i;
	json_t	   *element;

	envelope->result_true = json_is_true(result);
	if (json_is_object(result))
		take_update_result(result, envelope);
	else if (json_is_array(result))
	{
		json_array_foreach(result, i, element)
			take_update_result(element, envelope);
	}
}

void
qs_json_envelope(const char *text, size_t length, QsEnvelope *envelope)
{
	json_t	   *document = parse(text, length);
	json_t	   *status = json_object_get(document, "status");
	const char *word = json_string_value(status);
	const char *error = json_string_value(json_object_get(status, "error"));

	memset(envelope, 0, sizeof(*envelope));
	envelope->operation_id = -1;
	if (json_is_number(json_object_get(document, "time")) && (word != NULL || error != NULL))
	{
		envelope->valid = true;
		envelope->ok = word != NULL && (strcmp(word, "ok") == 0 || strcmp(word, "accepted") == 0);
		if (error != NULL)
			copy_text(envelope->error, sizeof(envelope->error), error);
		take_result(json_object_get(document, "result"), envelope);
	}
	json_decref(document);
}

bool
qs_json_version(const char *text, size_t length, char *version, size_t size)
{
	json_t	   *document = parse(text, length);
	const char *title = json_string_value(json_object_get(document, "title"));
	const char *said = json_string_value(json_object_get(document, "version"));
	bool		ours = title != NULL && said != NULL && strstr(title, "qdrant") != NULL;

	if (ours)
		copy_text(version, size, said);
	json_decref(document);
	return ours;
}

int
qs_json_peers(const char *text, size_t length)
{
	json_t	   *document = parse(text, length);
	json_t	   *result = result_of(document);
	const char *status = json_string_value(json_object_get(result, "status"));
	json_t	   *peers = json_object_get(result, "peers");
	int			n = -1;

	if (status != NULL && strcmp(status, "disabled") == 0)
		n = 0;
	else if (status != NULL && json_is_object(peers))
		n = (int) json_object_size(peers);
	json_decref(document);
	return n;
}

static int
positive(json_t *number, int otherwise)
{
	json_int_t	value = json_integer_value(number);

	return (value > 0 && value <= INT32_MAX) ? (int) value : otherwise;
}

/* Place for the next vector, with its name; NULL: it is only counted. */
static QsVectorConfig *
next_vector(QsCollectionInfo *info, const char *name)
{
	const int	room = sizeof(info->vectors) / sizeof(info->vectors[0]);
	QsVectorConfig *vector = info->vector_count < room ? &info->vectors[info->vector_count] : NULL;

	info->vector_count++;
	if (vector != NULL)
		copy_text(vector->name, sizeof(vector->name), name);
	return vector;
}

/* A string member, or what is meant where there is none. */
static void
take_word(char *to, size_t size, json_t *object, const char *name, const char *otherwise)
{
	const char *said = json_string_value(json_object_get(object, name));

	copy_text(to, size, said ? said : otherwise);
}

static void
take_vector(QsCollectionInfo *info, const char *name, json_t *config)
{
	QsVectorConfig *vector = next_vector(info, name);

	if (vector == NULL)
		return;
	vector->multi = json_is_object(json_object_get(config, "multivector_config"));
	vector->size = positive(json_object_get(config, "size"), 0);
	take_word(vector->distance, sizeof(vector->distance), config, "distance", "");
	take_word(vector->datatype, sizeof(vector->datatype), config, "datatype", "float32");
}

static void
take_sparse_vectors(QsCollectionInfo *info, json_t *vectors)
{
	const char *name;
	json_t	   *config;

	json_object_foreach(vectors, name, config)
	{
		QsVectorConfig *vector = next_vector(info, name);

		if (vector == NULL)
			continue;
		vector->sparse = true;
		take_word(vector->datatype, sizeof(vector->datatype),
				  json_object_get(config, "index"), "datatype", "float32");
		take_word(vector->modifier, sizeof(vector->modifier), config, "modifier", "none");
	}
}

/* The unnamed vector is {"size":…}, named ones {"a":{"size":…},…}. */
static void
take_vectors(QsCollectionInfo *info, json_t *vectors)
{
	const char *name;
	json_t	   *config;

	if (json_is_integer(json_object_get(vectors, "size")))
	{
		take_vector(info, "", vectors);
		return;
	}
	json_object_foreach(vectors, name, config)
		take_vector(info, name, config);
}

void
qs_json_collection_info(const char *text, size_t length, QsCollectionInfo *info)
{
	json_t	   *document = parse(text, length);
	json_t	   *result = result_of(document);
	json_t	   *params = json_object_get(json_object_get(result, "config"), "params");
	json_t	   *points = json_object_get(result, "points_count");

	memset(info, 0, sizeof(*info));
	info->points = -1;
	if (json_is_object(params))
	{
		info->valid = true;
		if (json_is_integer(points))
			info->points = json_integer_value(points);
		info->replicas = positive(json_object_get(params, "replication_factor"), 1);
		info->shards = positive(json_object_get(params, "shard_number"), 1);
		take_vectors(info, json_object_get(params, "vectors"));
		take_sparse_vectors(info, json_object_get(params, "sparse_vectors"));
	}
	json_decref(document);
}

bool
qs_json_index_type(const char *text, size_t length, const char *field, char *type, size_t size)
{
	json_t	   *document = parse(text, length);
	json_t	   *schema = json_object_get(result_of(document), "payload_schema");
	const char *said = json_string_value(json_object_get(json_object_get(schema, field), "data_type"));

	if (said != NULL)
		copy_text(type, size, said);
	json_decref(document);
	return said != NULL;
}

const QsVectorConfig *
qs_json_find_vector(const QsCollectionInfo *info, const char *name)
{
	int			most = sizeof(info->vectors) / sizeof(info->vectors[0]);

	for (int i = 0; i < info->vector_count && i < most; i++)
	{
		if (strcmp(info->vectors[i].name, name) == 0)
			return &info->vectors[i];
	}
	return NULL;
}

static void
take_text(char *to, size_t size, const json_t *value)
{
	snprintf(to, size, "%s", json_is_string(value) ? json_string_value(value) : "");
}

void
qs_json_writer(const char *text, size_t length, QsWriter *writer)
{
	json_t	   *document = parse(text, length);
	json_t	   *config = json_object_get(result_of(document), "config");
	json_t	   *ours = json_object_get(json_object_get(config, "metadata"), "qdrant_sync");

	take_text(writer->owner, sizeof(writer->owner), json_object_get(ours, "owner"));
	take_text(writer->beat, sizeof(writer->beat), json_object_get(ours, "beat"));
	json_decref(document);
}

/* The list in an answer of .../aliases, borrowed; NULL where it is none. */
static json_t *
alias_list(json_t *document)
{
	json_t	   *list = json_object_get(result_of(document), "aliases");

	return json_is_array(list) ? list : NULL;
}

int
qs_json_aliases(const char *text, size_t length, const char *collection, char ***names)
{
	json_t	   *document = parse(text, length);
	json_t	   *list = alias_list(document);
	json_t	   *alias;
	size_t		i;
	int			n = 0;

	*names = list ? calloc(json_array_size(list) + 1, sizeof(char *)) : NULL;
	if (*names == NULL)
	{
		json_decref(document);
		return -1;
	}
	json_array_foreach(list, i, alias)
	{
		const char *of = json_string_value(json_object_get(alias, "collection_name"));
		const char *name = json_string_value(json_object_get(alias, "alias_name"));

		if (of == NULL || name == NULL || (collection != NULL && strcmp(of, collection) != 0))
			continue;
		(*names)[n] = strdup(name);
		if ((*names)[n++] == NULL)
		{
			qs_json_free_names(*names, n);
			*names = NULL;
			n = -1;
			break;
		}
	}
	json_decref(document);
	return n;
}

void
qs_json_free_names(char **names, int n)
{
	if (names == NULL)
		return;
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

char *
qs_json_alias_target(const char *text, size_t length, const char *alias)
{
	json_t	   *document = parse(text, length);
	json_t	   *entry;
	size_t		i;
	char	   *target = NULL;

	json_array_foreach(alias_list(document), i, entry)
	{
		const char *of = json_string_value(json_object_get(entry, "collection_name"));
		const char *name = json_string_value(json_object_get(entry, "alias_name"));

		if (of == NULL || name == NULL || strcmp(name, alias) != 0)
			continue;
		target = strdup(of);
		break;
	}
	json_decref(document);
	return target;
}

/* ----------------------------------------------------------------- requests */

/* Takes the document; its text is malloc'd, NULL without memory or for bad UTF-8. */
static char *
text_of(json_t *document)
{
	char	   *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

	json_decref(document);
	return text;
}

/* A JSON object of the caller's, or an empty one; NULL where the text is none. */
static json_t *
object_of(const char *text)
{
	Scan		scan = {.text = text};
	json_t	   *object;

	if (text == NULL)
		return json_pack("{}");
	scan.length = strlen(text);
	/* Not by parse(): what it puts in quotes would be sent as a string. */
	object = scan_document(&scan) ? json_loadb(text, scan.length, 0, NULL) : NULL;
	if (object != NULL && !json_is_object(object))
	{
		json_decref(object);
		object = NULL;
	}
	return object;
}

bool
qs_json_is_object(const char *text)
{
	json_t	   *object = object_of(text);

	json_decref(object);
	return object != NULL;
}

/* What is known of a dense vector stands above what its configuration says. */
static bool
complete_dense(json_t *config, const QsNewVector *vector)
{
	if (json_object_set_new(config, "size", json_integer(vector->size)) != 0 ||
		json_object_set_new(config, "distance", json_string(vector->distance)) != 0)
		return false;
	return !vector->multi || json_object_get(config, "multivector_config") != NULL ||
		json_object_set_new(config, "multivector_config",
							json_pack("{s:s}", "comparator", "max_sim")) == 0;
}

/* Puts a vector into the dense or the sparse ones, or makes it the only dense one. */
static bool
add_vector(json_t **dense, json_t *sparse, const QsNewVector *vector)
{
	json_t	   *config = object_of(vector->config);

	if (config == NULL)
		return false;
	if (vector->sparse)
		return json_object_set_new(sparse, vector->name, config) == 0;
	if (!complete_dense(config, vector))
	{
		json_decref(config);
		return false;
	}
	if (vector->name[0] != '\0')
		return json_object_set_new(*dense, vector->name, config) == 0;
	json_decref(*dense);
	*dense = config;
	return true;
}

char *
qs_json_create_collection(const QsNewVector *vectors, int n, const char *config)
{
	json_t	   *body = object_of(config);
	json_t	   *dense = json_pack("{}");
	json_t	   *sparse = json_pack("{}");
	bool		made = body != NULL && dense != NULL && sparse != NULL;

	for (int i = 0; i < n && made; i++)
		made = add_vector(&dense, sparse, &vectors[i]);
	if (made && json_object_size(sparse) > 0)
		made = json_object_set(body, "sparse_vectors", sparse) == 0;
	if (made)
		made = json_object_set(body, "vectors", dense) == 0;
	json_decref(dense);
	json_decref(sparse);
	if (!made)
	{
		json_decref(body);
		return NULL;
	}
	return text_of(body);
}

char *
qs_json_create_index(const char *field, const char *type)
{
	return text_of(json_pack("{s:s, s:s}", "field_name", field, "field_schema", type));
}

char *
qs_json_set_writer(const QsWriter *writer)
{
	return text_of(json_pack("{s:{s:{s:s, s:s}}}", "metadata", "qdrant_sync",
							 "owner", writer->owner, "beat", writer->beat));
}

/* Several actions in one request would not be atomic (hazard 23): always one. */
static char *
alias_action(const char *action, json_t *argument)
{
	return text_of(json_pack("{s:[{s:o}]}", "actions", action, argument));
}

char *
qs_json_create_alias(const char *collection, const char *alias)
{
	return alias_action("create_alias",
						json_pack("{s:s, s:s}", "collection_name", collection,
								  "alias_name", alias));
}

char *
qs_json_rename_alias(const char *old_alias, const char *new_alias)
{
	return alias_action("rename_alias",
						json_pack("{s:s, s:s}", "old_alias_name", old_alias,
								  "new_alias_name", new_alias));
}

char *
qs_json_delete_alias(const char *alias)
{
	return alias_action("delete_alias", json_pack("{s:s}", "alias_name", alias));
}

/* ------------------------------------------------------------------- scroll */

static bool
all_digits(const char *text)
{
	return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* JSON text of an id: digits, or a uuid in quotes.  Nothing else goes into a body. */
static bool
is_id_text(const char *text)
{
	size_t		length = strlen(text);

	if (all_digits(text))
		return true;
	return length > 2 && text[0] == '"' && text[length - 1] == '"' &&
		strspn(text + 1, "0123456789abcdefABCDEF-") == length - 2;
}

char *
qs_json_scroll(int limit, const char *field, const char *offset)
{
	char		text[240];
	char		payload[80] = "false";
	int			length;

	if (field != NULL)
		snprintf(payload, sizeof(payload), "[\"%s\"]", field);

	if (offset != NULL && !is_id_text(offset))
		return NULL;

	/* Not by jansson: it has no integers beyond 2^63-1 to write either. */
	length = snprintf(text, sizeof(text),
					  "{\"limit\":%d,\"with_payload\":%s,\"with_vector\":false%s%s}",
					  limit, payload, offset ? ",\"offset\":" : "", offset ? offset : "");
	return (length > 0 && (size_t) length < sizeof(text)) ? strdup(text) : NULL;
}

/* As Qdrant writes an id: digits of 64 bits, or a uuid.  What it says goes into bodies. */
static bool
is_bare_id(const char *text, size_t length)
{
	if (length != strlen(text))
		return false;
	if (all_digits(text))
		return length <= 20;
	return (length == 36 || length == 32) && strspn(text, "0123456789abcdefABCDEF-") == length;
}

/* Digits or a uuid, malloc'd; NULL where it is no id. */
static char *
id_text(json_t *id)
{
	const char *text = json_string_value(id);
	char		digits[32];

	if (text != NULL)
		return is_bare_id(text, json_string_length(id)) ? strdup(text) : NULL;
	if (!json_is_integer(id) || json_integer_value(id) < 0)
		return NULL;
	snprintf(digits, sizeof(digits), "%lld", (long long) json_integer_value(id));
	return strdup(digits);
}

/* The same as JSON text, for the next request. */
static char *
id_json(json_t *id)
{
	char	   *text = id_text(id);
	char	   *quoted;

	if (text == NULL || all_digits(text))
		return text;
	quoted = malloc(strlen(text) + 3);
	if (quoted != NULL)
		sprintf(quoted, "\"%s\"", text);
	free(text);
	return quoted;
}

/* The only field that was asked for, malloc'd; NULL: the point has none. */
static char *
only_field(json_t *payload)
{
	void	   *member = json_object_iter(payload);

	return member == NULL ? NULL : json_dumps(json_object_iter_value(member), JSON_COMPACT | JSON_ENCODE_ANY);
}

static bool
take_ids(json_t *points, QsIdPage *page)
{
	size_t		i;
	json_t	   *point;

	page->ids = calloc(json_array_size(points) + 1, sizeof(char *));
	page->keys = calloc(json_array_size(points) + 1, sizeof(char *));
	if (page->ids == NULL || page->keys == NULL)
		return false;
	json_array_foreach(points, i, point)
	{
		page->ids[page->n] = id_text(json_object_get(point, "id"));
		if (page->ids[page->n] == NULL)
			return false;
		page->keys[page->n] = only_field(json_object_get(point, "payload"));
		page->n++;
	}
	return true;
}

void
qs_json_id_page(const char *text, size_t length, QsIdPage *page)
{
	json_t	   *document = parse(text, length);
	json_t	   *result = result_of(document);
	json_t	   *points = json_object_get(result, "points");
	json_t	   *next = json_object_get(result, "next_page_offset");

	memset(page, 0, sizeof(*page));
	if (json_is_array(points) && take_ids(points, page))
	{
		bool		last = next == NULL || json_is_null(next);

		page->next = last ? NULL : id_json(next);
		page->valid = last || page->next != NULL;
	}

	/* A page that is not understood has no ids: half of them would look like all. */
	if (!page->valid)
		qs_json_free_id_page(page);
	json_decref(document);
}

void
qs_json_free_id_page(QsIdPage *page)
{
	qs_json_free_names(page->ids, page->n);
	qs_json_free_names(page->keys, page->n);
	free(page->next);
	memset(page, 0, sizeof(*page));
}
