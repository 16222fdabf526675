/*
 * ticket.c
 *		Tickets: slots in main shared memory, and two in-place areas that hold
 *		the bytes of requests and of answers.
 *
 * Runs in backends and in the request worker.  Nothing here speaks HTTP.
 *
 * Requests and answers have an area each, so that answers which nobody fetches
 * never keep a request from being made.  Both areas are limited to their place
 * in main shared memory: allocation never makes a segment, and so never raises
 * an ERROR (hazard R3).
 *
 * While a ticket is RUNNING, libcurl reads its request out of the area.  Only
 * the worker ends that state, after the handle has left the multi.  In every
 * other state the owner may free the ticket itself.
 */
#include "qdrant_sync.h"

#include "client/ticket.h"
#include "client/waiters.h"
#include "common/hashfn.h"
#include "common/settings.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/dsa.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Sizes of a piece of an answer: the first is small, since most answers are. */
#define FIRST_PIECE 8192
#define LARGEST_PIECE 65536

/* A worker that ended with an error is started again before this. */
#define WORKER_ABSENT_MS 5000

/* How often a waiter looks for the return of an absent worker. */
#define LOOK_FOR_WORKER_MS 250

typedef enum TicketState
{
	TICKET_FREE,				/* from any */
	TICKET_FILLING,				/* from FREE; the owner writes the request */
	TICKET_QUEUED,				/* from FILLING */
	TICKET_RUNNING,				/* from QUEUED; the request must stay where it is */
	TICKET_DONE,				/* from QUEUED or RUNNING; the owner reads the answer */
	TICKET_ABANDONED			/* from any but FREE; the worker frees */
} TicketState;

/* A list of slots through their next and prev; -1 ends it. */
typedef struct SlotList
{
	int			first;
	int			last;
} SlotList;

