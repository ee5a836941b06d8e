-- Rows that version 6 of the schema added. Never edited.
INSERT INTO context_repeats VALUES ('a', x'0194f0c1000070008000000000000001', 'late', 'w1', zeroblob(32), 9, 0, '{"scope":"shared","shares":{"w2":"write"},"description":"the plan","version":"0.1.0"}', 9, 1767225700000, 1767225600000, 20000, zeroblob(32), 1);
