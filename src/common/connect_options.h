/*
 * connect_options.h
 *		How a server is reached, besides its address: the same for all requests to
 *		it, from both workers.
 */
#ifndef QS_CONNECT_OPTIONS_H
#define QS_CONNECT_OPTIONS_H

#include "qdrant_sync.h"

/* Of each text NULL means that the option is not set. */
typedef struct QsConnectOptions
{
	char	   *ca_file;		/* PEM; instead of the system's authorities */
	char	   *cert_file;		/* PEM: the client's certificate */
	char	   *key_file;		/* PEM: its key; NULL: cert_file has it, too */
	char	   *proxy;			/* http://host[:port] */
	bool		no_verify;		/* take any certificate for any host */
	bool		no_http2;		/* not even where TLS offers it and libcurl is fit for it */
} QsConnectOptions;

/* As one string of bytes, on the way through shared memory; what is loaded points into it. */
extern Size qs_connect_options_size(const QsConnectOptions *options);
extern void qs_connect_options_store(char *place, const QsConnectOptions *options);
extern void qs_connect_options_load(char *place, QsConnectOptions *options);

/*
 * Looks at the files.  NULL where they can be used, with a digest of the options and
 * of the files as they are now, 0 where no option is set; else what is wrong, a
 * constant text without secrets.
 */
extern const char *qs_connect_options_check(const QsConnectOptions *options, uint64 *digest);

/*
 * The same file under a name that has the digest in it: libcurl uses connections,
 * TLS sessions and trusted certificates again by the names of files alone, and a
 * file with other contents under the same name has to be another one (hazard R16).
 */
#define QS_SPELLED_PATH_EXTRA (2 * 64 + 2)
extern void qs_spell_path(char *out, const char *path, uint64 digest);

#endif							/* QS_CONNECT_OPTIONS_H */