/* In the area of answers. */
typedef struct Piece
{
	dsa_pointer next;
	uint32		room;			/* of data */
	uint32		used;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Piece;

/* In the area of requests; data is URL, key, options and body, one after the other. */
typedef struct StoredRequest
{
	Size		url_length;		/* with its NUL */
	Size		key_length;		/* with its NUL; 0: none */
	Size		connect_length; /* of the options, as common/connect_options.h has them */
	Size		body_length;
	bool		has_body;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} StoredRequest;

/*
 * Written under control->lock, except that who alone has the slot (the owner
 * while FILLING or DONE, the worker while RUNNING or once it was told that the
 * slot is ABANDONED) uses request and pieces without it.
 */
typedef struct Slot
{
	TicketState state;
	bool		given;			/* QUEUED, ABANDONED: the worker knows it */
	int			next;			/* in the list that list_of() says */
	int			prev;
	int64		generation;		/* of control->generation; grows with each use */

	/* owner */
	int			proc_number;
	pid_t		pid;
	TimestampTz session_start;
	Oid			database;
	Oid			role;

	/* request */
	char		method[8];
	char		server_name[NAMEDATALEN];
	uint64		server;			/* hash of the server's URL */
	dsa_pointer request;
	int			connect_timeout;
	bool		read;
	bool		waited;
	TimestampTz submitted_at;
	TimestampTz deadline;
	int64		incarnation;	/* of the worker that runs it */

	/* answer */
	QsTicketOutcome outcome;
	int			status;
	dsa_pointer first_piece;
	dsa_pointer last_piece;
	Size		answer_length;
	pg_atomic_uint64 answer_bytes;	/* allocated; others read it, for an estimate */
	char		error[256];
} Slot;

typedef struct Control
{
	LWLock		lock;
	int64		generation;		/* last given */
	SlotList	free;
	SlotList	arrivals;		/* QUEUED, not given */
	SlotList	abandoned;		/* ABANDONED, not given */
	int			free_count;
	int			worker_proc_number; /* -1: no worker */
	int64		incarnation;	/* of the worker; grows with each start */
	Size		request_bytes;	/* allocated in their area; lowered after it was freed */
	pg_atomic_uint64 answer_bytes;	/* the same, without the lock */
} Control;

static Control *control = NULL;
static Slot *slots = NULL;
static QsWaiters *waiters = NULL;
static char *request_place = NULL;
static char *answer_place = NULL;

/* Of this process; attached at the first use. */
static dsa_area *requests = NULL;
static dsa_area *answers = NULL;

/* ---- shared memory ---------------------------------------------------- */

/* A quarter is for requests: they are small, and answers are not. */
static Size
request_area_size(void)
{
	return TYPEALIGN(4096, (Size) qs_answer_memory * 1024 / 4);
}

static Size
answer_area_size(void)
{
	return (Size) qs_answer_memory * 1024 - request_area_size();
}

static Size
slots_size(void)
{
	return MAXALIGN(mul_size(qs_max_tickets, sizeof(Slot)));
}

Size
qs_ticket_shmem_size(void)
{
	Size		size = add_size(MAXALIGN(sizeof(Control)), slots_size());

	size = add_size(size, MAXALIGN(qs_waiters_size()));
	return add_size(size, add_size(request_area_size(), answer_area_size()));
}

/* Half, so that one answer never keeps all others out. */
Size
qs_ticket_max_answer(void)
{
	return answer_area_size() / 2;
}

static void
list_push(SlotList *list, int i)
{
	slots[i].next = -1;
	slots[i].prev = list->last;
	if (list->last >= 0)
		slots[list->last].next = i;
	else
		list->first = i;
	list->last = i;
}

static void
list_remove(SlotList *list, int i)
{
	Slot	   *slot = &slots[i];

	if (slot->prev >= 0)
		slots[slot->prev].next = slot->next;
	else
		list->first = slot->next;
	if (slot->next >= 0)
		slots[slot->next].prev = slot->prev;
	else
		list->last = slot->prev;
	slot->next = slot->prev = -1;
}

static void
init_area(char *place, Size size, int tranche)
{
	dsa_area   *area = dsa_create_in_place(place, size, tranche, NULL);

	dsa_set_size_limit(area, size);
	dsa_pin(area);
	dsa_detach(area);
}

static void
init_control(int tranche)
{
	SlotList	none = {-1, -1};

	memset(control, 0, sizeof(Control));
	memset(slots, 0, slots_size());
	qs_waiters_init(waiters);
	LWLockInitialize(&control->lock, tranche);
	control->free = control->arrivals = control->abandoned = none;
	control->worker_proc_number = -1;
	pg_atomic_init_u64(&control->answer_bytes, 0);
	for (int i = 0; i < qs_max_tickets; i++)
	{
		pg_atomic_init_u64(&slots[i].answer_bytes, 0);
		list_push(&control->free, i);
	}
	control->free_count = qs_max_tickets;
	init_area(request_place, request_area_size(), tranche);
	init_area(answer_place, answer_area_size(), tranche);
}

void
qs_ticket_shmem_init(void)
{
	bool		found;
	char	   *place = ShmemInitStruct("qdrant_sync tickets", qs_ticket_shmem_size(), &found);

	control = (Control *) place;
	place += MAXALIGN(sizeof(Control));
	slots = (Slot *) place;
	place += slots_size();
	waiters = (QsWaiters *) place;
	place += MAXALIGN(qs_waiters_size());
	request_place = place;
	answer_place = place + request_area_size();
	if (!found)
		init_control(LWLockNewTrancheId());
	LWLockRegisterTranche(control->lock.tranche, "qdrant_sync tickets");
}

/*
 * Nothing is detached at exit: the areas are pinned, and a count of attached
 * processes that is too high does no harm.
 */
static void
attach_areas(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (requests == NULL)
	{
		requests = dsa_attach_in_place(request_place, NULL);
		dsa_pin_mapping(requests);
	}
	if (answers == NULL)
	{
		answers = dsa_attach_in_place(answer_place, NULL);
		dsa_pin_mapping(answers);
	}
	MemoryContextSwitchTo(old);
}

/* ---- states, under control->lock -------------------------------------- */

static SlotList *
list_of(const Slot *slot)
{
	switch (slot->state)
	{
		case TICKET_FREE:
			return &control->free;
		case TICKET_QUEUED:
			return slot->given ? NULL : &control->arrivals;
		case TICKET_ABANDONED:
			return slot->given ? NULL : &control->abandoned;
		default:
			return NULL;
	}
}

/* Moves a slot between the lists when its state or its being given changes. */
static void
set_state(Slot *slot, TicketState state, bool given)
{
	int			i = slot - slots;
	SlotList   *list = list_of(slot);

	Assert(LWLockHeldByMeInMode(&control->lock, LW_EXCLUSIVE));
	Assert(state != TICKET_FILLING || slot->state == TICKET_FREE);
	Assert(state != TICKET_RUNNING || slot->state == TICKET_QUEUED);
	Assert(state != TICKET_DONE || slot->state == TICKET_QUEUED || slot->state == TICKET_RUNNING);

	control->free_count -= slot->state == TICKET_FREE;
	control->free_count += state == TICKET_FREE;
	if (list != NULL)
		list_remove(list, i);
	slot->state = state;
	slot->given = given;
	list = list_of(slot);
	if (list != NULL)
		list_push(list, i);
}

/* The slot of a ticket; NULL where the slot has another use by now. */
static Slot *
slot_of(QsTicket ticket)
{
	int			i = QS_TICKET_SLOT(ticket);

	if (ticket <= 0 || i >= qs_max_tickets || slots[i].generation != ticket >> 16)
		return NULL;
	return slots[i].state == TICKET_FREE ? NULL : &slots[i];
}

static QsTicket
ticket_of(const Slot *slot)
{
	return slot->generation << 16 | (slot - slots);
}

static bool
is_mine(const Slot *slot)
{
	return slot->pid == MyProcPid && slot->proc_number == qs_my_proc_number() &&
		slot->session_start == MyStartTimestamp;
}

static void
wake(int proc_number)
{
	if (proc_number >= 0)
		SetLatch(&ProcGlobal->allProcs[proc_number].procLatch);
}

/*
 * One server may have three quarters of all slots, so that one that does not
 * answer leaves room for requests to others.  More only while slots are not scarce.
 */
static int
room_for_server(uint64 server)
{
	int			reserve = qs_max_tickets / 4;
	int			used = 0;

	for (int i = 0; i < qs_max_tickets; i++)
		used += slots[i].state != TICKET_FREE && slots[i].server == server;
	return Max(control->free_count - reserve, qs_max_tickets - reserve - used);
}

/* Counts only once slots get scarce. */
static bool
server_has_its_share(uint64 server)
{
	return control->free_count <= qs_max_tickets / 4 && room_for_server(server) <= 0;
}

/* After there is more room, or where who was called for some leaves it. */
static void
call_waiters(bool behind_me)
{
	qs_waiters_call(waiters, behind_me, control->free_count,
					request_area_size() - control->request_bytes, room_for_server);
}

/*
 * Returns who is to be woken, after the lock is released: who wakes before that
 * finds it taken, and sleeps again.
 */
static int
make_done(Slot *slot, QsTicketOutcome outcome, int status, const char *error)
{
	slot->outcome = outcome;
	slot->status = status;
	strlcpy(slot->error, error ? error : "", sizeof(slot->error));
	set_state(slot, TICKET_DONE, false);
	return slot->proc_number;
}

/* ---- bytes, by who alone has the slot --------------------------------- */

/* The lengths that a request will have when it is stored. */
static void
measure_request(const QsTicketRequest *request, StoredRequest *lengths)
{
	lengths->url_length = strlen(request->server_url) + strlen(request->path) + 1;
	lengths->key_length = request->api_key ? strlen(request->api_key) + 1 : 0;
	lengths->connect_length = qs_connect_options_size(request->connect);
	lengths->body_length = request->body_length;
	lengths->has_body = request->body != NULL;
}

static Size
stored_size(const StoredRequest *stored)
{
	return offsetof(StoredRequest, data) + stored->url_length + stored->key_length +
		stored->connect_length + stored->body_length;
}

/*
 * The address and the key are secrets of the server; they are overwritten.
 * Returns what it took: the caller counts it, under the lock.
 */
static Size
drop_request(Slot *slot)
{
	StoredRequest *stored;
	Size		size;

	if (!DsaPointerIsValid(slot->request))
		return 0;
	stored = dsa_get_address(requests, slot->request);
	size = stored_size(stored);
	explicit_bzero(stored->data, stored->url_length + stored->key_length);
	dsa_free(requests, slot->request);
	slot->request = InvalidDsaPointer;
	return size;
}

static Size
piece_size(const Piece *piece)
{
	return offsetof(Piece, data) + piece->room;
}

static void
drop_pieces(Slot *slot)
{
	while (DsaPointerIsValid(slot->first_piece))
	{
		dsa_pointer at = slot->first_piece;
		Piece	   *piece = dsa_get_address(answers, at);
		Size		size = piece_size(piece);

		slot->first_piece = piece->next;
		dsa_free(answers, at);
		pg_atomic_fetch_sub_u64(&slot->answer_bytes, size);
		pg_atomic_fetch_sub_u64(&control->answer_bytes, size);
	}
	slot->last_piece = InvalidDsaPointer;
	slot->answer_length = 0;
}

static void
free_slot(Slot *slot)
{
	Size		bytes = drop_request(slot);

	drop_pieces(slot);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	control->request_bytes -= bytes;
	set_state(slot, TICKET_FREE, false);
	call_waiters(false);
	LWLockRelease(&control->lock);
}

/* Into the place that take_slot got. */
static void
write_request(Slot *slot, const QsTicketRequest *request, const StoredRequest *lengths)
{
	StoredRequest *stored = dsa_get_address(requests, slot->request);
	Size		server_length = strlen(request->server_url);
	char	   *end = stored->data;

	memcpy(stored, lengths, offsetof(StoredRequest, data));
	memcpy(end, request->server_url, server_length);
	strlcpy(end + server_length, request->path, stored->url_length - server_length);
	end += stored->url_length;
	memcpy(end, request->api_key ? request->api_key : "", stored->key_length);
	end += stored->key_length;
	qs_connect_options_store(end, request->connect);
	end += stored->connect_length;
	memcpy(end, request->body ? request->body : "", stored->body_length);
}

/* ---- a backend -------------------------------------------------------- */

/*
 * Registered before the first ticket, since FATAL passes no PG_CATCH (hazard
 * R4).  Only marks: freeing is the worker's.
 */
static void
abandon_all(int code, Datum arg)
{
	int			proc_number;

	if (LWLockHeldByMe(&control->lock))
		LWLockRelease(&control->lock);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qs_max_tickets; i++)
	{
		Slot	   *slot = &slots[i];

		if (slot->state != TICKET_FREE && slot->state != TICKET_ABANDONED && is_mine(slot))
			set_state(slot, TICKET_ABANDONED, false);
	}
	if (qs_waiters_leave(waiters))
		call_waiters(false);
	proc_number = control->worker_proc_number;
	LWLockRelease(&control->lock);
	wake(proc_number);
}

