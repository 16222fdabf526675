/*
 * failing_multi.c
 *		A curl_multi_socket_action for LD_PRELOAD that fails once after SIGUSR2.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>
#include <signal.h>

static volatile sig_atomic_t fail_next;

static void
note(int number)
{
	fail_next = 1;
}

__attribute__((constructor)) static void
install(void)
{
	signal(SIGUSR2, note);
}

CURLMcode
curl_multi_socket_action(CURLM *multi, curl_socket_t fd, int events, int *running)
{
	CURLMcode	(*real) (CURLM *, curl_socket_t, int, int *) =
		dlsym(RTLD_NEXT, "curl_multi_socket_action");

	if (fail_next)
	{
		fail_next = 0;
		return CURLM_INTERNAL_ERROR;
	}
	return real(multi, fd, events, running);
}
