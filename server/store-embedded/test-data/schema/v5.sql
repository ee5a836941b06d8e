-- Rows that version 5 of the schema added. Never edited.
INSERT INTO uploads VALUES
('a', x'0000000000000000000000000000000a', 'w1', x'0194f0c1000070008000000000000002', '{"Create":{"key":"big/one","context_type":"archive","scope":"shared","groups":[],"shares":{"w2":true},"content_type":"application/x-tar","description":"all of it","labels":["raw"],"metadata":{"k":"v"},"ttl_ms":60000,"version":"0.1.0"}}', 1048576, -1, 'open', 3, 2097152, NULL, 0, 1767225600000, 1767312000000),
('a', x'0000000000000000000000000000000b', 'w2', x'0194f0c1000070008000000000000001', '{"Update":{"change":{"description":"the plan"},"if_rev":9}}', 65536, 5, 'complete', 1, 5, zeroblob(32), 10, 1767225600000, 1767312000000);
INSERT INTO upload_chunks VALUES
('a', x'0000000000000000000000000000000a', 0, zeroblob(32)),
('a', x'0000000000000000000000000000000a', 2, zeroblob(32)),
('a', x'0000000000000000000000000000000b', 0, zeroblob(32));
