/*
 * vectors.c
 *		A mirror's vectors: what each is in the collection, by its type and by what
 *		vectors_config, sparse_vectors_config and collection_config say.
 *
 * Runs in sessions and in the sync worker.  Refuses what would contradict the
 * mirror (a name that it has not, a size that is not its type's, keys that are
 * ours) and what Qdrant would ignore: keys that it does not know.  What stands in
 * hnsw_config and its like, Qdrant checks when the collection is made.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "mirror/vectors.h"
#include "net/qdrant_json.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

/* As Qdrant: of the name of a vector. */
#define NAME_FORBIDDEN "<>:\"/\\|?*\x1f"

#define MULTIVECTOR "multivector_config"
#define MAX_SIM "{\"comparator\": \"max_sim\"}"

/* What a member of a configuration must be. */
typedef enum MemberForm
{
	FORM_ANY,
	FORM_OBJECT,
	FORM_BOOL,
	FORM_COUNT,					/* an integer from 1 on */
	FORM_WORD					/* one of words, in any case */
} MemberForm;

typedef struct KnownMember
{
	const char *name;
	MemberForm	form;
	const char *const *words;
} KnownMember;

static const char *const distances[] = {"Cosine", "Dot", "Euclid", "Manhattan", NULL};
static const char *const datatypes[] = {"float32", "float16", "uint8", NULL};
static const char *const modifiers[] = {"none", "idf", NULL};
static const char *const shardings[] = {"auto", NULL};

static const KnownMember dense_members[] = {
	{"size", FORM_COUNT},
	{"distance", FORM_WORD, distances},
	{"datatype", FORM_WORD, datatypes},
	{"on_disk", FORM_BOOL},
	{"memory", FORM_ANY},
	{"hnsw_config", FORM_OBJECT},
	{"quantization_config", FORM_OBJECT},
	{MULTIVECTOR, FORM_OBJECT},
	{NULL}
};

static const KnownMember sparse_members[] = {
	{"index", FORM_OBJECT},
	{"modifier", FORM_WORD, modifiers},
	{NULL}
};

/* A mirror's points have no shard key, so that sharding is Qdrant's own. */
static const KnownMember collection_members[] = {
	{"shard_number", FORM_COUNT},
	{"sharding_method", FORM_WORD, shardings},
	{"replication_factor", FORM_COUNT},
	{"write_consistency_factor", FORM_COUNT},
	{"on_disk_payload", FORM_BOOL},
	{"payload", FORM_OBJECT},
	{"id_tracker", FORM_OBJECT},
	{"hnsw_config", FORM_OBJECT},
	{"optimizers_config", FORM_OBJECT},
	{"wal_config", FORM_OBJECT},
	{"quantization_config", FORM_OBJECT},
	{"strict_mode_config", FORM_OBJECT},
	{"metadata", FORM_OBJECT},
	{NULL}
};

/* A member of a JSON object. */
typedef struct Member
{
	char	   *name;
	JsonbValue	value;
} Member;

/* ---- JSON ---- */

char *
qs_utf8_text(const char *text)
{
	const char *utf8;
	int			length;
	char	   *message = text == NULL ? NULL : qs_to_utf8(text, strlen(text), &utf8, &length);

	if (text == NULL)
		return NULL;
	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("\"%s\" cannot be sent to Qdrant: %s", text, message)));
	return pnstrdup(utf8, length);
}

/* In UTF-8, as it will be part of a body. */
static char *
sendable_text(const char *what, const char *config)
{
	char	   *text = qs_utf8_text(config);

	if (text != NULL && !qs_json_is_object(text))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be sent to Qdrant: it has numbers out of range, or is nested too deep", what)));
	return text;
}

static Jsonb *
parse(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/* Members of an object that are not null, which is how clients leave one out. */
static List *
members_of(JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;
	List	   *members = NIL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		Member	   *member;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || value.type == jbvNull)
			continue;
		member = palloc(sizeof(Member));
		member->name = name;
		member->value = value;
		members = lappend(members, member);
	}
	return members;
}

static const JsonbValue *
find_member(List *members, const char *name)
{
	ListCell   *lc;

	foreach(lc, members)
	{
		Member	   *member = lfirst(lc);

		if (strcmp(member->name, name) == 0)
			return &member->value;
	}
	return NULL;
}

