/*
 * slow_lookup.c
 *		A getaddrinfo for LD_PRELOAD: names that end in .slow take
 *		SLOW_LOOKUP_SECONDS and then mean 127.0.0.1.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
			struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	size_t		length = name ? strlen(name) : 0;

	if (length > 5 && strcmp(name + length - 5, ".slow") == 0)
	{
		const char *seconds = getenv("SLOW_LOOKUP_SECONDS");

		sleep(seconds ? atoi(seconds) : 12);
		name = "127.0.0.1";
	}
	return real(name, service, hints, result);
}
