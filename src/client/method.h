/*
 * method.h
 *		Methods of Qdrant's client as tables: what each argument of the SQL function
 *		is called in the request.
 */
#ifndef QS_METHOD_H
#define QS_METHOD_H

#include "client/request.h"
#include "utils/jsonb.h"

typedef enum QsArgumentKind
{
	/* Members of the body; a NULL argument is left out, so that Qdrant's default holds. */
	QS_ARG_JSONB,
	QS_ARG_QUERY_PART,			/* jsonb whose members are those of query_members.h */
	QS_ARG_LOOKUP,				/* the same, and its members "collection" are read */
	QS_ARG_TEXT,
	QS_ARG_NAME,				/* text that must be there */
	QS_ARG_WORD,				/* a name, or text that is a JSON object */
	QS_ARG_LOOKUP_WORD,			/* the same, and the name is a collection's that is read */
	QS_ARG_COUNT,				/* at least 1 */
	QS_ARG_BOOL,
	QS_ARG_FLOAT,
	QS_ARG_QUERY,				/* anycompatible: query_argument.h */
	QS_ARG_IDS,					/* anycompatible: ids of points */
	QS_ARG_ID,					/* anycompatible: one id, or NULL */
	QS_ARG_ALL_OR,				/* boolean, NULL is true; names at argument "other" win */
	QS_ARG_NONE_OR,				/* the same; NULL is false */
	/* The whole body */
	QS_ARG_BODY,				/* jsonb that must be there */
	/* A last part of the path */
	QS_ARG_SEGMENT,				/* text that must be there */
	/* In the query string */
	QS_ARG_WAIT,				/* boolean; NULL is true, as in the client */
	QS_ARG_ORDERING,
	QS_ARG_CONSISTENCY,
	QS_ARG_TIMEOUT,				/* interval, in whole seconds */
	QS_ARG_OWN_TIMEOUT			/* interval, that Qdrant is not told */
} QsArgumentKind;

typedef struct QsMethodArgument
{
	int			argno;
	const char *key;			/* what REST calls it; for QS_ARG_SEGMENT, _NAME, _COUNT also our name */
	QsArgumentKind kind;
	int			other;
} QsMethodArgument;

typedef enum QsMethodRight
{
	QS_RIGHT_NONE,				/* USAGE on the server */
	QS_RIGHT_READ,				/* and the collection's table, if it has one */
	QS_RIGHT_OWN				/* and no mirror may own the collection */
} QsMethodRight;

typedef struct QsMethod
{
	const char *verb;
	const char *path;			/* behind the collection's, or all of it */
	bool		of_collection;	/* argument 0 is collection_name */
	QsMethodRight right;
	int			server;			/* number of that argument */
	int			narguments;
	QsMethodArgument arguments[20];
} QsMethod;

/*
 * Checks rights and arguments and builds the request, and sends nothing.  False:
 * the query is NULL, and so there are no rows.
 */
extern bool qs_method_request(FunctionCallInfo fcinfo, const QsMethod *method, QsRequest *request);

/* Sends it once; request->server keeps nothing but its name. */
extern QsAnswer *qs_method_send(QsRequest *request);

/* The same, and the answer's member "result"; never NULL, nor JSON's null. */
extern Jsonb *qs_method_result(QsRequest *request);

/* The same, of a method whose result is an object. */
extern Jsonb *qs_method_object(QsRequest *request);

#endif							/* QS_METHOD_H */
