/*
 * server.h
 *		Registered Qdrant servers: foreign servers of qdrant_fdw, and the secrets
 *		in their user mappings.
 */
#ifndef QS_SERVER_H
#define QS_SERVER_H

#include "qdrant_sync.h"
#include "common/connect_options.h"

typedef struct QsServer
{
	Oid			oid;			/* of this lookup only: pg_upgrade changes it */
	char	   *name;
	char	   *url;			/* scheme://host[:port][/prefix], no trailing slash */
	char	   *api_key;		/* NULL: none; overwritten when its memory context ends */
	char	   *api_key_file;	/* it was read from there; NULL: from the mapping */
	uint64		key_stamp;		/* of that file when it was read */
	QsConnectOptions connect;	/* options ca_file, cert_file, key_file, verify, proxy, http2 */
	int			connect_timeout;	/* ms; option connect_timeout, default 5 s */
	int			timeout;		/* ms; option timeout: that Qdrant may take for a
								 * write, default 60 s */
	int			request_timeout;	/* ms; option request_timeout: that a call may take
									 * which says nothing of it; 0: the setting */
} QsServer;

/*
 * The server of that name (NULL: setting qdrant_sync.server, else the only
 * registered one) as userid may use it: ERROR 42501 without USAGE on it, 42704
 * with the list of servers where it is not there or not unique.  The key is of
 * the mapping of userid, else of PUBLIC; ERROR 58030 where it is in a file that
 * cannot be used.  Everything palloc'd in the current context.  Needs a transaction.
 */
extern QsServer *qs_server_get(const char *name, Oid userid);

/* InvalidOid: there is none of that name.  Whoever may use it. */
extern Oid	qs_server_oid(const char *name);

/* Overwrites the key before its memory is given back. */
extern void qs_server_free(QsServer *server);

/* The key's file has other contents by now, and they can be used. */
extern bool qs_server_key_changed(const QsServer *server);

/* Validation that is repeated at use: bytes of a header (hazard R8), a URL. */
extern bool qs_header_value_ok(const char *value);

#endif							/* QS_SERVER_H */
