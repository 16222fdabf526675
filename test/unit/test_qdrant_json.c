/* with: src/net/qdrant_json.c */
/*
 * test_qdrant_json.c
 *		Qdrant's documents: read exactly, refused when they are not Qdrant's, and
 *		built as Qdrant expects them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/qdrant_json.h"
#include "unit.h"

static QsEnvelope
envelope_of(const char *text)
{
	QsEnvelope	envelope;

	qs_json_envelope(text, strlen(text), &envelope);
	return envelope;
}

static void
envelopes(void)
{
	QsEnvelope	e = envelope_of("{\"result\":{\"operation_id\":12,\"status\":\"completed\"},"
								"\"status\":\"ok\",\"time\":0.01,\"usage\":{\"hardware\":null}}");

	CHECK(e.valid && e.ok && !e.result_true);
	CHECK_INT(e.operation_id, 12);
	CHECK_TEXT(e.update_status, "completed");

	e = envelope_of("{\"status\":{\"error\":\"Not found\"},\"time\":0}");
	CHECK(e.valid && !e.ok);
	CHECK_TEXT(e.error, "Not found");
	CHECK_INT(e.operation_id, -1);

	e = envelope_of("{\"result\":[{\"operation_id\":5,\"status\":\"completed\"},"
					"{\"operation_id\":4,\"status\":\"acknowledged\"},"
					"{\"operation_id\":6,\"status\":\"completed\"}],\"status\":\"ok\",\"time\":0}");
	CHECK_TEXT(e.update_status, "acknowledged");
	CHECK_INT(e.operation_id, 6);

	e = envelope_of("{\"result\":true,\"status\":\"ok\",\"time\":1}");
	CHECK(e.ok && e.result_true);
}

static void
what_is_not_qdrants(void)
{
	static const char *const texts[] = {
		"", " ", "null", "[]", "17", "\"ok\"", "{}", "{\"status\":\"ok\"}", "{\"time\":1}",
		"{\"status\":503,\"time\":1}", "{\"status\":{},\"time\":1}", "{\"status\":\"ok\",\"time\":\"now\"}",
		"{\"status\":\"ok\",\"time\":1", "{\"status\":\"ok\",\"time\":1}x", "<html></html>",
		"{\"status\":\"ok\",\"time\":1,\"x\":\"unterminated", "{\"status\":\"ok\",\"time\":1,\"x\":\"\\",
		"{\"status\":\"o\xffk\",\"time\":1}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		unit_check(!envelope_of(texts[i]).valid, texts[i], __FILE__, __LINE__);
	CHECK(!envelope_of("{\"status\":\"ok\",\"time\":1}").result_true);
}

/* What the exchange gives without a body. */
static void
no_text_at_all(void)
{
	QsEnvelope	e;
	QsIdPage	page;

	qs_json_envelope(NULL, 0, &e);
	CHECK(!e.valid);
	qs_json_id_page(NULL, 0, &page);
	CHECK(!page.valid);
}

static char *
nested(int depth)
{
	char	   *text = malloc(depth * 2 + 64);
	char	   *end = text + sprintf(text, "{\"status\":\"ok\",\"time\":1,\"x\":");

	memset(end, '[', depth);
	memset(end + depth, ']', depth);
	strcpy(end + 2 * depth, "}");
	return text;
}

static void
deep_nesting_is_refused(void)
{
	char	   *text = nested(100);

	CHECK(envelope_of(text).valid);
	free(text);
	text = nested(1000000);
	CHECK(!envelope_of(text).valid);
	free(text);
	CHECK(envelope_of("{\"status\":\"ok\",\"time\":1,\"x\":\"[[[[{{{{\"}").valid);
}

static void
long_errors_are_cut_between_characters(void)
{
	char		text[4096];
	QsEnvelope	e;

	strcpy(text, "{\"time\":1,\"status\":{\"error\":\"");
	for (int i = 0; i < 600; i++)
		strcat(text, "\xc3\xa9");
	strcat(text, "\"}}");
	e = envelope_of(text);
	CHECK(e.valid);
	CHECK_INT(strlen(e.error), sizeof(e.error) - 2);
	CHECK_INT((unsigned char) e.error[strlen(e.error) - 1], 0xa9);
}

static void
a_stored_nul_fails_nothing(void)
{
	CHECK(envelope_of("{\"status\":\"ok\",\"time\":1,\"result\":{\"a\":\"x\\u0000y\"}}").valid);
}

