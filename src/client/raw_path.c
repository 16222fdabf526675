/*
 * raw_path.c
 *		Paths and query strings of qdrant_request.
 *
 * Runs in backends.  Refuses what a proxy or a server might read as another path
 * than the one that rights were checked for: "." and ".." segments, empty
 * segments, "?", "#", backslashes and control characters, each also where it is
 * percent-encoded, be it more than once.
 */
#include "qdrant_sync.h"

#include "client/raw_path.h"
#include "mb/pg_wchar.h"
#include "net/http.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* Servers and proxies take 8 kB for the first line. */
#define LONGEST_PATH 4096

#define COLLECTIONS "/collections/"

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1: no "%XX" here. */
static int
escaped_byte(const char *text)
{
	if (text[0] != '%' || hex_value(text[1]) < 0 || hex_value(text[2]) < 0)
		return -1;
	return hex_value(text[1]) * 16 + hex_value(text[2]);
}

/* Returns NULL where the text has no NUL byte encoded; *changed: it had any escapes. */
static char *
decode(const char *text, bool *changed)
{
	char	   *decoded = palloc(strlen(text) + 1);
	char	   *end = decoded;

	*changed = false;
	while (*text)
	{
		int			byte = escaped_byte(text);

		if (byte < 0)
		{
			*end++ = *text++;
			continue;
		}
		if (byte == 0)
			return NULL;
		*end++ = (char) byte;
		text += 3;
		*changed = true;
	}
	*end = '\0';
	return decoded;
}

/* Of the segment at text, up to the next slash. */
static const char *
segment_problem(const char *text)
{
	int			length = strcspn(text, "/");

	if (length == 0)
		return "it has an empty segment";
	if ((length == 1 && text[0] == '.') || (length == 2 && strncmp(text, "..", 2) == 0))
		return "it has a segment \".\" or \"..\"";
	return NULL;
}

static const char *
plain_problem(const char *path)
{
	if (path[0] != '/')
		return "it does not begin with \"/\"";
	for (const char *c = path; *c; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7F)
			return "it has a control character";
		if (strchr("?#\\", *c) != NULL)
			return "it has one of ? # \\";
	}
	for (const char *slash = path; slash != NULL && path[1] != '\0'; slash = strchr(slash + 1, '/'))
	{
		const char *problem = segment_problem(slash + 1);

		if (problem != NULL)
			return problem;
	}
	return NULL;
}

static const char *
escape_problem(const char *path)
{
	for (const char *c = path; *c; c++)
	{
		if (*c != '%')
			continue;
		if (escaped_byte(c) < 0)
			return "it has a \"%\" that two hexadecimal digits do not follow";
		if (escaped_byte(c) == '/')
			return "it has an encoded slash";
	}
	return NULL;
}

/* As it is, and as whoever decodes it once or more will see it. */
static const char *
path_problem(const char *path)
{
	const char *problem = plain_problem(path);
	bool		changed = true;

	if (problem == NULL && strlen(path) > LONGEST_PATH)
		problem = "it is too long";
	if (problem == NULL)
		problem = escape_problem(path);
	while (problem == NULL && changed)
	{
		path = decode(path, &changed);
		problem = path == NULL ? "it has a control character" : plain_problem(path);
	}
	return problem;
}

/* What is encoded stays so; what no URL may hold becomes so. */
static char *
encode(const char *path)
{
	StringInfoData out;

	initStringInfo(&out);
	for (; *path; path++)
	{
		char		byte[2] = {*path, '\0'};

		if (strchr("/%!$&'()*+,;=:@", *path) != NULL)
			appendStringInfoChar(&out, *path);
		else
			qs_append_percent_encoded(&out, byte);
	}
	return out.data;
}

static void
find_collection(const char *utf8, QsRawPath *parsed)
{
	bool		changed;
	char	   *decoded = decode(utf8, &changed);
	char	   *name = decoded + strlen(COLLECTIONS);
	int			length;

	parsed->collection = NULL;
	parsed->rest = "";
	if (strncmp(decoded, COLLECTIONS, strlen(COLLECTIONS)) != 0)
		return;
	if (pg_encoding_verifymbstr(PG_UTF8, decoded, strlen(decoded)) != (int) strlen(decoded))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("path cannot be used: what it encodes is not UTF-8")));
	length = strcspn(name, "/");
	parsed->collection = pg_any_to_server(pnstrdup(name, length), length, PG_UTF8);
	parsed->rest = name + length;
}

void
qs_parse_raw_path(const char *path, QsRawPath *parsed)
{
	char	   *utf8 = pg_server_to_any(path, strlen(path), PG_UTF8);
	const char *problem = path_problem(utf8);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("path cannot be used: %s", problem),
				 errhint("Give the path alone, such as /collections/products; a server is named by the argument server, and what follows a \"?\" by the argument query.")));
	parsed->path = encode(utf8);
	find_collection(utf8, parsed);
}

List *
qs_url_segments(const char *url)
{
	char	   *text = pg_server_to_any(url, strlen(url), PG_UTF8);
	List	   *segments = NIL;
	bool		changed = true;

	while (text != NULL && changed)
	{
		for (const char *at = text; *at; at += strspn(at, "/?#"))
		{
			int			length = strcspn(at, "/?#");

			if (pg_encoding_verifymbstr(PG_UTF8, at, length) == length)
				segments = lappend(segments, pg_any_to_server(pnstrdup(at, length), length, PG_UTF8));
			at += length;
		}
		text = decode(text, &changed);
	}
	return segments;
}

static void
append_encoded(StringInfo out, const char *text, int length)
{
	char	   *copy = pnstrdup(text, length);

	qs_append_percent_encoded(out, pg_server_to_any(copy, length, PG_UTF8));
}

static void
append_value(StringInfo out, const JsonbValue *value, const char *name)
{
	char	   *number;

	switch (value->type)
	{
		case jbvString:
			append_encoded(out, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			number = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(value->val.numeric)));
			append_encoded(out, number, strlen(number));
			break;
		case jbvBool:
			appendStringInfoString(out, value->val.boolean ? "true" : "false");
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("member \"%s\" of argument \"query\" is neither text, number nor boolean", name)));
	}
}

void
qs_append_query_string(StringInfo out, Jsonb *query)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;
	char		separator = '?';

	if (!JB_ROOT_IS_OBJECT(query))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"query\" is not a JSON object")));
	iterator = JsonbIteratorInit(&query->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || value.type == jbvNull)
			continue;
		appendStringInfoChar(out, separator);
		append_encoded(out, name, strlen(name));
		appendStringInfoChar(out, '=');
		append_value(out, &value, name);
		separator = '&';
	}
}