static char *
value_text(const JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(unconstify(JsonbValue *, value));

	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

static void
append_member(StringInfo object, const char *name, const char *text)
{
	appendStringInfoString(object, object->len == 0 ? "{" : ", ");
	escape_json(object, name);
	appendStringInfo(object, ": %s", text);
}

/* The object in jsonb's own form; NULL where it has no member. */
static char *
end_object(StringInfo object)
{
	Jsonb	   *jsonb;

	if (object->len == 0)
		return NULL;
	appendStringInfoChar(object, '}');
	jsonb = parse(object->data);
	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

/* ---- what is known ---- */

static char *
word_list(const char *const *words)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; *words != NULL; words++)
		appendStringInfo(&list, "%s%s", list.len == 0 ? "" : words[1] ? ", " : " and ", *words);
	return list.data;
}

static const char *
find_word(const char *const *words, const char *word)
{
	for (; *words != NULL; words++)
	{
		if (pg_strcasecmp(word, *words) == 0)
			return *words;
	}
	return NULL;
}

const char *
qs_known_distance(const char *distance)
{
	const char *known = find_word(distances, distance);

	if (known == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown distance \"%s\"", distance),
				 errhint("Distances are %s.", word_list(distances))));
	return known;
}

static const KnownMember *
require_known(const char *where, const char *name, const KnownMember *known)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; known->name != NULL; known++)
	{
		if (strcmp(known->name, name) == 0)
			return known;
		appendStringInfo(&list, "%s%s", list.len == 0 ? "" : ", ", known->name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s has no member \"%s\"", where, name),
			 errhint("Members are %s.", list.data)));
	return NULL;
}

static int
count_of(const JsonbValue *value)
{
	double		number = value->type == jbvNumeric ?
		DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(value->val.numeric))) : 0;

	return number >= 1 && number <= PG_INT32_MAX && number == (int) number ? (int) number : 0;
}

static const char *
word_of(const JsonbValue *value, const char *const *words)
{
	return value->type != jbvString ? NULL :
		find_word(words, pnstrdup(value->val.string.val, value->val.string.len));
}

/* What is said of a form in messages. */
static char *
form_name(const KnownMember *known)
{
	switch (known->form)
	{
		case FORM_OBJECT:
			return "a JSON object";
		case FORM_BOOL:
			return "true or false";
		case FORM_COUNT:
			return "an integer from 1 on";
		default:
			return psprintf("%s%s", known->words[1] ? "one of " : "", word_list(known->words));
	}
}

/* The member's text in the canonical form. */
static char *
member_text(const char *where, const Member *member, const KnownMember *known)
{
	const JsonbValue *value = &member->value;
	const char *word = known->form == FORM_WORD ? word_of(value, known->words) : NULL;

	if ((known->form == FORM_OBJECT && !is_object(value)) ||
		(known->form == FORM_BOOL && value->type != jbvBool) ||
		(known->form == FORM_COUNT && count_of(value) == 0) ||
		(known->form == FORM_WORD && word == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" in %s must be %s, not %s", member->name, where, form_name(known),
						value_text(value))));
	return word != NULL ? psprintf("\"%s\"", word) : value_text(value);
}

/* Checks all members against what is known, and writes them. */
static void
append_known(StringInfo object, const char *where, List *members, const KnownMember *known)
{
	ListCell   *lc;

	foreach(lc, members)
	{
		Member	   *member = lfirst(lc);

		append_member(object, member->name,
					  member_text(where, member, require_known(where, member->name, known)));
	}
}

/* ---- the vectors ---- */

static char *
name_list(const QsDefinition *definition, bool sparse)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < list_length(definition->vectors); i++)
	{
		const QsColumn *column = list_nth(definition->vectors, i);

		if (column->name != NULL && (definition->specs[i].kind == QS_SPARSE) == sparse)
			appendStringInfo(&list, "%s\"%s\"", list.len == 0 ? "" : ", ", column->name);
	}
	return list.len == 0 ? NULL : list.data;
}

