# qdrant_sync: make && make install && make installcheck
MODULE_big = qdrant_sync
EXTENSION = qdrant_sync
DATA = qdrant_sync--1.0.sql
PGFILEDESC = "qdrant_sync - keep Qdrant collections equal to PostgreSQL tables"

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
ISOLATION = $(patsubst specs/%.spec,%,$(sort $(wildcard specs/*.spec)))

PG_CPPFLAGS = -Isrc
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fvisibility=hidden
SHLIB_LINK = -lcurl -ljansson

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# What we take from libcurl and jansson must not come from postgres, whose symbols win.
.PHONY: check-symbols
check-symbols: all
	PG_CONFIG="$(PG_CONFIG)" $(srcdir)/test/check_symbols ./$(shlib)

# Any header may be in any file: it is quick enough to build all again.
$(OBJS): $(sort $(wildcard src/*.h src/*/*.h))
