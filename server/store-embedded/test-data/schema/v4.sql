-- Rows that version 4 of the schema added. Never edited.
UPDATE tenants SET revision = 10, live_contexts = 1, group_count = 1 WHERE tenant_id = 'a';
INSERT INTO changes VALUES ('a', 8, 3, CAST('blue' AS BLOB)), ('a', 9, 2, x'0194f0c1000070008000000000000001'), ('a', 10, 2, x'0194f0c1000070008000000000000001');
INSERT INTO contexts VALUES ('a', x'0194f0c1000070008000000000000001', 'plans/alpha', 'plan', 'w1', zeroblob(32), 10, 9, 1767225600000, 0, 2, 1767225700000, 0, 'plans/alpha
plan
the plan');
INSERT INTO context_revisions VALUES
('a', x'0194f0c1000070008000000000000001', 9, 0, '{"scope":"shared","shares":{"w2":"write"},"description":"the plan","version":"0.1.0"}', 9, 1767225700000, 1767225600000, 'w1', '', x'', 20000, zeroblob(32), 1, x''),
('a', x'0194f0c1000070008000000000000001', 10, 0, '{"scope":"group","groups":["blue"],"content_type":"text/plain","description":"the plan","labels":["draft"],"metadata":{"k":"v"},"ttl_ms":100000,"version":"0.1.1"}', 10, 1767225700000, 1767225600001, 'w2', 'key-1', zeroblob(32), 5, zeroblob(32), 0, x'68656c6c6f');
INSERT INTO context_labels VALUES ('a', 'draft', x'0194f0c1000070008000000000000001');
INSERT INTO context_audience VALUES ('a', x'0194f0c1000070008000000000000001', 'g:blue');
INSERT INTO member_groups VALUES ('a', 'blue', 'the blue ones', 1, 1767225600000, 'admin', 8);
INSERT INTO group_members VALUES ('a', 'blue', 'w1', 1767225600000);
INSERT INTO member_moves VALUES ('a', 8, 'w1', 'blue', 1);
