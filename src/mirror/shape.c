/*
 * shape.c
 *		Whether a collection that exists has the vectors and indexes of a mirror.
 *
 * Runs in sessions and in the sync worker.  Sizes are compared by the callers,
 * who find those of the table in different ways.  What a vector's values do not
 * depend on (on_disk, HNSW, quantization) may differ.
 */
#include "qdrant_sync.h"
#include "mirror/shape.h"

static const char *
kind_name(QsVectorKind kind)
{
	return kind == QS_SPARSE ? "sparse" : kind == QS_MULTI ? "a multi-vector" : "dense";
}

static QsVectorKind
kind_of(const QsVectorConfig *config)
{
	return config->sparse ? QS_SPARSE : config->multi ? QS_MULTI : QS_DENSE;
}

static const char *
called(const QsVectorSpec *spec)
{
	return spec->name[0] == '\0' ? "unnamed vector" : psprintf("vector \"%s\"", spec->shown_name);
}

/* vectors_config that says this of the vector. */
static char *
configured(const QsVectorSpec *spec, const char *member)
{
	if (spec->name[0] == '\0')
		return psprintf("Give vectors_config => '{%s}'.", member);
	return psprintf("Give vectors_config => '{\"%s\": {%s}}'.", spec->shown_name, member);
}

/* Where the table's columns are as they are. */
#define ANOTHER "Give another name with collection => '...'."

static bool
set_mismatch(QsMismatch *mismatch, char *what, char *hint)
{
	mismatch->what = what;
	mismatch->hint = hint;
	return false;
}

static bool
same_kind(const QsVectorSpec *spec, const QsVectorConfig *config, QsMismatch *mismatch)
{
	QsVectorKind kind = kind_of(config);

	if (kind == spec->kind)
		return true;
	return set_mismatch(mismatch, psprintf("its %s is %s, and the mirror's is %s", called(spec),
										   kind_name(kind), kind_name(spec->kind)),
						kind != QS_MULTI || spec->kind == QS_SPARSE ? pstrdup(ANOTHER) :
						configured(spec, "\"multivector_config\": {\"comparator\": \"max_sim\"}"));
}

static bool
same_distance(const QsVectorSpec *spec, const QsVectorConfig *config, QsMismatch *mismatch)
{
	if (spec->distance == NULL || strcmp(config->distance, spec->distance) == 0)
		return true;
	return set_mismatch(mismatch, psprintf("%s is %s, and the mirror's is %s",
										   spec->name[0] == '\0' ? "its distance" :
										   psprintf("the distance of its %s", called(spec)),
										   config->distance, spec->distance),
						spec->name[0] == '\0' ? psprintf("Give distance => '%s'.", config->distance) :
						configured(spec, psprintf("\"distance\": \"%s\"", config->distance)));
}

/* Only where the mirror says one. */
static bool
same_word(const char *what, const char *said, const char *is, const QsVectorSpec *spec,
		  QsMismatch *mismatch)
{
	if (said == NULL || strcmp(said, is) == 0)
		return true;
	return set_mismatch(mismatch, psprintf("the %s of its %s is %s, and the mirror's is %s", what,
										   called(spec), is, said), pstrdup(ANOTHER));
}

const QsVectorConfig *
qs_shape_vector(const QsVectorSpec *spec, const QsCollectionInfo *info, QsMismatch *mismatch)
{
	const QsVectorConfig *config = qs_json_find_vector(info, spec->name);

	if (config == NULL)
	{
		(void) set_mismatch(mismatch, spec->name[0] == '\0' ? pstrdup("it has no unnamed vector") :
							psprintf("it has no vector named \"%s\"", spec->shown_name),
							pstrdup("A vector gets its name with vector => 'column AS name'."));
		return NULL;
	}
	if (!same_kind(spec, config, mismatch) || !same_distance(spec, config, mismatch) ||
		!same_word("datatype", spec->datatype, config->datatype, spec, mismatch) ||
		!same_word("modifier", spec->modifier, config->modifier, spec, mismatch))
		return NULL;
	return config;
}

bool
qs_shape_index(const QsIndex *index, const char *document, Size length, bool *there,
			   QsMismatch *mismatch)
{
	char		type[32];

	*there = qs_json_index_type(document, length, index->path, type, sizeof(type));
	if (!*there || strcmp(type, index->type) == 0)
		return true;
	return set_mismatch(mismatch, psprintf("its index on \"%s\" is of type %s, and the mirror's of type %s",
										   index->field, type, index->type),
						psprintf("Give '%s %s' in indexes, or drop that index.", index->field, type));
}
