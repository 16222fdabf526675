/* with: src/common/connect_options.c src/common/secret_file.c */
/*
 * test_connect_options.c
 *		Options on their way through memory, their digest, and names of files that
 *		have it in them.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/connect_options.h"
#include "common/secret_file.h"
#include "unit.h"

static char directory[] = "/tmp/qs-options-XXXXXX";
static char path[64];

static void
write_file(const char *text, size_t length, mode_t mode)
{
	FILE	   *file;

	unlink(path);
	file = fopen(path, "w");
	if (file == NULL || fwrite(text, 1, length, file) != length)
		abort();
	fclose(file);
	chmod(path, mode);
}

static void
options_come_out_as_they_went_in(void)
{
	QsConnectOptions all = {"/ca", "/cert", "/key", "http://proxy:1", true, true};
	QsConnectOptions some = {.cert_file = "/cert", .no_http2 = true};
	QsConnectOptions loaded;
	char	   *place;

	/* Of the very size, so that the sanitizer sees a byte too many. */
	place = malloc(qs_connect_options_size(&all));
	qs_connect_options_store(place, &all);
	qs_connect_options_load(place, &loaded);
	CHECK_TEXT(loaded.ca_file, "/ca");
	CHECK_TEXT(loaded.cert_file, "/cert");
	CHECK_TEXT(loaded.key_file, "/key");
	CHECK_TEXT(loaded.proxy, "http://proxy:1");
	CHECK(loaded.no_verify && loaded.no_http2);
	free(place);

	place = malloc(qs_connect_options_size(&some));
	qs_connect_options_store(place, &some);
	qs_connect_options_load(place, &loaded);
	CHECK(loaded.ca_file == NULL && loaded.key_file == NULL && loaded.proxy == NULL);
	CHECK_TEXT(loaded.cert_file, "/cert");
	CHECK(!loaded.no_verify && loaded.no_http2);
	free(place);
}

static void
a_digest_changes_with_every_option_and_with_a_file(void)
{
	QsConnectOptions none = {0};
	QsConnectOptions cases[] = {
		{.ca_file = path}, {.cert_file = path}, {.proxy = path}, {.no_verify = true}, {.no_http2 = true}
	};
	uint64		digests[lengthof(cases)];
	uint64		digest;

	CHECK(qs_connect_options_check(&none, &digest) == NULL && digest == 0);
	write_file("one", 3, 0600);
	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		CHECK(qs_connect_options_check(&cases[i], &digests[i]) == NULL);
		CHECK(digests[i] != 0);
		for (int j = 0; j < i; j++)
			CHECK(digests[i] != digests[j]);
		CHECK(qs_connect_options_check(&cases[i], &digest) == NULL && digest == digests[i]);
	}
	write_file("other", 5, 0600);
	CHECK(qs_connect_options_check(&cases[0], &digest) == NULL && digest != digests[0]);
	unlink(path);
	CHECK(qs_connect_options_check(&cases[0], &digest) != NULL);
}

static void
a_spelled_name_is_the_same_file(void)
{
	const uint64 digests[] = {1, 2, 0x8000000000000000, PG_UINT64_MAX, 0x123456789abcdef0};

	write_file("one", 3, 0600);
	for (int i = 0; i < (int) lengthof(digests); i++)
	{
		char	   *spelled = malloc(strlen(path) + QS_SPELLED_PATH_EXTRA);
		struct stat one;
		struct stat other;

		qs_spell_path(spelled, path, digests[i]);
		CHECK(strcmp(spelled, path) != 0);
		CHECK(stat(path, &one) == 0 && stat(spelled, &other) == 0 && one.st_ino == other.st_ino);
		free(spelled);
	}
}

static const char *
problem_of(const char *text, size_t length, mode_t mode)
{
	const char *problem;
	uint64		stamp;
	char	   *line;

	write_file(text, length, mode);
	line = qs_secret_file_read(path, 100, &stamp, &problem);
	CHECK((line == NULL) == (problem != NULL));
	if (line != NULL)
	{
		CHECK_TEXT(line, "key");
		pfree(line);
	}
	return problem;
}

static void
a_secret_is_the_only_line_of_a_hidden_file(void)
{
	char		longer[200];

	memset(longer, 'x', sizeof(longer));
	CHECK(problem_of("key", 3, 0600) == NULL);
	CHECK(problem_of("key\r\n", 5, 0400) == NULL);
	CHECK(problem_of("key\n\n", 5, 0600) == NULL);
	CHECK(problem_of("", 0, 0600) != NULL);
	CHECK(problem_of("\n", 1, 0600) != NULL);
	CHECK(problem_of("key\nkey", 7, 0600) != NULL);
	CHECK(problem_of("k\0y", 3, 0600) != NULL);
	CHECK(problem_of(longer, sizeof(longer), 0600) != NULL);
	CHECK(problem_of("key", 3, 0604) != NULL);
	CHECK(problem_of("key", 3, 0660) != NULL);
	unlink(path);
}

static const UnitTest tests[] = {
	UNIT_TEST(options_come_out_as_they_went_in),
	UNIT_TEST(a_digest_changes_with_every_option_and_with_a_file),
	UNIT_TEST(a_spelled_name_is_the_same_file),
	UNIT_TEST(a_secret_is_the_only_line_of_a_hidden_file)
};

int
main(void)
{
	int			code;

	if (mkdtemp(directory) == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/file", directory);
	code = unit_main(tests, lengthof(tests));
	unlink(path);
	rmdir(directory);
	return code;
}
