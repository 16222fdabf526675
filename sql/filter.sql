-- Filters: SQL values to Qdrant's own JSON, which is also taken as it is.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
SET TimeZone = 'Asia/Kathmandu';
SET DateStyle = 'SQL, DMY';

SELECT qdrant_filter(must => qdrant_match('category', 'shoes'));
SELECT qdrant_filter(must => ARRAY[qdrant_match('category', 'shoes'), qdrant_range('price', gte => 10, lt => 19.99)],
	must_not => qdrant_has_id(42));
SELECT qdrant_filter(should => '[{"key": "a", "match": {"value": 1}}]', must => '{"is_null": {"key": "b"}}'::jsonb);
SELECT qdrant_filter(min_should => ARRAY[qdrant_match('a', 1), qdrant_match('b', 2), qdrant_match('c', 3)], min_count => 2);
-- A filter is a condition, too.
SELECT qdrant_filter(must => ARRAY[qdrant_match('tenant', 7),
	qdrant_filter(should => ARRAY[qdrant_match('color', 'red'), qdrant_is_empty('color')])]);
SELECT qdrant_filter();
-- No alternative at all is one that nothing passes: no id is in an empty list.
SELECT qdrant_filter(should => ARRAY(SELECT qdrant_match('tenant', t) FROM generate_series(1, 0) t)),
	qdrant_filter(min_should => '{}'::jsonb[], min_count => 1), qdrant_filter(must => '[]', must_not => '[]');

-- One value, or any of several.
SELECT qdrant_match('t', 'a "quoted" \ word'), qdrant_match('b', true), qdrant_match('n', 5000000000), qdrant_match('s', 5::smallint);
SELECT qdrant_match('t', ARRAY['a', 'b']), qdrant_match('n', '{1,2}'::bigint[]), qdrant_match('n', '{}'::int[]),
	qdrant_match('u', '5c56c793-69f3-4fbf-87e6-c4bf54c28c26'::uuid);
SELECT qdrant_match('metadata."a.b"[].c', 'x'), qdrant_match_text('body', 'red shoes'),
	qdrant_is_null('a'), qdrant_is_empty('a');
SELECT qdrant_range('n', gt => 1), qdrant_range('n', 1, 2, 3, 4), qdrant_range('n', lte => -0.5::float8), qdrant_range('n', 0.1::real, lt => 0.1::float8 + 0.2),
	qdrant_range('n', gte => 1e20::numeric, lt => NULL);
SELECT qdrant_range('at', gte => date '2026-11-23');
SELECT qdrant_range('at', gte => timestamptz '2026-11-23 12:00+02', lt => now()) - 'range' AS key_alone;
SELECT qdrant_range('at', gte => timestamptz '2026-11-23 12:00+02');
SELECT qdrant_range('at', lt => timestamp '2026-11-23 12:00'), qdrant_range('at', lt => '2026-11-23T12:00:00Z');
SELECT qdrant_has_id(1), qdrant_has_id(ARRAY[1, 2]), qdrant_has_id('18446744073709551615'), qdrant_has_id('007');
SELECT qdrant_has_id(ARRAY['1', '5C56C793-69F3-4FBF-87E6-C4BF54C28C26']);

-- A NULL makes no condition vanish.
SELECT qdrant_match('tenant', NULL);
SELECT qdrant_match('tenant', NULL::int);
SELECT qdrant_match('tenant', ARRAY[1, NULL]);
SELECT qdrant_match(NULL, 1);
SELECT qdrant_match_text('body', NULL);
SELECT qdrant_has_id(NULL);
SELECT qdrant_is_null(NULL);
SELECT qdrant_is_empty(NULL);
SELECT qdrant_range('n');
SELECT qdrant_range('n', gte => NULL::int);
SELECT qdrant_filter(must => ARRAY[qdrant_match('a', 1), NULL]);
-- Others that are refused.
SELECT qdrant_match('n', 1.5);
SELECT qdrant_match('at', date '2026-11-23');
SELECT qdrant_range('n', gte => 'NaN'::float8);
SELECT qdrant_range('n', gte => 'Infinity'::float4);
SELECT qdrant_range('at', lt => 'infinity'::timestamptz);
SELECT qdrant_range('at', gte => '0044-03-15 BC'::date);
SELECT qdrant_range('at', gte => '10000-01-01'::timestamp);
SELECT qdrant_range('at', gte => '-infinity'::date);
SELECT qdrant_range('at', gte => '0001-01-01'::date, lte => '9999-12-31'::date);
SELECT qdrant_range('at', gte => '0001-01-01 00:00Z'::timestamptz, lte => '9999-12-31 23:59:59.999999Z'::timestamptz);
SELECT qdrant_range('at', gte => '0001-01-01 00:00+01'::timestamptz);
SELECT qdrant_range('n', gte => true);
SELECT qdrant_range('n', gte => '10');
SELECT qdrant_range('at', gte => 'yesterday');
SELECT qdrant_range('at', gte => '2026-11-23', lt => '2026-11-24 12:00');
SELECT qdrant_has_id(-1);
SELECT qdrant_has_id('x');
SELECT qdrant_has_id(1.5);
SELECT qdrant_filter(must => 1);
SELECT qdrant_filter(must => '"x"');
SELECT qdrant_filter(must => '[1]');
SELECT qdrant_filter(must => 'x');
SELECT qdrant_filter(min_should => qdrant_match('a', 1));
SELECT qdrant_filter(min_should => qdrant_match('a', 1), min_count => -1);
