/*
 * secret_file.h
 *		Files that hold secrets, and how a change of a file is noticed.
 */
#ifndef QS_SECRET_FILE_H
#define QS_SECRET_FILE_H

#include "qdrant_sync.h"

/*
 * A number that another file in its place, or other contents, change.  False: it is
 * no regular file that this process may read.
 */
extern bool qs_file_stamp(const char *path, uint64 *stamp);

/* NULL where nobody but the server's user (and root) can read the file; else what is wrong. */
extern const char *qs_secret_file_problem(const char *path);

/*
 * The one line that the file holds, without its end; palloc'd, to be overwritten by
 * the caller.  NULL: *problem says why.  Raises nothing but for lack of memory.
 */
extern char *qs_secret_file_read(const char *path, size_t longest, uint64 *stamp,
								 const char **problem);

#endif							/* QS_SECRET_FILE_H */
