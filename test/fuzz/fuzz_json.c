/* with: src/net/qdrant_json.c */
/*
 * fuzz_json.c
 *		Every reader of qdrant_json.c before the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "net/qdrant_json.h"

/* What a reader says must be what its header promises, whatever it was given. */
#define REQUIRE(condition) do { if (!(condition)) abort(); } while (0)

static void
read_documents(const char *text, size_t size)
{
	QsEnvelope	envelope;
	QsWriter	writer;
	char		version[8];
	char		type[8];

	qs_json_envelope(text, size, &envelope);
	REQUIRE(memchr(envelope.error, '\0', sizeof(envelope.error)) != NULL);
	REQUIRE(memchr(envelope.update_status, '\0', sizeof(envelope.update_status)) != NULL);
	REQUIRE(envelope.operation_id >= -1 || envelope.valid);
	if (qs_json_version(text, size, version, sizeof(version)))
		REQUIRE(memchr(version, '\0', sizeof(version)) != NULL);
	REQUIRE(qs_json_peers(text, size) >= -1);
	qs_json_writer(text, size, &writer);
	REQUIRE(strlen(writer.owner) < sizeof(writer.owner) && strlen(writer.beat) < sizeof(writer.beat));
	if (qs_json_index_type(text, size, "a", type, sizeof(type)))
		REQUIRE(memchr(type, '\0', sizeof(type)) != NULL);
	free(qs_json_alias_target(text, size, "a"));
}

static void
read_collection(const char *text, size_t size)
{
	static QsCollectionInfo info;

	qs_json_collection_info(text, size, &info);
	REQUIRE(!info.valid || (info.replicas >= 1 && info.vector_count >= 0));
	(void) qs_json_find_vector(&info, "");
	(void) qs_json_find_vector(&info, "a");
}

/* They are written into bodies as they are. */
static bool
is_id(const char *text)
{
	return text[0] != '\0' && text[strspn(text, "0123456789abcdefABCDEF-")] == '\0';
}

static void
read_lists(const char *text, size_t size)
{
	QsIdPage	page;
	char	  **names = NULL;
	int			n = qs_json_aliases(text, size, size % 2 ? "a" : NULL, &names);

	for (int i = 0; i < n; i++)
		REQUIRE(names[i] != NULL);
	if (n >= 0)
		qs_json_free_names(names, n);
	qs_json_id_page(text, size, &page);
	for (int i = 0; page.valid && i < page.n; i++)
		REQUIRE(is_id(page.ids[i]));
	REQUIRE(page.next == NULL || page.next[0] == '"' || is_id(page.next));
	qs_json_free_id_page(&page);
}

/* What is the user's, and becomes a part of a body. */
static void
write_documents(const char *text)
{
	QsNewVector vector = {.name = "", .size = 4, .distance = "Dot"};

	if (!qs_json_is_object(text))
		return;
	vector.config = text;
	free(qs_json_create_collection(&vector, 1, text));
	free(qs_json_create_index(text, text));
	free(qs_json_create_alias(text, text));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy without room behind it: a reader that passes the end is seen. */
	char	   *text = malloc(size == 0 ? 1 : size);
	char	   *ended = malloc(size + 1);

	memcpy(text, data, size);
	memcpy(ended, data, size);
	ended[size] = '\0';
	read_documents(text, size);
	read_collection(text, size);
	read_lists(text, size);
	write_documents(ended);
	free(text);
	free(ended);
	return 0;
}
