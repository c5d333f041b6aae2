-- One of each oddity found in real installations, small enough to be checked row by row.

-- One of each kind; the last group of the id is its number.
INSERT INTO entities (id, user_id, type, title, preview, version, created_at, updated_at, deleted_at)
VALUES
    ('00000000-0000-4000-8000-000000000001', 'local-user', 'note', 'Plain', 'Plain…', 1, '2023-01-02 03:04:05.678901+00', '2023-01-02 03:04:05.678901+00', NULL),
    ('00000000-0000-4000-8000-000000000002', 'auth0|5f7c8ec7c33c6c004bbafe82', 'note', NULL, NULL, 7, '2023-01-02', '2024-01-02', NULL),
    ('00000000-0000-4000-8000-000000000003', 'ada@example.org', 'note', 'No block', NULL, 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000004', 'a/b c', 'note', 'Null content', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000005', 'Jürgen Ω', 'note', 'Empty content', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000006', 'local-user', 'note', 'Five megabytes', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000007', 'local-user', 'note', 'Deleted', '', 2, '2023-01-02', '2023-03-02', '2023-03-02'),
    ('00000000-0000-4000-8000-000000000008', 'local-user', 'page', 'HTML', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000009', 'local-user', 'project', 'Elsewhere', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000010', 'local-user', 'task', 'Task', '', 1, '2023-01-02', '2023-01-02', NULL),
    ('00000000-0000-4000-8000-000000000011', 'local-user', 'note', 'Was in the store', '', 1, '2023-01-02', '2023-01-02', NULL);
INSERT INTO content_blocks (entity_id, content, embedding, size_bytes) VALUES
    ('00000000-0000-4000-8000-000000000001', '# Plain', array_fill(0.1, ARRAY[1536])::vector, 7),
    ('00000000-0000-4000-8000-000000000002', E'\u202E Grüße 👋🏽 a\u0301 \u0001 \uFEFF', NULL, NULL),
    ('00000000-0000-4000-8000-000000000004', NULL, NULL, NULL),
    ('00000000-0000-4000-8000-000000000005', '', NULL, 0),
    ('00000000-0000-4000-8000-000000000006', repeat('0123456789abcdef', 327680), NULL, 5242880),
    ('00000000-0000-4000-8000-000000000007', 'Still here', array_fill(0.2, ARRAY[1536])::vector, 10),
    ('00000000-0000-4000-8000-000000000010', 'Do it', NULL, 5),
    ('00000000-0000-4000-8000-000000000011', 'The newer text', NULL, 14);
INSERT INTO content_blocks (entity_id, content, content_type, mime_type) VALUES
    ('00000000-0000-4000-8000-000000000008', '<p>HTML</p>', 'html', 'text/html');
INSERT INTO content_blocks (entity_id, storage_provider, storage_path, storage_url, checksum) VALUES
    ('00000000-0000-4000-8000-000000000009', 'r2', 'users/local-user/projects/9.md', 'https://x/9.md', 'sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=');
INSERT INTO events (id, user_id, timestamp, type, data, correlation_id) VALUES
    ('00000000-0000-4000-8000-0000000000e1', 'local-user', '2023-01-02 03:04:05+00', 'entity.created', '{"entityId": "00000000-0000-4000-8000-000000000001"}', NULL),
    ('00000000-0000-4000-8000-0000000000e2', 'local-user', '2023-01-03', 'entity.updated', '{"entityId": "none such"}', '00000000-0000-4000-8000-0000000000c1');
INSERT INTO relations VALUES ('00000000-0000-4000-8000-0000000000a1', 'local-user', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000010', 'about');
INSERT INTO task_details VALUES ('00000000-0000-4000-8000-000000000010', 'done', '2023-02-01');
INSERT INTO tags VALUES ('00000000-0000-4000-8000-0000000000b1', 'local-user', 'work, "quoted"');
INSERT INTO entity_tags VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1');
