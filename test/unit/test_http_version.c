/* with: src/common/connect_options.c src/common/secret_file.c src/net/wait.c test/unit/http_server.c */
/*
 * test_http_version.c
 *		Which HTTP is offered, by the libcurl that runs and the option http2.
 */
#include "../../src/net/http.c"

#include "unit.h"

/* As libcurl writes its own: 0xXXYYZZ. */
#define CURL(x, y, z) ((x) << 16 | (y) << 8 | (z))

static void
one_that_stalls_with_http2_is_not_offered_it(void)
{
	static const unsigned int bad[] = {
		CURL(7, 66, 0), CURL(7, 74, 0), CURL(7, 87, 0), CURL(7, 88, 0), CURL(7, 88, 1), CURL(8, 0, 0),
		CURL(8, 5, 0), CURL(8, 9, 1), 0
	};

	for (int i = 0; i < lengthof(bad); i++)
	{
		CHECK_INT(http_version_for(bad[i], false), CURL_HTTP_VERSION_1_1);
		CHECK_INT(http_version_for(bad[i], true), CURL_HTTP_VERSION_1_1);
	}
}

/* Never CURL_HTTP_VERSION_2_0 or _PRIOR_KNOWLEDGE, which would speak it without TLS. */
static void
a_newer_one_is_offered_it_where_tls_agrees_on_it_and_the_option_is_not_off(void)
{
	static const unsigned int good[] = {CURL(8, 10, 0), CURL(8, 14, 1), CURL(8, 100, 0), CURL(9, 0, 0)};

	for (int i = 0; i < lengthof(good); i++)
	{
		CHECK_INT(http_version_for(good[i], false), CURL_HTTP_VERSION_2TLS);
		CHECK_INT(http_version_for(good[i], true), CURL_HTTP_VERSION_1_1);
	}
}

static void
the_library_that_runs_decides(void)
{
	unsigned int runs = curl_version_info(CURLVERSION_NOW)->version_num;

	CHECK_INT(http_version(false), http_version_for(runs, false));
	CHECK_INT(http_version(true), CURL_HTTP_VERSION_1_1);
}

static const UnitTest tests[] = {
	UNIT_TEST(one_that_stalls_with_http2_is_not_offered_it),
	UNIT_TEST(a_newer_one_is_offered_it_where_tls_agrees_on_it_and_the_option_is_not_off),
	UNIT_TEST(the_library_that_runs_decides),
};

UNIT_MAIN(tests)
