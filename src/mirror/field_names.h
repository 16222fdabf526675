/*
 * field_names.h
 *		Where in its payload a field is: the paths of names.
 */
#ifndef QS_FIELD_NAMES_H
#define QS_FIELD_NAMES_H

#include "mirror/definition.h"

/*
 * Gives each column of a payload its path and returns them in the order in which
 * they are written: as given, but with the fields of a nested object together.
 * ERROR for names that no payload can have, alone or side by side.
 */
extern List *qs_payload_fields(List *columns);

#endif							/* QS_FIELD_NAMES_H */