static void
prepare_backend(void)
{
	static bool prepared = false;

	if (prepared)
		return;
	attach_areas();
	before_shmem_exit(abandon_all, (Datum) 0);
	prepared = true;
}

static void
fill_slot(Slot *slot, const QsTicketRequest *request, uint64 server)
{
	slot->generation = ++control->generation;
	slot->proc_number = qs_my_proc_number();
	slot->pid = MyProcPid;
	slot->session_start = MyStartTimestamp;
	slot->database = MyDatabaseId;
	slot->role = GetUserId();
	strlcpy(slot->method, request->method, sizeof(slot->method));
	strlcpy(slot->server_name, request->server_name, sizeof(slot->server_name));
	slot->server = server;
	slot->request = InvalidDsaPointer;
	slot->connect_timeout = request->connect_timeout;
	slot->read = request->read;
	slot->waited = request->waited;
	slot->submitted_at = GetCurrentTimestamp();
	slot->deadline = request->deadline;
	slot->first_piece = slot->last_piece = InvalidDsaPointer;
	slot->answer_length = 0;
}

/* A slot and the bytes that its request takes, or neither.  Under control->lock. */
static Slot *
take_slot(const QsTicketRequest *request, uint64 server, Size size, QsTicketOutcome *refused)
{
	Slot	   *slot;
	dsa_pointer place = InvalidDsaPointer;

	if (size > request_area_size())
		*refused = QS_REQUEST_TOO_LARGE;
	else if (control->free.first < 0)
		*refused = QS_TICKETS_FULL;
	else if (server_has_its_share(server))
		*refused = QS_TICKETS_FULL_FOR_SERVER;
	else
	{
		place = dsa_allocate_extended(requests, size, DSA_ALLOC_NO_OOM);
		*refused = control->request_bytes > 0 ? QS_REQUEST_MEMORY_FULL : QS_REQUEST_TOO_LARGE;
	}
	if (!DsaPointerIsValid(place))
		return NULL;
	slot = &slots[control->free.first];
	fill_slot(slot, request, server);
	slot->request = place;
	control->request_bytes += size;
	set_state(slot, TICKET_FILLING, false);
	return slot;
}

