/*
 * owners_code.h
 *		Brackets what runs of an owner's code in the sync worker and in qdrant_verify.
 */
#ifndef QS_OWNERS_CODE_H
#define QS_OWNERS_CODE_H

/* What qs_owners_code_begin changes and qs_owners_code_end puts back. */
typedef struct QsOwnerScope
{
	Oid			user;
	int			security_context;
	int			guc_level;
	bool		read_only;
} QsOwnerScope;

/*
 * From here on the owner's functions may run: under the owner's name, in a
 * security-restricted operation, reading only, and with settings that nothing else
 * can change.  An ERROR leaves the rest to the abort of the transaction.
 */
extern void qs_owners_code_begin(QsOwnerScope *scope, Oid owner);
extern void qs_owners_code_end(const QsOwnerScope *scope);

/*
 * Runs work under the time limit of one read, qdrant_sync.row_timeout; ERROR 57014
 * when it is over.  statement_timeout, where it was armed, is armed no more.
 */
extern void qs_owners_code_in_time(void (*work) (void *arg), void *arg);

/*
 * The sync worker's handler of SIGINT: ends what runs under the time limit, as that
 * does, and does nothing at any other time.
 */
extern void qs_owners_code_handle_cancel(SIGNAL_ARGS);

#endif							/* QS_OWNERS_CODE_H */
