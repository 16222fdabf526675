/*
 * server.c
 *		What a server would lend to the code under test: memory contexts that are
 *		malloc, and errors that end the program.
 */
#include "postgres.h"

#include "utils/memutils.h"

MemoryContext TopMemoryContext = NULL;
MemoryContext CurrentMemoryContext = NULL;

static int	current_level;

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size minContextSize,
							  Size initBlockSize, Size maxBlockSize)
{
	return NULL;
}

void
MemoryContextDelete(MemoryContext context)
{
}

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	return palloc(size);
}

void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return palloc0(size);
}

bool
errstart(int elevel, const char *domain)
{
	current_level = elevel;
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errcode_for_socket_access(void)
{
	return 0;
}

static int
say(const char *fmt, va_list args)
{
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	return 0;
}

#define SAYS(function) \
int \
function(const char *fmt,...) \
{ \
	va_list		args; \
\
	va_start(args, fmt); \
	say(fmt, args); \
	va_end(args); \
	return 0; \
}

SAYS(errmsg)
SAYS(errmsg_internal)
SAYS(errdetail)
SAYS(errhint)

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (current_level >= ERROR)
		abort();
}

void
ExceptionalCondition(const char *conditionName,
#if PG_VERSION_NUM < 160000
					 const char *errorType,
#endif
					 const char *fileName, int lineNumber)
{
	fprintf(stderr, "assertion failed: %s, %s:%d\n", conditionName, fileName, lineNumber);
	abort();
}
