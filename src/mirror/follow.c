/*
 * follow.c
 *		Follows DDL: names in definitions, truncate triggers of partitions, and
 *		wishes to compare a table whose content a statement changed as a whole.
 *
 * Runs in sessions of a server that preloads the library, around every utility
 * statement that can concern a mirror, and DISCARD ALL, which also gives up the
 * session's tickets.  What was is looked at before the
 * statement, while the catalogs still say it; what is written afterwards is
 * part of the statement's own transaction, so that a savepoint takes it back
 * with it.
 *
 * Names are followed by node trees: a definition is analysed under the old names
 * and written again under the new ones (hazard 25).
 */
#include "qdrant_sync.h"
#include "capture/armed.h"
#include "capture/capture.h"
#include "client/async.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/follow.h"
#include "mirror/indexes.h"
#include "mirror/key.h"
#include "mirror/select_list.h"
#include "mirror/servers_used.h"
#include "mirror/table.h"
#include "mirror/triggers.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* A definition that a statement may rename parts of. */
typedef struct Followed
{
	const QsMirrorRow *row;
	QsDefinition *definition;
	char	   *text;			/* the definition, as it was */
	char	   *server;			/* new name of its server; NULL: not renamed */
} Followed;

/* What a statement may change. */
typedef struct Before
{
	Oid			parent;			/* partitioned table that gets or loses a partition */
	Oid			partition;		/* … that is attached or detached; InvalidOid: made */
	bool		attached;
	Oid			altered;		/* mirrored table whose columns may change */
	QsArmed    *armed;			/* … its columns that count, to a rebuild as well */
	char	   *shape;			/* … as it was */
	List	   *followed;		/* of Followed */
	bool		servers;		/* some may be dropped */
} Before;

/* ---- columns ---- */

static bool
counts(const QsArmed *armed, AttrNumber attnum)
{
	if (armed->ncolumns < 0)
		return true;
	for (int i = 0; i < armed->ncolumns; i++)
	{
		if (armed->columns[i] == attnum)
			return true;
	}
	return false;
}

static Oid
file_of(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	Oid			file = InvalidOid;

	if (rel != NULL)
	{
		file = qs_relfilenumber(rel);
		relation_close(rel, AccessShareLock);
	}
	return file;
}

/*
 * Columns that count (by name where the payload is "*" and has it), and the storage of every leaf: a statement that rewrites a
 * table may have computed its values anew.
 */
static char *
shape_of(const QsArmed *armed, Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData shape;
	ListCell   *lc;

	initStringInfo(&shape);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && counts(armed, attribute->attnum))
			appendStringInfo(&shape, "%d %s %u %d,", attribute->attnum,
							 armed->ncolumns < 0 ? NameStr(attribute->attname) : "",
							 attribute->atttypid, attribute->atttypmod);
	}
	/* Kept, two sessions that both alter the table would wait for each other. */
	relation_close(rel, AccessShareLock);
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		appendStringInfo(&shape, "%u ", file_of(lfirst_oid(lc)));
	return shape.data;
}

static void
add_columns(QsArmed *all, const QsArmed *one)
{
	if (one->ncolumns < 0 || all->ncolumns < 0)
	{
		all->ncolumns = -1;
		return;
	}
	all->columns = repalloc(all->columns, (all->ncolumns + one->ncolumns + 1) * sizeof(AttrNumber));
	memcpy(all->columns + all->ncolumns, one->columns, one->ncolumns * sizeof(AttrNumber));
	all->ncolumns += one->ncolumns;
}

static void
look_at_columns(Before *before, Oid relid)
{
	QsArmed    *armed;

	if (!qs_armed_any(relid))
		return;
	armed = qs_armed_find(relid);
	if (armed == NULL || armed->root != relid)
		return;
	before->altered = relid;
	before->armed = palloc(sizeof(QsArmed));
	*before->armed = *armed;
	before->armed->columns = palloc(sizeof(AttrNumber));
	before->armed->ncolumns = 0;
	for (; armed != NULL; armed = armed->next)
		add_columns(before->armed, armed);
	before->shape = shape_of(before->armed, relid);
}

static void
compare_columns(const Before *before)
{
	if (get_rel_name(before->altered) != NULL &&
		strcmp(before->shape, shape_of(before->armed, before->altered)) != 0)
		qs_capture_sweep(before->altered);
}

/* ---- partitions ---- */

static bool
holds_rows(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel = try_relation_open(lfirst_oid(lc), AccessShareLock);
		bool		rows = rel != NULL && rel->rd_rel->relkind == RELKIND_RELATION &&
			RelationGetNumberOfBlocks(rel) > 0;

		if (rel != NULL)
			relation_close(rel, AccessShareLock);
		if (rows)
			return true;
	}
	return false;
}