static void
version(void)
{
	const char *text = "{\"title\":\"qdrant - vector search engine\",\"version\":\"1.18.3\",\"commit\":\"x\"}";
	const char *other = "{\"title\":\"another\",\"version\":\"1.18.3\"}";
	char		said[16];

	CHECK(qs_json_version(text, strlen(text), said, sizeof(said)));
	CHECK_TEXT(said, "1.18.3");
	CHECK(!qs_json_version(other, strlen(other), said, sizeof(said)));
}

static void
peers(void)
{
	const char *none = "{\"result\":{\"status\":\"disabled\"},\"status\":\"ok\",\"time\":0}";
	const char *three = "{\"result\":{\"status\":\"enabled\",\"peer_id\":18446744073709551615,\"peers\":"
		"{\"18446744073709551615\":{\"uri\":\"a\"},\"2\":{\"uri\":\"b\"},\"3\":{\"uri\":\"c\"}},"
		"\"raft_info\":{\"leader\":9223372036854775808}},\"status\":\"ok\",\"time\":0}";

	CHECK_INT(qs_json_peers(none, strlen(none)), 0);
	CHECK_INT(qs_json_peers(three, strlen(three)), 3);
	CHECK_INT(qs_json_peers("{}", 2), -1);
}

static void
collection_info(void)
{
	const char *one = "{\"result\":{\"status\":\"green\",\"points_count\":5,\"config\":{\"params\":{\"vectors\":"
		"{\"size\":384,\"distance\":\"Cosine\"},\"shard_number\":2,\"replication_factor\":3}}},\"status\":\"ok\",\"time\":0}";
	const char *named = "{\"result\":{\"points_count\":null,\"config\":{\"params\":{\"vectors\":{"
		"\"size\":{\"size\":3,\"distance\":\"Dot\"},\"b\":{\"size\":4,\"distance\":\"Euclid\"}}}}},\"status\":\"ok\",\"time\":0}";
	const char *sparse = "{\"result\":{\"config\":{\"params\":{\"sparse_vectors\":{\"s\":{},"
		"\"idf\":{\"modifier\":\"idf\",\"index\":{\"datatype\":\"float16\"}}}}}},\"status\":\"ok\",\"time\":0}";
	const char *multi = "{\"result\":{\"config\":{\"params\":{\"vectors\":{\"m\":{\"size\":2,\"distance\":\"Dot\","
		"\"datatype\":\"uint8\",\"multivector_config\":{\"comparator\":\"max_sim\"}}},"
		"\"sparse_vectors\":{\"s\":null}}}},\"status\":\"ok\",\"time\":0}";
	QsCollectionInfo info;

	qs_json_collection_info(one, strlen(one), &info);
	CHECK(info.valid);
	CHECK_INT(info.points, 5);
	CHECK_INT(info.replicas, 3);
	CHECK_INT(info.shards, 2);
	CHECK_INT(info.vector_count, 1);
	CHECK_TEXT(info.vectors[0].name, "");
	CHECK_INT(info.vectors[0].size, 384);
	CHECK_TEXT(info.vectors[0].distance, "Cosine");
	CHECK_TEXT(info.vectors[0].datatype, "float32");
	CHECK(!info.vectors[0].multi && !info.vectors[0].sparse);

	qs_json_collection_info(named, strlen(named), &info);
	CHECK(info.valid);
	CHECK_INT(info.points, -1);
	CHECK_INT(info.replicas, 1);
	CHECK_INT(info.vector_count, 2);
	CHECK_TEXT(info.vectors[0].name, "size");
	CHECK_INT(info.vectors[1].size, 4);

	qs_json_collection_info(sparse, strlen(sparse), &info);
	CHECK(info.valid);
	CHECK_INT(info.vector_count, 2);
	CHECK(info.vectors[0].sparse && info.vectors[1].sparse);
	CHECK_TEXT(info.vectors[0].name, "s");
	CHECK_TEXT(info.vectors[0].modifier, "none");
	CHECK_TEXT(info.vectors[1].modifier, "idf");
	CHECK_TEXT(info.vectors[1].datatype, "float16");

	qs_json_collection_info(multi, strlen(multi), &info);
	CHECK_INT(info.vector_count, 2);
	CHECK(info.vectors[0].multi && !info.vectors[0].sparse);
	CHECK_TEXT(info.vectors[0].datatype, "uint8");
	CHECK(qs_json_find_vector(&info, "s")->sparse);
	CHECK(qs_json_find_vector(&info, "x") == NULL);

	qs_json_collection_info("{\"time\":1}", 10, &info);
	CHECK(!info.valid);
}

