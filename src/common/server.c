/*
 * server.c
 *		Registered Qdrant servers: the validator of their options, and the look-up
 *		of a server with the secrets of one role.
 *
 * Runs in every process.  The validator needs neither the preloaded library nor
 * a network: pg_restore must be able to make a server anywhere.  Refused are
 * options that nobody reads, and URLs that could mean another thing to libcurl
 * than to whoever wrote them.  No message repeats a value that may be a secret.
 */
#include "qdrant_sync.h"

#include <limits.h>

#include "common/secret_file.h"
#include "common/server.h"
#include "common/settings.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* A first packet lost is repeated after 1 and 3 s: 5 s lets both through. */
#define DEFAULT_CONNECT_TIMEOUT (5 * 1000)
/* What Qdrant may take to apply a write: it is its own default. */
#define DEFAULT_TIMEOUT (60 * 1000)
/* Nobody waits longer than this for one answer (hazard 1). */
#define LONGEST_TIMEOUT (10 * 60 * 1000)
/* A JWT that names many collections is 2 kB; servers cut headers at 8 kB. */
#define LONGEST_API_KEY 7168
/* Longer ones are cut by proxies. */
#define LONGEST_URL 2000
#define LONGEST_FILE_NAME 1000

/* Returns NULL where the value can be used, else what is wrong with it. */
typedef const char *(*OptionCheck) (const char *value);

/* What only a superuser may decide: which files the server's user reads, and no verification. */
typedef enum QsOptionRight
{
	OF_ANYONE,
	OF_SUPERUSER,
	OF_SUPERUSER_TO_SWITCH_OFF
} QsOptionRight;

typedef struct QsOption
{
	const char *name;
	Oid			catalog;		/* of the object that has it */
	OptionCheck check;
	QsOptionRight right;
	const char *hint;
} QsOption;

PG_FUNCTION_INFO_V1(qs_fdw_validator);

static bool
host_ok(const char *host, int length)
{
	if (length > 2 && host[0] == '[' && host[length - 1] == ']')
		return strspn(host + 1, "0123456789abcdefABCDEF:.") == (size_t) (length - 2);
	if (length == 0)
		return false;
	for (int i = 0; i < length; i++)
	{
		if (!isalnum((unsigned char) host[i]) && strchr("-._", host[i]) == NULL)
			return false;
	}
	return true;
}

static bool
port_ok(const char *port, int length)
{
	int			number = 0;

	if (length < 1 || length > 5)
		return false;
	for (int i = 0; i < length; i++)
	{
		if (port[i] < '0' || port[i] > '9')
			return false;
		number = number * 10 + (port[i] - '0');
	}
	return number >= 1 && number <= 65535;
}

/* host, host:port or [address]:port, up to length. */
static const char *
check_authority(const char *authority, int length)
{
	int			host_length = length;
	const char *end = memchr(authority, ']', length);
	const char *colon = memchr(end ? end : authority, ':',
							   end ? authority + length - end : length);

	if (memchr(authority, '@', length) != NULL)
		return "it must not hold a user name or password";
	if (colon != NULL)
	{
		host_length = colon - authority;
		if (!port_ok(colon + 1, length - host_length - 1))
			return "its port is not a number from 1 to 65535";
	}
	if (!host_ok(authority, host_length))
		return "it has no valid host name";
	return NULL;
}

/* A prefix under which a proxy serves Qdrant: no "." or ".." that libcurl would follow. */
static const char *
check_path(const char *path)
{
	for (const char *part = path; *part != '\0';)
	{
		int			length;

		part++;
		length = strcspn(part, "/");
		if ((length == 1 && part[0] == '.') || (length == 2 && strncmp(part, "..", 2) == 0))
			return "its path must not hold \".\" or \"..\"";
		part += length;
	}
	return NULL;
}

