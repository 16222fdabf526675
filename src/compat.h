/*
 * compat.h
 *		Every difference between the versions of PostgreSQL and libcurl that we
 *		build against, and nothing else.
 *
 * No other file tests PG_VERSION_NUM or LIBCURL_VERSION_NUM.  PostgreSQL 14 to
 * 18 are supported.
 */
#ifndef QS_COMPAT_H
#define QS_COMPAT_H

#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/rel.h"

#if PG_VERSION_NUM < 140000
#error "qdrant_sync needs PostgreSQL 14 or newer"
#endif

/* 15 split the request for shared memory from its initialisation. */
#if PG_VERSION_NUM >= 150000
#define QS_HAVE_SHMEM_REQUEST_HOOK 1
#define qs_reserve_guc_prefix(prefix) MarkGUCPrefixReserved(prefix)
#else
#define qs_reserve_guc_prefix(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/*
 * Up to 15 PGDLLEXPORT is empty, and everything would be exported; we hide by
 * default, so that functions called from SQL have to be named as exported.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(function) \
	extern PGDLLEXPORT Datum function(PG_FUNCTION_ARGS); \
	extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, function)(void); \
	const Pg_finfo_record * \
	CppConcat(pg_finfo_, function)(void) \
	{ \
		static const Pg_finfo_record version_1 = {1}; \
		return &version_1; \
	} \
	extern int	qs_semicolon_after_function_info
#endif

/* 16 renamed relfilenodes to relfilenumbers. */
#if PG_VERSION_NUM >= 160000
#define qs_relfilenumber(rel) ((rel)->rd_locator.relNumber)
#else
typedef Oid RelFileNumber;
#define qs_relfilenumber(rel) ((rel)->rd_node.relNode)
#endif

/* 17 moved a process's place among all to MyProcNumber. */
#if PG_VERSION_NUM >= 170000
#include "storage/proc.h"
#define qs_my_proc_number() (MyProcNumber)
#else
#include "storage/proc.h"
#define qs_my_proc_number() (MyProc->pgprocno)
#endif

/* 14 counts backends only after the libraries are loaded that ask for shared memory. */
#if PG_VERSION_NUM >= 150000
#define qs_max_backends() (MaxBackends)
#else
#include "postmaster/autovacuum.h"
#include "replication/walsender.h"
#define qs_max_backends() (MaxBackends > 0 ? MaxBackends : \
						   MaxConnections + autovacuum_max_workers + 1 + \
						   max_worker_processes + max_wal_senders)
#endif

/* 17 names the process of a virtual transaction by that place; NULL: prepared. */
#if PG_VERSION_NUM >= 170000
#define qs_vxid_proc(vxid) ProcNumberGetProc((vxid).procNumber)
#else
#define qs_vxid_proc(vxid) BackendIdGetProc((vxid).backendId)
#endif

/* 17 gave WaitEventSets a resource owner, 18 a header of their own. */
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#if PG_VERSION_NUM >= 170000
#define qs_create_wait_event_set(nevents) CreateWaitEventSet(NULL, nevents)
#else
#define qs_create_wait_event_set(nevents) CreateWaitEventSet(TopMemoryContext, nevents)
#endif

/* 17 named the wait events of extensions. */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define qs_wait_event(name) WaitEventExtensionNew(name)
#else
#include "utils/wait_event.h"
#define qs_wait_event(name) PG_WAIT_EXTENSION
#endif

/* 15 made the timeline of WAL that is written a function. */
#if PG_VERSION_NUM >= 150000
#define qs_timeline() GetWALInsertionTimeLine()
#else
#define qs_timeline() ThisTimeLineID
#endif

/* 15 replaced random() by a generator of its own; for jitter, not for secrets. */
#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#define qs_random32() pg_prng_uint32(&pg_global_prng_state)
#else
#define qs_random32() ((uint32) random())
#endif

/* 16 lets what the JSON parser calls stop it, and raises nothing itself; 17 has another lexer. */
#if PG_VERSION_NUM >= 160000
#define qs_json_action JsonParseErrorType
#define QS_JSON_GO_ON return JSON_SUCCESS
#else
#define qs_json_action void
#define QS_JSON_GO_ON return
#define JSON_UNICODE_UNTRANSLATABLE JSON_UNICODE_HIGH_ESCAPE
#endif
#if PG_VERSION_NUM >= 170000
#define qs_json_lexer(text, length) \
	makeJsonLexContextCstringLen(NULL, text, length, GetDatabaseEncoding(), true)
#else
#define qs_json_lexer(text, length) \
	makeJsonLexContextCstringLen(unconstify(char *, text), length, GetDatabaseEncoding(), true)
#endif

/* libcurl: what http.c asks for by name and older ones lack (curlver.h is macros only). */
#include <curl/curlver.h>
#if LIBCURL_VERSION_NUM < 0x074200
#error "qdrant_sync needs libcurl 7.66 or newer"
#endif
#define QS_CURL_HAS_PREREQFUNCTION (LIBCURL_VERSION_NUM >= 0x075000)
#define QS_CURL_HAS_PROTOCOLS_STR (LIBCURL_VERSION_NUM >= 0x075500)
#define QS_CURL_HAS_QUICK_EXIT (LIBCURL_VERSION_NUM >= 0x075700)

/*
 * Of the library that runs: 7.88 rewrote HTTP/2, and requests stalled in it for many
 * releases; what is older is not tried.
 */
#define qs_curl_http2_works(version) ((version) >= 0x080a00)

/*
 * From 7.83 until 8.1.1 a handle that is used again reads freed memory where an
 * answer's first header begins with a space (curl's pull request 11103).  The
 * version is that of the library that runs.
 */
#define qs_curl_handle_lasts(version) ((version) < 0x075300 || (version) >= 0x080101)

/* 18 turned the attribute into a keyword-like macro. */
#if PG_VERSION_NUM >= 180000
#define QS_NORETURN pg_noreturn
#else
#define QS_NORETURN pg_attribute_noreturn()
#endif

/* 16 made object access checks generic. */
#if PG_VERSION_NUM >= 160000
#define qs_class_aclcheck(cls, oid, role, mode) object_aclcheck(cls, oid, role, mode)
#define qs_foreign_server_aclcheck(oid, role, mode) \
	object_aclcheck(ForeignServerRelationId, oid, role, mode)
#define qs_relation_ownercheck(oid, role) \
	object_ownercheck(RelationRelationId, oid, role)
#define qs_database_ownercheck(oid, role) \
	object_ownercheck(DatabaseRelationId, oid, role)
#else
#define qs_foreign_server_aclcheck(oid, role, mode) \
	pg_foreign_server_aclcheck(oid, role, mode)
#define qs_relation_ownercheck(oid, role) pg_class_ownercheck(oid, role)
#define qs_database_ownercheck(oid, role) pg_database_ownercheck(oid, role)
#endif

/* 17 has infinite intervals. */
#include "datatype/timestamp.h"
#ifndef INTERVAL_NOT_FINITE
#define INTERVAL_NOT_FINITE(interval) false
#endif

#endif							/* QS_COMPAT_H */