static void
more_vectors_than_room(void)
{
	char		text[4096] = "{\"time\":1,\"result\":{\"config\":{\"params\":{\"vectors\":{";
	QsCollectionInfo info;

	for (int i = 0; i < 20; i++)
		sprintf(text + strlen(text), "%s\"v%d\":{\"size\":2,\"distance\":\"Dot\"}", i ? "," : "", i);
	strcat(text, "}}}}}");
	qs_json_collection_info(text, strlen(text), &info);
	CHECK(info.valid);
	CHECK_INT(info.vector_count, 20);
	CHECK_TEXT(info.vectors[15].name, "v15");
}

static void
configurations_are_sent_as_they_are(void)
{
	QsNewVector one = {"", false, false, 4, "Dot", "{\"n\":9223372036854775807}"};
	char	   *text = qs_json_create_collection(&one, 1, "{\"metadata\":{\"text\":\"12345678901234567890\"}}");
	char	   *deep = nested(100000);

	CHECK_TEXT(text, "{\"metadata\":{\"text\":\"12345678901234567890\"},"
			   "\"vectors\":{\"n\":9223372036854775807,\"size\":4,\"distance\":\"Dot\"}}");
	free(text);
	CHECK(qs_json_is_object("{}") && qs_json_is_object("{\"n\":[1,2.5,{\"x\":null}]}"));
	CHECK(!qs_json_is_object("[]") && !qs_json_is_object("1") && !qs_json_is_object(""));
	CHECK(!qs_json_is_object("{\"n\":9223372036854775808}") && !qs_json_is_object("{\"n\":1e400}"));
	CHECK(!qs_json_is_object(deep));
	free(deep);
}

static void
types_of_indexes(void)
{
	const char *text = "{\"result\":{\"payload_schema\":{\"a.b\":{\"data_type\":\"keyword\",\"points\":0},"
		"\"n\":{\"data_type\":\"integer\",\"params\":{\"type\":\"integer\"},\"points\":3}}},"
		"\"status\":\"ok\",\"time\":0}";
	char		type[32] = "unchanged";

	CHECK(!qs_json_index_type(text, strlen(text), "a", type, sizeof(type)));
	CHECK(!qs_json_index_type("{}", 2, "a.b", type, sizeof(type)));
	CHECK_TEXT(type, "unchanged");
	CHECK(qs_json_index_type(text, strlen(text), "a.b", type, sizeof(type)));
	CHECK_TEXT(type, "keyword");
	CHECK(qs_json_index_type(text, strlen(text), "n", type, sizeof(type)));
	CHECK_TEXT(type, "integer");
}

static const char alias_answer[] =
"{\"result\":{\"aliases\":[{\"alias_name\":\"a\",\"collection_name\":\"x\"},"
"{\"alias_name\":\"b\",\"collection_name\":\"y\"},{\"alias_name\":\"c\",\"collection_name\":\"x\"}]},"
"\"status\":\"ok\",\"time\":0}";

static void
aliases(void)
{
	char	  **names;
	char	   *target;
	int			n = qs_json_aliases(alias_answer, strlen(alias_answer), "x", &names);

	CHECK_INT(n, 2);
	CHECK_TEXT(names[0], "a");
	CHECK_TEXT(names[1], "c");
	qs_json_free_names(names, n);

	n = qs_json_aliases(alias_answer, strlen(alias_answer), NULL, &names);
	CHECK_INT(n, 3);
	qs_json_free_names(names, n);

	CHECK_INT(qs_json_aliases("{\"time\":1}", 10, NULL, &names), -1);
	CHECK(names == NULL);
	qs_json_free_names(names, -1);

	target = qs_json_alias_target(alias_answer, strlen(alias_answer), "b");
	CHECK_TEXT(target, "y");
	free(target);
	CHECK(qs_json_alias_target(alias_answer, strlen(alias_answer), "z") == NULL);
}

static void
check_built(char *built, const char *expected, int line)
{
	unit_check_text(built, expected, "the document", __FILE__, line);
	free(built);
}

