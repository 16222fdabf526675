/*
 * field_path.c
 *		Checks the paths of fields that explicit operations name.
 *
 * Pure.  A path is a.b, a[0].b, a[].b or "a b".c.  Which letters beyond ASCII may stand
 * without quotes is Qdrant's to say.
 */
#include "capture/field_path.h"

/* Behind the name that path begins with; NULL: there is none. */
static const char *
skip_name(const char *path)
{
	const char *start = path;
	const char *quote;

	if (*path == '"')
	{
		quote = strchr(path + 1, '"');
		return quote != NULL ? quote + 1 : NULL;
	}
	while (isalnum((unsigned char) *path) || IS_HIGHBIT_SET(*path) || *path == '_' || *path == '-')
		path++;
	return path > start ? path : NULL;
}

/* path is behind the bracket; NULL: no index and no end. */
static const char *
skip_index(const char *path)
{
	path += strspn(path, "0123456789");
	return *path == ']' ? path + 1 : NULL;
}

static bool
is_path(const char *path)
{
	path = skip_name(path);
	while (path != NULL && *path != '\0')
	{
		if (*path == '.')
			path = skip_name(path + 1);
		else if (*path == '[')
			path = skip_index(path + 1);
		else
			return false;
	}
	return path != NULL;
}

void
qs_check_field_path(const char *where, const char *path)
{
	if (is_path(path))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 *path == '\0' ? errmsg("%s is empty", where) :
			 errmsg("%s: \"%s\" is not the path of a field", where, path),
			 errhint("A path is such as a.b or a[0].b; a name with other characters than letters, digits, _ and - is put in double quotes.")));
}
