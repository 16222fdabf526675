/*
 * own_curl.c
 *		own_curl(url, body): a POST by a libcurl handle of this backend's own, kept
 *		alive; the yardstick for requests that go through the request worker.
 *
 * Runs in the backends of bench/run.  It blocks and cannot be cancelled: no
 * example to follow.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(own_curl);

static CURL *handle = NULL;
static struct curl_slist *headers = NULL;

static size_t
take_answer(char *data, size_t size, size_t n, void *arg)
{
	appendBinaryStringInfo((StringInfo) arg, data, size * n);
	return size * n;
}

static void
make_handle(void)
{
	curl_global_init(CURL_GLOBAL_ALL);
	handle = curl_easy_init();
	if (handle == NULL)
		elog(ERROR, "no curl handle");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_answer);
}

Datum
own_curl(PG_FUNCTION_ARGS)
{
	char	   *url = text_to_cstring(PG_GETARG_TEXT_PP(0));
	text	   *body = PG_GETARG_TEXT_PP(1);
	StringInfoData answer;
	CURLcode	result;

	if (handle == NULL)
		make_handle();
	initStringInfo(&answer);
	curl_easy_setopt(handle, CURLOPT_URL, url);
	curl_easy_setopt(handle, CURLOPT_POSTFIELDS, VARDATA_ANY(body));
	curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, (long) VARSIZE_ANY_EXHDR(body));
	curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer);
	result = curl_easy_perform(handle);
	if (result != CURLE_OK)
		elog(ERROR, "%s", curl_easy_strerror(result));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(answer.data, answer.len));
}