/*
 * Where it is refused and the caller waits, it is in the queue before anybody
 * can make room; then *refused stays until it is called.
 */
static QsTicket
try_submit(const QsTicketRequest *request, bool wait, QsTicketOutcome *refused, bool *worker)
{
	uint64		server = hash_bytes_extended((const unsigned char *) request->server_url,
											 strlen(request->server_url), 0);
	StoredRequest lengths;
	Size		size;
	Slot	   *slot = NULL;
	int			proc_number;

	measure_request(request, &lengths);
	size = stored_size(&lengths);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	if (!qs_waiters_uncalled(waiters))
		slot = take_slot(request, server, size, refused);
	if (slot != NULL)
		(void) qs_waiters_leave(waiters);
	else if (wait && qs_waiters_join(waiters, server, size))
		call_waiters(true);
	*worker = control->worker_proc_number >= 0;
	LWLockRelease(&control->lock);
	if (slot == NULL)
		return 0;
	write_request(slot, request, &lengths);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	set_state(slot, TICKET_QUEUED, false);
	proc_number = control->worker_proc_number;
	LWLockRelease(&control->lock);
	wake(proc_number);
	return ticket_of(slot);
}

/* True once the ticket is done; *deadline and *worker are for the next wait. */
static bool
look_at(QsTicket ticket, TimestampTz *deadline, bool *worker)
{
	Slot	   *slot;
	bool		mine;
	bool		done = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	slot = slot_of(ticket);
	mine = slot != NULL && is_mine(slot);
	if (mine)
	{
		done = slot->state == TICKET_DONE;
		*deadline = slot->deadline;
	}
	*worker = control->worker_proc_number >= 0;
	LWLockRelease(&control->lock);
	if (!mine)
		elog(ERROR, "ticket " INT64_FORMAT " is not of this session", ticket);
	return done;
}