static const char *
check_url(const char *url)
{
	const char *authority;
	const char *problem;
	int			length;

	if (pg_strncasecmp(url, "http://", 7) == 0)
		authority = url + 7;
	else if (pg_strncasecmp(url, "https://", 8) == 0)
		authority = url + 8;
	else
		return "it does not begin with http:// or https://";
	if (strlen(url) > LONGEST_URL)
		return "it is too long";
	for (const char *p = url; *p != '\0'; p++)
	{
		if (*p <= ' ' || *p > '~')
			return "it holds a space, a control character or a character beyond ASCII";
		if (strchr("\\\"<>^`{|}", *p) != NULL)
			return "it holds a character that no URL may hold";
	}
	if (strchr(url, '?') != NULL || strchr(url, '#') != NULL)
		return "it must not hold a query or a fragment";

	length = strcspn(authority, "/");
	problem = check_authority(authority, length);
	return problem ? problem : check_path(authority + length);
}

/* Reads ms, or a number with a unit as settings take it. */
static bool
parse_timeout(const char *value, int longest, int *timeout)
{
	const char *hint;

	return parse_int(value, timeout, GUC_UNIT_MS, &hint) &&
		*timeout >= 1 && *timeout <= longest;
}

static const char *
check_timeout(const char *value)
{
	int			timeout;

	return parse_timeout(value, LONGEST_TIMEOUT, &timeout) ? NULL :
		"it is not a time from 1 ms to 10 min";
}

/* The bounds of the setting whose name it has. */
static const char *
check_request_timeout(const char *value)
{
	int			timeout;

	return parse_timeout(value, INT_MAX, &timeout) ? NULL :
		"it is not a time from 1 ms to 2147483647 ms";
}

static const char *
check_api_key(const char *value)
{
	if (qs_header_value_ok(value))
		return NULL;
	return "it is empty, too long, or holds other than the visible characters of ASCII";
}

static const char *
check_file(const char *value)
{
	if (value[0] != '/')
		return "it is not an absolute path";
	if (strlen(value) > LONGEST_FILE_NAME)
		return "it is too long";
	for (const char *p = value; *p != '\0'; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			return "it holds a control character";
	}
	return NULL;
}

static const char *
check_proxy(const char *value)
{
	if (pg_strncasecmp(value, "http://", 7) != 0)
		return "it does not begin with http://";
	if (strchr(value + 7, '/') != NULL)
		return "it has a path";
	return check_url(value);
}

static const char *
check_boolean(const char *value)
{
	bool		parsed;

	return parse_bool(value, &parsed) ? NULL : "it is not a boolean";
}

static const QsOption options[] = {
	{"url", ForeignServerRelationId, check_url, OF_ANYONE,
	"A URL is scheme://host[:port][/prefix], for example http://localhost:6333."},
	{"connect_timeout", ForeignServerRelationId, check_timeout, OF_ANYONE,
	"Give milliseconds, or a number with a unit as in '5s'."},
	{"timeout", ForeignServerRelationId, check_timeout, OF_ANYONE,
	"Give milliseconds, or a number with a unit as in '60s'."},
	{"request_timeout", ForeignServerRelationId, check_request_timeout, OF_ANYONE,
	"Give milliseconds, or a number with a unit as in '10s'."},
	{"ca_file", ForeignServerRelationId, check_file, OF_SUPERUSER, NULL},
	{"cert_file", ForeignServerRelationId, check_file, OF_SUPERUSER, NULL},
	{"key_file", ForeignServerRelationId, check_file, OF_SUPERUSER, NULL},
	{"verify", ForeignServerRelationId, check_boolean, OF_SUPERUSER_TO_SWITCH_OFF, NULL},
	{"proxy", ForeignServerRelationId, check_proxy, OF_ANYONE,
	"A proxy is http://host[:port]."},
	{"http2", ForeignServerRelationId, check_boolean, OF_ANYONE, NULL},
	{"api_key", UserMappingRelationId, check_api_key, OF_ANYONE, NULL},
	{"api_key_file", UserMappingRelationId, check_file, OF_SUPERUSER, NULL},
	{NULL}
};

