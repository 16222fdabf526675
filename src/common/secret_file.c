/*
 * secret_file.c
 *		Files that hold secrets, and how a change of a file is noticed.
 *
 * Every process.  Refuses secrets that others than the server's user could read,
 * by the rule of libpq for private keys: mode 0600 or less, or 0640 or less where
 * root owns the file.  Messages are constant texts: they name no path and repeat
 * nothing of a file.
 */
#include "qdrant_sync.h"
#include "common/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hashfn.h"

static const char cannot_be_read[] = "the file cannot be read by the server's user";

/* Times alone would miss a file that was put in place within their resolution. */
static uint64
stamp_of(const struct stat *st)
{
	int64		parts[] = {
		st->st_dev, st->st_ino, st->st_size,
		st->st_mtim.tv_sec, st->st_mtim.tv_nsec, st->st_ctim.tv_sec, st->st_ctim.tv_nsec
	};

	return hash_bytes_extended((const unsigned char *) parts, sizeof(parts), 0);
}

bool
qs_file_stamp(const char *path, uint64 *stamp)
{
	struct stat st;

	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || access(path, R_OK) != 0)
		return false;
	*stamp = stamp_of(&st);
	return true;
}

static const char *
mode_problem(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return "it is not a regular file";
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return "the file belongs to neither the server's user nor root";
	if (st->st_uid == geteuid() ? st->st_mode & (S_IRWXG | S_IRWXO) :
		st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))
		return "others than the server's user may read the file: its mode must be 0600 or less, or 0640 or less if root owns it";
	return NULL;
}

const char *
qs_secret_file_problem(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return cannot_be_read;
	return mode_problem(&st);
}

/* One line, be it ended or not. */
static char *
only_line(const char *text, ssize_t length, const char **problem)
{
	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
		length--;
	if (length == 0)
		*problem = "the file is empty";
	else if (memchr(text, '\n', length) != NULL || memchr(text, '\0', length) != NULL)
		*problem = "the file holds more than one line";
	return *problem == NULL ? pnstrdup(text, length) : NULL;
}

/* What is checked is what is read: the open file.  O_NONBLOCK, since a pipe's open would wait. */
static char *
read_open_file(int fd, size_t longest, uint64 *stamp, const char **problem)
{
	struct stat st;
	char		text[8192];
	ssize_t		length;
	char	   *line = NULL;

	Assert(longest + 2 < sizeof(text));
	if (fstat(fd, &st) != 0)
		*problem = cannot_be_read;
	else
		*problem = mode_problem(&st);
	if (*problem != NULL)
		return NULL;
	*stamp = stamp_of(&st);
	length = read(fd, text, sizeof(text));
	if (length < 0)
		*problem = cannot_be_read;
	else if ((size_t) length > longest + 2)
		*problem = "the file is too long";
	else
		line = only_line(text, length, problem);
	explicit_bzero(text, sizeof(text));
	return line;
}

char *
qs_secret_file_read(const char *path, size_t longest, uint64 *stamp, const char **problem)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char	   *line;

	*problem = NULL;
	if (fd < 0)
	{
		*problem = cannot_be_read;
		return NULL;
	}
	line = read_open_file(fd, longest, stamp, problem);
	close(fd);
	return line;
}