static void
look_at_partition(Before *before, RangeVar *parent, RangeVar *partition, bool attached)
{
	Oid			relid = RangeVarGetRelid(parent, NoLock, true);

	if (!OidIsValid(relid) || !qs_armed_any(relid))
		return;
	before->parent = relid;
	before->attached = attached;
	if (partition != NULL)
		before->partition = RangeVarGetRelid(partition, NoLock, true);
}

static void
partition_changed(const Before *before)
{
	QsArmed    *armed = qs_armed_find(before->parent);

	if (armed == NULL)
		return;
	if (before->attached)
	{
		qs_triggers_complete(armed->root);
		if (OidIsValid(before->partition) && holds_rows(before->partition))
			qs_capture_sweep(before->parent);
		return;
	}
	qs_capture_sweep(before->parent);
	if (OidIsValid(before->partition) && get_rel_name(before->partition) != NULL)
		qs_triggers_drop_detached(before->partition);
}

/* ---- names ---- */

static bool
is_expression(const QsColumn *column)
{
	return column->expr != NULL;
}

static bool
any_expression(List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (is_expression(lfirst(lc)))
			return true;
	}
	return false;
}

/* Analyses the definition that a mirror has now; an ERROR is the caller's to catch. */
static Followed *
analyse(const QsMirrorRow *row)
{
	Relation	rel = relation_open(row->relid, AccessShareLock);
	QsMirrorTriggers triggers;
	Followed   *followed = NULL;

	if (qs_mirror_triggers(rel, &triggers))
	{
		int			level = qs_pin_search_path();
		QsMirrorArguments arguments;
		bool		found = true;

		if (row->rebuilds != 0)
			found = qs_arguments_read_rebuild(triggers.row, &arguments);
		else
			qs_arguments_read(triggers.row, &arguments);
		if (found)
		{
			followed = palloc0(sizeof(Followed));
			followed->row = row;
			followed->definition = qs_definition_resolve(rel, &arguments);
			followed->text = qs_arguments_text(followed->definition);
		}
		AtEOXact_GUC(false, level);
	}
	relation_close(rel, NoLock);
	return followed;
}

/*
 * A definition that cannot be followed any more has stopped its mirror already,
 * and must not stop the statement.
 */
static Followed *
analyse_quietly(const QsMirrorRow *row)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Followed   *volatile followed = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		followed = analyse(row);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		followed = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return followed;
}

static bool
uses_names_of_others(const Followed *followed)
{
	const QsDefinition *definition = followed->definition;

	return any_expression(definition->vectors) || any_expression(definition->payload) ||
		definition->row_filter != NULL;
}

/* relid: only that table's mirror; InvalidOid: all whose expressions name other things. */
static void
look_at_names(Before *before, Oid relid, const char *old_server, const char *new_server)
{
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);
		Followed   *followed;

		if (!row->ours || row->dropped || (OidIsValid(relid) && row->relid != relid) ||
			(old_server != NULL && strcmp(row->server, old_server) != 0) ||
			!ConditionalLockRelationOid(row->relid, AccessShareLock))
			continue;
		followed = get_rel_name(row->relid) != NULL ? analyse_quietly(row) : NULL;
		/* The statement takes its own, and an upgrade could deadlock. */
		UnlockRelationOid(row->relid, AccessShareLock);
		if (followed == NULL || (!OidIsValid(relid) && !old_server && !uses_names_of_others(followed)))
			continue;
		followed->server = new_server ? pstrdup(new_server) : NULL;
		/* A rebuild's definition is part of the other: it is written after that one. */
		before->followed = row->rebuilds != 0 ? lappend(before->followed, followed) :
			lcons(followed, before->followed);
	}
}

static void
follow_list(Relation rel, List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
		qs_column_follow(rel, lfirst(lc));
}

/* A server's name is in our table as well. */
static void
rename_server(const Followed *followed)
{
	QsIdentity	saved;

	qs_as_owner(&saved);
	SPI_connect();
	if (SPI_execute(psprintf("UPDATE " QS_SCHEMA ".mirror SET server = %s WHERE id = " INT64_FORMAT,
							 quote_literal_cstr(followed->server), followed->row->id), false, 0) < 0)
		elog(ERROR, "could not rename the server of a mirror");
	SPI_finish();
	qs_as_before(&saved);
	qs_at_commit_reload();
}