static void
sleep_until(TimestampTz until, TimestampTz now, bool worker)
{
	static uint32 wait_event = 0;
	long		ms = TimestampDifferenceMilliseconds(now, until) + 1;

	if (wait_event == 0)
		wait_event = qs_wait_event("QdrantRequest");
	if (!worker)
		ms = Min(ms, LOOK_FOR_WORKER_MS);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

bool
qs_ticket_ended(QsTicket ticket)
{
	TimestampTz deadline;
	bool		worker;

	return look_at(ticket, &deadline, &worker) || GetCurrentTimestamp() >= deadline;
}

/* Place of the first that has ended; -1: none, and *next is their next deadline. */
static int
find_ended(const QsTicket *tickets, int n, TimestampTz *next, bool *worker)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < n; i++)
	{
		TimestampTz deadline;

		if (look_at(tickets[i], &deadline, worker) || now >= deadline)
			return i;
		*next = Min(*next, deadline);
	}
	return -1;
}

/* True once there has been no worker for long; *since is when that began, 0: there is one. */
static bool
worker_stays_away(TimestampTz *since, bool worker, TimestampTz now)
{
	if (worker)
		*since = 0;
	else if (*since == 0)
		*since = now;
	else
		return TimestampDifferenceExceeds(*since, now, WORKER_ABSENT_MS);
	return false;
}

/* Whoever was called for room that is left passes the call on. */
static void
leave_waiters(void)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	if (qs_waiters_leave(waiters))
		call_waiters(false);
	LWLockRelease(&control->lock);
}

/* The caller leaves the queue, whatever way this ends. */
static QsTicket
wait_for_room(const QsTicketRequest *request, TimestampTz until, QsTicketOutcome *refused)
{
	TimestampTz absent_since = 0;

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		worker;
		QsTicket	ticket = try_submit(request, now < until, refused, &worker);

		if (ticket != 0 || *refused == QS_REQUEST_TOO_LARGE || now >= until)
			return ticket;
		if (worker_stays_away(&absent_since, worker, now))
		{
			*refused = QS_NO_REQUEST_WORKER;
			return 0;
		}
		sleep_until(until, now, worker);
	}
}

QsTicket
qs_ticket_submit_until(const QsTicketRequest *request, TimestampTz until, QsTicketOutcome *refused)
{
	QsTicket	ticket;
	bool		worker;

	prepare_backend();
	ticket = try_submit(request, false, refused, &worker);
	if (ticket != 0 || *refused == QS_REQUEST_TOO_LARGE || GetCurrentTimestamp() >= until)
		return ticket;
	PG_TRY();
	{
		ticket = wait_for_room(request, until, refused);
	}
	PG_FINALLY();
	{
		leave_waiters();
	}
	PG_END_TRY();
	return ticket;
}