static int
find_vector(const QsDefinition *definition, const char *name, bool sparse)
{
	for (int i = 0; i < list_length(definition->vectors); i++)
	{
		const QsColumn *column = list_nth(definition->vectors, i);

		if (strcmp(column->name ? column->name : "", name) == 0 &&
			(definition->specs[i].kind == QS_SPARSE) == sparse)
			return i;
	}
	return -1;
}

static QS_NORETURN void refuse_name(const QsDefinition *definition, const char *what,
									const char *name, bool sparse);

static void
refuse_name(const QsDefinition *definition, const char *what, const char *name, bool sparse)
{
	char	   *names = name_list(definition, sparse);

	if (find_vector(definition, name, !sparse) >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("vector \"%s\" is %s", name, sparse ? "not sparse" : "sparse"),
				 errhint("Configure it with %s.", sparse ? "vectors_config" : "sparse_vectors_config")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s names \"%s\", which is no %svector of the mirror", what, name,
					sparse ? "sparse " : ""),
			 names ? errhint("Write {\"name\": {...}} for one of: %s.", names) : 0));
	pg_unreachable();
}

/* Configuration of each vector as members; those of one that nothing is said of are NIL. */
static void
take_by_name(const QsDefinition *definition, const char *what, List *named, bool sparse, List **configs)
{
	ListCell   *lc;

	foreach(lc, named)
	{
		Member	   *member = lfirst(lc);
		int			i = find_vector(definition, member->name, sparse);

		if (i < 0)
			refuse_name(definition, what, member->name, sparse);
		if (!is_object(&member->value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" in %s must be a JSON object", member->name, what)));
		configs[i] = members_of(member->value.val.binary.data);
	}
}

/* The only unnamed vector may be configured without a name around it. */
static void
take_vectors_config(const QsDefinition *definition, const char *text, List **configs)
{
	const QsColumn *first = linitial(definition->vectors);
	List	   *members;

	if (text == NULL)
		return;
	members = members_of(&parse(text)->root);
	if (first->name == NULL && find_member(members, "") == NULL && definition->specs[0].kind != QS_SPARSE)
		configs[0] = members;
	else
		take_by_name(definition, "vectors_config", members, false, configs);
}

static void
check_name(const QsColumn *column, const QsVectorSpec *spec)
{
	if (column->name != NULL && (spec->name[0] == '\0' || strpbrk(spec->name, NAME_FORBIDDEN) != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a vector", column->name),
				 errdetail("Qdrant allows none of < > : \" / \\ | ? * in it."),
				 errhint("Give another name with AS.")));
	if (column->name == NULL && spec->kind == QS_SPARSE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the sparse vector %s has no name", column->expression),
				 errdetail("In Qdrant only a dense vector can be the unnamed one."),
				 errhint("Write: vector => %s.",
						 quote_literal_cstr(psprintf("%s AS name", column->expression)))));
}

static bool
is_declared_multi(Relation rel, const QsColumn *column)
{
	return column->attnum > 0 && qs_vector_can_be(qs_vector_type(column->type), QS_MULTI) &&
		TupleDescAttr(RelationGetDescr(rel), column->attnum - 1)->attndims >= 2;
}

static void
make_multi(const QsColumn *column, QsVectorSpec *spec)
{
	if (!qs_vector_can_be(qs_vector_type(column->type), QS_MULTI))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is of type %s, which cannot be a multi-vector", column->expression,
						format_type_be(column->type)),
				 errhint("A multi-vector is real[][], double precision[][], or an array of pgvector's vector or halfvec.")));
	spec->kind = QS_MULTI;
}

static void
set_size(const QsColumn *column, QsVectorSpec *spec, const JsonbValue *said)
{
	int			by_type = qs_vector_typmod_dimension(qs_vector_type(column->type), column->typmod);

	spec->size = said != NULL ? count_of(said) : by_type;
	if (spec->size > QS_MAX_DIMENSION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("vectors of %d dimensions are too long: Qdrant takes at most %d",
						spec->size, QS_MAX_DIMENSION)));
	if (by_type > 0 && spec->size != by_type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size %d in vectors_config is not that of %s, which is %d by its type",
						spec->size, column->expression, by_type)));
}

static const char *
said_word(List *config, const char *name, const char *const *words)
{
	const JsonbValue *value = find_member(config, name);

	return value == NULL ? NULL : word_of(value, words);
}