static const char *
valid_options(Oid catalog)
{
	StringInfoData list;

	initStringInfo(&list);
	for (const QsOption *option = options; option->name; option++)
	{
		if (option->catalog == catalog)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", option->name);
	}
	return list.data;
}

static const QsOption *
find_option(const char *name, Oid catalog)
{
	for (const QsOption *option = options; option->name; option++)
	{
		if (option->catalog == catalog && strcmp(option->name, name) == 0)
			return option;
	}
	return NULL;
}

static bool
is_off(const char *value)
{
	bool		parsed = false;

	return parse_bool(value, &parsed) && !parsed;
}

/*
 * The validator sees all options that an object will have, not which of them are
 * new: others than superusers cannot change an object that has one of these, but
 * they can drop them.
 */
static void
check_right(const QsOption *option, const char *value)
{
	if (option->right == OF_ANYONE || superuser() ||
		(option->right == OF_SUPERUSER_TO_SWITCH_OFF && !is_off(value)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 option->right == OF_SUPERUSER ?
			 errmsg("permission denied to set option \"%s\"", option->name) :
			 errmsg("permission denied to switch off option \"%s\"", option->name),
			 errhint("Only a superuser can set it or change what has it."),
			 errhidestmt(true)));
}

/*
 * PostgreSQL logs a statement that fails.  A key may be in any statement that
 * comes here, also under a wrong name, so none of these errors lets that happen
 * (hazard R10).
 */
static void
check_option(DefElem *def, Oid catalog)
{
	const QsOption *option = find_option(def->defname, catalog);
	const char *valid = valid_options(catalog);
	const char *problem;

	if (option == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", def->defname),
				 valid[0] ? errhint("Valid options here are: %s.", valid) :
				 errhint("There are no valid options here."),
				 errhidestmt(true)));
	problem = option->check(defGetString(def));
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" cannot be used: %s", def->defname, problem),
				 option->hint ? errhint("%s", option->hint) : 0,
				 errhidestmt(true)));
	check_right(option, defGetString(def));
}

static bool
is_given(List *given, const char *name)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, name) == 0)
			return true;
	}
	return false;
}

static void
require_url(List *given)
{
	if (!is_given(given, "url"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"url\" is missing"),
				 errhint("%s", find_option("url", ForeignServerRelationId)->hint),
				 errhidestmt(true)));
}

static void
check_together(List *given)
{
	if (is_given(given, "api_key") && is_given(given, "api_key_file"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("options \"api_key\" and \"api_key_file\" exclude each other"),
				 errhidestmt(true)));
	if (is_given(given, "key_file") && !is_given(given, "cert_file"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"key_file\" needs option \"cert_file\""),
				 errhidestmt(true)));
}

Datum
qs_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *given = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *lc;

	foreach(lc, given)
		check_option(lfirst_node(DefElem, lc), catalog);
	check_together(given);
	if (catalog == ForeignServerRelationId)
		require_url(given);
	PG_RETURN_VOID();
}

bool
qs_header_value_ok(const char *value)
{
	size_t		length = strlen(value);

	if (length == 0 || length > LONGEST_API_KEY)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (value[i] < 0x21 || value[i] > 0x7e)
			return false;
	}
	return true;
}

