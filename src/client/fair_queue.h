/*
 * fair_queue.h
 *		Which queued request is started next: for each server a bounded number at
 *		a time, and round robin over databases and, within each, over sessions.
 *
 * Memory of the request worker alone.  It holds at most one entry for each
 * ticket slot.
 */
#ifndef QS_FAIR_QUEUE_H
#define QS_FAIR_QUEUE_H

#include "client/ticket.h"

typedef struct QsFairQueue QsFairQueue;

extern QsFairQueue *qs_fair_queue_create(int slots);

/* Adds a ticket; what its slot held before is forgotten. */
extern void qs_fair_queue_add(QsFairQueue *queue, const QsTicketJob *job);

/*
 * Takes the next ticket of a server that has fewer than max_running under way
 * and counts it there, until qs_fair_queue_ended.  0: none.
 */
extern QsTicket qs_fair_queue_next(QsFairQueue *queue, int max_running);
extern void qs_fair_queue_ended(QsFairQueue *queue, QsTicket ticket);

/* True where tickets wait for their turn. */
extern bool qs_fair_queue_waiting(const QsFairQueue *queue);

#endif							/* QS_FAIR_QUEUE_H */