/* Where the members were checked. */
static void
set_dense(Relation rel, const QsColumn *column, bool declared, const char *distance, List *config,
		  QsVectorSpec *spec)
{
	const char *own = said_word(config, "distance", distances);

	if (find_member(config, MULTIVECTOR) != NULL || (declared && is_declared_multi(rel, column)))
		make_multi(column, spec);
	set_size(column, spec, find_member(config, "size"));
	spec->distance = own ? own : distance;
	spec->datatype = said_word(config, "datatype", datatypes);
}

/* Checks a vector's configuration and writes it; NULL: nothing is said. */
static char *
resolve_vector(Relation rel, const QsColumn *column, bool declared, const char *distance,
			   List *config, QsVectorSpec *spec)
{
	bool		sparse = spec->kind == QS_SPARSE;
	StringInfoData object;

	initStringInfo(&object);
	append_known(&object, sparse ? "sparse_vectors_config" : "vectors_config", config,
				 sparse ? sparse_members : dense_members);
	if (sparse)
		spec->modifier = said_word(config, "modifier", modifiers);
	else
		set_dense(rel, column, declared, distance, config, spec);
	/* What the type does not say for ever must stay written. */
	if (spec->kind == QS_MULTI && find_member(config, MULTIVECTOR) == NULL &&
		qs_vector_kind(qs_vector_type(column->type)) != QS_MULTI)
		append_member(&object, MULTIVECTOR, MAX_SIM);
	return end_object(&object);
}

static void
begin_specs(QsDefinition *definition)
{
	ListCell   *lc;

	definition->specs = palloc0(list_length(definition->vectors) * sizeof(QsVectorSpec));
	foreach(lc, definition->vectors)
	{
		QsColumn   *column = lfirst(lc);
		QsVectorSpec *spec = &definition->specs[foreach_current_index(lc)];

		spec->shown_name = column->name ? column->name : "";
		spec->name = qs_utf8_text(spec->shown_name);
		spec->kind = qs_vector_kind(qs_vector_type(column->type));
		check_name(column, spec);
	}
}

/* ---- the collection ---- */

static char *
resolve_collection(const char *text)
{
	List	   *members = text ? members_of(&parse(text)->root) : NIL;
	const JsonbValue *metadata = find_member(members, "metadata");
	StringInfoData object;

	if (find_member(members, "vectors") != NULL || find_member(members, "sparse_vectors") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the vectors cannot be part of collection_config"),
				 errhint("Use vectors_config and sparse_vectors_config.")));
	initStringInfo(&object);
	append_known(&object, "collection_config", members, collection_members);
	if (metadata != NULL && find_member(members_of(metadata->val.binary.data), QS_EXTENSION) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the member \"%s\" of the metadata is reserved", QS_EXTENSION),
				 errdetail("A mirror says there which server writes the collection.")));
	return end_object(&object);
}

void
qs_vectors_resolve(Relation rel, const QsMirrorArguments *arguments, bool declared,
				   QsDefinition *definition)
{
	List	  **configs = palloc0(list_length(definition->vectors) * sizeof(List *));
	StringInfoData dense;
	StringInfoData sparse;

	begin_specs(definition);
	take_vectors_config(definition, arguments->vectors_config, configs);
	if (arguments->sparse_vectors_config != NULL)
		take_by_name(definition, "sparse_vectors_config",
					 members_of(&parse(arguments->sparse_vectors_config)->root), true, configs);
	initStringInfo(&dense);
	initStringInfo(&sparse);
	for (int i = 0; i < list_length(definition->vectors); i++)
	{
		QsColumn   *column = list_nth(definition->vectors, i);
		QsVectorSpec *spec = &definition->specs[i];
		char	   *config = resolve_vector(rel, column, declared, definition->distance, configs[i], spec);

		if (config == NULL)
			continue;
		spec->config = sendable_text(spec->kind == QS_SPARSE ? "sparse_vectors_config" : "vectors_config", config);
		append_member(spec->kind == QS_SPARSE ? &sparse : &dense, column->name ? column->name : "", config);
	}
	definition->vectors_config = end_object(&dense);
	definition->sparse_vectors_config = end_object(&sparse);
	definition->collection_config = resolve_collection(arguments->collection_config);
	definition->create_config = sendable_text("collection_config", definition->collection_config);
}