/* Names of all servers of ours, in order. */
static List *
server_names(Oid fdw)
{
	List	   *names = NIL;
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, ForeignServerNameIndexId, true, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (form->srvfdw == fdw)
			names = lappend(names, pstrdup(NameStr(form->srvname)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return names;
}

static int
hint_servers(List *names)
{
	StringInfoData list;
	ListCell   *lc;

	if (names == NIL)
		return errhint("Make one with CREATE SERVER ... FOREIGN DATA WRAPPER %s OPTIONS (url 'http://localhost:6333').", QS_FDW);
	initStringInfo(&list);
	foreach(lc, names)
		appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? ", " : "", (char *) lfirst(lc));
	return errhint("Registered servers are: %s.", list.data);
}

static const char *
choose_server(List *names)
{
	if (qs_default_server != NULL && qs_default_server[0] != '\0')
		return qs_default_server;
	if (list_length(names) == 1)
		return linitial(names);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 names == NIL ? errmsg("no Qdrant server is registered") :
			 errmsg("several Qdrant servers are registered, and none was named"),
			 hint_servers(names)));
	return NULL;
}

/* The wrapper is found by its name: only a superuser can make one of any name. */
static ForeignServer *
find_server(const char *name)
{
	ForeignDataWrapper *fdw = GetForeignDataWrapperByName(QS_FDW, true);
	ForeignServer *server;
	List	   *names;

	if (fdw == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", QS_EXTENSION)));
	names = server_names(fdw->fdwid);
	if (name == NULL)
		name = choose_server(names);
	server = GetForeignServerByName(name, true);
	if (server == NULL || server->fdwid != fdw->fdwid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no Qdrant server \"%s\"", name),
				 hint_servers(names)));
	return server;
}

/* scheme://host[:port][/prefix] without the slash that a path would double. */
static char *
usable_url(const char *url, const char *server)
{
	char	   *copy = pstrdup(url);
	const char *problem = check_url(url);
	size_t		length = strlen(copy);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("the url of server \"%s\" cannot be used: %s", server, problem)));
	while (length > 0 && copy[length - 1] == '/')
		copy[--length] = '\0';
	return copy;
}

/* Options that are refused where they are set are passed over, verify then stays on. */
static void
take_connect_option(QsConnectOptions *connect, const char *name, char *value)
{
	if (strcmp(name, "ca_file") == 0 && check_file(value) == NULL)
		connect->ca_file = pstrdup(value);
	else if (strcmp(name, "cert_file") == 0 && check_file(value) == NULL)
		connect->cert_file = pstrdup(value);
	else if (strcmp(name, "key_file") == 0 && check_file(value) == NULL)
		connect->key_file = pstrdup(value);
	else if (strcmp(name, "proxy") == 0 && check_proxy(value) == NULL)
		connect->proxy = pstrdup(value);
	else if (strcmp(name, "verify") == 0)
		connect->no_verify = is_off(value);
	else if (strcmp(name, "http2") == 0)
		connect->no_http2 = is_off(value);
}

static void
take_server_options(QsServer *server, List *given)
{
	ListCell   *lc;

	server->connect_timeout = DEFAULT_CONNECT_TIMEOUT;
	server->timeout = DEFAULT_TIMEOUT;
	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "url") == 0)
			server->url = usable_url(defGetString(def), server->name);
		else if (strcmp(def->defname, "connect_timeout") == 0)
			(void) parse_timeout(defGetString(def), LONGEST_TIMEOUT, &server->connect_timeout);
		else if (strcmp(def->defname, "timeout") == 0)
			(void) parse_timeout(defGetString(def), LONGEST_TIMEOUT, &server->timeout);
		else if (strcmp(def->defname, "request_timeout") == 0)
			(void) parse_timeout(defGetString(def), INT_MAX, &server->request_timeout);
		else
			take_connect_option(&server->connect, def->defname, defGetString(def));
	}
	if (server->url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("server \"%s\" has no url", server->name),
				 errhint("Give it one with ALTER SERVER %s OPTIONS (ADD url 'http://localhost:6333').",
						 quote_identifier(server->name))));
}

/* The key's memory, and that it is overwritten before the context gives it back. */
typedef struct KeptKey
{
	MemoryContextCallback callback;
	size_t		length;
	char		key[FLEXIBLE_ARRAY_MEMBER];
} KeptKey;

