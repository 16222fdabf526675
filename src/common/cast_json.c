/*
 * cast_json.c
 *		Values of extensions' types that have a cast to json: hstore, PostGIS's.
 *
 * Sync worker.  Uses only casts in C, which a superuser has installed: no user's code
 * is run because of a type that he has made.
 */
#include "qdrant_sync.h"
#include "common/payload_writer.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * How PostGIS begins a point in longitude and latitude, or in no system that it was
 * told: its cast to json names the system, except that none has no name.
 */
#define GEOJSON_POINT "{\"type\":\"Point\","
#define GEOJSON_LON_LAT "\"crs\":{\"type\":\"name\",\"properties\":{\"name\":\"EPSG:4326\"}},"
#define GEOJSON_COORDINATES "\"coordinates\":["

/* InvalidOid where there is no cast, or not one that we use. */
static Oid
find_cast(Oid source, Oid target)
{
	Oid			function = InvalidOid;
	HeapTuple	tuple;
	Form_pg_proc proc;

	if (find_coercion_pathway(target, source, COERCION_EXPLICIT, &function) != COERCION_PATH_FUNC)
		return InvalidOid;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prolang != ClanguageId || proc->pronargs != 1)
		function = InvalidOid;
	ReleaseSysCache(tuple);
	return function;
}

/* Moves *text behind what it begins with; false where it does not. */
static bool
skip(const char **text, const char *beginning)
{
	size_t		length = strlen(beginning);

	if (strncmp(*text, beginning, length) != 0)
		return false;
	*text += length;
	return true;
}

/*
 * Two numbers as {"lon":x,"lat":y}, which is what Qdrant's geo conditions know; false
 * where text is none.
 */
static bool
append_lon_lat(StringInfo out, const char *text)
{
	const char *lon = text;
	const char *lat;
	const char *end;

	if (!skip(&lon, GEOJSON_POINT))
		return false;
	(void) skip(&lon, GEOJSON_LON_LAT);
	if (!skip(&lon, GEOJSON_COORDINATES))
		return false;
	lat = lon + strcspn(lon, ",]");
	if (*lat++ != ',')
		return false;
	end = lat + strcspn(lat, ",]");
	if (strcmp(end, "]}") != 0)
		return false;
	appendStringInfo(out, "{\"lon\":%.*s,\"lat\":%.*s}", (int) (lat - 1 - lon), lon, (int) (end - lat), lat);
	return true;
}

static char *
append_cast_to_json(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char	   *json = TextDatumGetCString(FunctionCall1(&writer->output, value));

	if (append_lon_lat(out, json))
		return NULL;
	return qs_append_json_text(out, json, strlen(json), writer->json_depth);
}

static char *
append_as_element(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return qs_append_payload(out, FunctionCall1(&writer->output, value), writer->element);
}

/* PostGIS's other type has a cast to geometry only.  InvalidOid: no such type. */
static Oid
geometry_beside(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type row;
	Oid			geometry = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	row = (Form_pg_type) GETSTRUCT(tuple);
	if (strcmp(NameStr(row->typname), "geography") == 0)
		geometry = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("geometry"),
								   ObjectIdGetDatum(row->typnamespace));
	ReleaseSysCache(tuple);
	return geometry;
}

void
qs_use_cast_to_json(QsPayloadWriter *writer)
{
	Oid			cast = InvalidOid;
	Oid			geometry;

	if (writer->type < FirstNormalObjectId || get_typtype(writer->type) != TYPTYPE_BASE)
		return;
	if (OidIsValid(cast = find_cast(writer->type, JSONOID)))
		writer->append = append_cast_to_json;
	else if (OidIsValid(geometry = geometry_beside(writer->type)) &&
			 OidIsValid(cast = find_cast(writer->type, geometry)))
	{
		writer->append = append_as_element;
		writer->element = qs_make_payload_writer(geometry, writer->json_depth, writer->context);
	}
	if (OidIsValid(cast))
		fmgr_info_cxt(cast, &writer->output, writer->context);
}
