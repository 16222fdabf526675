/*
 * bodies.c
 *		Splits what one call wants written into bodies of requests.
 *
 * Runs in users' backends.  A body is made once, here; it is sent as it is, so
 * whatever makes it impossible to send is the caller's error now.
 */
#include "capture/bodies.h"

#include "common/encode.h"

/* Small bodies are read quickly by Qdrant, and what is in doubt is small (hazard 1). */
#define BODY_BYTES (1024 * 1024)

/* Qdrant answers 400 to more than 32 MiB. */
#define BODY_MAX_BYTES (32 * 1024 * 1024)

static void
begin_body(QsBodies *bodies)
{
	resetStringInfo(&bodies->body);
	appendStringInfoString(&bodies->body, bodies->before);
	bodies->elements = 0;
}

/* Its size counts in UTF-8, which is what goes out. */
static void
check_body(const QsBodies *bodies)
{
	const char *utf8;
	int			length;
	char	   *message = qs_to_utf8(bodies->body.data, bodies->body.len, &utf8, &length);

	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("JSON cannot be sent to Qdrant: %s", message)));
	if (length > BODY_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s %d makes a request of %d bytes, and Qdrant takes at most %d",
						bodies->element, bodies->first, length, BODY_MAX_BYTES)));
	if (utf8 != bodies->body.data)
		pfree(unconstify(char *, utf8));
}

static void
end_body(QsBodies *bodies)
{
	if (bodies->elements == 0)
		return;
	appendStringInfoString(&bodies->body, bodies->after);
	check_body(bodies);
	bodies->sink(bodies->arg, bodies->body.data, bodies->body.len);
}

void
qs_bodies_begin(QsBodies *bodies)
{
	initStringInfo(&bodies->body);
	begin_body(bodies);
}

void
qs_bodies_add(QsBodies *bodies, int position, const char *text, int length)
{
	/* What all bodies have in common may be large by itself, such as a payload. */
	if (bodies->elements > 0 &&
		(bodies->elements == bodies->most ||
		 bodies->body.len - (int) strlen(bodies->before) + length > BODY_BYTES))
	{
		end_body(bodies);
		begin_body(bodies);
	}
	if (bodies->elements++ > 0)
		appendStringInfoChar(&bodies->body, ',');
	else
		bodies->first = position;
	appendBinaryStringInfo(&bodies->body, text, length);
}

void
qs_bodies_end(QsBodies *bodies)
{
	end_body(bodies);
	pfree(bodies->body.data);
}