QsTicketOutcome
qs_ticket_wait_any(const QsTicket *tickets, int n, TimestampTz until, int *which)
{
	TimestampTz absent_since = 0;

	for (;;)
	{
		TimestampTz next = until;
		bool		worker = true;
		TimestampTz now;

		*which = find_ended(tickets, n, &next, &worker);
		if (*which >= 0)
			return QS_ANSWERED;
		now = GetCurrentTimestamp();
		if (now >= until)
			return QS_TIMED_OUT;
		if (worker_stays_away(&absent_since, worker, now))
			return QS_NO_REQUEST_WORKER;
		sleep_until(next, now, worker);
	}
}

QsTicketOutcome
qs_ticket_wait(QsTicket ticket, TimestampTz until)
{
	TimestampTz absent_since = 0;

	for (;;)
	{
		TimestampTz deadline;
		bool		worker;
		TimestampTz now;

		if (look_at(ticket, &deadline, &worker))
			return QS_ANSWERED;
		now = GetCurrentTimestamp();
		until = Min(until, deadline);
		if (now >= until)
			return QS_TIMED_OUT;
		if (worker_stays_away(&absent_since, worker, now))
			return QS_NO_REQUEST_WORKER;
		sleep_until(until, now, worker);
	}
}

static char *
copy_pieces(const Slot *slot)
{
	char	   *body = palloc_extended(slot->answer_length + 1, MCXT_ALLOC_HUGE);
	char	   *end = body;

	for (dsa_pointer at = slot->first_piece; DsaPointerIsValid(at);)
	{
		Piece	   *piece = dsa_get_address(answers, at);

		memcpy(end, piece->data, piece->used);
		end += piece->used;
		at = piece->next;
	}
	*end = '\0';
	return body;
}

/* A DONE ticket that is ours: nobody else touches it. */
void
qs_ticket_copy(QsTicket ticket, QsTicketAnswer *answer)
{
	Slot	   *slot = slot_of(ticket);

	Assert(slot != NULL && slot->state == TICKET_DONE && is_mine(slot));
	answer->outcome = slot->outcome;
	answer->status = slot->status;
	strlcpy(answer->error, slot->error, sizeof(answer->error));
	answer->length = slot->answer_length;
	answer->body = copy_pieces(slot);
}

void
qs_ticket_take(QsTicket ticket, QsTicketAnswer *answer)
{
	qs_ticket_copy(ticket, answer);
	free_slot(slot_of(ticket));
}

void
qs_ticket_release(QsTicket ticket)
{
	Slot	   *slot;
	bool		ours = false;
	int			proc_number = -1;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	slot = slot_of(ticket);
	if (slot != NULL && is_mine(slot))
	{
		ours = slot->state != TICKET_RUNNING && slot->state != TICKET_ABANDONED;
		if (slot->state == TICKET_RUNNING)
		{
			set_state(slot, TICKET_ABANDONED, false);
			proc_number = control->worker_proc_number;
		}
		else if (slot->state == TICKET_QUEUED)
			set_state(slot, TICKET_DONE, false);
	}
	LWLockRelease(&control->lock);
	wake(proc_number);
	if (ours)
		free_slot(slot);
}

static void
describe_slot(const Slot *slot, QsTicketInfo *info)
{
	static const char *const names[] = {
		[TICKET_FILLING] = "filling", [TICKET_QUEUED] = "queued", [TICKET_RUNNING] = "running",
		[TICKET_DONE] = "done", [TICKET_ABANDONED] = "abandoned"
	};

	info->ticket = ticket_of(slot);
	info->mine = is_mine(slot) && slot->state != TICKET_ABANDONED;
	info->pid = slot->pid;
	info->database = slot->database;
	info->role = slot->role;
	strlcpy(info->server_name, slot->server_name, sizeof(info->server_name));
	strlcpy(info->method, slot->method, sizeof(info->method));
	info->state = names[slot->state];
	info->submitted_at = slot->submitted_at;
}

QsTicketInfo *
qs_ticket_list(int *n)
{
	QsTicketInfo *infos = palloc(qs_max_tickets * sizeof(QsTicketInfo));

	*n = 0;
	LWLockAcquire(&control->lock, LW_SHARED);
	for (int i = 0; i < qs_max_tickets; i++)
	{
		if (slots[i].state != TICKET_FREE)
			describe_slot(&slots[i], &infos[(*n)++]);
	}
	LWLockRelease(&control->lock);
	return infos;
}

