/*
 * ticket.h
 *		A request's way through shared memory: from a backend to the request
 *		worker and back.
 */
#ifndef QS_TICKET_H
#define QS_TICKET_H

#include "qdrant_sync.h"
#include "common/connect_options.h"
#include "datatype/timestamp.h"

/* Names one use of one slot, in this server's life: generation * 65536 + slot. */
typedef int64 QsTicket;

#define QS_TICKET_SLOT(ticket) ((int) ((ticket) & 0xFFFF))

/* Why a request ended. */
typedef enum QsTicketOutcome
{
	QS_ANSWERED,				/* HTTP status and body are there */
	QS_NO_ANSWER,				/* error says why */
	QS_ANSWER_LOST,				/* the same, and Qdrant may have had the request */
	QS_TIMED_OUT,
	QS_ANSWER_TOO_LARGE,		/* more than one answer may have */
	QS_ANSWER_MEMORY_FULL,
	QS_ANSWER_SHARE_FULL,		/* of it, what answers of tickets may have */
	QS_WORKER_RESTARTED,
	/* Found by the backend, without or instead of the worker: */
	QS_NO_REQUEST_WORKER,
	QS_TICKETS_FULL,
	QS_TICKETS_FULL_FOR_SERVER,
	QS_REQUEST_MEMORY_FULL,
	QS_REQUEST_TOO_LARGE		/* for its memory, were there no other */
} QsTicketOutcome;

typedef struct QsTicketRequest
{
	const char *method;
	const char *server_name;	/* for the view of requests */
	const char *server_url;		/* requests with the same one share a queue */
	const char *path;			/* appended to it */
	const char *api_key;		/* NULL: none */
	const QsConnectOptions *connect;
	const char *body;			/* UTF-8; NULL: none */
	Size		body_length;
	int			connect_timeout;	/* ms */
	bool		read;			/* may be repeated */
	bool		waited;			/* who submits it waits for it at once */
	TimestampTz deadline;
} QsTicketRequest;

typedef struct QsTicketAnswer
{
	QsTicketOutcome outcome;
	int			status;			/* HTTP; 0 unless QS_ANSWERED */
	char	   *body;			/* palloc'd, NUL-terminated, not verified */
	Size		length;
	char		error[256];
} QsTicketAnswer;

/* ---- from the shared-memory hooks ---- */

extern Size qs_ticket_shmem_size(void);
extern void qs_ticket_shmem_init(void); /* under AddinShmemInitLock */

/* ---- a backend ---- */

/* Process of the request worker, for the views; 0: none. */
extern pid_t qs_ticket_worker_pid(void);

/*
 * Queues a request.  Returns 0, with *refused saying why, where a limit is
 * reached and nobody makes room until that time, or no worker comes back that
 * could.  Interruptible.  The ticket belongs to this session until it is taken or
 * released; the end of the session releases it, whatever way it ends.
 */
extern QsTicket qs_ticket_submit_until(const QsTicketRequest *request, TimestampTz until,
									   QsTicketOutcome *refused);

/*
 * Waits until the answer is there: QS_ANSWERED (whatever the answer is), or
 * QS_TIMED_OUT at the deadline of the ticket or at until, whichever is first, or
 * QS_NO_REQUEST_WORKER.  Interruptible: the caller releases the ticket on ERROR
 * where nobody else knows it.
 */
extern QsTicketOutcome qs_ticket_wait(QsTicket ticket, TimestampTz until);

/*
 * The same for the first of n that ends, whose place in the array *which tells.
 * A ticket whose deadline has passed has ended, too, whatever its state.
 */
extern QsTicketOutcome qs_ticket_wait_any(const QsTicket *tickets, int n, TimestampTz until,
										  int *which);

/* Without waiting: true where qs_ticket_wait_any would return it at once. */
extern bool qs_ticket_ended(QsTicket ticket);

/* Copies the answer of a ticket that was waited for; it stays. */
extern void qs_ticket_copy(QsTicket ticket, QsTicketAnswer *answer);

/* The same, and frees the ticket. */
extern void qs_ticket_take(QsTicket ticket, QsTicketAnswer *answer);

/* Gives up a ticket in any state; does nothing for one that is not ours. */
extern void qs_ticket_release(QsTicket ticket);

/* What can be shown of a ticket that is in use. */
typedef struct QsTicketInfo
{
	QsTicket	ticket;
	bool		mine;			/* of this session, which may still take it */
	pid_t		pid;
	Oid			database;
	Oid			role;
	char		server_name[NAMEDATALEN];
	char		method[8];
	const char *state;
	TimestampTz submitted_at;
} QsTicketInfo;

/* Palloc'd array of those in use; any process. */
extern QsTicketInfo *qs_ticket_list(int *n);

/* How much of each limit is used. */
typedef struct QsTicketUsage
{
	int			tickets;		/* of qs_max_tickets */
	int			waiting;		/* sessions, for a ticket or memory */
	Size		request_bytes;
	Size		request_memory;
	Size		answer_bytes;
	Size		answer_memory;
} QsTicketUsage;

extern void qs_ticket_usage(QsTicketUsage *usage);

/* ---- the request worker ---- */

typedef struct QsTicketJob
{
	QsTicket	ticket;
	uint64		server;			/* same number: same queue */
	Oid			database;
	int			session;		/* proc number of the owner */
} QsTicketJob;

/* What is sent: borrowed from shared memory until the ticket is ended. */
typedef struct QsTicketWork
{
	const char *method;
	const char *url;
	const char *api_key;		/* valid until qs_ticket_forget_key */
	QsConnectOptions connect;
	const char *body;
	Size		body_length;
	int			connect_timeout;
	bool		read;
	TimestampTz deadline;
} QsTicketWork;

/* Takes the worker's place; what an earlier worker left running is failed. */
extern void qs_ticket_worker_start(void);

/* Most bytes that one answer may have. */
extern Size qs_ticket_max_answer(void);

/* Next queued ticket that was not given yet, next abandoned one. */
extern bool qs_ticket_next_arrival(QsTicketJob *job);
extern bool qs_ticket_next_abandoned(QsTicket *ticket);

/* QUEUED to RUNNING; false where its owner gave it up or its time is over. */
extern bool qs_ticket_start(QsTicket ticket, QsTicketWork *work);
extern void qs_ticket_forget_key(QsTicket ticket);

/* Appends to the answer; QS_ANSWERED, or why there is no room.  Raises nothing. */
extern QsTicketOutcome qs_ticket_append(QsTicket ticket, const char *data, Size length);

/* Gives back the memory of an answer that its owner will not get. */
extern void qs_ticket_drop_answer(QsTicket ticket);

/*
 * The handle has left the multi: RUNNING to DONE, and its owner is woken; freed
 * where it was abandoned meanwhile.
 */
extern void qs_ticket_end(QsTicket ticket, QsTicketOutcome outcome, int status, const char *error);

/* Ends queued tickets whose time is over. */
extern void qs_ticket_expire(TimestampTz now);

#endif							/* QS_TICKET_H */