static void
requests(void)
{
	QsNewVector one = {"", false, false, 4, "Dot"};
	QsNewVector two[] = {{"a", false, false, 4, "Dot"}, {"b", false, false, 5, "Cosine"}};
	QsNewVector bad = {"\xff", false, false, 4, "Dot"};
	QsNewVector kinds[] = {
		{"", false, false, 2, "Dot", "{\"on_disk\":true,\"size\":9,\"distance\":\"Cosine\"}"},
		{"s", true}, {"t", true, false, 0, NULL, "{\"modifier\":\"idf\"}"}
	};
	QsNewVector multi[] = {
		{"m", false, true, 2, "Dot"},
		{"n", false, true, 3, "Dot", "{\"multivector_config\":{\"comparator\":\"x\"}}"}
	};
	QsNewVector no_object = {"a", false, false, 4, "Dot", "[1]"};

	check_built(qs_json_create_collection(kinds, 3, "{\"shard_number\":2}"),
				"{\"shard_number\":2,\"sparse_vectors\":{\"s\":{},\"t\":{\"modifier\":\"idf\"}},"
				"\"vectors\":{\"on_disk\":true,\"size\":2,\"distance\":\"Dot\"}}", __LINE__);
	check_built(qs_json_create_collection(multi, 2, NULL),
				"{\"vectors\":{\"m\":{\"size\":2,\"distance\":\"Dot\",\"multivector_config\":{\"comparator\":\"max_sim\"}},"
				"\"n\":{\"multivector_config\":{\"comparator\":\"x\"},\"size\":3,\"distance\":\"Dot\"}}}", __LINE__);
	check_built(qs_json_create_collection(&kinds[1], 1, NULL),
				"{\"sparse_vectors\":{\"s\":{}},\"vectors\":{}}", __LINE__);
	check_built(qs_json_create_collection(&no_object, 1, NULL), NULL, __LINE__);
	check_built(qs_json_create_collection(&one, 1, "[]"), NULL, __LINE__);
	check_built(qs_json_create_index("a.\"b c\"", "keyword"),
				"{\"field_name\":\"a.\\\"b c\\\"\",\"field_schema\":\"keyword\"}", __LINE__);
	check_built(qs_json_create_index("\xff", "keyword"), NULL, __LINE__);

	check_built(qs_json_create_collection(&one, 1, NULL),
				"{\"vectors\":{\"size\":4,\"distance\":\"Dot\"}}", __LINE__);
	check_built(qs_json_create_collection(two, 2, NULL),
				"{\"vectors\":{\"a\":{\"size\":4,\"distance\":\"Dot\"},"
				"\"b\":{\"size\":5,\"distance\":\"Cosine\"}}}", __LINE__);
	check_built(qs_json_create_collection(two, 1, NULL),
				"{\"vectors\":{\"a\":{\"size\":4,\"distance\":\"Dot\"}}}", __LINE__);
	check_built(qs_json_create_collection(NULL, 0, NULL), "{\"vectors\":{}}", __LINE__);
	check_built(qs_json_create_collection(&bad, 1, NULL), NULL, __LINE__);
	check_built(qs_json_create_alias("c\"x", "a"),
				"{\"actions\":[{\"create_alias\":{\"collection_name\":\"c\\\"x\",\"alias_name\":\"a\"}}]}", __LINE__);
	check_built(qs_json_rename_alias("a", "b"),
				"{\"actions\":[{\"rename_alias\":{\"old_alias_name\":\"a\",\"new_alias_name\":\"b\"}}]}", __LINE__);
	check_built(qs_json_delete_alias("a"),
				"{\"actions\":[{\"delete_alias\":{\"alias_name\":\"a\"}}]}", __LINE__);
	check_built(qs_json_delete_alias("\xff"), NULL, __LINE__);
}

static void
scroll(void)
{
	check_built(qs_json_scroll(10, "_qs_key", NULL),
				"{\"limit\":10,\"with_payload\":[\"_qs_key\"],\"with_vector\":false}", __LINE__);
	check_built(qs_json_scroll(10, NULL, NULL),
				"{\"limit\":10,\"with_payload\":false,\"with_vector\":false}", __LINE__);
	check_built(qs_json_scroll(10, NULL, "18446744073709551615"),
				"{\"limit\":10,\"with_payload\":false,\"with_vector\":false,\"offset\":18446744073709551615}", __LINE__);
	check_built(qs_json_scroll(5, NULL, "\"550e8400-e29b-41d4-a716-446655440000\""),
				"{\"limit\":5,\"with_payload\":false,\"with_vector\":false,"
				"\"offset\":\"550e8400-e29b-41d4-a716-446655440000\"}", __LINE__);
	check_built(qs_json_scroll(5, NULL, "1,\"filter\":{}"), NULL, __LINE__);
	check_built(qs_json_scroll(5, NULL, "\"a\",\"b\":\"c\""), NULL, __LINE__);
	check_built(qs_json_scroll(5, NULL, ""), NULL, __LINE__);
}