void
qs_ticket_usage(QsTicketUsage *usage)
{
	LWLockAcquire(&control->lock, LW_SHARED);
	usage->tickets = qs_max_tickets - control->free_count;
	usage->waiting = qs_waiters_count(waiters);
	usage->request_bytes = control->request_bytes;
	LWLockRelease(&control->lock);
	usage->request_memory = request_area_size();
	usage->answer_bytes = pg_atomic_read_u64(&control->answer_bytes);
	usage->answer_memory = answer_area_size();
}

/* ---- the request worker ----------------------------------------------- */

/*
 * What runs is failed; what waits is put before the next worker; each owner, and
 * whoever waits for room, is woken to see whether there is a worker.
 */
static void
sweep_slots(void)
{
	for (int i = 0; i < qs_max_tickets; i++)
	{
		Slot	   *slot = &slots[i];

		if (slot->state == TICKET_RUNNING)
			wake(make_done(slot, QS_WORKER_RESTARTED, 0, NULL));
		else if (slot->state == TICKET_QUEUED || slot->state == TICKET_ABANDONED)
		{
			set_state(slot, slot->state, false);
			wake(slot->proc_number);
		}
	}
	qs_waiters_wake_all(waiters);
}

static void
leave_worker_place(int code, Datum arg)
{
	if (LWLockHeldByMe(&control->lock))
		LWLockRelease(&control->lock);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	control->worker_proc_number = -1;
	sweep_slots();
	LWLockRelease(&control->lock);
}

pid_t
qs_ticket_worker_pid(void)
{
	pid_t		pid = 0;

	LWLockAcquire(&control->lock, LW_SHARED);
	if (control->worker_proc_number >= 0)
		pid = ProcGlobal->allProcs[control->worker_proc_number].pid;
	LWLockRelease(&control->lock);
	return pid;
}

void
qs_ticket_worker_start(void)
{
	attach_areas();
	before_shmem_exit(leave_worker_place, (Datum) 0);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	control->incarnation++;
	sweep_slots();
	control->worker_proc_number = qs_my_proc_number();
	LWLockRelease(&control->lock);
}

bool
qs_ticket_next_arrival(QsTicketJob *job)
{
	Slot	   *slot = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	if (control->arrivals.first >= 0)
	{
		slot = &slots[control->arrivals.first];
		set_state(slot, TICKET_QUEUED, true);
		job->ticket = ticket_of(slot);
		job->server = slot->server;
		job->database = slot->database;
		job->session = slot->proc_number;
	}
	LWLockRelease(&control->lock);
	return slot != NULL;
}

bool
qs_ticket_next_abandoned(QsTicket *ticket)
{
	Slot	   *slot = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	if (control->abandoned.first >= 0)
	{
		slot = &slots[control->abandoned.first];
		set_state(slot, TICKET_ABANDONED, true);
		*ticket = ticket_of(slot);
	}
	LWLockRelease(&control->lock);
	return slot != NULL;
}

static void
describe_work(const Slot *slot, QsTicketWork *work)
{
	StoredRequest *stored = dsa_get_address(requests, slot->request);

	work->method = slot->method;
	work->url = stored->data;
	work->api_key = stored->key_length > 0 ? stored->data + stored->url_length : NULL;
	qs_connect_options_load(stored->data + stored->url_length + stored->key_length, &work->connect);
	work->body = stored->has_body ? stored->data + stored->url_length + stored->key_length +
		stored->connect_length : NULL;
	work->body_length = stored->body_length;
	work->connect_timeout = slot->connect_timeout;
	work->read = slot->read;
	work->deadline = slot->deadline;
}

bool
qs_ticket_start(QsTicket ticket, QsTicketWork *work)
{
	TimestampTz now = GetCurrentTimestamp();
	Slot	   *slot;
	bool		started = false;
	int			owner = -1;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	slot = slot_of(ticket);
	if (slot != NULL && slot->state == TICKET_QUEUED)
	{
		started = now < slot->deadline;
		if (started)
		{
			slot->incarnation = control->incarnation;
			set_state(slot, TICKET_RUNNING, false);
			describe_work(slot, work);
		}
		else
			owner = make_done(slot, QS_TIMED_OUT, 0, NULL);
	}
	LWLockRelease(&control->lock);
	wake(owner);
	return started;
}