static void
wipe_key(void *arg)
{
	KeptKey    *kept = arg;

	explicit_bzero(kept->key, kept->length);
}

/* An ERROR passes no qs_server_free, but ends the context. */
static char *
keep_key(const char *key)
{
	size_t		length = strlen(key);
	KeptKey    *kept = palloc(offsetof(KeptKey, key) + length + 1);

	kept->length = length;
	memcpy(kept->key, key, length + 1);
	kept->callback.func = wipe_key;
	kept->callback.arg = kept;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &kept->callback);
	return kept->key;
}

static void
read_api_key(QsServer *server, const char *path)
{
	const char *problem;
	char	   *key = qs_secret_file_read(path, LONGEST_API_KEY, &server->key_stamp, &problem);

	if (key != NULL && !qs_header_value_ok(key))
		problem = "it holds other than the visible characters of ASCII";
	if (key != NULL)
	{
		server->api_key = keep_key(key);
		explicit_bzero(key, strlen(key));
		pfree(key);
	}
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("the api_key_file for server \"%s\" cannot be used: %s",
						server->name, problem)));
	server->api_key_file = pstrdup(path);
}

/*
 * The key among a mapping's options.  The copies that reading the catalog made
 * are overwritten.
 */
static void
take_api_key(QsServer *server, Datum options_datum)
{
	ListCell   *lc;

	foreach(lc, untransformRelOptions(options_datum))
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		char	   *value = defGetString(def);

		if (strcmp(def->defname, "api_key_file") == 0)
			read_api_key(server, value);
		if (strcmp(def->defname, "api_key") != 0)
			continue;
		if (!qs_header_value_ok(value))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("the api_key for server \"%s\" cannot be used", server->name)));
		server->api_key = keep_key(value);
		explicit_bzero(value, strlen(value));
	}
}

/* The mapping of the role, else that of PUBLIC; having none is no error here. */
static void
find_api_key(QsServer *server, Oid userid)
{
	HeapTuple	tuple;
	Datum		options_datum;
	bool		isnull;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							ObjectIdGetDatum(server->oid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(server->oid));
	if (!HeapTupleIsValid(tuple))
		return;
	options_datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
									Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		take_api_key(server, options_datum);
	ReleaseSysCache(tuple);
}

Oid
qs_server_oid(const char *name)
{
	ForeignDataWrapper *fdw = GetForeignDataWrapperByName(QS_FDW, true);
	ForeignServer *server = GetForeignServerByName(name, true);

	return fdw != NULL && server != NULL && server->fdwid == fdw->fdwid ? server->serverid : InvalidOid;
}

QsServer *
qs_server_get(const char *name, Oid userid)
{
	ForeignServer *found = find_server(name);
	QsServer   *server = palloc0(sizeof(QsServer));
	AclResult	acl = qs_foreign_server_aclcheck(found->serverid, userid, ACL_USAGE);

	if (acl != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not use server \"%s\"",
						GetUserNameFromId(userid, false), found->servername),
				 errhint("Its owner can allow it with GRANT USAGE ON FOREIGN SERVER %s TO %s.",
						 quote_identifier(found->servername),
						 quote_identifier(GetUserNameFromId(userid, false)))));
	server->oid = found->serverid;
	server->name = found->servername;
	take_server_options(server, found->options);
	find_api_key(server, userid);
	return server;
}

void
qs_server_free(QsServer *server)
{
	/* Its memory stays until the context ends, which looks at it again. */
	if (server->api_key != NULL)
		explicit_bzero(server->api_key, strlen(server->api_key));
	pfree(server->url);
	pfree(server);
}

/* A file that is just being replaced is looked at again later. */
bool
qs_server_key_changed(const QsServer *server)
{
	uint64		stamp;

	return server->api_key_file != NULL &&
		qs_file_stamp(server->api_key_file, &stamp) && stamp != server->key_stamp &&
		qs_secret_file_problem(server->api_key_file) == NULL;
}