static void
a_page_of_ids_is_exact(void)
{
	const char *text = "{\"result\":{\"points\":[{\"id\":1},{\"id\":9007199254740993},"
		"{\"id\":9223372036854775807},{\"id\":9223372036854775808,\"payload\":{\"n\":\"12345678901234567890\"}},"
		"{\"id\":18446744073709551615},{\"id\":\"550e8400-e29b-41d4-a716-446655440000\"}],"
		"\"next_page_offset\":18446744073709551615},\"status\":\"ok\",\"time\":0.000001234567890123456789}";
	static const char *const ids[] = {
		"1", "9007199254740993", "9223372036854775807", "9223372036854775808",
		"18446744073709551615", "550e8400-e29b-41d4-a716-446655440000"
	};
	QsIdPage	page;

	qs_json_id_page(text, strlen(text), &page);
	CHECK(page.valid);
	CHECK_INT(page.n, 6);
	for (int i = 0; i < page.n; i++)
		unit_check_text(page.ids[i], ids[i], "id", __FILE__, __LINE__);
	CHECK_TEXT(page.next, "18446744073709551615");
	qs_json_free_id_page(&page);
	CHECK_INT(page.n, 0);
}

static void
the_last_page(void)
{
	const char *text = "{\"result\":{\"points\":[],\"next_page_offset\":null},\"status\":\"ok\",\"time\":0}";
	const char *uuid = "{\"result\":{\"points\":[{\"id\":2}],\"next_page_offset\":"
		"\"550e8400-e29b-41d4-a716-446655440000\"},\"status\":\"ok\",\"time\":0}";
	QsIdPage	page;

	qs_json_id_page(text, strlen(text), &page);
	CHECK(page.valid && page.next == NULL);
	CHECK_INT(page.n, 0);
	qs_json_free_id_page(&page);

	qs_json_id_page(uuid, strlen(uuid), &page);
	CHECK(page.valid);
	CHECK_TEXT(page.next, "\"550e8400-e29b-41d4-a716-446655440000\"");
	qs_json_free_id_page(&page);
}

static void
half_a_page_is_none(void)
{
	static const char *const texts[] = {
		"{\"result\":{\"points\":[{\"id\":1},{\"id\":-5}]},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":1},{}]},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":1.5}]},\"time\":0}",
		/* Written into the body of a delete as it is, it would be more than an id. */
		"{\"result\":{\"points\":[{\"id\":\"x\\\"],\\\"filter\\\":{\"}]},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":\"\"}]},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":\"5c56c793-69f3-4fbf-87e6-c4bf54c28c2\\u0000\"}]},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":1}],\"next_page_offset\":\"x\"},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":1}],\"next_page_offset\":{}},\"time\":0}",
		"{\"result\":{\"points\":[{\"id\":1}],\"next_page_off",
		"{\"result\":{\"points\":7},\"time\":0}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		QsIdPage	page;

		qs_json_id_page(texts[i], strlen(texts[i]), &page);
		unit_check(!page.valid && page.n == 0 && page.ids == NULL, texts[i], __FILE__, __LINE__);
	}
}

static const UnitTest tests[] = {
	UNIT_TEST(envelopes),
	UNIT_TEST(what_is_not_qdrants),
	UNIT_TEST(no_text_at_all),
	UNIT_TEST(deep_nesting_is_refused),
	UNIT_TEST(long_errors_are_cut_between_characters),
	UNIT_TEST(a_stored_nul_fails_nothing),
	UNIT_TEST(version),
	UNIT_TEST(peers),
	UNIT_TEST(collection_info),
	UNIT_TEST(more_vectors_than_room),
	UNIT_TEST(types_of_indexes),
	UNIT_TEST(configurations_are_sent_as_they_are),
	UNIT_TEST(aliases),
	UNIT_TEST(requests),
	UNIT_TEST(scroll),
	UNIT_TEST(a_page_of_ids_is_exact),
	UNIT_TEST(the_last_page),
	UNIT_TEST(half_a_page_is_none),
};

UNIT_MAIN(tests)