void
qs_ticket_forget_key(QsTicket ticket)
{
	Slot	   *slot = &slots[QS_TICKET_SLOT(ticket)];
	StoredRequest *stored = dsa_get_address(requests, slot->request);

	explicit_bzero(stored->data + stored->url_length, stored->key_length);
}

/* Bytes of answers of tickets: the others of the slot's session, and all of its role. */
static void
bytes_held(const Slot *slot, Size *by_session, Size *by_role)
{
	*by_session = *by_role = 0;
	LWLockAcquire(&control->lock, LW_SHARED);
	for (int i = 0; i < qs_max_tickets; i++)
	{
		Slot	   *other = &slots[i];
		Size		bytes;

		if (other->state == TICKET_FREE || other->waited)
			continue;
		bytes = pg_atomic_read_u64(&other->answer_bytes);
		if (other->proc_number == slot->proc_number && other != slot)
			*by_session += bytes;
		if (other->role == slot->role)
			*by_role += bytes;
	}
	LWLockRelease(&control->lock);
}

/*
 * A ticket may keep its answer as long as its session lives.  So what others can
 * have is measured by what is free: it shrinks with what is held, and is never
 * used up.  Nobody can have more than that while less than half is used.
 */
static bool
has_its_share(const Slot *slot)
{
	Size		used = pg_atomic_read_u64(&control->answer_bytes);
	Size		left = answer_area_size() - used;
	Size		by_session;
	Size		by_role;

	if (slot->waited || used <= left)
		return false;
	bytes_held(slot, &by_session, &by_role);
	return by_session > left || by_role > 3 * left;
}

/* A further piece, twice as large as the last. */
static Piece *
add_piece(Slot *slot, Piece *last)
{
	Size		size = last == NULL ? FIRST_PIECE :
		Min(LARGEST_PIECE, 2 * piece_size(last));
	dsa_pointer at = dsa_allocate_extended(answers, size, DSA_ALLOC_NO_OOM);
	Piece	   *piece;

	if (!DsaPointerIsValid(at))
		return NULL;
	piece = dsa_get_address(answers, at);
	piece->next = InvalidDsaPointer;
	piece->room = size - offsetof(Piece, data);
	piece->used = 0;
	pg_atomic_fetch_add_u64(&slot->answer_bytes, size);
	pg_atomic_fetch_add_u64(&control->answer_bytes, size);
	if (last != NULL)
		last->next = at;
	else
		slot->first_piece = at;
	slot->last_piece = at;
	return piece;
}

QsTicketOutcome
qs_ticket_append(QsTicket ticket, const char *data, Size length)
{
	Slot	   *slot = &slots[QS_TICKET_SLOT(ticket)];
	Piece	   *piece = DsaPointerIsValid(slot->last_piece) ?
		dsa_get_address(answers, slot->last_piece) : NULL;

	while (length > 0)
	{
		Size		n;

		if (piece == NULL || piece->used == piece->room)
		{
			if (has_its_share(slot))
				return QS_ANSWER_SHARE_FULL;
			piece = add_piece(slot, piece);
		}
		if (piece == NULL)
			return QS_ANSWER_MEMORY_FULL;
		n = Min(length, piece->room - piece->used);
		memcpy(piece->data + piece->used, data, n);
		piece->used += n;
		slot->answer_length += n;
		data += n;
		length -= n;
	}
	return QS_ANSWERED;
}

void
qs_ticket_drop_answer(QsTicket ticket)
{
	drop_pieces(&slots[QS_TICKET_SLOT(ticket)]);
}

void
qs_ticket_end(QsTicket ticket, QsTicketOutcome outcome, int status, const char *error)
{
	Slot	   *slot;
	bool		abandoned = false;
	int			owner = -1;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	slot = slot_of(ticket);
	if (slot != NULL)
	{
		abandoned = slot->state == TICKET_ABANDONED;
		if (!abandoned)
			owner = make_done(slot, outcome, status, error);
		else if (!slot->given)
			set_state(slot, TICKET_ABANDONED, true);
	}
	LWLockRelease(&control->lock);
	wake(owner);
	if (abandoned)
		free_slot(slot);
}

void
qs_ticket_expire(TimestampTz now)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qs_max_tickets; i++)
	{
		if (slots[i].state == TICKET_QUEUED && slots[i].deadline <= now)
			wake(make_done(&slots[i], QS_TIMED_OUT, 0, NULL));
	}
	LWLockRelease(&control->lock);
}
