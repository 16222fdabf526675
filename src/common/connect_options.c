/*
 * connect_options.c
 *		How a server is reached: the options' form in shared memory, and a digest
 *		of them and of the files that they name.
 *
 * Every process; knows nothing of libcurl.  Refuses files that cannot be read, and
 * a private key that others could read.
 */
#include "qdrant_sync.h"
#include "common/connect_options.h"
#include "common/secret_file.h"

#include "common/hashfn.h"

#define FLAG_NO_VERIFY 1
#define FLAG_NO_HTTP2 2

#define TEXTS 4

static void
texts_of(const QsConnectOptions *options, const char *texts[TEXTS])
{
	texts[0] = options->ca_file;
	texts[1] = options->cert_file;
	texts[2] = options->key_file;
	texts[3] = options->proxy;
	for (int i = 0; i < TEXTS; i++)
	{
		if (texts[i] == NULL)
			texts[i] = "";
	}
}

/* A byte of flags, then the texts, each with its NUL. */
Size
qs_connect_options_size(const QsConnectOptions *options)
{
	const char *texts[TEXTS];
	Size		size = 1;

	texts_of(options, texts);
	for (int i = 0; i < TEXTS; i++)
		size += strlen(texts[i]) + 1;
	return size;
}

void
qs_connect_options_store(char *place, const QsConnectOptions *options)
{
	const char *texts[TEXTS];

	texts_of(options, texts);
	*place++ = (options->no_verify ? FLAG_NO_VERIFY : 0) | (options->no_http2 ? FLAG_NO_HTTP2 : 0);
	for (int i = 0; i < TEXTS; i++)
	{
		strcpy(place, texts[i]);
		place += strlen(texts[i]) + 1;
	}
}

void
qs_connect_options_load(char *place, QsConnectOptions *options)
{
	char	  **texts[TEXTS] = {
		&options->ca_file, &options->cert_file, &options->key_file, &options->proxy
	};

	options->no_verify = (*place & FLAG_NO_VERIFY) != 0;
	options->no_http2 = (*place & FLAG_NO_HTTP2) != 0;
	place++;
	for (int i = 0; i < TEXTS; i++)
	{
		*texts[i] = *place != '\0' ? place : NULL;
		place += strlen(place) + 1;
	}
}

static uint64
mix(uint64 digest, const void *bytes, Size length)
{
	return hash_bytes_extended(bytes, length, digest);
}

static bool
add_stamp(const char *path, uint64 *digest)
{
	uint64		stamp;

	if (path == NULL)
		return true;
	if (!qs_file_stamp(path, &stamp))
		return false;
	*digest = mix(*digest, &stamp, sizeof(stamp));
	return true;
}

static const char *
add_stamps(const QsConnectOptions *options, uint64 *digest)
{
	if (!add_stamp(options->ca_file, digest))
		return "the file of option ca_file cannot be read by the server's user";
	if (!add_stamp(options->cert_file, digest))
		return "the file of option cert_file cannot be read by the server's user";
	if (!add_stamp(options->key_file, digest))
		return "the file of option key_file cannot be read by the server's user";
	return NULL;
}

/* Whichever file has the key. */
static const char *
key_problem(const QsConnectOptions *options)
{
	if (options->key_file != NULL && qs_secret_file_problem(options->key_file) != NULL)
		return "the file of option key_file must be readable by the server's user alone: mode 0600 or less, or 0640 or less if root owns it";
	if (options->key_file == NULL && options->cert_file != NULL &&
		qs_secret_file_problem(options->cert_file) != NULL)
		return "the file of option cert_file, which has the key, must be readable by the server's user alone: mode 0600 or less, or 0640 or less if root owns it";
	return NULL;
}

const char *
qs_connect_options_check(const QsConnectOptions *options, uint64 *digest)
{
	const char *texts[TEXTS];
	const char *problem;
	bool		flags[] = {options->no_verify, options->no_http2};
	bool		any = options->no_verify || options->no_http2;

	*digest = 0;
	texts_of(options, texts);
	for (int i = 0; i < TEXTS; i++)
	{
		any |= texts[i][0] != '\0';
		*digest = mix(*digest, texts[i], strlen(texts[i]) + 1);
	}
	*digest = mix(*digest, flags, sizeof(flags));
	problem = add_stamps(options, digest);
	if (problem == NULL)
		problem = key_problem(options);
	if (!any)
		*digest = 0;
	else if (*digest == 0)
		*digest = 1;
	return problem;
}

/* "/./" and "//" both mean "/": a bit of the digest each. */
void
qs_spell_path(char *out, const char *path, uint64 digest)
{
	Assert(path[0] == '/');
	*out++ = '/';
	for (; digest != 0; digest >>= 1)
	{
		if (digest & 1)
			*out++ = '.';
		*out++ = '/';
	}
	strcpy(out, path + 1);
}