static void
follow_names(const Followed *followed)
{
	QsDefinition *definition = followed->definition;
	Relation	rel = try_relation_open(definition->relid, AccessShareLock);
	char	   *text;

	if (rel == NULL)
		return;
	follow_list(rel, definition->vectors);
	follow_list(rel, definition->payload);
	if (definition->row_filter != NULL)
		qs_column_follow(rel, definition->row_filter);
	qs_indexes_follow(rel, definition);
	definition->key_text = qs_key_list(rel, &definition->key);
	if (followed->server != NULL)
		definition->server = followed->server;
	relation_close(rel, NoLock);
	text = qs_arguments_text(definition);
	if (strcmp(text, followed->text) != 0 && followed->row->rebuilds != 0)
		qs_triggers_set_rebuild(definition->relid, text);
	else if (strcmp(text, followed->text) != 0)
		qs_triggers_set_argument(definition->relid, text);
	if (followed->server != NULL)
		rename_server(followed);
}

/* ---- statements ---- */

static void
look_at_alter(Before *before, AlterTableStmt *statement)
{
	Oid			relid;
	ListCell   *lc;

	if (statement->objtype != OBJECT_TABLE)
		return;
	foreach(lc, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);

		if (command->subtype == AT_AttachPartition || command->subtype == AT_DetachPartition ||
			command->subtype == AT_DetachPartitionFinalize)
		{
			look_at_partition(before, statement->relation, ((PartitionCmd *) command->def)->name,
							  command->subtype == AT_AttachPartition);
			return;
		}
	}
	relid = RangeVarGetRelid(statement->relation, NoLock, true);
	if (OidIsValid(relid))
		look_at_columns(before, relid);
}

static void
look_at_rename(Before *before, RenameStmt *statement)
{
	Oid			relid;

	switch (statement->renameType)
	{
		case OBJECT_COLUMN:
			relid = RangeVarGetRelid(statement->relation, NoLock, true);
			if (!OidIsValid(relid) || !qs_armed_any(relid))
				return;
			look_at_names(before, relid, NULL, NULL);
			look_at_columns(before, relid);
			break;
		case OBJECT_FOREIGN_SERVER:
			look_at_names(before, InvalidOid, strVal(statement->object), statement->newname);
			break;
		case OBJECT_AGGREGATE:
		case OBJECT_ATTRIBUTE:
		case OBJECT_COLLATION:
		case OBJECT_DOMAIN:
		case OBJECT_FUNCTION:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
		case OBJECT_SCHEMA:
		case OBJECT_TYPE:
			look_at_names(before, InvalidOid, NULL, NULL);
			break;
		default:
			break;
	}
}

/* An extension may have some as well. */
static bool
drops_servers(const DropStmt *statement)
{
	return statement->removeType == OBJECT_FOREIGN_SERVER || statement->removeType == OBJECT_FDW ||
		statement->removeType == OBJECT_EXTENSION;
}

static bool
may_concern(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
			return true;
		case T_DropOwnedStmt:
			return true;
		case T_DropStmt:
			return drops_servers((const DropStmt *) statement);
		case T_CreateStmt:
			return ((const CreateStmt *) statement)->partbound != NULL;
		default:
			return false;
	}
}

static void
look_before(Before *before, Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			look_at_alter(before, (AlterTableStmt *) statement);
			break;
		case T_CreateStmt:
			look_at_partition(before, linitial_node(RangeVar, ((CreateStmt *) statement)->inhRelations),
							  NULL, true);
			break;
		case T_RenameStmt:
			look_at_rename(before, (RenameStmt *) statement);
			break;
		case T_AlterObjectSchemaStmt:
			look_at_names(before, InvalidOid, NULL, NULL);
			break;
		case T_DropStmt:
		case T_DropOwnedStmt:
			before->servers = true;
			break;
		default:
			break;
	}
}

static void
follow_after(const Before *before)
{
	ListCell   *lc;

	if (OidIsValid(before->parent) || OidIsValid(before->altered) || before->followed != NIL)
		CommandCounterIncrement();
	if (OidIsValid(before->parent))
		partition_changed(before);
	if (OidIsValid(before->altered))
		compare_columns(before);
	foreach(lc, before->followed)
		follow_names(lfirst(lc));
	if (before->servers && OidIsValid(qs_extension_oid()))
	{
		CommandCounterIncrement();
		qs_end_mirrors_without_server();
	}
}

static bool
discards_all(const Node *statement)
{
	return IsA(statement, DiscardStmt) && ((const DiscardStmt *) statement)->target == DISCARD_ALL;
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	Before		before = {0};

	if (may_concern(pstmt->utilityStmt) && OidIsValid(qs_extension_oid()))
		look_before(&before, pstmt->utilityStmt);
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, environment,
							 dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);
	if (discards_all(pstmt->utilityStmt))
		qs_async_forget_all();
	follow_after(&before);
}

void
qs_follow_install_hook(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
